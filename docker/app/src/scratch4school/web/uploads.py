"""Requests with files: each file part goes straight to the uploads folder."""

from typing import IO, Any, cast

from flask import Request

from ..storage.file_store import IncomingFile
from .errors import ApiError
from .multipart_form import FormParser
from .services import services

BODY_LIMIT = 16 * 1024 * 1024


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
        part = services().store.receive()
        self._parts.append(part)
        return cast(IO[bytes], part)

    def close(self) -> None:
        super().close()
        # The parts of a body that turns out to be malformed never reach `files`.
        for part in self._parts:
            part.close()


def file_part(request: Request, name: str) -> IncomingFile | None:
    """The file part `name`, or None when there is none; ApiError 400 when it is malformed or has no file name."""
    part = request.files.get(name)
    if part is not None:
        if not part.filename:
            raise ApiError(400, "No file was chosen.")
        return cast(IncomingFile, part.stream)
    if request.mimetype == "multipart/form-data" and not request.files and not request.form:
        raise ApiError(400, "The upload is malformed: its multipart body cannot be read.")
    return None
