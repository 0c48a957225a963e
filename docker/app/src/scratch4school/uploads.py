"""Requests that carry files: parts go straight to the uploads folder, and a project must be one before it is kept."""

import zipfile
from typing import IO, Any, cast

from flask import Request, current_app

from .errors import ApiError
from .files import FileStore, IncomingFile
from .multipart_form import FormParser

BODY_LIMIT = 16 * 1024 * 1024
# A project has a file for each costume and sound; the largest that classes make have some hundreds.
_MOST_ENTRIES = 10_000
_ENTRY_SIGNATURE = b"PK\x01\x02"
_SHORTEST_ENTRY = 46
_CHUNK = 1024 * 1024


class UploadRequest(Request):
    """A request whose file parts are written to disk as they arrive, and removed with the request unless kept."""

    form_data_parser_class = FormParser

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
    if starts_as_zip and _has_too_many_entries(incoming):
        raise ApiError(
            400, f"The project holds more than {_MOST_ENTRIES} files; please save it with fewer costumes and sounds."
        )
    try:
        with zipfile.ZipFile(incoming) as archive:
            empty = not archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, UnicodeDecodeError):
        empty = True
    if not starts_as_zip or empty:
        raise ApiError(400, "The file is not a Scratch project: it is not a complete .sb3 (zip) archive.")


def _has_too_many_entries(incoming: IncomingFile) -> bool:
    """Whether zipfile might make more than the allowed number of objects of this archive's central directory.

    It makes one for each entry, some 300 bytes for the 46 of an empty one: a body of allowed size became 100 MB. The
    number that an archive states is no help, because zipfile does not keep to it, and looks for the directory in ways
    that change with its version. But each entry begins with the same four bytes, so those are counted, everywhere.
    """
    if incoming.size <= _MOST_ENTRIES * _SHORTEST_ENTRY:
        return False
    incoming.seek(0)
    found, before = 0, b""
    while found <= _MOST_ENTRIES and (chunk := incoming.read(_CHUNK)):
        found += (before + chunk).count(_ENTRY_SIGNATURE)
        before = chunk[-len(_ENTRY_SIGNATURE) + 1 :]
    return found > _MOST_ENTRIES


def is_png(incoming: IncomingFile) -> bool:
    """Whether the content begins as a PNG, which is what thumbnails are served as."""
    incoming.seek(0)
    return incoming.read(8) == b"\x89PNG\r\n\x1a\n"
