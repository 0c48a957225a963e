"""What an adoption does on the host by itself: copies of SQLite, files, dumps that are none, and the compose file.

Rows are the application's business and tested there; all of it together is tried on lab hosts.
"""

from __future__ import annotations

import contextlib
import gzip
import json
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

ROOT = Path(__file__).resolve().parents[2]
for folder in ("roles/adoption/files", "roles/backup/files", "plugins/module_utils"):
    sys.path.insert(0, str(ROOT / folder))

from scratch4school_adoption import application, moving, old_files, old_rows, report, steps  # noqa: E402
from scratch4school_adoption.settings import Settings  # noqa: E402
from scratch4school_adoption.sqlite_copy import copy_sqlite  # noqa: E402
from scratch4school_backup.base import Problem  # noqa: E402


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
    """A connection to an old database of that journal mode, with a few rows, as the old service has it open."""
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
def test_a_copy_of_sqlite_has_all_and_writes_nothing_there(
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


def test_a_log_that_nobody_has_open_is_taken_in(old: Callable[..., sqlite3.Connection], tmp_path: Path) -> None:
    """A service that was killed leaves its log behind, and the last saves are only there."""
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


# A service of its own: within one process the locks of files keep nobody out.
WRITER = """
import sqlite3, sys, time
file, mode = sys.argv[1:]
connection = sqlite3.connect(file, isolation_level=None, timeout=60)
connection.execute("PRAGMA wal_autocheckpoint = 0")
number = 0
while True:
    number += 1
    connection.execute("BEGIN IMMEDIATE")
    rows = [(f"Spiel {number}" * 20,)] * 20
    connection.executemany("INSERT INTO projects (name) VALUES (?)", rows)
    connection.execute("COMMIT")
    if number % 7 == 0 and mode == "WAL":
        connection.execute("PRAGMA wal_checkpoint(RESTART)")
    if number == 1:
        print("writing", flush=True)
    time.sleep(0.002)
"""


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_copy_under_writes_is_whole(old: Callable[..., sqlite3.Connection], tmp_path: Path, mode: str) -> None:
    """Twenty copies while somebody writes and, with a log, empties it into the database."""
    old(mode).close()
    file = tmp_path / "db" / "main.db"
    with subprocess.Popen([sys.executable, "-c", WRITER, file, mode], stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout
            assert writer.stdout.readline() == "writing\n"
            counts = []
            for number in range(20):
                copy_sqlite(file, tmp_path / f"copy-{number}.db")
                counts.append(rows_of(tmp_path / f"copy-{number}.db"))
                time.sleep(0.01)
            assert writer.poll() is None, "it wrote all the time"
        finally:
            writer.kill()
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]
    assert all((count - 2) % 20 == 0 for count in counts), "no transaction is there by half"


def test_a_damaged_database_is_refused(old: Callable[..., sqlite3.Connection], tmp_path: Path) -> None:
    """Half of it would come over, and nobody would know."""
    connection = old("DELETE")
    connection.executemany("INSERT INTO projects (name) VALUES (?)", [("x" * 500,)] * 200)
    file = tmp_path / "db" / "main.db"
    with file.open("r+b") as damaged:
        damaged.seek(12 * 4096)
        damaged.write(b"\xff" * 4096)
    with pytest.raises(Problem, match="is damaged"):
        copy_sqlite(file, tmp_path / "copy.db")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A host with nothing, and an old place with some files."""
    for name in ("old", "uploads", "adoption", "secrets"):
        (tmp_path / name).mkdir()
    return Settings(
        library="",
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
        directory=str(tmp_path / "adoption"),
        secrets=str(tmp_path / "secrets"),
        change_directory=str(tmp_path / "change"),
        slots="/bin/true",
        floor_mb=0,
        niceness=0,
        memory="1g",
        old_database=str(tmp_path / "old.db"),
        old_uploads=str(tmp_path / "old"),
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


def test_files_are_told_apart(settings: Settings, tmp_path: Path) -> None:
    """Whole, torn, missing, named by nobody, and the school's own picture, which no row names."""
    whole = project(tmp_path)
    files = {"projects/1_a.sb3": whole, "projects/2_b.sb3": whole[:70], HELLO: b"hello", "projects/9_z.sb3.bak": b"old"}
    fill(tmp_path / "old", {**files, "thumbnails/default.png": b"png", ".hidden/x": b"nobody's"})
    found = old_files.look(tmp_path / "old", NAMED, quietly)
    assert (found["named"], found["there"], found["default_picture"]) == (4, 3, True)
    assert list(found["missing"]) == ["projects/3_c.sb3"]
    assert {path: one["by"] for path, one in found["torn"].items()} == {"projects/2_b.sb3": ["projects 2"]}
    assert found["orphans"] == ["projects/9_z.sb3.bak"]
    fill(tmp_path / "old", {HELLO: b"hallo"})
    assert "not the content" in old_files.look(tmp_path / "old", NAMED, quietly)["torn"][HELLO]["why"]


def test_files_come_over_and_what_nobody_names_is_kept_aside(settings: Settings, tmp_path: Path) -> None:
    """Torn ones as they are; a second time reads and writes only what has changed, came or went."""
    whole = project(tmp_path)
    old = tmp_path / "old"
    fill(old, {"projects/1_a.sb3": whole, "projects/2_b.sb3": whole[:70], HELLO: b"hello", "x/y.bak": b"old"})
    fill(old, {"thumbnails/default.png": b"png"})
    done = old_files.transfer(settings, old, NAMED, quietly)
    assert done == {"copied": 4, "unchanged": 0, "gone": 0, "orphans": 1}
    assert contents(tmp_path / "uploads") == {
        "projects/1_a.sb3": whole,
        "projects/2_b.sb3": whole[:70],
        HELLO: b"hello",
        "thumbnails/default.png": b"png",
    }
    assert contents(settings.orphans)["x/y.bak"] == b"old"
    assert old_files.compare(settings, old, NAMED) == (4, [])
    inode = (tmp_path / "uploads" / "projects/1_a.sb3").stat().st_ino
    fill(old, {"projects/2_b.sb3": whole, "projects/3_c.sb3": whole})
    (old / HELLO).unlink()
    named = {path: what for path, what in NAMED.items() if path != HELLO}
    assert old_files.compare(settings, old, named)[1] != []
    done = old_files.transfer(settings, old, named, quietly)
    assert done == {"copied": 2, "unchanged": 2, "gone": 1, "orphans": 1}
    assert old_files.compare(settings, old, named) == (4, [])
    assert (tmp_path / "uploads" / "projects/1_a.sb3").stat().st_ino == inode
    assert HELLO not in contents(tmp_path / "uploads")


def test_what_the_old_place_has_lost_since_is_kept(settings: Settings, tmp_path: Path) -> None:
    """A row names it, and here it is; and a disk that is not mounted is no school without files."""
    old = tmp_path / "old"
    fill(old, {HELLO: b"hello", "projects/1_a.sb3": project(tmp_path)})
    old_files.transfer(settings, old, NAMED, quietly)
    (old / HELLO).unlink()
    assert old_files.transfer(settings, old, NAMED, quietly)["gone"] == 0
    assert old_files.compare(settings, old, NAMED) == (1, [])
    assert contents(tmp_path / "uploads")[HELLO] == b"hello"
    shutil.rmtree(old / "projects")
    for work in (old_files.transfer, lambda *arguments: old_files.look(*arguments[1:])):
        with pytest.raises(Problem, match="is its disk there"):
            work(settings, old, NAMED, quietly)
    assert HELLO in contents(tmp_path / "uploads")


def test_a_run_that_was_killed_leaves_nothing_that_stays(settings: Settings, tmp_path: Path) -> None:
    """Half a file, and one that nobody had noted yet and that is gone in the old place since."""
    fill(tmp_path / "old", {HELLO: b"hello"})
    fill(tmp_path / "uploads", {"costume/x.svg.adopting": b"ha", "projects/7_gone.sb3": b"copied before it was noted"})
    old_files.transfer(settings, tmp_path / "old", NAMED, quietly)
    assert contents(tmp_path / "uploads") == {HELLO: b"hello"}
    assert old_files.compare(settings, tmp_path / "old", NAMED) == (1, [])


def test_damaged_zips_are_torn_whatever_zipfile_says(settings: Settings, tmp_path: Path) -> None:
    """Any byte of it, overwritten: it is told, and nothing breaks off."""
    whole = bytearray(project(tmp_path))
    path = "projects/1_a.sb3"
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position : position + 2] = b"\xff\xfe"
        fill(tmp_path / "old", {path: bytes(damaged)})
        found = old_files.look(tmp_path / "old", NAMED, quietly)
        assert set(found["torn"]) <= {path}


def test_a_name_that_is_no_utf8_is_written_down(settings: Settings, tmp_path: Path) -> None:
    """Somebody's file browser put it there, long ago."""
    name = os.fsdecode(b"thumbnails/Gr\xfc\xdfe.png")
    fill(tmp_path / "old", {HELLO: b"hello", name: b"x"})
    assert old_files.look(tmp_path / "old", NAMED, quietly)["orphans"] == [name]
    for _ in range(2):
        assert old_files.transfer(settings, tmp_path / "old", NAMED, quietly)["orphans"] == 1
    assert contents(settings.orphans)[name] == b"x"


def test_a_file_that_is_written_over_in_place_is_seen(settings: Settings, tmp_path: Path) -> None:
    """The original does so with every save; also where somebody has put the time back."""
    old = tmp_path / "old"
    fill(old, {HELLO: b"hello"})
    old_files.transfer(settings, old, NAMED, quietly)
    before = (old / HELLO).stat()
    time.sleep(0.02)
    (old / HELLO).write_bytes(b"jello")
    os.utime(old / HELLO, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert old_files.compare(settings, old, NAMED)[1] == [f"the file {HELLO} has changed there, or is not here"]


def test_what_is_here_and_came_from_elsewhere_is_a_difference(settings: Settings, tmp_path: Path) -> None:
    """Somebody saved here before the school came over."""
    fill(tmp_path / "old", {HELLO: b"hello"})
    old_files.transfer(settings, tmp_path / "old", NAMED, quietly)
    fill(tmp_path / "uploads", {"projects/ab/new.sb3": b"new"})
    assert old_files.compare(settings, tmp_path / "old", NAMED)[1] == [
        "the file projects/ab/new.sb3 did not come from the old place"
    ]


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
@pytest.mark.parametrize("top", ["uploads/", ""])
def test_an_archive_is_as_good_as_a_folder(settings: Settings, tmp_path: Path, kind: str, top: str) -> None:
    """Of the folder or of its content; what leads out of it stays in it; unpacked again it is the same."""
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
    archived = Settings(**{**settings.__dict__, "old_uploads": str(archive)})
    for copied in (1, 0):
        with old_files.old_folder(archived) as root:
            assert not (root / "costume" / "link.svg").exists()
            assert old_files.transfer(archived, root, NAMED, quietly)["copied"] == copied
            assert old_files.compare(archived, root, NAMED) == (1, [])
        shutil.rmtree(archived.work)
    assert not (tmp_path / "escaped").exists()


def test_an_archive_that_is_cut_off_is_refused(settings: Settings, tmp_path: Path) -> None:
    """In a sentence, before anything is brought over."""
    with tarfile.open(tmp_path / "whole.tar.gz", "w:gz") as packed:
        (tmp_path / "noise").write_bytes(os.urandom(300_000))
        packed.add(tmp_path / "noise", "uploads/noise")
    (tmp_path / "old.tar.gz").write_bytes((tmp_path / "whole.tar.gz").read_bytes()[:100_000])
    half = Settings(**{**settings.__dict__, "old_uploads": str(tmp_path / "old.tar.gz")})
    with pytest.raises(Problem, match="cut off"), old_files.old_folder(half):
        pass


DUMP = b"--\n-- PostgreSQL database dump\n--\nCREATE TABLE x ();\n--\n-- PostgreSQL database dump complete\n--\n\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"SELECT 1;\n", "neither a SQLite file nor a dump"),
        (DUMP[:60], "ends in the middle"),
        (DUMP.replace(b"CREATE", b"\\connect other\nCREATE"), "without --create"),
        (gzip.compress(os.urandom(50_000))[:20_000], "cut off or damaged"),
    ],
    ids=["empty", "another file", "torn", "with connect", "torn gzip"],
)
def test_a_dump_that_is_none_is_refused(settings: Settings, tmp_path: Path, content: bytes, sentence: str) -> None:
    """With what to do about it, before a server is started for it."""
    file = tmp_path / "dump.sql"
    file.write_bytes(content)
    place = old_rows.Scratch(Settings(**{**settings.__dict__, "old_database": str(file)}), containers=None)
    place.settings.work.mkdir(parents=True)
    with pytest.raises(Problem, match=sentence):
        old_rows.read_old_rows(place)


def test_a_mistyped_path_is_said(settings: Settings) -> None:
    """It is the most likely mistake of all."""
    place = old_rows.Scratch(settings, containers=None)
    with pytest.raises(Problem, match="There is no file"):
        old_rows.read_old_rows(place)
    nowhere = Settings(**{**settings.__dict__, "old_uploads": "/nowhere"})
    with pytest.raises(Problem, match="There is no /nowhere"), old_files.old_folder(nowhere):
        pass


def test_roles_that_a_dump_names_are_made(tmp_path: Path) -> None:
    """A plain dump gives its tables to whoever owned them, who is not there."""
    script = tmp_path / "dump.sql"
    script.write_text(
        'ALTER TABLE public.users OWNER TO scratch;\nGRANT SELECT ON TABLE public.users TO "o\'hara";\n'
        "REVOKE ALL ON SCHEMA public FROM PUBLIC;\nALTER TABLE ONLY public.users ADD PRIMARY KEY (id);\n"
    )
    made = old_rows._roles_of(script)
    assert "'CREATE ROLE %I', 'scratch'" in made
    assert "'CREATE ROLE %I', 'o''hara'" in made
    assert "PUBLIC" not in made


def test_the_report_says_what_there_is_and_what_becomes_of_it() -> None:
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
    assert "users: 60 there, 61 come over" in text
    assert "    and 5 more" in text
    assert "projects/3.sb3 (projects 3)" in text
    assert "projects/2.sb3 (projects 2): no zip" in text
    assert "It needs about 12 MB on this host's disk, and 42 s" in text


def test_finish_wants_something_that_was_brought_from_the_same_place(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what is done is done."""
    with pytest.raises(Problem, match="step=import first"):
        steps.finish(settings, None, "r1")
    steps._keep(settings, step="brought", old={"database": "/other.db", "uploads": "/other"})
    with pytest.raises(Problem, match="is described otherwise now"):
        steps.finish(settings, None, "r1")
    with pytest.raises(Problem, match="Nothing was compared yet"):
        steps.settle(settings)
    steps._keep(settings, compared="2026-11-26T17:00:00Z", old=settings.as_dict())
    when = "the same at 2026-11-26 17:00 UTC, and pupils"
    for step in (steps.bring, steps.undo):
        with pytest.raises(Problem, match=f"{when} have been let in here since"):
            step(settings, None, "r1")
    steps.finish(settings, None, "r1")
    assert f"{when} came since" in capsys.readouterr().out
    steps.settle(settings)
    for step in (steps.bring, steps.finish, steps.undo):
        with pytest.raises(
            Problem, match=r"was brought over to this host at 20\d\d-\d\d-\d\d \d\d:\d\d UTC, and it serves"
        ):
            step(settings, None, "r1")


def test_a_school_in_which_somebody_worked_is_not_replaced(settings: Settings, tmp_path: Path) -> None:
    """Its rows are counted in the refusal."""
    (tmp_path / "database").mkdir()
    connection = sqlite3.connect(tmp_path / "database" / "main.db")
    connection.executescript("CREATE TABLE users (id); INSERT INTO users VALUES ('anna')")
    connection.close()
    with pytest.raises(Problem, match="This host is not empty: there is 1 users"):
        steps.bring(settings, None, "r1")


@dataclass
class World:
    """Two databases as sets of what was saved, and who is served from where."""

    rows: dict[str, set[int]]
    serves: str = "sqlite"
    former: str = "sqlite"
    saved: set[int] = field(default_factory=set)
    kill_in: int = -1

    def step(self) -> None:
        """Somewhere in between the program is killed."""
        self.kill_in -= 1
        if self.kill_in == 0:
            raise KeyboardInterrupt

    def save(self, number: int) -> None:
        """A pupil's save, where anybody is served."""
        if self.serves:
            self.rows[self.serves].add(number)
            self.saved.add(number)

    def tell_slots(self, _settings: Settings, command: str, *_: str) -> None:
        self.step()
        self.serves = "" if command == "close" else self.former
        self.step()

    def transfer(self, _containers: Any, _settings: Settings, old: Any, new: Any) -> None:
        self.step()
        self.rows[new] = set(self.rows[old])
        self.step()

    def compare(self, _containers: Any, _settings: Settings, old: Any, new: Any) -> tuple[str, list[str]]:
        self.step()
        assert self.rows[new] == self.rows[old]
        return "the same", []

    def enter(self, engine: str) -> None:
        """What the playbook does when the program has done its part."""
        self.serves = self.former = engine


@pytest.fixture
def world(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    """A school on SQLite with one save, and the program of the move with everything else replaced."""
    made = World({"sqlite": {0}, "postgres": set()}, saved={0})
    (tmp_path / "database").mkdir()
    (tmp_path / "database" / "main.db").touch()
    monkeypatch.setattr(moving, "tell_slots", made.tell_slots)
    monkeypatch.setattr(moving, "scratch", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(moving, "_copy", lambda _: old_rows.OldRows("sqlite", 0))
    monkeypatch.setattr(moving, "_refuse_rows_of_others", lambda _: None)
    for name, stub in {
        "in_postgres": lambda _: "postgres",
        "in_sqlite": lambda _: "sqlite",
        "migrate": lambda *_: made.step(),
        "transfer": made.transfer,
        "compare": made.compare,
    }.items():
        monkeypatch.setattr(moving.application, name, stub)
    return made


def what_it_runs_on(settings: Settings) -> str:
    """By the file's name, as preflight tells it."""
    return "sqlite" if (Path(settings.sqlite_directory) / "main.db").exists() else "postgres"


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_cut_short_no_save_is_lost(settings: Settings, world: World, seed: int) -> None:
    """There and back again and again, killed anywhere, releases that cannot serve, and pupils who save meanwhile."""
    chance = random.Random(seed)
    number = 0
    for _ in range(30):
        number += 1
        world.save(number)
        verb, engine = chance.choice([(moving.move, "postgres"), (moving.back, "sqlite")])
        world.kill_in = chance.choice([-1, *range(1, 12)])
        try:
            verb(settings, None, "r1")
        except (KeyboardInterrupt, Problem):
            # Nobody is let in by anybody else: every other verb is refused while the host is closed.
            continue
        assert what_it_runs_on(settings) == engine
        world.enter(engine)
        number += 1
        world.save(number)
        if chance.random() < 0.3:
            # The verification fails, and the run itself takes it back.
            world.kill_in = -1
            (moving.back if verb is moving.move else moving.move)(settings, None, "r1")
            world.enter("sqlite" if engine == "postgres" else "postgres")
        assert world.rows[world.serves] == world.saved
        assert what_it_runs_on(settings) == world.serves


def test_a_move_that_goes_on_says_since_when_with_the_zone(
    settings: Settings, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """There and back: who has had all rows since then, as a person reads a time."""
    moment = r"20\d\d-\d\d-\d\d \d\d:\d\d UTC; it goes on from there"
    for verb, name in ((moving.move, "PostgreSQL"), (moving.back, "SQLite")):
        verb(settings, None, "r1")
        verb(settings, None, "r1")
        assert re.search(f"{name} has had all rows since {moment}", capsys.readouterr().out)


def test_a_refusal_of_the_application_comes_through_whole(settings: Settings) -> None:
    """The last line that it wrote is the sentence, and in it what to type."""
    sentence = (
        "2 values are longer than their column, such as projects 7 (name: 101 characters, 100 fit). Say -e cut=true."
    )
    words = f"import sys; print('users: 1 rows'); sys.exit('scratch4school: {sentence}')"
    process = subprocess.Popen([sys.executable, "-c", words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with pytest.raises(Problem) as refused:
        application._listen(process, quiet=False, refuse=True)
    assert str(refused.value) == sentence


COMPOSE = """
services:
  postgres:
    image: postgres:15-alpine
  backend:
    env_file: backend.env
    environment:
      - DATABASE_URI=postgresql://scratch:${DB_PASSWORD}@postgres:5432/scratch
      - OAUTH_CLIENT_ID=scratch-client
      - FRONTEND_URL=https://scratch.schule.example/
      - ROLE_TEACHER=${ROLE_TEACHER:-lehrer}
    volumes:
      - ./data/uploads:/app/uploads
      - ./data/db:/app/db
"""


def test_the_compose_file_is_read(filters: dict[str, Callable[..., Any]]) -> None:
    """Rows, files, settings and the client's secret, with variables and files of variables."""
    files = filters["compose_files"](COMPOSE, "/srv/scratch")
    assert files == ["/srv/scratch/.env", "/srv/scratch/backend.env"]
    contents = {files[0]: "DB_PASSWORD='p:w'\n", files[1]: "OAUTH_CLIENT_SECRET=ganz geheim\n# nothing\n"}
    old = filters["compose_old_place"](COMPOSE, "/srv/scratch", contents)
    assert old["database"] == "postgresql://scratch:p:w@postgres:5432/scratch"
    assert old["uploads"] == "/srv/scratch/data/uploads"
    assert old["settings"] == {
        "app_oidc_client_id": "scratch-client",
        "app_oidc_client_secret": "ganz geheim",
        "app_role_teacher": "lehrer",
        "scratch4school_url": "https://scratch.schule.example",
    }
    here = {"app_oidc_client_id": "another", "app_role_teacher": "lehrer"}
    assert filters["settings_that_differ"](old["settings"], here) == [
        "app_oidc_client_id",
        "app_oidc_client_secret",
        "scratch4school_url",
    ]


def test_a_compose_file_for_sqlite_and_one_with_a_volume(filters: dict[str, Callable[..., Any]]) -> None:
    """Without an address the original has a file of its own; a volume's place only Docker knows."""
    plain = COMPOSE.replace("      - DATABASE_URI=postgresql://scratch:${DB_PASSWORD}@postgres:5432/scratch\n", "")
    old = filters["compose_old_place"](plain, "/srv/scratch", {})
    assert old["database"] == "/srv/scratch/data/db/main.db"
    named = filters["compose_old_place"](plain.replace("./data/uploads", "uploads"), "/srv/scratch", {})
    assert (named["uploads"], "volume uploads" in named["note"]) == ("", True)
    home = filters["compose_old_place"](plain.replace("./data/uploads", "~/uploads"), "/srv/scratch", {})
    assert (home["uploads"], "somebody's home" in home["note"]) == ("", True)
    assert "another program's" in filters["compose_old_place"]("services: {web: {image: nginx}}", "/srv", {})["note"]


@pytest.mark.parametrize(
    ("address", "without", "line"),
    [
        (
            "postgresql://scratch:ab/cd+ef=#?@db:5432/scratch",
            "postgresql://scratch@db:5432/scratch",
            "*:*:*:*:ab/cd+ef=#?",
        ),
        ("postgresql://a:b%40c@h:5433/d", "postgresql://a@h:5433/d", "*:*:*:*:b@c"),
        ("postgresql+psycopg2://a:b:c@h/d", "postgresql://a@h/d", "*:*:*:*:b\\:c"),
        ("postgresql://a@h/d", "postgresql://a@h/d", "*:*:*:*:"),
        ("/srv/db/main.db", "/srv/db/main.db", "*:*:*:*:"),
    ],
)
def test_passwords_go_into_a_file_of_their_own(
    filters: dict[str, Callable[..., Any]], address: str, without: str, line: str
) -> None:
    """In no list of settings, and escaped as PostgreSQL's programs want it."""
    assert filters["without_password"](address) == without
    assert filters["pgpass_line"](address) == line


def test_the_backups_of_another_version_are_a_sentence(tmp_path: Path) -> None:
    """A newer checkout adopts on a host that it did not deploy to: what both programs share is older there."""
    program, library = tmp_path / "adoption", tmp_path / "backup"
    shutil.copytree(ROOT / "roles" / "adoption" / "files", program)
    (library / "scratch4school_backup").mkdir(parents=True)
    (library / "scratch4school_backup" / "base.py").write_text("class Problem(Exception): pass\n")
    (program / "settings.json").write_text(json.dumps({"library": str(library)}))
    ended = subprocess.run([sys.executable, program / "adopt", "--help"], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "Run deploy.yml, then this again." in ended.stderr
    assert "Traceback" not in ended.stderr
