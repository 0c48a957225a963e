"""Checks of uploaded content: a project must be a whole zip archive, a thumbnail a PNG."""

import zipfile

from ..storage.file_store import IncomingFile
from ..web.errors import ApiError

# A project has a file for each costume and sound; the largest projects of school classes have some hundreds.
_MAX_ENTRIES = 10_000
_ENTRY_SIGNATURE = b"PK\x01\x02"
_MIN_ENTRY_BYTES = 46
_CHUNK = 1024 * 1024


def require_project(incoming: IncomingFile) -> None:
    """ApiError 400 unless the content is a whole zip archive. What the archive holds is left to Scratch.

    Scratch accepts archives with their files in a sub-folder, so this checks only that the central directory is
    readable.
    """
    incoming.seek(0)
    starts_as_zip = incoming.read(4) == b"PK\x03\x04"
    if starts_as_zip and _has_too_many_entries(incoming):
        raise ApiError(
            400, f"The project holds more than {_MAX_ENTRIES} files; please save it with fewer costumes and sounds."
        )
    try:
        with zipfile.ZipFile(incoming) as archive:
            empty = not archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, UnicodeDecodeError):
        empty = True
    if not starts_as_zip or empty:
        raise ApiError(400, "The file is not a Scratch project: it is not a complete .sb3 (zip) archive.")


def is_png(incoming: IncomingFile) -> bool:
    """Whether the content begins as a PNG, the type with which thumbnails are sent."""
    incoming.seek(0)
    return incoming.read(8) == b"\x89PNG\r\n\x1a\n"


def _has_too_many_entries(incoming: IncomingFile) -> bool:
    """Whether zipfile could make more than the allowed number of objects from this archive's central directory.

    zipfile makes one object for each entry, some 300 bytes for the 46 of an empty entry: a body of allowed size took
    100 MB. The number that the archive states does not bound this: zipfile ignores it, and finds the directory in ways
    that change with its version. But each entry begins with the same four bytes, so this counts them in the whole file.
    """
    if incoming.size <= _MAX_ENTRIES * _MIN_ENTRY_BYTES:
        return False
    incoming.seek(0)
    found, before = 0, b""
    while found <= _MAX_ENTRIES and (chunk := incoming.read(_CHUNK)):
        found += (before + chunk).count(_ENTRY_SIGNATURE)
        before = chunk[-len(_ENTRY_SIGNATURE) + 1 :]
    return found > _MAX_ENTRIES
