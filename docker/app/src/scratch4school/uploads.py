"""Requests that carry files: parts go straight to the uploads folder, and a project must be one before it is kept."""

import zipfile
from typing import IO, Any, cast

from flask import Request, current_app

from .errors import ApiError
from .files import FileStore, IncomingFile

BODY_LIMIT = 16 * 1024 * 1024


class UploadRequest(Request):
    """A request whose file parts are written to disk as they arrive, and removed with the request unless kept."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._parts: list[IncomingFile] = []

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        store: FileStore = current_app.extensions["scratch4school"].store
        part = store.receive()
        self._parts.append(part)
        return cast(IO[bytes], part)

    def close(self) -> None:
        super().close()
        # A body that turns out malformed half-way leaves parts that never made it into `files`.
        for part in self._parts:
            part.close()


def file_part(request: Request, name: str) -> IncomingFile | None:
    """The file part `name`, or None when the request has none; ApiError 400 when it is malformed or names no file."""
    part = request.files.get(name)
    if part is not None:
        if not part.filename:
            raise ApiError(400, "No file was chosen.")
        return cast(IncomingFile, part.stream)
    if request.mimetype == "multipart/form-data" and not request.files and not request.form:
        raise ApiError(400, "The upload is malformed: its multipart body cannot be read.")
    return None


def require_project(incoming: IncomingFile) -> None:
    """ApiError 400 unless the content is a whole zip archive; what is inside is Scratch's affair.

    Scratch accepts archives with their files in a sub-folder, so only the readable central directory is asked for.
    """
    incoming.seek(0)
    starts_as_zip = incoming.read(4) == b"PK\x03\x04"
    try:
        with zipfile.ZipFile(incoming) as archive:
            empty = not archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, UnicodeDecodeError):
        empty = True
    if not starts_as_zip or empty:
        raise ApiError(400, "The file is not a Scratch project: it is not a complete .sb3 (zip) archive.")


def is_png(incoming: IncomingFile) -> bool:
    """Whether the content begins as a PNG, which is what thumbnails are served as."""
    incoming.seek(0)
    return incoming.read(8) == b"\x89PNG\r\n\x1a\n"
