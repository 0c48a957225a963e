"""Refusals of the role `editor`: a logo that browsers would not show, and a library that is not there."""

from __future__ import annotations

from pathlib import Path

from .rules import Messages, Rules, Settings, as_text
from .settings import text, whole_number

RULES = Rules(
    "editor",
    bounds={
        "editor_school_name": text(r"(\S.{0,59})?", "a name of at most 60 characters, or leave it empty"),
        "editor_logo": text(
            r"(\S.*\.(?:png|svg|PNG|SVG))?", "the path of a PNG or SVG picture on the control node, or leave it empty"
        ),
        "editor_library": text(
            r"internet|none|https?://\S+|\S.*\.tar",
            "internet, none, the address of a mirror, or the path of an archive (.tar) on the control node",
        ),
        "editor_autosave_seconds": whole_number(5, 3600),
    },
)
# A larger picture would be loaded with each page.
LOGO_BYTES = 200_000


@RULES.refuses_settings
def logo(settings: Settings) -> Messages:
    """A picture that exists, of a kind that browsers show, and small."""
    path = as_text(settings, "editor_logo")
    if not path:
        return
    file = Path(path).expanduser()
    if not file.is_file():
        yield f"editor_logo names {path}, and there is no such file on the control node. Correct the path."
    elif file.stat().st_size > LOGO_BYTES:
        yield f"editor_logo names {path}, which has {file.stat().st_size // 1000} kB. Use a picture of at most 200 kB."


@RULES.refuses_settings
def library(settings: Settings) -> Messages:
    """An archive that exists."""
    source = as_text(settings, "editor_library")
    if source.endswith(".tar") and "://" not in source and not Path(source).expanduser().is_file():
        yield (
            f"editor_library names {source}, and there is no such file on the control node. Make it with "
            "scripts/editor-library, or write internet or none."
        )
