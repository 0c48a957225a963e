"""The backup program, with a restic that is a folder: what counts as a backup, what a restore does at every point.

The rows are SQLite's here; PostgreSQL's part is tried on lab hosts, and its text format below.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The program is a package of the host; it is found as its own first lines find it.
for folder in ("roles/backup/files", "plugins/module_utils"):
    sys.path.insert(0, str(ROOT / folder))

import host_change  # noqa: E402
from scratch4school_backup import (  # noqa: E402
    cli,
    program,
    rows,
)
from scratch4school_backup import live as live_places  # noqa: E402
from scratch4school_backup import repository as repositories  # noqa: E402
from scratch4school_backup import restore as restoring  # noqa: E402
from scratch4school_backup.base import Problem, Settings  # noqa: E402
from scratch4school_backup.containers import Containers  # noqa: E402
from scratch4school_backup.live import Live  # noqa: E402

SCHEMA = """
CREATE TABLE users (id TEXT PRIMARY KEY);
CREATE TABLE projects (id INTEGER PRIMARY KEY, name TEXT, sb3_file_path TEXT, thumbnail_path TEXT, updated_at TEXT);
CREATE TABLE project_revisions (project_id INTEGER, version INTEGER, file_path TEXT, size INTEGER, sha256 TEXT);
CREATE TABLE assets (id INTEGER PRIMARY KEY, file_path TEXT, size INTEGER);
CREATE TABLE alembic_version (version_num TEXT);
INSERT INTO alembic_version VALUES ('0003');
INSERT INTO users VALUES ('anna');
"""
SLOTS = """#!/bin/sh
echo "$@" >> {told}
case "$1" in
  status) echo '{{"slot": "blue", "containers": {{"blue": {{"release": "r1"}}}}}}' ;;
esac
"""


@dataclass
class School:
    """A host's folders, and the program that works on them."""

    folder: Path

    @property
    def uploads(self) -> Path:
        return self.folder / "uploads"

    @property
    def program(self) -> Path:
        return self.folder / "program" / "backups"

    @property
    def settings(self) -> Settings:
        return Settings.read(self.folder / "program" / "settings.json")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the program, in this process: a new one for each would take half of the time."""
        said, errors = io.StringIO(), io.StringIO()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM)}
        mask = os.umask(0o077)
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
                status = cli.main([*arguments])
        finally:
            os.umask(mask)
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return subprocess.CompletedProcess(arguments, status, said.getvalue(), errors.getvalue())

    def did(self, *arguments: str) -> str:
        """Run a command that has to succeed; returns what it printed."""
        ended = self.run(*arguments)
        assert ended.returncode == 0, ended.stderr + ended.stdout
        return ended.stdout

    def refused(self, *arguments: str) -> str:
        """Run a command that has to fail; returns its one sentence."""
        ended = self.run(*arguments)
        assert ended.returncode == 1, ended.stdout
        return ended.stderr.strip()

    def backups(self) -> list[dict[str, str]]:
        return json.loads(self.did("list", "--json"))

    def snapshots(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in (self.folder / "repository" / "snapshots").iterdir()]

    def save(self, title: str, content: bytes = b"", thumbnail: str | None = None) -> str:
        """A pupil's save, as the application makes it; returns the file's relative path."""
        relative = f"projects/ab12/{title.encode().hex()}-{time.monotonic_ns()}.sb3"
        path = self.uploads / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        if content:
            path.write_bytes(content)
        else:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("project.json", json.dumps({"targets": [{"name": title}]}))
        with sqlite3.connect(self.folder / "database" / "main.db") as database:
            moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() + 1))
            database.execute(
                "INSERT INTO projects (name, sb3_file_path, thumbnail_path, updated_at) VALUES (?, ?, ?, ?)",
                [title, relative, thumbnail, moment],
            )
        database.close()
        return relative

    def titles(self) -> list[str]:
        """What the live rows hold."""
        database = sqlite3.connect(self.folder / "database" / "main.db")
        found = [row[0] for row in database.execute("SELECT name FROM projects ORDER BY id")]
        database.close()
        return found

    def files(self) -> dict[str, bytes]:
        """What is live in the uploads folder."""
        paths = [path for path in self.uploads.rglob("*") if path.is_file()]
        relative = {str(path.relative_to(self.uploads)): path.read_bytes() for path in paths}
        return {path: content for path, content in relative.items() if not path.startswith(".")}

    def hook(self, name: str, command: str) -> None:
        """What goes wrong at a command of restic."""
        (self.folder / "fake" / name).write_text(command)

    def unhook(self) -> None:
        for name in ("before", "after"):
            for hook in (self.folder / "fake").glob(f"{name}-*"):
                hook.unlink()

    def told_slots(self) -> list[str]:
        told = self.folder / "slots.told"
        return [line.split()[0] for line in told.read_text().splitlines()] if told.exists() else []

    def state(self) -> dict[str, Any]:
        return json.loads(self.did("status", "--json"))


@pytest.fixture
def school(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> School:
    """A small school with three projects and a repository that is empty yet."""
    shutil.copytree(ROOT / "roles" / "backup" / "files", tmp_path / "program")
    shutil.copy(ROOT / "plugins" / "module_utils" / "host_change.py", tmp_path / "program")
    for name in ("uploads/.incoming", "database", "secrets", "directory", "releases", "etc", "fake", "bin", "change"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "repository").mkdir()
    (tmp_path / "directory" / "cache").mkdir()
    (tmp_path / "uploads" / ".incoming" / "x.part").write_text("half")
    (tmp_path / "secrets" / "password").write_text("correct horse")
    (tmp_path / "etc" / "secret_key").write_text("key")
    (tmp_path / "releases" / "r1.json").write_text('{"id": "r1", "image": "app:1"}')
    docker = tmp_path / "bin" / "docker"
    docker.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S -B {ROOT / "tests" / "unit" / "fake_restic.py"} "$@"\n')
    slots = tmp_path / "bin" / "slots"
    slots.write_text(SLOTS.format(told=tmp_path / "slots.told"))
    for tool in (docker, slots):
        tool.chmod(0o755)
    database = sqlite3.connect(tmp_path / "database" / "main.db")
    database.executescript(SCHEMA)
    database.close()
    settings = {
        "school": "https://scratch.example",
        "host": "server",
        "engine": "sqlite",
        "image": "backup:1",
        "network": "scratch4school",
        "postgres_container": "scratch4school-postgres",
        "postgres_image": "",
        "database_roles": [],
        "sqlite_directory": str(tmp_path / "database"),
        "uploads": str(tmp_path / "uploads"),
        "configuration": [str(tmp_path / "etc"), str(tmp_path / "releases")],
        "releases": str(tmp_path / "releases"),
        "directory": str(tmp_path / "directory"),
        "secrets": str(tmp_path / "secrets"),
        "change_directory": str(tmp_path / "change"),
        "slots": str(slots),
        "repository": str(tmp_path / "repository"),
        "keep": {"daily": 7},
        "floor_mb": 0,
        "niceness": 0,
        "memory": "1g",
        "upload_kib": 0,
        "download_kib": 0,
        "read_percent": 10,
        "failure_command": f"cat > {tmp_path / 'mail'}",
    }
    (tmp_path / "program" / "settings.json").write_text(json.dumps(settings))
    monkeypatch.setattr(cli, "HERE", tmp_path / "program")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_FOLDER", str(tmp_path / "fake"))
    made = School(tmp_path)
    for title in ("Katze", "Grüße 🐱 $x [1] *", "Maus"):
        made.save(title)
    made.did("make")
    return made


def test_a_backup_is_one_after_it_was_read_back(school: School) -> None:
    """It says so in four steps, the repository lists it, and the host knows when it was."""
    said = school.did("take")
    assert re.search(r"\[4/4\] read back +database and 3 files are what was backed up", said), said
    (backup,) = school.backups()
    assert backup["kind"] == "manual"
    assert f"Backup {backup['id']} of server is proved" in said
    newest = school.state()["backup"]
    assert (newest["ok"], newest["id"], newest["files"]) == (True, backup["id"], 3)
    assert "proved" in school.snapshots()[0]["tags"]
    assert not (school.folder / "directory" / "work").exists()


def test_it_holds_rows_files_and_configuration_and_nothing_half_received(school: School) -> None:
    """The manifest names every file with size and hash, and counts the rows."""
    school.did("take")
    (snapshot,) = school.snapshots()
    names = set(snapshot["files"])
    assert {"manifest.json", "database.sqlite", "configuration.tar"} <= names
    assert {name.removeprefix("uploads/") for name in names if name.startswith("uploads/")} == set(school.files())
    manifest = json.loads((school.folder / "repository" / "blobs" / snapshot["files"]["manifest.json"]).read_text())
    assert set(manifest["files"]) == set(school.files())
    assert manifest["rows"]["projects"] == 3
    assert (manifest["schema"], manifest["release"]["id"]) == ("0003", "r1")


def test_what_was_read_back_before_is_not_read_again(school: School) -> None:
    """The second one reads back what is new, by a list of names with whatever letters are in them."""
    for number in range(20):
        school.save(f"old {number}")
    school.did("take")
    school.save("neu [x] $y *")
    said = school.did("take")
    assert "database and 1 files are what was backed up, 24 files are there" in said


@pytest.mark.parametrize(
    ("moment", "command", "sentence"),
    [
        (
            "before-backup",
            "rm \"$(find ../uploads/projects -name '*.sb3' | head -1)\"",
            "went while the backup was made",
        ),
        ("after-backup", "for b in blobs/*; do printf x >> $b; done", "went while the backup was made"),
        (
            "after-backup",
            "for b in blobs/*; do printf '\\377' | dd of=$b conv=notrunc bs=1 2>/dev/null; done",
            "is not",
        ),
    ],
)
def test_what_was_not_stored_whole_is_no_backup(school: School, moment: str, command: str, sentence: str) -> None:
    """A file that goes, and a content that changes in the repository, are found before anybody relies on it."""
    school.hook(moment, command)
    assert sentence in school.refused("take")
    assert school.backups() == []
    assert "backup" not in school.state()
    assert sentence in school.state()["backup_failed"]["why"]
    school.unhook()
    shutil.rmtree(school.folder / "repository" / "blobs")
    (school.folder / "repository" / "blobs").mkdir()
    school.run("take")
    assert len(school.snapshots()) == 1, "what was never proved is gone"


def test_a_dump_that_differs_in_the_repository_is_found(school: School) -> None:
    """The rows are read back from the repository, not from the copy that was made on the way."""
    school.hook("after-backup", "for b in blobs/*; do head -c 6 $b | grep -q SQLite && printf z >> $b; done; true")
    assert "The database in the repository is not the one that was dumped" in school.refused("take")


def test_a_dump_that_is_cut_off_before_it_is_stored_is_found(school: School) -> None:
    """Its hash was taken when it was whole."""
    school.hook("before-backup", "truncate --size=-1 ../directory/work/database.sqlite")
    assert "The database in the repository is not the one that was dumped" in school.refused("take")
    assert school.backups() == []


def test_a_file_that_the_school_lacks_is_said_aloud_once(school: School) -> None:
    """The backup counts, because it is all there is; the run fails, and the next one does not."""
    (school.uploads / school.save("Verlust")).unlink()
    assert "The backup is whole, but the school is not: projects/ab12/" in school.refused("take")
    assert len(school.backups()) == 1
    assert "1 files that rows name were not there, as before" in school.did("take")
    # Once it is back, it can be lost anew.
    with sqlite3.connect(school.folder / "database" / "main.db") as database:
        (path,) = database.execute("SELECT sb3_file_path FROM projects WHERE name = 'Verlust'").fetchone()
    database.close()
    (school.uploads / path).write_bytes(b"back")
    school.did("take")
    (school.uploads / path).unlink()
    assert "The backup is whole, but the school is not" in school.refused("take")


def test_a_torn_file_is_no_missing_one(school: School) -> None:
    """A row knows size and hash of what was saved; a file that is not that is told from one that is."""
    path = school.save("halb")
    with sqlite3.connect(school.folder / "database" / "main.db") as database:
        database.execute("INSERT INTO project_revisions VALUES (9, 1, ?, 5, 'abc')", [path])
    database.close()
    assert "is not what its row says" in school.refused("take")


@pytest.mark.parametrize("command", ["backup", "ls", "dump", "tag"])
def test_killed_at_each_phase_and_run_again(school: School, command: str) -> None:
    """What a killed run leaves is no backup, holds no lock for long, and is gone with the next one."""
    school.hook(f"before-{command}", "sleep 30")
    process = subprocess.Popen([sys.executable, "-B", school.program, "take"], start_new_session=True)
    told = school.folder / "fake" / "told"
    end = time.monotonic() + 20
    while f" {command} " not in (told.read_text() if told.exists() else ""):
        assert time.monotonic() < end, "it did not come to that phase"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert school.backups() == []
    school.unhook()
    school.did("take")
    assert len(school.backups()) == 1
    assert len(school.snapshots()) == 1


def test_told_to_stop_it_says_so_and_gives_the_lock_back(school: School) -> None:
    """systemd's way of stopping ends with a sentence, and the journal knows the end."""
    school.hook("before-backup", "sleep 30")
    process = subprocess.Popen([sys.executable, "-B", school.program, "take"], stderr=subprocess.PIPE, text=True)
    told = school.folder / "fake" / "told"
    while " backup " not in (told.read_text() if told.exists() else ""):
        time.sleep(0.05)
    process.terminate()
    assert "Stopped before the end" in process.communicate(timeout=40)[1]
    assert not (school.folder / "change" / "lock.json").exists()
    assert '"outcome": "failed"' in (school.folder / "change" / "journal.jsonl").read_text()


def test_timers_wait_for_each_other(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that lasts into the hour of the drill fails neither; who has no patience is told at once."""
    held = (school.folder / "directory" / ".mutex").open("w")
    fcntl.flock(held, fcntl.LOCK_EX)
    assert "Other work on backups is under way" in school.refused("take")
    monkeypatch.setattr(program, "RETRY_SECONDS", 0.1)
    threading.Timer(0.3, held.close).start()
    options = argparse.Namespace(run=None, by="", reason="", gone="", patience=10)
    with program.locked(school.settings, options, "check") as (_, run):
        assert run


def test_one_at_a_time_with_everything_that_changes_the_host(school: School) -> None:
    """A deploy that holds the lock is not met by a backup, and says who it is."""
    host_change.begin(school.folder / "change", run="r", verb="deploy", owner=host_change.whoami("anna@desk"))
    assert "deploy by anna@desk" in school.refused("take")
    school.did("take", "--run", "r")
    host_change.end(school.folder / "change", run="r", outcome="done")
    assert "has lost the lock" in school.refused("take", "--run", "r")


def test_another_password_is_refused_with_where_to_put_the_right_one(school: School) -> None:
    """Not with restic's own words."""
    (school.folder / "secrets" / "password").write_text("wrong")
    for command in ("make", "take", "list"):
        assert "backup_password" in school.refused(command)


def test_a_repository_that_does_not_answer_is_taken_for_away(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    """Restic would try for a quarter of an hour."""
    monkeypatch.setattr(repositories, "PATIENCE_SECONDS", 0.5)
    school.hook("before-cat", "sleep 4")
    for command in ("make", "take"):
        assert "is taken for away" in school.refused(command)
    told = (school.folder / "fake" / "told").read_text()
    assert len(re.findall(r"^rm --force scratch4school-backup-\d+-\d+$", told, flags=re.MULTILINE)) == 2


def test_who_tries_again_says_so(school: School) -> None:
    """A repository that takes nothing any more is tried for a quarter of an hour, in which somebody may wait."""
    school.hook("complaint-backup", "Save(<data/aa>) returned error, retrying after 1s: no space")
    assert "retrying after 1s: no space" in school.did("take")


def test_without_room_nothing_is_begun(school: School) -> None:
    """The need is estimated before the first byte, and the floor is what must stay free."""
    settings = json.loads((school.folder / "program" / "settings.json").read_text())
    settings["floor_mb"] = 10**9
    (school.folder / "program" / "settings.json").write_text(json.dumps(settings))
    assert "have to stay free" in " ".join(school.refused("take").split())
    assert school.snapshots() == []


def test_damage_in_the_repository_is_found_by_the_check(school: School) -> None:
    """And the host remembers that it was."""
    school.did("take")
    school.did("check")
    for blob in (school.folder / "repository" / "blobs").iterdir():
        blob.write_bytes(b"x" + blob.read_bytes()[1:])
    assert "damaged" in school.refused("check")
    assert "damaged" in school.state()["check_failed"]["why"]


def test_who_is_to_be_told_of_a_failure_is(school: School) -> None:
    """The sysadmin's own command gets the unit and the reason on its input."""
    school.did("failed", "scratch4school-backup.service")
    mail = (school.folder / "mail").read_text()
    assert "scratch4school-backup.service failed on server" in mail
    assert re.search(r"\) at 20\d\d-\d\d-\d\d \d\d:\d\d UTC:$", mail, re.MULTILINE), mail


def test_a_backup_is_listed_with_its_time_in_utc(school: School, run: str) -> None:
    """By the list, by the refusal of an id that is none, by a restore and by a drill; as JSON the time stays ISO's."""
    school.did("take", "--run", run)
    (backup,) = school.backups()
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", backup["time"])
    said = f"{backup['time'][:10]} {backup['time'][11:16]} UTC"
    assert school.did("list").rstrip() == f"{backup['id']}  {said}  manual    server"
    assert f"There are: {backup['id']} ({said})." in school.refused("look", "abcd")
    begun = r"20\d\d-\d\d-\d\d \d\d:\d\d UTC"
    assert re.search(rf"backup {backup['id']} of {begun}, beside", school.did("fetch", backup["id"], "--run", run))
    assert re.search(rf"backup {backup['id']} of {begun} into", school.did("drill", "--run", run))


def test_look_says_what_a_restore_would_lose(school: School) -> None:
    """By number and by newest title, and that there is nothing to lose on an empty host."""
    school.did("take")
    time.sleep(1.1)
    school.save("seitdem")
    seen = json.loads(school.did("look", "latest"))
    assert seen["losses"][0].endswith("the newest: “seitdem”") or "“seitdem”" in seen["losses"][0]
    assert any("1 more rows in projects" in loss for loss in seen["losses"])
    assert any(loss.startswith("1 files that are not in it") for loss in seen["losses"])
    assert not seen["empty"]
    assert (seen["release"], seen["schema"], seen["school"]) == ("r1", "0003", "https://scratch.example")
    assert "No backup begins with “abcd”" in school.refused("look", "abcd")


@dataclass
class Moments:
    """The school at the backup's moment, and later."""

    then: tuple[list[str], dict[str, bytes]]
    later: tuple[list[str], dict[str, bytes]]
    backup: str


@pytest.fixture
def moments(school: School) -> Moments:
    """A backup, and a school that went on."""
    school.did("take")
    then = (school.titles(), school.files())
    school.save("seitdem")
    (school.uploads / sorted(then[1])[0]).unlink()
    (backup,) = school.backups()
    return Moments(then, (school.titles(), school.files()), backup["id"])


@pytest.fixture
def run(school: School) -> Iterator[str]:
    """A change that holds the host's lock, as the playbook does around a restore."""
    host_change.begin(school.folder / "change", run="r", verb="restore", owner=host_change.whoami())
    yield "r"
    host_change.end(school.folder / "change", run="r", outcome="done")


def now_is(school: School) -> tuple[list[str], dict[str, bytes]]:
    return school.titles(), school.files()


def test_a_restore_brings_back_rows_and_files_as_a_unit(school: School, moments: Moments, run: str) -> None:
    """The school goes on while it is loaded; then it is the backup's, and what was live is kept until it is settled."""
    said = school.did("fetch", moments.backup, "--run", run)
    assert "[3/3] load" in said
    assert now_is(school) == moments.later
    assert school.told_slots() == ["status"]
    school.did("swap", "--run", run)
    assert school.told_slots() == ["status", "close"]
    assert now_is(school) == moments.then
    assert (school.uploads / ".restore" / "former").is_dir()
    assert (school.uploads / ".incoming" / "x.part").is_file()
    school.did("settle", "--run", run)
    assert not (school.uploads / ".restore").exists()
    assert now_is(school) == moments.then
    assert school.state()["restoring"] == {}


def test_a_restore_can_be_undone_until_it_is_settled(school: School, moments: Moments, run: str) -> None:
    """Before the swap and after it; then pupils are let in again."""
    for commands in (["fetch"], ["fetch", "swap"]):
        for command in commands:
            school.did(command, *([moments.backup] if command == "fetch" else []), "--run", run)
        school.did("undo", "--run", run)
        assert now_is(school) == moments.later
        assert school.told_slots()[-1] == "open"
        assert school.state()["restoring"] == {}


class CutShort(Exception):
    """The power went."""


def cut_short_after(renames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let so many renames happen, and no more."""
    left = renames
    rename = Path.rename

    def counted(self: Path, target: Path) -> Path:
        nonlocal left
        if left == 0:
            raise CutShort
        left -= 1
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", counted)


@pytest.mark.parametrize("ending", ["run again", "undone"])
@pytest.mark.parametrize("renames", range(6))
def test_a_swap_that_is_cut_short_at_any_rename(
    school: School, moments: Moments, run: str, renames: int, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run again it is the backup's school; taken back it is the one from before. There is nothing in between."""
    (school.uploads / "thumbnails").mkdir()
    (school.uploads / "thumbnails" / "later.png").write_bytes(b"later")
    school.did("fetch", moments.backup, "--run", run)
    later = now_is(school)
    with monkeypatch.context() as patch:
        cut_short_after(renames, patch)
        try:
            restoring.swap(school.settings, run)
            swapped = True
        except CutShort:
            swapped = False
    assert swapped == (renames >= 5)
    if ending == "run again":
        school.did("fetch", moments.backup, "--run", run)
        school.did("swap", "--run", run)
        assert now_is(school) == moments.then
    else:
        school.did("undo", "--run", run)
        assert now_is(school) == later


@pytest.mark.parametrize("renames", range(5))
def test_an_undo_that_is_cut_short_is_run_again(
    school: School, moments: Moments, run: str, renames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way back has no point of no return either."""
    school.did("fetch", moments.backup, "--run", run)
    school.did("swap", "--run", run)
    with monkeypatch.context() as patch:
        cut_short_after(renames, patch)
        try:
            restoring.undo(school.settings, run, stay_closed=True)
        except CutShort:
            assert renames < 4
    if school.state()["restoring"]:
        school.did("undo", "--run", run)
    assert now_is(school) == moments.later


@pytest.mark.parametrize("ending", ["settle", "undo", "fetch"])
@pytest.mark.parametrize("decided", ["settle", "undo"])
def test_what_was_decided_is_not_moved_any_more(
    school: School, moments: Moments, run: str, decided: str, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut short while the other sides are removed: whatever is run then, what is live stays whole."""
    school.did("fetch", moments.backup, "--run", run)
    school.did("swap", "--run", run)

    def half(self: Live) -> None:
        for folder in self.folders:
            shutil.rmtree(folder.former, ignore_errors=True)
        raise CutShort

    decide = {
        "settle": lambda: restoring.settle(school.settings),
        "undo": lambda: restoring.undo(school.settings, run, stay_closed=True),
    }
    with monkeypatch.context() as patch:
        patch.setattr(Live, "settle", half)
        with pytest.raises(CutShort):
            decide[decided]()
    school.did(ending, *([moments.backup] if ending == "fetch" else []), "--run", run)
    assert now_is(school) == (moments.then if decided == "settle" else moments.later)


def test_a_backup_that_is_damaged_is_not_let_near_the_live_school(school: School, moments: Moments, run: str) -> None:
    """It is held against its manifest beside what is live."""
    (snapshot,) = school.snapshots()
    name = next(blob for path, blob in snapshot["files"].items() if path.startswith("uploads/"))
    blob = school.folder / "repository" / "blobs" / name
    blob.write_bytes(b"x" + blob.read_bytes()[1:])
    assert "is not what was backed up" in school.refused("fetch", moments.backup, "--run", run)
    assert now_is(school) == moments.later
    assert "No backup is loaded" in school.refused("swap", "--run", run)


def test_another_restore_is_not_begun_over_one_that_stopped_in_the_middle(
    school: School, moments: Moments, run: str
) -> None:
    """What was live then is all that there is to go back to."""
    school.did("fetch", moments.backup, "--run", run)
    school.did("swap", "--run", run)
    school.did("take", "--run", run)
    other = school.backups()[-1]["id"]
    assert "was cut short" in school.refused("fetch", other, "--run", run)


def test_a_drill_tells_how_long_a_restore_takes_and_leaves_nothing(school: School, moments: Moments) -> None:
    """It opens a project as Scratch would, and touches nothing that is live."""
    said = school.did("drill")
    assert re.search(rf"Backup {moments.backup} can be restored: [0-9.]+ s\.", said), said
    assert "1 sprites and stages" in said
    assert now_is(school) == moments.later
    assert not (school.folder / "directory" / "drill").exists()
    assert school.state()["drill"]["ok"]


def test_a_drill_that_fails_is_remembered(school: School, moments: Moments) -> None:
    """With the reason, for verify and status."""
    (snapshot,) = school.snapshots()
    (school.folder / "repository" / "blobs" / snapshot["files"]["database.sqlite"]).write_bytes(b"no")
    assert "damaged" in school.refused("drill")
    drill = school.state()["drill"]
    assert (drill["ok"], "damaged" in drill["why"]) == (False, True)
    assert not (school.folder / "directory" / "drill").exists()


def test_no_backup_is_removed_while_a_restore_is_half_done(school: School, moments: Moments, run: str) -> None:
    """It may be taken up again, and wants its backup then."""
    school.did("fetch", moments.backup, "--run", run)
    assert f"A restore of {moments.backup} was cut short" in school.refused("prune", "--run", run)


def test_a_drill_of_the_other_engines_backup_is_refused_in_a_sentence(school: School, moments: Moments) -> None:
    """After a move there are such, until the next backup."""
    settings = json.loads((school.folder / "program" / "settings.json").read_text())
    (school.folder / "program" / "settings.json").write_text(json.dumps({**settings, "engine": "postgres"}))
    said = school.refused("drill")
    assert f"Backup {moments.backup} is one of sqlite, and this host runs on postgres. Run backup.yml" in said


def test_a_backup_of_another_version_is_refused_in_a_sentence(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody guesses what a later manifest means."""
    school.did("take")
    monkeypatch.setattr(repositories, "FORMAT", 2)
    repository = repositories.Repository(school.settings, Containers(school.settings, locked=False))
    with pytest.raises(Problem, match="is in format 1, and this version reads 2; use the checkout that made it"):
        repository.manifest(repository.find("latest"))


def test_the_sweepers_note_goes_by_the_name_that_the_application_gives_it() -> None:
    """A restore removes it; under another name the next sweep would take the restored files for long unnamed."""
    sweeper = (ROOT / "docker" / "app" / "src" / "scratch4school" / "sweep.py").read_text()
    assert f'NOTE = "{live_places.SWEEP_NOTE}"' in sweeper


def test_postgresqls_text_is_read_as_it_escapes() -> None:
    """Tabs, newlines and backslashes in a title, NULL, and a row that is nobody's file."""
    dump = (
        b"SET x;\nCOPY public.projects (id, name, sb3_file_path, thumbnail_path) FROM stdin;\n"
        b"1\ta\\tb\\nc\\\\\tprojects/a\\\\b.sb3\t\\N\n"
        b"2\tTitel\t/app/app/../uploads/projects/2.sb3\tthumbnails/2.png\n\\.\n\n"
        b"COPY public.project_revisions (project_id, version, file_path, size, sha256) FROM stdin;\n"
        b"2\t1\tprojects/2.sb3\t17\tabc\n\\.\n"
        b"COPY public.alembic_version (version_num) FROM stdin;\n0003\n\\.\n"
    )
    contents = rows.read_dump(dump.splitlines(keepends=True))
    assert contents.rows == {"projects": 2, "project_revisions": 1, "alembic_version": 1}
    assert contents.named == {
        "projects/a\\b.sb3": (None, None),
        "projects/2.sb3": (17, "abc"),
        "thumbnails/2.png": (None, None),
    }
    assert contents.schema == "0003"


@pytest.mark.parametrize(
    ("stored", "relative"),
    [
        ("projects/1.sb3", "projects/1.sb3"),
        ("/app/app/../uploads/projects/1.sb3", "projects/1.sb3"),
        ("/etc/passwd", None),
        ("projects/../../x", None),
        (".incoming/x", None),
        ("", None),
        (None, None),
    ],
)
def test_a_rows_path_means_a_file_below_the_uploads_or_nothing(stored: str | None, relative: str | None) -> None:
    """As the application reads it (FileStore.relative)."""
    assert rows.relative(stored) == relative


def test_containers_get_no_right_and_no_network_unless_they_need_one(school: School) -> None:
    """The command line is the whole of what a container may do."""
    command = Containers(school.settings, locked=True).command("restic")
    for flag in (
        "--read-only",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges:true",
        "--network=none",
        "--user=10005:10000",
    ):
        assert flag in command


def test_no_secret_is_in_an_argument(school: School) -> None:
    """Whatever runs, its password comes as a file."""
    school.did("take")
    assert "correct horse" not in (school.folder / "fake" / "told").read_text()


def test_live_places_are_those_of_the_engine(school: School) -> None:
    """With SQLite the rows are a folder like the uploads; with PostgreSQL they are not."""
    assert [folder.live.name for folder in Live(school.settings).folders] == ["uploads", "database"]
    assert live_places.ASIDE.startswith("."), "what begins with a dot is left alone by backups and sweeps"


def test_settings_of_another_version_are_refused(school: School) -> None:
    """Instead of a traceback in the journal of a timer."""
    (school.folder / "program" / "settings.json").write_text('{"school": "x"}')
    assert "run deploy.yml again" in school.refused("take")


def test_complaints(filters: dict[str, Callable[..., Any]]) -> None:
    """When verify fails because of backups, and with which sentence."""
    complain = filters["backup_complaint"]
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    old = "2026-01-01T00:00:00Z"
    good = {"at": now, "id": "a1b2c3d4", "kind": "nightly", "seconds": 3.0}
    assert complain({"made": {"at": now}}, 30, "server") == ""
    assert complain({"backup": good, "drill": {"at": now, "ok": True}}, 30, "server") == ""
    assert "has never been made" in complain({"made": {"at": old}}, 30, "server")
    late = {"backup": {**good, "at": old}, "backup_failed": {"at": now, "why": "The disk is full."}}
    assert "hours old" in complain(late, 30, "server")
    assert "The last try failed: The disk is full." in complain(late, 30, "server")
    assert "rehearsal" in complain({"backup": good, "drill": {"at": now, "ok": False, "why": "Torn."}}, 30, "server")
    damaged = {"backup": good, "check": {"at": old}, "check_failed": {"at": now, "why": "Damaged."}}
    assert "Damaged." in complain(damaged, 30, "server")
    kept = {"backup": good, "prune": {"at": old}, "prune_failed": {"at": now, "why": "No room."}}
    assert "The last removal of old backups from the repository of server failed: No room." in complain(
        kept, 30, "server"
    )
    assert "run deploy.yml" in complain({}, 30, "server")


def test_lines_of_the_status_screen(filters: dict[str, Callable[..., Any]]) -> None:
    """Newest backup, last rehearsal, and a restore that stopped in the middle."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    known = {
        "backup": {"at": now, "id": "a1b2c3d4", "kind": "nightly", "seconds": 61.0, "lacking": 2},
        "drill": {"at": now, "ok": True, "backup": "a1b2c3d4", "seconds": 12.0},
        "restoring": {"snapshot": "a1b2c3d4", "step": "in"},
    }
    lines = filters["backup_lines"](known)
    assert lines[0].startswith("backup       a1b2c3d4 (nightly) 0.0 hours ago, took 61 s, 2 files lacking")
    assert lines[1].endswith("restored a1b2c3d4 in 12 s")
    assert lines[2] == "restore      of a1b2c3d4 was cut short at “in”"
    assert filters["backup_lines"]({})[:2] == ["backup       none yet", "drill        none yet"]


def test_problem_is_a_sentence(school: School) -> None:
    """The program raises one kind of error for the sysadmin."""
    with pytest.raises(Problem, match="No backup is loaded"):
        restoring.swap(school.settings, "r")


# ---- the command that tells the sysadmin


def told_by(school: School, command: str) -> None:
    """Have this command told by the program's settings."""
    path = school.folder / "program" / "settings.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "failure_command": command}))


def test_a_failure_command_is_proved_once(school: School) -> None:
    """It gets a test message with the host and the school, and is not run again while it is the same."""
    told = school.folder / "told"
    told_by(school, f"cat >> {told}; echo $SCRATCH4SCHOOL_UNIT $SCRATCH4SCHOOL_HOST >> {told}")
    assert school.did("prove-failure-command") == "proved\n"
    said = told.read_text()
    assert re.match(
        r"This is a test from server \(https://scratch\.example\) at 20\d\d-\d\d-\d\d \d\d:\d\d UTC: nothing failed\.",
        said,
    )
    assert said.endswith("scratch4school-test.service server\n")
    assert school.did("prove-failure-command") == "unchanged\n"
    assert told.read_text() == said


def test_a_failure_command_is_proved_again_after_a_change(school: School) -> None:
    """A new one was never run, and the former one, set again, was changed too."""
    first, second = (f"cat >> {school.folder / name}" for name in ("first", "second"))
    for command in (first, second, first):
        told_by(school, command)
        assert school.did("prove-failure-command") == "proved\n"
        assert school.did("prove-failure-command") == "unchanged\n"
    assert (school.folder / "first").read_text().count("This is a test") == 2
    assert (school.folder / "second").read_text().count("This is a test") == 1


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("echo no such; echo user root >&2; exit 3", "backup_failure_command ended with 3: user root"),
        ("echo no route to mail; exit 1", "backup_failure_command ended with 1: no route to mail"),
        ("exit 5", "backup_failure_command ended with 5."),
        ("no-such-program-anywhere", "no-such-program-anywhere: not found"),
    ],
)
def test_a_failure_command_that_fails_is_a_problem_with_its_own_words(school: School, command: str, said: str) -> None:
    """The deploy fails with it, and the next one tries it again, because it was never proved."""
    told_by(school, command)
    assert said in school.refused("prove-failure-command")
    assert said in school.refused("prove-failure-command")
    assert "failure_command" not in school.state()


def test_a_failure_command_that_hangs_is_a_problem(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deploy must end."""
    told_by(school, "exec sleep 30")
    monkeypatch.setattr(cli, "TELLING_SECONDS", 0.2)
    assert "backup_failure_command did not end within 0.2 seconds." in school.refused("prove-failure-command")
    assert "failure_command" not in school.state()


def test_no_failure_command_is_not_run(school: School) -> None:
    """A school that wants none is told nothing; one that had one, and sets it again, has it proved again."""
    told_by(school, "")
    assert school.did("prove-failure-command") == "unchanged\n"
    assert school.did("prove-failure-command") == "unchanged\n"
    command = f"cat >> {school.folder / 'told'}"
    for settings, said in ((command, "proved\n"), ("", "unchanged\n"), (command, "proved\n")):
        told_by(school, settings)
        assert school.did("prove-failure-command") == said
    assert (school.folder / "told").read_text().count("This is a test") == 2


def test_the_words_of_a_failure_command_are_no_secret_of_the_state(school: School) -> None:
    """It may hold a token; the state keeps a digest of it."""
    told_by(school, "cat > /dev/null # a-token-of-a-service")
    school.did("prove-failure-command")
    assert "a-token" not in json.dumps(school.state())
    assert re.fullmatch("[0-9a-f]{64}", school.state()["failure_command"]["command"])


def test_a_failure_command_that_fails_with_the_timers_work_is_said(school: School) -> None:
    """The journal of the timer holds the reason."""
    told_by(school, "echo no route to mail >&2; exit 1")
    assert "backup_failure_command ended with 1: no route to mail" in school.refused(
        "failed", "scratch4school-backup.service"
    )
