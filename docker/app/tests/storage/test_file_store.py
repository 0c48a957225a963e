"""The file store: a file is complete or absent, and no path leads out of the folder."""

import os
import resource
import signal
from pathlib import Path

import pytest

from scratch4school.storage.file_store import FileStore, IncomingFile, owner_folder
from scratch4school.web.downloads import download_name


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    (tmp_path / "uploads").mkdir()
    return FileStore(tmp_path / "uploads")


def received(store: FileStore, content: bytes) -> IncomingFile:
    file = store.receive()
    file.write(content)
    return file


def all_files(store: FileStore) -> list[Path]:
    return [path for path in store.root.rglob("*") if path.is_file()]


def test_kept_file_has_its_content_and_a_new_name(store: FileStore) -> None:
    names = set()
    for _ in range(2):
        with received(store, b"content") as file:
            names.add(store.keep_new(file, "projects", "ada", ".sb3"))
    assert len(names) == 2
    for name in names:
        path = store.find(name)
        assert path is not None
        assert path.read_bytes() == b"content"
        assert name.startswith(f"projects/{owner_folder('ada')}/")
    assert len(all_files(store)) == 2


def test_file_that_is_not_kept_is_removed(store: FileStore) -> None:
    with received(store, b"content"):
        assert len(all_files(store)) == 1
    assert all_files(store) == []


def test_content_is_durable_before_it_has_its_name(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, then name, then folder; in another order a power failure leaves an empty or a nameless file."""
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")  # noqa: PTH112
        fsync(descriptor)

    def noted_replace(path: Path, target: Path) -> Path:
        steps.append("name")
        return replace(path, target)

    (store.root / "projects" / owner_folder("ada")).mkdir(parents=True)
    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    with received(store, b"content") as file:
        store.keep_new(file, "projects", "ada", ".sb3")
    assert steps == ["file", "name", "folder"]


def test_only_the_group_may_read_files(store: FileStore) -> None:
    before = os.umask(0o027)
    try:
        with received(store, b"content") as file:
            path = store.root / store.keep_new(file, "projects", "ada", ".sb3")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
    for folder in (path.parent, path.parent.parent):
        assert folder.stat().st_mode & 0o777 == 0o750


def test_short_write_is_an_error(store: FileStore) -> None:
    """A full disk accepts part of a write, and the caller of `write` does not check how much."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with store.receive() as file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                file.write(b"more than ten bytes")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, previous)


@pytest.mark.parametrize(
    ("stored", "relative"),
    [
        ("projects/ab/c.sb3", "projects/ab/c.sb3"),
        ("/app/app/../uploads/projects/1_x.sb3", "projects/1_x.sb3"),
        ("/srv/uploads/uploads/costume/a.png", "costume/a.png"),
        ("/etc/passwd", None),
        ("/app/uploads/../../etc/passwd", None),
        ("../x", None),
        ("a/../../x", None),
        ("a\0b", None),
        (".incoming/a.part", None),
        ("", None),
        (None, None),
    ],
)
def test_stored_path_is_made_relative(stored: str | None, relative: str | None) -> None:
    assert FileStore.relative(stored) == relative


def test_links_out_of_the_folder_are_not_followed(store: FileStore, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"x")
    (store.root / "file").symlink_to(tmp_path / "outside")
    (store.root / "folder").symlink_to(tmp_path)
    assert store.find("file") is None
    assert store.find("folder/outside") is None


def test_only_old_half_received_files_are_cleared(store: FileStore) -> None:
    with store.receive():
        old, new = store.root / ".incoming" / "old.part", store.root / ".incoming" / "new.part"
        for path in (old, new):
            path.write_bytes(b"x")
        os.utime(old, (1000, 1000))
        store.clear_stale_incoming()
        assert (old.exists(), new.exists()) == (False, True)


def test_unwritable_folder_is_an_error(store: FileStore) -> None:
    store.check_writable()
    (store.root / ".incoming").rmdir()
    (store.root / ".incoming").write_bytes(b"in the way")
    with pytest.raises(OSError, match="Not a directory"):
        store.check_writable()


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Mein Spiel", "Mein_Spiel.sb3"),
        ("Über 🐻", "Über.sb3"),
        ('../a"b\r\nX: y', "a_b_X_y.sb3"),
        ("🐻", "project.sb3"),
    ],
)
def test_download_name_is_made_of_the_title(title: str, name: str) -> None:
    assert download_name(title, ".sb3") == name
