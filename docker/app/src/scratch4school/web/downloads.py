"""Sending a stored file: the proxy sends it where there is one, else the application does."""

import re
import unicodedata
from urllib.parse import quote

from flask import Response, send_file

from .services import services

# An uploaded SVG or HTML file must not run as a page of this site, where sessions are kept.
_HARMLESS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "X-Content-Type-Options": "nosniff",
}


def send_stored(
    stored: str | None, mimetype: str, download_name: str | None = None, private: bool = False
) -> Response | None:
    """A response with the file that a row names, or None when there is no such file.

    `download_name` makes it an attachment; `private` keeps it out of shared caches.
    """
    available = services()
    path = available.store.find(stored)
    if path is None:
        return None
    if available.settings.accel_redirect is not None:
        response = Response(mimetype=mimetype)
        relative = path.relative_to(available.store.root)
        response.headers["X-Accel-Redirect"] = available.settings.accel_redirect + quote(str(relative))
    else:
        response = send_file(path, mimetype=mimetype, etag=False, conditional=False)
        response.headers.pop("Content-Disposition", None)
    if download_name is not None:
        response.headers["Content-Disposition"] = _attachment(download_name)
    response.headers.update(_HARMLESS)
    response.headers["Cache-Control"] = "private, no-cache" if private else "public, max-age=31536000, immutable"
    return response


def download_name(title: str, suffix: str) -> str:
    """A file name from a title: letters and digits of any script stay, other characters become an underscore."""
    return (re.sub(r"[^\w.-]+", "_", title).strip("._") or "project") + suffix


def _attachment(name: str) -> str:
    """The header of an attachment: the name in ASCII for old clients, and in full for the others."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode() or "project"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
