"""Reading multipart bodies with the library `multipart`.

Werkzeug's own parser compiles regular expressions from each request's boundary, and browsers choose a new boundary each
time. That was more than a quarter of a save's cost in this process. The limits and their errors are Werkzeug's.
"""

from math import inf
from typing import IO, Any

from multipart import MultipartSegment, ParserLimitReached, PushMultipartParser
from werkzeug.datastructures import FileStorage, Headers
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

_CHUNK = 128 * 1024

Parsed = tuple[Any, Any, Any]


class FormParser(FormDataParser):
    """Werkzeug's form parser, with another parser for `multipart/form-data`."""

    def parse(
        self, stream: IO[bytes], mimetype: str, content_length: int | None, options: dict[str, str] | None = None
    ) -> Parsed:
        """The stream, the fields and the files of a body; the last two are empty if it is malformed.

        Raises RequestEntityTooLarge for too many parts, or for fields that are too long for memory.
        """
        if mimetype != "multipart/form-data":
            return super().parse(stream, mimetype, content_length, options)
        try:
            fields, files = self._read(stream, content_length, (options or {}).get("boundary", ""))
        except ParserLimitReached as error:
            raise RequestEntityTooLarge from error
        except ValueError:
            # The library rejects the body, a text is not UTF-8, or Werkzeug rejects a lone line break in a header.
            return stream, self.cls(), self.cls()
        return stream, self.cls(fields), self.cls(files)

    def _read(
        self, stream: IO[bytes], content_length: int | None, boundary: str
    ) -> tuple[list[tuple[str, str]], list[tuple[str, FileStorage]]]:
        fields: list[tuple[str, str]] = []
        files: list[tuple[str, FileStorage]] = []
        part = _Part()
        in_memory = 0
        with PushMultipartParser(boundary, max_segment_count=self.max_form_parts or inf) as parser:
            # To the end, beyond the last boundary, because the connection may carry another request.
            while chunk := stream.read(_CHUNK):
                for event in parser.parse(chunk):
                    if isinstance(event, MultipartSegment):
                        part = self._begin(event, content_length)
                    elif event is not None:
                        part.write(event)
                        in_memory += len(event) if part.file is None else 0
                        if in_memory > (self.max_form_memory_size or inf):
                            raise RequestEntityTooLarge
                    elif part.file is not None:
                        part.file.seek(0)
                        files.append((part.file.name or "", part.file))
                    else:
                        fields.append((part.name, part.text))
        return fields, files

    def _begin(self, segment: MultipartSegment, content_length: int | None) -> "_Part":
        if segment.filename is None:
            return _Part(segment.name)
        stream = self.stream_factory(
            total_content_length=content_length, filename=segment.filename, content_type=segment.content_type
        )
        headers = Headers(segment.headerlist)
        return _Part(segment.name, FileStorage(stream, segment.filename, segment.name, headers=headers))


class _Part:
    """The part that is being read: a file that goes to the disk, or a field in memory."""

    def __init__(self, name: str = "", file: FileStorage | None = None) -> None:
        self.name = name
        self.file = file
        self._written: list[bytes] = []

    def write(self, data: bytes) -> None:
        if self.file is not None:
            self.file.stream.write(data)
        else:
            self._written.append(data)

    @property
    def text(self) -> str:
        return b"".join(self._written).decode("utf-8", "replace")
