"""Checks of an uploaded project: what is accepted, and what the check costs."""

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers import Device, project_file
from scratch4school.projects.project_file import require_project
from scratch4school.storage.file_store import FileStore, IncomingFile
from scratch4school.web.errors import ApiError
from scratch4school.web.services import Services
from scratch4school.web.uploads import BODY_LIMIT

MEGABYTE = 1024 * 1024


@pytest.fixture
def received(tmp_path: Path) -> Iterator[Callable[[bytes], IncomingFile]]:
    """Make received content in the uploads folder."""
    files = []

    def receive(content: bytes) -> IncomingFile:
        files.append(FileStore(tmp_path).receive())
        files[-1].write(content)
        return files[-1]

    yield receive
    for file in files:
        file.close()


def crowded(entries: int, stated: int | None = None, zip64: bool = False) -> bytes:
    """An archive whose directory repeats one nameless file: the smallest archive with so many entries."""
    directory = (
        struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", *[20, 0, 20, 0], *[0] * 4, *[0] * 3, *[0] * 5, 0, 0) * entries
    )
    local = struct.pack("<4s2B4HL2L2H", b"PK\x03\x04", 20, 0, *[0] * 4, 0, 0, 0, 0, 0)
    stated = entries if stated is None else stated
    end64 = b""
    if zip64:
        end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, *[stated] * 2, len(directory), len(local))
        end64 += struct.pack("<4sLQL", b"PK\x06\x07", 0, len(local) + len(directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, *[min(stated, 0xFFFF)] * 2, len(directory), len(local), 0)
    return local + directory + end64 + end


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param({"entries": 340_000, "zip64": True}, id="zip64"),
        pytest.param({"entries": 340_000}, id="without zip64"),
        pytest.param({"entries": 340_000, "stated": 1, "zip64": True}, id="states one"),
    ],
)
def test_archive_with_too_many_entries_is_refused_in_little_memory(
    received: Callable[[bytes], IncomingFile], archive: dict[str, int]
) -> None:
    """It fits into a request, and zipfile would need 100 MB and two seconds for it."""
    content = crowded(**archive)
    assert len(content) < BODY_LIMIT
    file = received(content)
    tracemalloc.start()
    try:
        with pytest.raises(ApiError, match="holds more than 10000 files; please save it with fewer") as refusal:
            require_project(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refusal.value.status == 400
    assert peak < 4 * MEGABYTE


def test_archives_of_this_test_are_readable_by_zipfile() -> None:
    """Otherwise the test above would show nothing."""
    for archive in (crowded(50, zip64=True), crowded(50), crowded(50, stated=1)):
        assert len(zipfile.ZipFile(io.BytesIO(archive)).namelist()) == 50


@pytest.mark.parametrize(("entries", "is_accepted"), [(10_000, True), (10_001, False)])
def test_ten_thousand_entries_are_accepted(
    received: Callable[[bytes], IncomingFile], entries: int, is_accepted: bool
) -> None:
    file = received(crowded(entries))
    if is_accepted:
        require_project(file)
    else:
        with pytest.raises(ApiError, match="more than 10000"):
            require_project(file)


def test_signature_across_two_chunks_is_counted(
    received: Callable[[bytes], IncomingFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    for chunk in (3, 4, 5, 47):
        monkeypatch.setattr("scratch4school.projects.project_file._CHUNK", chunk)
        monkeypatch.setattr("scratch4school.projects.project_file._MAX_ENTRIES", 20)
        require_project(received(crowded(20)))
        with pytest.raises(ApiError, match="more than 20"):
            require_project(received(crowded(21)))


def test_refused_project_leaves_no_file(pupil: Device, services: Services) -> None:
    answer = pupil.create(crowded(11_000))
    assert (answer.status_code, answer.json["error"][:12]) == (400, "The project ")
    assert [path for path in services.store.root.rglob("*") if path.is_file()] == []
    assert pupil.create(project_file("still fine")).status_code == 200
