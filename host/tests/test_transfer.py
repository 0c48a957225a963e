"""Imports and engine migrations on the host: copies of SQLite, files, dumps, and what an interruption leaves.

The application transfers the rows, and its tests cover that; scenarios cover all of it together.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scratch4school_host.errors import OperatorError
from scratch4school_host.settings import TransferSettings
from scratch4school_host.transfer import (
    application,
    engine_migration,
    importing,
    report,
    source_database,
    source_files,
    sqlite_copy,
)
from scratch4school_host.transfer.sqlite_copy import copy_sqlite


def rows_of(file: Path) -> int:
    connection = sqlite3.connect(file)
    (count,) = connection.execute("SELECT count(*) FROM projects").fetchone()
    connection.close()
    return count


def seen(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file with its size and time of change, to see that nothing was written."""
    return {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Callable[..., sqlite3.Connection]]:
    """A connection to a source database of that journal mode, with a few rows, as the old service has it open."""
    (tmp_path / "db").mkdir()
    opened: list[sqlite3.Connection] = []

    def make(mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(tmp_path / "db" / "main.db", isolation_level=None, check_same_thread=False)
        opened.append(connection)
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("CREATE TABLE projects (id INTEGER PRIMARY KEY, name TEXT)")
        connection.executemany("INSERT INTO projects (name) VALUES (?)", [("Katze",), ("Maus",)])
        return connection

    yield make
    for connection in opened:
        connection.close()


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_copy_of_sqlite_is_complete_and_writes_nothing_at_the_source(
    old: Callable[..., sqlite3.Connection], tmp_path: Path, mode: str
) -> None:
    """Pages that only the log has are in it, too, while the old service has the database open."""
    old(mode)
    before = seen(tmp_path / "db")
    assert ("main.db-wal" in before) is (mode == "WAL")
    copy_sqlite(tmp_path / "db" / "main.db", tmp_path / "copy.db")
    assert rows_of(tmp_path / "copy.db") == 2
    assert seen(tmp_path / "db") == before
    assert {path.name for path in tmp_path.iterdir()} == {"db", "copy.db"}, "one file and nothing beside it"


def test_log_of_a_killed_service_is_merged(old: Callable[..., sqlite3.Connection], tmp_path: Path) -> None:
    """It is open in no process, and the last saves are only there."""
    old("WAL")
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for name in ("main.db", "main.db-wal"):
        shutil.copy(tmp_path / "db" / name, crashed)
    assert (crashed / "main.db").stat().st_size < 8192, "the rows are in the log alone"
    crashed.chmod(0o500)
    copy_sqlite(crashed / "main.db", tmp_path / "copy.db")
    assert rows_of(tmp_path / "copy.db") == 2
    assert {path.name for path in crashed.iterdir()} == {"main.db", "main.db-wal"}


# Runs each line of its input as a statement, and waits for no lock; the line `save` adds twenty long rows.
WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
connection.execute("PRAGMA wal_autocheckpoint = 0")
for number, line in enumerate(sys.stdin):
    try:
        if line == "save\\n":
            connection.executemany("INSERT INTO projects (name) VALUES (?)", [(f"Spiel {number}" * 100,)] * 20)
        else:
            connection.execute(line).fetchall()
        print("done", flush=True)
    except sqlite3.OperationalError as problem:
        print(problem, flush=True)
"""
ROWS, SAVED = 2, 20
SAVE = ("BEGIN IMMEDIATE", "save", "COMMIT")
RESTART_LOG = ("PRAGMA wal_checkpoint(RESTART)", *SAVE)


class Writer:
    """The old service, in a process of its own: within one process the locks of files exclude no thread."""

    def __init__(self, file: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def answer(self, statement: str) -> str:
        """Run a statement; returns “done”, or SQLite's message."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{statement}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def do(self, *statements: str) -> None:
        """Run statements that have to succeed, one after the other."""
        for statement in statements:
            assert self.answer(statement) == "done"


@pytest.fixture
def writer(old: Callable[..., sqlite3.Connection], tmp_path: Path) -> Iterator[Callable[[str], Writer]]:
    """Starts the old service on a source database of that journal mode."""
    running: list[Writer] = []

    def start(mode: str) -> Writer:
        old(mode).close()
        running.append(Writer(tmp_path / "db" / "main.db"))
        return running[-1]

    yield start
    for one in running:
        one.process.kill()
        one.process.communicate()


def do_within_copies(monkeypatch: pytest.MonkeyPatch, *works: Callable[[], None]) -> None:
    """Have the first copy of the database's file do the first work when half of it is read; and so on."""
    left = [*works]

    def copy(source: Any, target: Any, _length: int) -> None:
        target.write(source.read(os.fstat(source.fileno()).st_size // 2))
        if left:
            left.pop(0)()
        target.write(source.read())

    monkeypatch.setattr(sqlite_copy.shutil, "copyfileobj", copy)


def test_copy_has_nothing_of_a_transaction_that_waits_for_its_lock(
    writer: Callable[[str], Writer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a rollback journal, a commit is impossible until the copy has ended."""
    service = writer("DELETE")

    def save() -> None:
        service.do("BEGIN IMMEDIATE", "save")
        assert service.answer("COMMIT") == "database is locked"

    for number in range(5):
        do_within_copies(monkeypatch, save)
        copy_sqlite(tmp_path / "db" / "main.db", tmp_path / "copy.db")
        service.do("COMMIT")
        assert rows_of(tmp_path / "copy.db") == ROWS + number * SAVED


def test_copy_has_all_of_a_transaction_that_is_committed_meanwhile(
    writer: Callable[[str], Writer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a log, also when that is merged into the half of the file that was read before."""
    service = writer("WAL")
    for number in range(1, 6):
        do_within_copies(monkeypatch, lambda: service.do(*SAVE, "PRAGMA wal_checkpoint(PASSIVE)", *SAVE))
        copy_sqlite(tmp_path / "db" / "main.db", tmp_path / "copy.db")
        assert rows_of(tmp_path / "copy.db") == ROWS + number * 2 * SAVED


def test_copy_has_nothing_of_a_transaction_that_is_half_in_its_log(
    writer: Callable[[str], Writer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old service appends to the log while that is copied."""
    service = writer("WAL")
    service.do(*SAVE)

    def copy(source: Path, target: Path) -> None:
        if not source.exists():
            raise FileNotFoundError
        before = source.stat().st_size
        service.do(*SAVE)
        target.write_bytes(source.read_bytes()[: (before + source.stat().st_size) // 2])

    monkeypatch.setattr(sqlite_copy.shutil, "copyfile", copy)
    copy_sqlite(tmp_path / "db" / "main.db", tmp_path / "copy.db")
    assert rows_of(tmp_path / "copy.db") == ROWS + SAVED


def test_copy_is_repeated_when_the_log_is_restarted(
    writer: Callable[[str], Writer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first half of the file and the new log are of different moments; the last of all tries may succeed."""
    service = writer("WAL")
    service.do(*SAVE)
    do_within_copies(monkeypatch, *[lambda: service.do(*RESTART_LOG)] * (sqlite_copy.TRIES - 1))
    copy_sqlite(tmp_path / "db" / "main.db", tmp_path / "copy.db")
    assert rows_of(tmp_path / "copy.db") == ROWS + sqlite_copy.TRIES * SAVED


def test_copy_is_refused_when_the_log_is_restarted_during_each_try(
    writer: Callable[[str], Writer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says what to do."""
    service = writer("WAL")
    service.do(*SAVE)
    do_within_copies(monkeypatch, *[lambda: service.do(*RESTART_LOG)] * sqlite_copy.TRIES)
    with pytest.raises(OperatorError, match="is written to all the time; stop the old service for a moment"):
        copy_sqlite(tmp_path / "db" / "main.db", tmp_path / "copy.db")


def test_damaged_database_is_refused(old: Callable[..., sqlite3.Connection], tmp_path: Path) -> None:
    """Half of it would be imported unnoticed."""
    connection = old("DELETE")
    connection.executemany("INSERT INTO projects (name) VALUES (?)", [("x" * 500,)] * 200)
    file = tmp_path / "db" / "main.db"
    with file.open("r+b") as damaged:
        damaged.seek(12 * 4096)
        damaged.write(b"\xff" * 4096)
    with pytest.raises(OperatorError, match="is damaged"):
        copy_sqlite(file, tmp_path / "copy.db")


@pytest.fixture
def settings(tmp_path: Path) -> TransferSettings:
    """A host without data, and a source with some files."""
    for name in ("old", "uploads", "transfer", "secrets"):
        (tmp_path / name).mkdir()
    return TransferSettings(
        host="server",
        engine="sqlite",
        image="backup:1",
        app_image="app:1",
        postgres_image="postgres:1",
        network="scratch4school",
        postgres_container="scratch4school-postgres",
        postgres_url="",
        postgres_password_file="",
        sqlite_directory=str(tmp_path / "database"),
        uploads=str(tmp_path / "uploads"),
        directory=str(tmp_path / "transfer"),
        secrets=str(tmp_path / "secrets"),
        change_directory=str(tmp_path / "change"),
        min_free_mb=0,
        niceness=0,
        memory="1g",
        source_database=str(tmp_path / "old.db"),
        source_uploads=str(tmp_path / "old"),
        cut=False,
    )


def fill(folder: Path, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def quietly(_text: str) -> None:
    pass


def project(folder: Path, name: str = "p.sb3") -> bytes:
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr("project.json", '{"targets": []}' * 50)
    return (folder / name).read_bytes()


NAMED: dict[str, dict[str, Any]] = {
    "projects/1_a.sb3": {"kind": "project", "by": ["projects 1"]},
    "projects/2_b.sb3": {"kind": "project", "by": ["projects 2"]},
    "projects/3_c.sb3": {"kind": "project", "by": ["projects 3"]},
    "costume/5d41402abc4b2a76b9719d911017c592.svg": {
        "kind": "asset",
        "by": ["assets 1"],
        "size": 5,
        "md5": "5d41402abc4b2a76b9719d911017c592",
    },
}
HELLO = "costume/5d41402abc4b2a76b9719d911017c592.svg"


def test_inspection_reports_missing_torn_and_unnamed_files(settings: TransferSettings, tmp_path: Path) -> None:
    """Whole, torn, missing, not named by a row, and the school's own picture, which no row names."""
    whole = project(tmp_path)
    files = {"projects/1_a.sb3": whole, "projects/2_b.sb3": whole[:70], HELLO: b"hello", "projects/9_z.sb3.bak": b"old"}
    fill(tmp_path / "old", {**files, "thumbnails/default.png": b"png", ".hidden/x": b"hidden"})
    found = source_files.inspect(tmp_path / "old", NAMED, quietly)
    assert (found["named"], found["there"], found["default_picture"]) == (4, 3, True)
    assert list(found["missing"]) == ["projects/3_c.sb3"]
    assert {path: one["by"] for path, one in found["torn"].items()} == {"projects/2_b.sb3": ["projects 2"]}
    assert found["orphans"] == ["projects/9_z.sb3.bak"]
    fill(tmp_path / "old", {HELLO: b"hallo"})
    assert "not the content" in source_files.inspect(tmp_path / "old", NAMED, quietly)["torn"][HELLO]["why"]


def test_named_files_are_imported_and_others_kept_aside(settings: TransferSettings, tmp_path: Path) -> None:
    """Torn ones as they are; a second run reads and writes only what has changed, was added or removed."""
    whole = project(tmp_path)
    old = tmp_path / "old"
    fill(old, {"projects/1_a.sb3": whole, "projects/2_b.sb3": whole[:70], HELLO: b"hello", "x/y.bak": b"old"})
    fill(old, {"thumbnails/default.png": b"png"})
    done = source_files.transfer(settings, old, NAMED, quietly)
    assert done == {"copied": 4, "unchanged": 0, "gone": 0, "orphans": 1}
    assert contents(tmp_path / "uploads") == {
        "projects/1_a.sb3": whole,
        "projects/2_b.sb3": whole[:70],
        HELLO: b"hello",
        "thumbnails/default.png": b"png",
    }
    assert contents(settings.orphans)["x/y.bak"] == b"old"
    assert source_files.compare(settings, old, NAMED) == (4, [])
    inode = (tmp_path / "uploads" / "projects/1_a.sb3").stat().st_ino
    fill(old, {"projects/2_b.sb3": whole, "projects/3_c.sb3": whole})
    (old / HELLO).unlink()
    named = {path: what for path, what in NAMED.items() if path != HELLO}
    assert source_files.compare(settings, old, named)[1] != []
    done = source_files.transfer(settings, old, named, quietly)
    assert done == {"copied": 2, "unchanged": 2, "gone": 1, "orphans": 1}
    assert source_files.compare(settings, old, named) == (4, [])
    assert (tmp_path / "uploads" / "projects/1_a.sb3").stat().st_ino == inode
    assert HELLO not in contents(tmp_path / "uploads")


def test_file_that_the_source_has_lost_since_is_kept(settings: TransferSettings, tmp_path: Path) -> None:
    """A row names it, and here it is; and a disk that is not mounted is no school without files."""
    old = tmp_path / "old"
    fill(old, {HELLO: b"hello", "projects/1_a.sb3": project(tmp_path)})
    source_files.transfer(settings, old, NAMED, quietly)
    (old / HELLO).unlink()
    assert source_files.transfer(settings, old, NAMED, quietly)["gone"] == 0
    assert source_files.compare(settings, old, NAMED) == (1, [])
    assert contents(tmp_path / "uploads")[HELLO] == b"hello"
    shutil.rmtree(old / "projects")
    for work in (source_files.transfer, lambda *arguments: source_files.inspect(*arguments[1:])):
        with pytest.raises(OperatorError, match="is its disk mounted"):
            work(settings, old, NAMED, quietly)
    assert HELLO in contents(tmp_path / "uploads")


def test_leftovers_of_a_killed_run_are_removed(settings: TransferSettings, tmp_path: Path) -> None:
    """Half a file, and one that was not noted yet and that the source has lost since."""
    fill(tmp_path / "old", {HELLO: b"hello"})
    fill(tmp_path / "uploads", {"costume/x.svg.importing": b"ha", "projects/7_gone.sb3": b"copied before it was noted"})
    source_files.transfer(settings, tmp_path / "old", NAMED, quietly)
    assert contents(tmp_path / "uploads") == {HELLO: b"hello"}
    assert source_files.compare(settings, tmp_path / "old", NAMED) == (1, [])


def test_damaged_zip_is_torn_whatever_zipfile_raises(settings: TransferSettings, tmp_path: Path) -> None:
    """Any byte of it, overwritten: it is reported, and nothing breaks off."""
    whole = bytearray(project(tmp_path))
    path = "projects/1_a.sb3"
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position : position + 2] = b"\xff\xfe"
        fill(tmp_path / "old", {path: bytes(damaged)})
        found = source_files.inspect(tmp_path / "old", NAMED, quietly)
        assert set(found["torn"]) <= {path}


def test_file_whose_name_is_no_utf8_is_kept_as_an_orphan(settings: TransferSettings, tmp_path: Path) -> None:
    """A file browser put it there, long ago."""
    name = os.fsdecode(b"thumbnails/Gr\xfc\xdfe.png")
    fill(tmp_path / "old", {HELLO: b"hello", name: b"x"})
    assert source_files.inspect(tmp_path / "old", NAMED, quietly)["orphans"] == [name]
    for _ in range(2):
        assert source_files.transfer(settings, tmp_path / "old", NAMED, quietly)["orphans"] == 1
    assert contents(settings.orphans)[name] == b"x"


def test_file_that_is_overwritten_in_place_is_a_difference(settings: TransferSettings, tmp_path: Path) -> None:
    """The original does so with every save; also where its time was put back."""
    old = tmp_path / "old"
    fill(old, {HELLO: b"hello"})
    source_files.transfer(settings, old, NAMED, quietly)
    before = (old / HELLO).stat()
    time.sleep(0.02)
    (old / HELLO).write_bytes(b"jello")
    os.utime(old / HELLO, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert source_files.compare(settings, old, NAMED)[1] == [f"the file {HELLO} has changed there, or is not here"]


def test_file_from_elsewhere_is_a_difference(settings: TransferSettings, tmp_path: Path) -> None:
    """It was saved here before the import."""
    fill(tmp_path / "old", {HELLO: b"hello"})
    source_files.transfer(settings, tmp_path / "old", NAMED, quietly)
    fill(tmp_path / "uploads", {"projects/ab/new.sb3": b"new"})
    assert source_files.compare(settings, tmp_path / "old", NAMED)[1] == [
        "the file projects/ab/new.sb3 is not from the source"
    ]


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
@pytest.mark.parametrize("top", ["uploads/", ""])
def test_archive_is_imported_like_a_folder(settings: TransferSettings, tmp_path: Path, kind: str, top: str) -> None:
    """Of the folder or of its content; paths that lead out of it stay in it; unpacked again it is the same."""
    archive = tmp_path / f"old.{kind}"
    (tmp_path / "hello").write_bytes(b"hello")
    os.utime(tmp_path / "hello", (1_700_000_000, 1_700_000_000))
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            packed.write(tmp_path / "hello", f"{top}{HELLO}")
            packed.write(tmp_path / "hello", f"{top}../../escaped")
    else:
        with tarfile.open(archive, "w:gz") as packed:
            packed.add(tmp_path / "hello", f"{top}{HELLO}")
            packed.add(tmp_path / "hello", f"{top}../../escaped")
            link = tarfile.TarInfo(f"{top}costume/link.svg")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            packed.addfile(link)
    archived = TransferSettings(**{**settings.__dict__, "source_uploads": str(archive)})
    for copied in (1, 0):
        with source_files.source_folder(archived) as root:
            assert not (root / "costume" / "link.svg").exists()
            assert source_files.transfer(archived, root, NAMED, quietly)["copied"] == copied
            assert source_files.compare(archived, root, NAMED) == (1, [])
        shutil.rmtree(archived.work)
    assert not (tmp_path / "escaped").exists()


def test_archive_that_is_cut_off_is_refused(settings: TransferSettings, tmp_path: Path) -> None:
    """With a message, before anything is imported."""
    with tarfile.open(tmp_path / "whole.tar.gz", "w:gz") as packed:
        (tmp_path / "noise").write_bytes(os.urandom(300_000))
        packed.add(tmp_path / "noise", "uploads/noise")
    (tmp_path / "old.tar.gz").write_bytes((tmp_path / "whole.tar.gz").read_bytes()[:100_000])
    half = TransferSettings(**{**settings.__dict__, "source_uploads": str(tmp_path / "old.tar.gz")})
    with pytest.raises(OperatorError, match="cut off"), source_files.source_folder(half):
        pass


DUMP = b"--\n-- PostgreSQL database dump\n--\nCREATE TABLE x ();\n--\n-- PostgreSQL database dump complete\n--\n\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"SELECT 1;\n", "neither a SQLite file nor a dump"),
        (DUMP[:60], "ends in the middle"),
        (DUMP.replace(b"CREATE", b"\\connect other\nCREATE"), "without --create"),
        (gzip.compress(os.urandom(50_000))[:20_000], "cut off or damaged"),
    ],
    ids=["empty", "another file", "torn", "with connect", "torn gzip"],
)
def test_incomplete_or_foreign_dump_is_refused(
    settings: TransferSettings, tmp_path: Path, content: bytes, message: str
) -> None:
    """With what to do about it, before a server is started for it."""
    file = tmp_path / "dump.sql"
    file.write_bytes(content)
    place = source_database.Scratch(
        TransferSettings(**{**settings.__dict__, "source_database": str(file)}), containers=None
    )
    place.settings.work.mkdir(parents=True)
    with pytest.raises(OperatorError, match=message):
        source_database.copy_source(place)


def test_mistyped_path_is_refused(settings: TransferSettings) -> None:
    """It is the most likely mistake of all."""
    place = source_database.Scratch(settings, containers=None)
    with pytest.raises(OperatorError, match="There is no file"):
        source_database.copy_source(place)
    nowhere = TransferSettings(**{**settings.__dict__, "source_uploads": "/nowhere"})
    with pytest.raises(OperatorError, match="There is no /nowhere"), source_files.source_folder(nowhere):
        pass


def test_roles_that_a_dump_names_are_made(tmp_path: Path) -> None:
    """A plain dump gives its tables to their owners, who do not exist here."""
    script = tmp_path / "dump.sql"
    script.write_text(
        'ALTER TABLE public.users OWNER TO scratch;\nGRANT SELECT ON TABLE public.users TO "o\'hara";\n'
        "REVOKE ALL ON SCHEMA public FROM PUBLIC;\nALTER TABLE ONLY public.users ADD PRIMARY KEY (id);\n"
    )
    made = source_database._roles_of(script)
    assert "'CREATE ROLE %I', 'scratch'" in made
    assert "'CREATE ROLE %I', 'o''hara'" in made
    assert "PUBLIC" not in made


def test_report_lists_rows_files_and_findings() -> None:
    """In the order in which one reads it, with the first few of each fault by name."""
    text = "\n".join(
        report.lines(
            {
                "rows": {
                    "shape": "the original's, before its fix",
                    "rows": {"users": 60, "user_groups": 91},
                    "become": {"users": 61, "user_groups": 90},
                    "sessions": {"live": 10, "expired": 30},
                    "findings": [{"count": 25, "rule": "rows that are left out", "where": ["user_groups a/1"] * 20}],
                },
                "files": {
                    "named": 3,
                    "there": 2,
                    "bytes": 5_000_000,
                    "missing": {"projects/3.sb3": {"by": ["projects 3"]}},
                    "torn": {"projects/2.sb3": {"by": ["projects 2"], "why": "no zip"}},
                    "orphans": ["x.bak"],
                    "orphan_bytes": 10,
                    "default_picture": True,
                },
                "need": {"bytes": 12_000_000, "seconds": 42.0},
            }
        )
    )
    assert "Rows:  60 users, 91 user_groups" in text
    assert "users: 60 there, 61 imported" in text
    assert "    and 5 more" in text
    assert "projects/3.sb3 (projects 3)" in text
    assert "projects/2.sb3 (projects 2): no zip" in text
    assert "The import needs about 12 MB of this host's disk. Its first run takes about 42 s" in text


def test_finish_needs_an_import_from_the_same_source(
    settings: TransferSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    """A complete import is not repeated."""
    with pytest.raises(OperatorError, match="step=import first"):
        importing.finish(settings, None, None, "r1")
    importing._keep(settings, step="imported", source={"database": "/other.db", "uploads": "/other"})
    with pytest.raises(OperatorError, match="adoption_uploads was changed"):
        importing.finish(settings, None, None, "r1")
    with pytest.raises(OperatorError, match="Nothing was compared yet"):
        importing.complete(settings)
    importing._keep(settings, compared="2026-11-26T17:00:00Z", source=settings.source)
    when = r"the same at 2026-11-26 17:00 UTC\. Pupils may have worked here since"
    for step in (importing.import_data, importing.undo):
        with pytest.raises(OperatorError, match=f"{when}, and their saves would be lost"):
            step(settings, None, None, "r1")
    importing.finish(settings, None, None, "r1")
    assert re.search(f"{when}, so nothing more is imported", capsys.readouterr().out)
    importing.complete(settings)
    for step in (importing.import_data, importing.finish, importing.undo):
        with pytest.raises(
            OperatorError, match=r"was imported to this host at 20\d\d-\d\d-\d\d \d\d:\d\d UTC, and it is live"
        ):
            step(settings, None, None, "r1")


def test_host_with_data_is_not_replaced(settings: TransferSettings, tmp_path: Path) -> None:
    """Its rows are counted in the refusal."""
    (tmp_path / "database").mkdir()
    connection = sqlite3.connect(tmp_path / "database" / "main.db")
    connection.executescript("CREATE TABLE users (id); INSERT INTO users VALUES ('anna')")
    connection.close()
    with pytest.raises(OperatorError, match="This host is not empty: it has 1 users"):
        importing.import_data(settings, None, None, "r1")


@dataclass
class World:
    """Two databases as sets of what was saved, and which of them the live slot uses."""

    rows: dict[str, set[int]]
    live: str = "sqlite"
    previous: str = "sqlite"
    saved: set[int] = field(default_factory=set)
    kill_in: int = -1

    def step(self) -> None:
        """Between two steps the program may be killed."""
        self.kill_in -= 1
        if self.kill_in == 0:
            raise KeyboardInterrupt

    def save(self, number: int) -> None:
        """A pupil's save, which needs a live slot."""
        if self.live:
            self.rows[self.live].add(number)
            self.saved.add(number)

    def begin_maintenance(self, _slots: Any, _run: str, _reason: str) -> None:
        self.step()
        self.live = ""
        self.step()

    def end_maintenance(self, _slots: Any, _run: str) -> None:
        self.step()
        self.live = self.previous
        self.step()

    def transfer(self, _containers: Any, _settings: TransferSettings, source: Any, target: Any) -> None:
        self.step()
        self.rows[target] = set(self.rows[source])
        self.step()

    def compare(self, _containers: Any, _settings: TransferSettings, source: Any, target: Any) -> tuple[str, list[str]]:
        self.step()
        assert self.rows[target] == self.rows[source]
        return "the same", []

    def activate(self, engine: str) -> None:
        """Activate a release on an engine, as the playbook does after the program has ended."""
        self.live = self.previous = engine


@pytest.fixture
def world(settings: TransferSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    """A school on SQLite with one save; everything around the migration is replaced."""
    made = World({"sqlite": {0}, "postgres": set()}, saved={0})
    (tmp_path / "database").mkdir()
    (tmp_path / "database" / "main.db").touch()
    monkeypatch.setattr(engine_migration.maintenance, "begin", made.begin_maintenance)
    monkeypatch.setattr(engine_migration.maintenance, "end", made.end_maintenance)
    monkeypatch.setattr(engine_migration, "scratch", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(engine_migration, "_copy", lambda _: source_database.SourceDatabase("sqlite", 0))
    monkeypatch.setattr(engine_migration, "_refuse_foreign_rows", lambda _: None)
    for name, stub in {
        "in_postgres": lambda _: "postgres",
        "in_sqlite": lambda _: "sqlite",
        "migrate": lambda *_: made.step(),
        "transfer": made.transfer,
        "compare": made.compare,
    }.items():
        monkeypatch.setattr(engine_migration.application, name, stub)
    return made


def what_it_runs_on(settings: TransferSettings) -> str:
    """By the file's name, as preflight tells it."""
    return "sqlite" if (Path(settings.sqlite_directory) / "main.db").exists() else "postgres"


@pytest.mark.parametrize("seed", range(60))
def test_interrupted_migrations_lose_no_save(settings: TransferSettings, world: World, seed: int) -> None:
    """Between both engines again and again: killed anywhere, with releases that fail, and saves meanwhile."""
    chance = random.Random(seed)
    number = 0
    for _ in range(30):
        number += 1
        world.save(number)
        verb, engine = chance.choice(
            [(engine_migration.to_postgres, "postgres"), (engine_migration.to_sqlite, "sqlite")]
        )
        world.kill_in = chance.choice([-1, *range(1, 12)])
        try:
            verb(settings, None, None, "r1")
        except (KeyboardInterrupt, OperatorError):
            # No other playbook activates a release in maintenance mode.
            continue
        assert what_it_runs_on(settings) == engine
        world.activate(engine)
        number += 1
        world.save(number)
        if chance.random() < 0.3:
            # The verification fails, and the run itself takes it back.
            world.kill_in = -1
            to_postgres, to_sqlite = engine_migration.to_postgres, engine_migration.to_sqlite
            (to_sqlite if verb is to_postgres else to_postgres)(settings, None, None, "r1")
            world.activate("sqlite" if engine == "postgres" else "postgres")
        assert world.rows[world.live] == world.saved
        assert what_it_runs_on(settings) == world.live


def test_resumed_migration_says_since_when_with_the_zone(
    settings: TransferSettings, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """To PostgreSQL and back: which engine has the complete database, as a person reads a time."""
    moment = r"20\d\d-\d\d-\d\d \d\d:\d\d UTC; the migration continues from there"
    for verb, name in ((engine_migration.to_postgres, "PostgreSQL"), (engine_migration.to_sqlite, "SQLite")):
        verb(settings, None, None, "r1")
        verb(settings, None, None, "r1")
        assert re.search(f"{name} has the complete database since {moment}", capsys.readouterr().out)


def test_refusal_of_the_application_is_passed_on_whole(settings: TransferSettings) -> None:
    """The last line that it wrote is the message, which says what to type."""
    message = (
        "2 values are longer than their column, such as projects 7 (name: 101 characters, 100 fit). Say -e cut=true."
    )
    words = f"import sys; print('users: 1 rows'); sys.exit('scratch4school: {message}')"
    process = subprocess.Popen([sys.executable, "-c", words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with pytest.raises(OperatorError) as refused:
        application._listen(process, quiet=False, refuse=True)
    assert str(refused.value) == message
