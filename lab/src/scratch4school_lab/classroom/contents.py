"""The contents that the class saves: whole .sb3 archives, each part of which names the save that it belongs to."""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

PROJECT_BYTES = 64 * 1024
ASSET_BYTES = 16 * 1024
# project.json is padded to one length: a save changes bytes in place and never builds an archive.
MARK_BYTES = 2048
# The payload carries the save's tag at 16 offsets, so that halves of two saves together equal neither save.
TAGS = 16
TAG_BYTES = 16

_BOUNDARY = "classroom-7f3a9c"
MULTIPART = f"multipart/form-data; boundary={_BOUNDARY}"


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of one save and their SHA-256 in hexadecimal."""

    data: bytes
    sha256: str


@dataclass(frozen=True)
class _Template:
    """An archive of two stored files, and the offsets of its variable parts."""

    data: bytes
    mark_at: int
    payload_at: int
    payload_bytes: int
    # Offsets of each file's checksum: in its local header, and in the directory at the end.
    mark_checksums: tuple[int, int]
    payload_checksums: tuple[int, int]


class Contents:
    """Makes project files, a thumbnail and assets; the same seed gives the same bytes.

    `large_megabytes` is the size of large projects. The random bytes are made once: a save costs its checksums and two
    copies.
    """

    def __init__(self, seed: int, large_megabytes: float) -> None:
        source = random.Random(seed)
        self._ordinary = _template(source.randbytes(PROJECT_BYTES))
        self._large = _template(source.randbytes(round(large_megabytes * 1024 * 1024)))
        self._asset = source.randbytes(ASSET_BYTES)
        self.thumbnail = _picture(source)

    def project(self, mark: dict[str, Any], large: bool = False) -> Content:
        """A project that carries `mark`, which must fit into MARK_BYTES as JSON."""
        template = self._large if large else self._ordinary
        meta = {"semver": "3.0.0", "vm": "0.2.0", "agent": "classroom", "classroom": mark}
        text = json.dumps({"targets": [], "monitors": [], "extensions": [], "meta": meta}).encode()
        if len(text) > MARK_BYTES:
            raise ValueError(f"the mark takes {len(text)} bytes of {MARK_BYTES}")
        data = bytearray(template.data)
        text = text.ljust(MARK_BYTES)
        data[template.mark_at : template.mark_at + MARK_BYTES] = text
        tag = hashlib.blake2b(text, digest_size=TAG_BYTES).digest()
        end = template.payload_at + template.payload_bytes
        for place in range(template.payload_at, end - TAG_BYTES + 1, template.payload_bytes // TAGS):
            data[place : place + TAG_BYTES] = tag
        with memoryview(data) as view:
            payload_checksum = zlib.crc32(view[template.payload_at : end])
        for places, checksum in (
            (template.mark_checksums, zlib.crc32(text)),
            (template.payload_checksums, payload_checksum),
        ):
            for place in places:
                struct.pack_into("<I", data, place, checksum)
        return Content(bytes(data), hashlib.sha256(data).hexdigest())

    def asset(self, mark: str) -> bytes:
        """The bytes of an asset; each mark gives other bytes."""
        return mark.encode().ljust(64) + self._asset

    def project_form(self, content: Content) -> bytes:
        """The body of a save, as the front end sends it: the project and its picture."""
        return b"".join(
            (
                _part_head("project_file", "project-1.sb3", "application/octet-stream"),
                content.data,
                b"\r\n",
                _part_head("thumbnail", "thumbnail-1.png", "image/png"),
                self.thumbnail,
                f"\r\n--{_BOUNDARY}--\r\n".encode(),
            )
        )


def asset_form(asset: bytes) -> bytes:
    """The body of an upload of a costume."""
    fields = "".join(
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in (("type", "costume"), ("format", "png"))
    )
    head = _part_head("asset", "costume.png", "image/png")
    return fields.encode() + head + asset + f"\r\n--{_BOUNDARY}--\r\n".encode()


def read_mark(data: bytes) -> dict[str, Any] | None:
    """The mark of a project of a class; None where the bytes are no whole archive, or have no mark."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if archive.testzip() is not None:
                return None
            mark = json.loads(archive.read("project.json"))["meta"]["classroom"]
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, OSError, EOFError, NotImplementedError):
        return None
    return mark if isinstance(mark, dict) else None


def describe(data: bytes) -> str:
    """Describe unknown bytes in a message."""
    mark = read_mark(data)
    if mark is not None:
        return f"a whole project that no pupil sent in this form (its mark: {json.dumps(mark)[:120]})"
    return f"{len(data)} bytes that are no whole project"


def _part_head(field: str, filename: str, mimetype: str) -> bytes:
    disposition = f'Content-Disposition: form-data; name="{field}"; filename="{filename}"'
    return f"--{_BOUNDARY}\r\n{disposition}\r\nContent-Type: {mimetype}\r\n\r\n".encode()


def _template(payload: bytes) -> _Template:
    """An archive with room for a mark, and with the payload as the picture of a costume."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("project.json"), bytes(MARK_BYTES))
        archive.writestr(zipfile.ZipInfo(f"{hashlib.md5(payload, usedforsecurity=False).hexdigest()}.png"), payload)
    with zipfile.ZipFile(buffer) as archive:
        mark, costume = archive.infolist()
        directory = archive.start_dir
    data = buffer.getvalue()
    # Local headers have the checksum at 14, directory entries at 16; neither file has extra fields.
    second_entry = data.index(b"PK\x01\x02", directory + 4)
    return _Template(
        data=data,
        mark_at=mark.header_offset + 30 + len(mark.filename),
        payload_at=costume.header_offset + 30 + len(costume.filename),
        payload_bytes=len(payload),
        mark_checksums=(mark.header_offset + 14, directory + 16),
        payload_checksums=(costume.header_offset + 14, second_entry + 16),
    )


def _picture(source: random.Random) -> bytes:
    """A PNG of 48 × 36 pixels of noise, about as large as the editor's thumbnails are."""
    width, height = 48, 36
    rows = b"".join(b"\0" + source.randbytes(width * 3) for _ in range(height))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
