"""Backups, with a restic that is a folder: what counts as a backup, and what a restore does at every point.

The database is SQLite's here. Scenarios cover PostgreSQL's part on lab hosts, and its text format is tested below.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import PATIENCE, run_command, script, slots_settings, write_settings

from scratch4school_host import locking
from scratch4school_host.backup import cutover, failure_command, job, reliability, repository, restore
from scratch4school_host.backup.cutover import LiveData
from scratch4school_host.containers import Containers
from scratch4school_host.databases import dump_reader
from scratch4school_host.errors import LockHeldError, OperatorError
from scratch4school_host.settings import BackupSettings, SlotsSettings
from scratch4school_host.slots.state import Slots

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "host" / "src"
# The command line as a process of its own, for a test that kills it.
PROCESS = (sys.executable, "-B", "-c", "import sys; from scratch4school_host.cli import main; sys.exit(main())")

SCHEMA = """
CREATE TABLE users (id TEXT PRIMARY KEY);
CREATE TABLE projects (id INTEGER PRIMARY KEY, name TEXT, sb3_file_path TEXT, thumbnail_path TEXT, updated_at TEXT);
CREATE TABLE project_revisions (project_id INTEGER, version INTEGER, file_path TEXT, size INTEGER, sha256 TEXT);
CREATE TABLE assets (id INTEGER PRIMARY KEY, file_path TEXT, size INTEGER);
CREATE TABLE alembic_version (version_num TEXT);
INSERT INTO alembic_version VALUES ('0003');
INSERT INTO users VALUES ('anna');
"""


@dataclass
class School:
    """A host's folders, and the commands that work on them."""

    folder: Path

    @property
    def uploads(self) -> Path:
        return self.folder / "uploads"

    @property
    def settings(self) -> BackupSettings:
        return BackupSettings.read(self.folder / "settings")

    @property
    def slots(self) -> Slots:
        return Slots(SlotsSettings.read(self.folder / "settings"))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        return run_command(self.folder / "settings", *arguments)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Run a command as a process of its own."""
        command = [*PROCESS, "--settings", str(self.folder / "settings"), *arguments]
        return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(SOURCES)}, text=True, **options)

    def start_and_hold(self, command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a backup in a process of its own, and wait until it stops before a command of restic.

        It goes on when the test ends, or after PATIENCE.
        """
        held, go = self.folder / "fake" / "held", self.folder / "fake" / "go"
        self.hook(
            f"before-{command}",
            f"touch {held}; n=0; until [ -e {go} ] || [ $n -ge {PATIENCE} ]; do n=$((n+1)); sleep 1; done",
        )
        process = self.start("backup", "create", **options)
        end = time.monotonic() + PATIENCE
        while not held.exists():
            assert process.poll() is None, "the backup ended before it came to the command"
            assert time.monotonic() < end, "the backup did not come to the command"
            time.sleep(0.05)
        return process

    def did(self, *arguments: str) -> str:
        """Run a command that has to succeed; returns what it printed."""
        ended = self.run(*arguments)
        assert ended.returncode == 0, ended.stderr + ended.stdout
        return ended.stdout

    def refused(self, *arguments: str, status: int = 1) -> str:
        """Run a command that has to fail; returns its one message."""
        ended = self.run(*arguments)
        assert ended.returncode == status, ended.stdout
        return ended.stderr.strip()

    def backups(self) -> list[dict[str, str]]:
        return json.loads(self.did("backup", "list", "--json"))

    def snapshots(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in (self.folder / "repository" / "snapshots").iterdir()]

    def save(self, title: str, content: bytes = b"", thumbnail: str | None = None, age: float = -1) -> str:
        """A pupil's save, as the application makes it; returns the file's relative path.

        :param age: seconds from the save until now. It is a second in the future by default, because a backup has the
            second in which it was begun.
        """
        relative = f"projects/ab12/{title.encode().hex()}-{time.monotonic_ns()}.sb3"
        path = self.uploads / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        if content:
            path.write_bytes(content)
        else:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("project.json", json.dumps({"targets": [{"name": title}]}))
        with sqlite3.connect(self.folder / "database" / "main.db") as database:
            moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() - age))
            database.execute(
                "INSERT INTO projects (name, sb3_file_path, thumbnail_path, updated_at) VALUES (?, ?, ?, ?)",
                [title, relative, thumbnail, moment],
            )
        database.close()
        return relative

    def titles(self) -> list[str]:
        """The titles in the live database."""
        database = sqlite3.connect(self.folder / "database" / "main.db")
        found = [row[0] for row in database.execute("SELECT name FROM projects ORDER BY id")]
        database.close()
        return found

    def files(self) -> dict[str, bytes]:
        """The live files in the uploads folder."""
        paths = [path for path in self.uploads.rglob("*") if path.is_file()]
        relative = {str(path.relative_to(self.uploads)): path.read_bytes() for path in paths}
        return {path: content for path, content in relative.items() if not path.startswith(".")}

    def hook(self, name: str, command: str) -> None:
        """Have something go wrong at a command of restic."""
        (self.folder / "fake" / name).write_text(command)

    def unhook(self) -> None:
        for name in ("before", "after"):
            for hook in (self.folder / "fake").glob(f"{name}-*"):
                hook.unlink()

    @property
    def maintenance(self) -> str:
        """Why maintenance mode is on; '' when it is not."""
        return locking.maintenance_reason(self.folder / "change")

    def state(self) -> dict[str, Any]:
        return json.loads(self.did("backup", "status", "--json"))


@pytest.fixture
def school(tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[School]:
    """A small school with three projects, and a repository that is empty yet."""
    for name in (
        "uploads/.incoming",
        "database",
        "secrets",
        "directory",
        "releases",
        "etc",
        "fake",
        "change",
        "sockets",
    ):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "repository").mkdir()
    (tmp_path / "directory" / "cache").mkdir()
    (tmp_path / "uploads" / ".incoming" / "x.part").write_text("half")
    (tmp_path / "secrets" / "password").write_text("correct horse")
    (tmp_path / "etc" / "secret_key").write_text("key")
    (tmp_path / "releases" / "r1.json").write_text('{"id": "r1", "image": "app:1"}')
    (tmp_path / "sockets" / "current").symlink_to("blue")
    script(tools / "docker", f'#!/bin/sh\nexec {sys.executable} -I -S -B {ROOT / "host/tests/fake_restic.py"} "$@"\n')
    script(tools / "systemctl", "#!/bin/sh\n")
    database = sqlite3.connect(tmp_path / "database" / "main.db")
    database.executescript(SCHEMA)
    database.close()
    write_settings(tmp_path / "settings", "slots", slots_settings(tmp_path, engine="sqlite", dependencies=[]))
    write_settings(
        tmp_path / "settings",
        "backup",
        {
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
            "directory": str(tmp_path / "directory"),
            "secrets": str(tmp_path / "secrets"),
            "change_directory": str(tmp_path / "change"),
            "repository": str(tmp_path / "repository"),
            "keep": {"daily": 7},
            "min_free_mb": 0,
            "niceness": 0,
            "memory": "1g",
            "upload_kib": 0,
            "download_kib": 0,
            "read_percent": 10,
            "failure_command": f"cat > {tmp_path / 'mail'}",
            "timers": ["scratch4school-backup.timer"],
        },
    )
    monkeypatch.setenv("FAKE_FOLDER", str(tmp_path / "fake"))
    made = School(tmp_path)
    for title in ("Katze", "Grüße 🐱 $x [1] *", "Maus"):
        made.save(title, age=3600)
    made.did("backup", "init")
    yield made
    (tmp_path / "fake" / "go").touch()


def test_backup_counts_after_it_was_read_back(school: School) -> None:
    """It prints four phases, the repository lists it, and the host knows when it was made."""
    said = school.did("backup", "create")
    assert re.search(r"\[4/4\] read back +database and 3 files are equal to the backup", said), said
    (backup,) = school.backups()
    assert backup["kind"] == "manual"
    assert f"Backup {backup['id']} of server is verified" in said
    newest = school.state()["backup"]
    assert (newest["ok"], newest["id"], newest["files"]) == (True, backup["id"], 3)
    assert "verified" in school.snapshots()[0]["tags"]
    assert not (school.folder / "directory" / "work").exists()


def test_backup_contains_database_files_and_configuration(school: School) -> None:
    """And no upload in progress; the manifest names every file with size and hash, and counts the rows."""
    school.did("backup", "create")
    (snapshot,) = school.snapshots()
    names = set(snapshot["files"])
    assert {"manifest.json", "database.sqlite", "configuration.tar"} <= names
    assert {name.removeprefix("uploads/") for name in names if name.startswith("uploads/")} == set(school.files())
    manifest = json.loads((school.folder / "repository" / "blobs" / snapshot["files"]["manifest.json"]).read_text())
    assert set(manifest["files"]) == set(school.files())
    assert manifest["rows"]["projects"] == 3
    assert (manifest["schema"], manifest["release"]["id"]) == ("0003", "r1")


def test_file_that_was_read_back_before_is_not_read_back_again(school: School) -> None:
    """The second backup reads back only new files, whatever letters are in their names."""
    for number in range(20):
        school.save(f"old {number}")
    school.did("backup", "create")
    school.save("neu [x] $y *")
    said = school.did("backup", "create")
    assert "database and 1 files are equal to the backup, 24 files are present" in said


@pytest.mark.parametrize(
    ("moment", "command", "message"),
    [
        (
            "before-backup",
            "rm \"$(find ../uploads/projects -name '*.sb3' | head -1)\"",
            "disappeared or changed during the backup",
        ),
        ("after-backup", "for b in blobs/*; do printf x >> $b; done", "disappeared or changed during the backup"),
        (
            "after-backup",
            "for b in blobs/*; do printf '\\377' | dd of=$b conv=notrunc bs=1 2>/dev/null; done",
            "is not",
        ),
    ],
)
def test_backup_that_was_not_stored_whole_does_not_count(
    school: School, moment: str, command: str, message: str
) -> None:
    """A file that is removed meanwhile, and a content that changes in the repository, are found at once."""
    school.hook(moment, command)
    assert message in school.refused("backup", "create")
    assert school.backups() == []
    assert "backup" not in school.state()
    assert message in school.state()["backup_failed"]["why"]
    school.unhook()
    shutil.rmtree(school.folder / "repository" / "blobs")
    (school.folder / "repository" / "blobs").mkdir()
    school.run("backup", "create")
    assert len(school.snapshots()) == 1, "what was never verified is removed"


def test_dump_that_differs_in_the_repository_is_found(school: School) -> None:
    """The database is read back from the repository, not from the copy that was made on the way."""
    school.hook("after-backup", "for b in blobs/*; do head -c 6 $b | grep -q SQLite && printf z >> $b; done; true")
    assert "The database in the repository is not the one that was dumped" in school.refused("backup", "create")


def test_dump_that_is_cut_off_before_it_is_stored_is_found(school: School) -> None:
    """Its hash was taken when it was whole."""
    school.hook("before-backup", "truncate --size=-1 ../directory/work/database.sqlite")
    assert "The database in the repository is not the one that was dumped" in school.refused("backup", "create")
    assert school.backups() == []


def test_file_that_the_school_lacks_fails_one_backup(school: School) -> None:
    """The backup counts, because it is all there is; the next ones only count the file."""
    (school.uploads / school.save("Verlust")).unlink()
    assert "The backup is verified, but files of the school are lost or damaged: projects/ab12/" in school.refused(
        "backup", "create"
    )
    assert len(school.backups()) == 1
    assert "1 files that rows name were not there, as before" in school.did("backup", "create")
    # A file that was put back can be lost again.
    with sqlite3.connect(school.folder / "database" / "main.db") as database:
        (path,) = database.execute("SELECT sb3_file_path FROM projects WHERE name = 'Verlust'").fetchone()
    database.close()
    (school.uploads / path).write_bytes(b"back")
    school.did("backup", "create")
    (school.uploads / path).unlink()
    assert "The backup is verified, but files of the school are lost or damaged" in school.refused("backup", "create")


def test_torn_file_is_reported_as_torn(school: School) -> None:
    """A row knows size and hash of what was saved."""
    path = school.save("halb")
    with sqlite3.connect(school.folder / "database" / "main.db") as database:
        database.execute("INSERT INTO project_revisions VALUES (9, 1, ?, 5, 'abc')", [path])
    database.close()
    assert "differs from the size or hash in the database" in school.refused("backup", "create")


@pytest.mark.parametrize("command", ["backup", "ls", "dump", "tag"])
def test_backup_that_was_killed_does_not_count(school: School, command: str) -> None:
    """It blocks no later one for long, and the next one removes what it left."""
    process = school.start_and_hold(command, start_new_session=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert school.backups() == []
    school.unhook()
    school.did("backup", "create")
    assert len(school.backups()) == 1
    assert len(school.snapshots()) == 1


def test_stopped_backup_prints_a_message_and_gives_the_lock_back(school: School) -> None:
    """As systemd stops it; the audit log has its end."""
    process = school.start_and_hold("backup", stderr=subprocess.PIPE)
    process.terminate()
    assert "Stopped before the end" in process.communicate(timeout=PATIENCE)[1]
    assert not (school.folder / "change" / "lock.json").exists()
    assert '"outcome": "failed"' in (school.folder / "change" / "audit.jsonl").read_text()


def test_timers_wait_for_each_other(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that lasts into the hour of the drill fails neither; a caller without patience is refused at once."""
    held = (school.folder / "directory" / ".mutex").open("w")
    fcntl.flock(held, fcntl.LOCK_EX)
    assert "Other work on backups is under way" in school.refused("backup", "create")
    # The other work ends when this one waits for it.
    monkeypatch.setattr(locking.time, "sleep", lambda _: held.close())
    with job.changing(school.settings, job.Caller(patience=PATIENCE), "check") as (_, run):
        assert run
    assert held.closed


def test_backup_is_refused_during_another_change(school: School) -> None:
    """With the name of that change; within it, it is a part of it."""
    locking.begin(school.folder / "change", run="r", verb="deploy", owner=locking.owner("anna@desk"))
    assert "deploy by anna@desk" in school.refused("backup", "create", status=LockHeldError.status)
    school.did("backup", "create", "--run", "r")
    locking.end(school.folder / "change", run="r", outcome="done")
    assert "has lost the lock" in school.refused("backup", "create", "--run", "r")


def test_wrong_password_is_refused_with_the_setting(school: School) -> None:
    """Not with restic's own message."""
    (school.folder / "secrets" / "password").write_text("wrong")
    for command in ("init", "create", "list"):
        assert "backup_password" in school.refused("backup", command)


def test_missing_repository_is_refused_with_a_hint_at_the_mount(school: School) -> None:
    """A new repository below the mount point would be hidden when the disk is mounted again."""
    (school.folder / "repository" / "config").unlink()
    said = " ".join(school.refused("backup", "create").split())
    assert f"{school.folder / 'repository'}. If a disk is to be mounted there, mount it. Otherwise correct" in said


def test_repository_that_does_not_answer_counts_as_unreachable(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    """Restic itself would try for a quarter of an hour."""
    monkeypatch.setattr(repository, "ANSWER_SECONDS", 0.5)
    school.hook("before-cat", "sleep 4")
    for command in ("init", "create"):
        assert "counts as unreachable" in school.refused("backup", command)
    told = (school.folder / "fake" / "told").read_text()
    assert len(re.findall(r"^rm --force scratch4school-backup-\d+-\d+$", told, flags=re.MULTILINE)) == 2


def test_retries_of_restic_are_printed(school: School) -> None:
    """A full repository is tried for a quarter of an hour, and a person may wait for it."""
    school.hook("complaint-backup", "Save(<data/aa>) returned error, retrying after 1s: no space")
    assert "retrying after 1s: no space" in school.did("backup", "create")


def test_backup_without_room_is_refused(school: School) -> None:
    """The need is estimated before the first byte, and some space must stay free."""
    write_settings(school.folder / "settings", "backup", {"min_free_mb": 10**9})
    assert "must stay free" in " ".join(school.refused("backup", "create").split())
    assert school.snapshots() == []


def test_check_finds_damage_in_the_repository(school: School) -> None:
    """The host remembers that it did."""
    school.did("backup", "create")
    school.did("backup", "check")
    for blob in (school.folder / "repository" / "blobs").iterdir():
        blob.write_bytes(b"x" + blob.read_bytes()[1:])
    assert "damaged" in school.refused("backup", "check")
    assert "damaged" in school.state()["check_failed"]["why"]


def test_failure_is_told_to_the_sysadmin(school: School) -> None:
    """Their own command gets the unit and the reason on its input."""
    school.did("failed", "scratch4school-backup.service")
    mail = (school.folder / "mail").read_text()
    assert "scratch4school-backup.service failed on server" in mail
    assert re.search(r"\) at 20\d\d-\d\d-\d\d \d\d:\d\d UTC:$", mail, re.MULTILINE), mail


def test_backup_is_listed_with_its_time_in_utc(school: School, run: str) -> None:
    """In the list, in a refusal, by a restore and by a drill; as JSON the time stays ISO 8601."""
    school.did("backup", "create", "--run", run)
    (backup,) = school.backups()
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", backup["time"])
    said = f"{backup['time'][:10]} {backup['time'][11:16]} UTC"
    assert school.did("backup", "list").rstrip() == f"{backup['id']}  {said}  manual    server"
    assert f"There are: {backup['id']} ({said})." in school.refused("backup", "inspect", "abcd")
    begun = r"20\d\d-\d\d-\d\d \d\d:\d\d UTC"
    assert re.search(
        rf"backup {backup['id']} of {begun}, beside", school.did("restore", "fetch", backup["id"], "--run", run)
    )
    assert re.search(rf"backup {backup['id']} of {begun} into", school.did("drill", "--run", run))


def test_inspect_prints_what_a_restore_would_lose(school: School) -> None:
    """By number and by newest title, and that an empty host has nothing to lose."""
    school.did("backup", "create")
    school.save("seitdem")
    seen = json.loads(school.did("backup", "inspect", "latest", "--json"))
    assert seen["losses"][0] == "1 projects that were made or changed since, the newest: “seitdem”"
    assert any("1 more rows in projects" in loss for loss in seen["losses"])
    assert any(loss.startswith("1 files that are not in it") for loss in seen["losses"])
    assert not seen["empty"]
    assert (seen["release"], seen["schema"], seen["school"]) == ("r1", "0003", "https://scratch.example")
    text = school.did("backup", "inspect", "latest")
    assert "A restore would lose:\n- " in text
    assert seen["losses"][-1] in text
    assert "No backup begins with “abcd”" in school.refused("backup", "inspect", "abcd")


@dataclass
class Moments:
    """The school at the backup's moment, and later."""

    then: tuple[list[str], dict[str, bytes]]
    later: tuple[list[str], dict[str, bytes]]
    backup: str


@pytest.fixture
def moments(school: School) -> Moments:
    """A backup, and a school that went on."""
    school.did("backup", "create")
    then = (school.titles(), school.files())
    school.save("seitdem")
    (school.uploads / sorted(then[1])[0]).unlink()
    (backup,) = school.backups()
    return Moments(then, (school.titles(), school.files()), backup["id"])


@pytest.fixture
def run(school: School) -> Iterator[str]:
    """A change that has the host's lock, as the playbook has around a restore."""
    locking.begin(school.folder / "change", run="r", verb="restore", owner=locking.owner())
    yield "r"
    locking.end(school.folder / "change", run="r", outcome="done")


def now_is(school: School) -> tuple[list[str], dict[str, bytes]]:
    return school.titles(), school.files()


def test_restore_brings_back_database_and_files_as_a_unit(school: School, moments: Moments, run: str) -> None:
    """The school goes on while it is loaded; the previous data is kept until the restore is committed."""
    said = school.did("restore", "fetch", moments.backup, "--run", run)
    assert "[3/3] load" in said
    assert now_is(school) == moments.later
    assert school.maintenance == ""
    school.did("restore", "cutover", "--run", run)
    assert school.maintenance == f"restore.yml is restoring {moments.backup}"
    assert now_is(school) == moments.then
    assert (school.uploads / ".restore" / "previous").is_dir()
    assert (school.uploads / ".incoming" / "x.part").is_file()
    school.did("restore", "commit", "--run", run)
    assert not (school.uploads / ".restore").exists()
    assert now_is(school) == moments.then
    assert school.state()["restoring"] == {}


def test_restore_can_be_undone_until_it_is_committed(school: School, moments: Moments, run: str) -> None:
    """Before the cutover and after it; then maintenance mode ends."""
    for commands in (["fetch"], ["fetch", "cutover"]):
        for command in commands:
            school.did("restore", command, *([moments.backup] if command == "fetch" else []), "--run", run)
        school.did("restore", "undo", "--run", run)
        assert now_is(school) == moments.later
        assert school.maintenance == ""
        assert school.state()["restoring"] == {}


class PowerFailure(Exception):
    """The power failed."""


def fail_after(renames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let so many renames happen, and no more."""
    left = renames
    rename = Path.rename

    def counted(self: Path, target: Path) -> Path:
        nonlocal left
        if left == 0:
            raise PowerFailure
        left -= 1
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", counted)


@pytest.mark.parametrize("ending", ["run again", "undone"])
@pytest.mark.parametrize("renames", range(6))
def test_cutover_interrupted_at_any_rename_is_completed_or_undone(
    school: School, moments: Moments, run: str, renames: int, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run again, it gives the backup's data; undone, the data from before. There is nothing in between."""
    (school.uploads / "thumbnails").mkdir()
    (school.uploads / "thumbnails" / "later.png").write_bytes(b"later")
    school.did("restore", "fetch", moments.backup, "--run", run)
    later = now_is(school)
    with monkeypatch.context() as patch:
        fail_after(renames, patch)
        try:
            restore.cut_over(school.settings, school.slots, run)
            swapped = True
        except PowerFailure:
            swapped = False
    assert swapped == (renames >= 5)
    if ending == "run again":
        school.did("restore", "fetch", moments.backup, "--run", run)
        school.did("restore", "cutover", "--run", run)
        assert now_is(school) == moments.then
    else:
        school.did("restore", "undo", "--run", run)
        assert now_is(school) == later


@pytest.mark.parametrize("renames", range(5))
def test_interrupted_undo_can_be_run_again(
    school: School, moments: Moments, run: str, renames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no point of no return either."""
    school.did("restore", "fetch", moments.backup, "--run", run)
    school.did("restore", "cutover", "--run", run)
    with monkeypatch.context() as patch:
        fail_after(renames, patch)
        try:
            restore.undo(school.settings, school.slots, run, keep_maintenance=True)
        except PowerFailure:
            assert renames < 4
    if school.state()["restoring"]:
        school.did("restore", "undo", "--run", run)
    assert now_is(school) == moments.later


@pytest.mark.parametrize("ending", ["commit", "undo", "fetch"])
@pytest.mark.parametrize("decided", ["commit", "undo"])
def test_interrupted_commit_or_undo_is_completed_by_any_later_command(
    school: School, moments: Moments, run: str, decided: str, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other sides are half removed, so neither may become live."""
    school.did("restore", "fetch", moments.backup, "--run", run)
    school.did("restore", "cutover", "--run", run)

    def half(self: LiveData) -> None:
        for folder in self.folders:
            shutil.rmtree(folder.previous, ignore_errors=True)
        raise PowerFailure

    decide = {
        "commit": lambda: restore.commit(school.settings),
        "undo": lambda: restore.undo(school.settings, school.slots, run, keep_maintenance=True),
    }
    with monkeypatch.context() as patch:
        patch.setattr(LiveData, "discard", half)
        with pytest.raises(PowerFailure):
            decide[decided]()
    school.did("restore", ending, *([moments.backup] if ending == "fetch" else []), "--run", run)
    assert now_is(school) == (moments.then if decided == "commit" else moments.later)


def test_damaged_backup_never_becomes_live(school: School, moments: Moments, run: str) -> None:
    """It is compared with its manifest before the cutover."""
    (snapshot,) = school.snapshots()
    name = next(blob for path, blob in snapshot["files"].items() if path.startswith("uploads/"))
    blob = school.folder / "repository" / "blobs" / name
    blob.write_bytes(b"x" + blob.read_bytes()[1:])
    assert "is not what was backed up" in school.refused("restore", "fetch", moments.backup, "--run", run)
    assert now_is(school) == moments.later
    assert "No backup is loaded" in school.refused("restore", "cutover", "--run", run)


def test_second_restore_is_refused_while_one_is_unfinished(school: School, moments: Moments, run: str) -> None:
    """Only the data that was live then can be restored by the undo."""
    school.did("restore", "fetch", moments.backup, "--run", run)
    school.did("restore", "cutover", "--run", run)
    school.did("backup", "create", "--run", run)
    other = school.backups()[-1]["id"]
    assert "was interrupted" in school.refused("restore", "fetch", other, "--run", run)


def test_drill_prints_how_long_a_restore_takes_and_leaves_nothing(school: School, moments: Moments) -> None:
    """It opens a project as Scratch would, and touches nothing that is live."""
    said = school.did("drill")
    assert re.search(rf"Backup {moments.backup} can be restored: [0-9.]+ s\.", said), said
    assert "1 sprites and stages" in said
    assert now_is(school) == moments.later
    assert not (school.folder / "directory" / "drill").exists()
    assert school.state()["drill"]["ok"]


def test_failed_drill_is_remembered(school: School, moments: Moments) -> None:
    """With the reason, for verify.yml and status.yml."""
    (snapshot,) = school.snapshots()
    (school.folder / "repository" / "blobs" / snapshot["files"]["database.sqlite"]).write_bytes(b"no")
    assert "damaged" in school.refused("drill")
    drill = school.state()["drill"]
    assert (drill["ok"], "damaged" in drill["why"]) == (False, True)
    assert not (school.folder / "directory" / "drill").exists()


def test_prune_is_refused_while_a_restore_is_unfinished(school: School, moments: Moments, run: str) -> None:
    """It may go on, and needs its backup then."""
    school.did("restore", "fetch", moments.backup, "--run", run)
    assert f"A restore of {moments.backup} was interrupted" in school.refused("backup", "prune", "--run", run)


def test_drill_of_the_other_engines_backup_is_refused(school: School, moments: Moments) -> None:
    """After a migration there are such, until the next backup."""
    write_settings(school.folder / "settings", "backup", {"engine": "postgres"})
    said = school.refused("drill")
    assert f"Backup {moments.backup} is one of sqlite, and this host runs on postgres. Run backup.yml" in said


def test_backup_of_another_format_is_refused(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    """This version cannot know the meaning of a later format."""
    school.did("backup", "create")
    monkeypatch.setattr(repository, "FORMAT", 2)
    opened = repository.Repository(school.settings, Containers(school.settings, locked=False))
    with pytest.raises(
        OperatorError, match="is in format 1, and this version reads 2; use the checkout that created it"
    ):
        opened.manifest(opened.find("latest"))


def test_sweeps_note_has_the_same_name_for_restore_and_application() -> None:
    """A restore removes the note; otherwise the next sweep would remove restored files at once."""
    sweeper = (ROOT / "docker" / "app" / "src" / "scratch4school" / "operations" / "sweep.py").read_text()
    assert f'NOTE = "{cutover.SWEEP_NOTE}"' in sweeper


def test_text_of_a_dump_is_read_as_postgresql_escapes_it() -> None:
    """Tabs, newlines and backslashes in a title, NULL, and a row without a file."""
    dump = (
        b"SET x;\nCOPY public.projects (id, name, sb3_file_path, thumbnail_path) FROM stdin;\n"
        b"1\ta\\tb\\nc\\\\\tprojects/a\\\\b.sb3\t\\N\n"
        b"2\tTitel\t/app/app/../uploads/projects/2.sb3\tthumbnails/2.png\n\\.\n\n"
        b"COPY public.project_revisions (project_id, version, file_path, size, sha256) FROM stdin;\n"
        b"2\t1\tprojects/2.sb3\t17\tabc\n\\.\n"
        b"COPY public.alembic_version (version_num) FROM stdin;\n0003\n\\.\n"
    )
    contents = dump_reader.read_dump(dump.splitlines(keepends=True))
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
def test_path_of_a_row_is_a_file_below_the_uploads_or_none(stored: str | None, relative: str | None) -> None:
    """As the application reads it (FileStore.relative)."""
    assert dump_reader.relative(stored) == relative


def test_containers_get_neither_rights_nor_a_network(school: School) -> None:
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
    """Every program gets its password as a file."""
    school.did("backup", "create")
    assert "correct horse" not in (school.folder / "fake" / "told").read_text()


def test_database_of_sqlite_is_a_live_folder_like_the_uploads(school: School) -> None:
    """A cutover moves the content of both folders."""
    assert [folder.live.name for folder in LiveData(school.settings).folders] == ["uploads", "database"]
    assert cutover.ASIDE.startswith("."), "what begins with a dot is left alone by backups and sweeps"


def test_settings_of_another_version_are_refused(school: School) -> None:
    """Instead of a traceback in the log of a timer."""
    (school.folder / "settings" / "backup.json").write_text('{"school": "x"}')
    assert "run deploy.yml again" in school.refused("backup", "create")


def test_status_of_backups_fails_when_one_cannot_rely_on_them(school: School) -> None:
    """A monitor reads the facts, and the exit status says whether they are good."""
    school.did("backup", "create")
    assert school.did("backup", "status", "--max-age", "30").startswith("backup       ")
    assert "backup_max_age is 0. Run backup.yml." in school.refused("backup", "status", "--max-age", "0")


def test_complaint_says_why_one_cannot_rely_on_the_backups() -> None:
    """verify.yml fails with it."""
    complain = reliability.complaint
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    old = "2026-01-01T00:00:00Z"
    good = {"at": now, "id": "a1b2c3d4", "kind": "nightly", "seconds": 3.0}
    assert complain({"initialized": {"at": now}}, 30, "server") == ""
    assert complain({"backup": good, "drill": {"at": now, "ok": True}}, 30, "server") == ""
    assert "has never been made" in complain({"initialized": {"at": old}}, 30, "server")
    late = {"backup": {**good, "at": old}, "backup_failed": {"at": now, "why": "The disk is full."}}
    assert "hours old" in complain(late, 30, "server")
    assert "The last try failed: The disk is full." in complain(late, 30, "server")
    assert "The last drill failed" in complain(
        {"backup": good, "drill": {"at": now, "ok": False, "why": "Torn."}}, 30, "server"
    )
    damaged = {"backup": good, "check": {"at": old}, "check_failed": {"at": now, "why": "Damaged."}}
    assert "Damaged." in complain(damaged, 30, "server")
    kept = {"backup": good, "prune": {"at": old}, "prune_failed": {"at": now, "why": "No room."}}
    assert "The last removal of old backups from the repository of server failed: No room." in complain(
        kept, 30, "server"
    )
    assert "run deploy.yml" in complain({}, 30, "server")


def test_status_screen_shows_newest_backup_last_drill_and_interrupted_restore() -> None:
    """Newest backup, last drill, and a restore that stopped in the middle."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    known = {
        "backup": {"at": now, "id": "a1b2c3d4", "kind": "nightly", "seconds": 61.0, "lacking": 2},
        "drill": {"at": now, "ok": True, "backup": "a1b2c3d4", "seconds": 12.0},
        "restoring": {"snapshot": "a1b2c3d4", "step": "in"},
    }
    lines = reliability.lines(known)
    assert lines[0].startswith("backup       a1b2c3d4 (nightly) 0.0 hours ago, took 61 s, 2 files lacking")
    assert lines[1].endswith("restored a1b2c3d4 in 12 s")
    assert lines[2] == "restore      of a1b2c3d4 was interrupted at “in”"
    assert reliability.lines({})[:2] == ["backup       none yet", "drill        none yet"]


def test_cutover_without_a_loaded_backup_raises_an_operator_error(school: School) -> None:
    """The program raises one kind of error for the sysadmin."""
    with pytest.raises(OperatorError, match="No backup is loaded"):
        restore.cut_over(school.settings, school.slots, "r")


# ---- the command that is told of failures


def told_by(school: School, command: str) -> None:
    """Have the settings name this command."""
    write_settings(school.folder / "settings", "backup", {"failure_command": command})


def test_failure_command_is_tested_once(school: School) -> None:
    """It gets a test message with the host and the school, and is not run again while it is the same."""
    told = school.folder / "told"
    told_by(school, f"cat >> {told}; echo $SCRATCH4SCHOOL_UNIT $SCRATCH4SCHOOL_HOST >> {told}")
    assert school.did("backup", "test-failure-command") == "tested\n"
    said = told.read_text()
    assert re.match(
        r"This is a test from server \(https://scratch\.example\) at 20\d\d-\d\d-\d\d \d\d:\d\d UTC: nothing failed\.",
        said,
    )
    assert said.endswith("scratch4school-test.service server\n")
    assert school.did("backup", "test-failure-command") == "unchanged\n"
    assert told.read_text() == said


def test_failure_command_is_tested_again_after_a_change(school: School) -> None:
    """Also one that was set before, and changed in between."""
    first, second = (f"cat >> {school.folder / name}" for name in ("first", "second"))
    for command in (first, second, first):
        told_by(school, command)
        assert school.did("backup", "test-failure-command") == "tested\n"
        assert school.did("backup", "test-failure-command") == "unchanged\n"
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
def test_failing_failure_command_is_an_error_with_its_message(school: School, command: str, said: str) -> None:
    """The deploy fails with it, and the next one tries it again."""
    told_by(school, command)
    assert said in school.refused("backup", "test-failure-command")
    assert said in school.refused("backup", "test-failure-command")
    assert "failure_command" not in school.state()


def test_hanging_failure_command_is_an_error(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deploy must end."""
    told_by(school, "exec sleep 30")
    monkeypatch.setattr(failure_command, "COMMAND_SECONDS", 0.2)
    assert "backup_failure_command did not end within 0.2 seconds." in school.refused("backup", "test-failure-command")
    assert "failure_command" not in school.state()


def test_missing_failure_command_is_not_run(school: School) -> None:
    """One that is set again after it was removed is tested again."""
    told_by(school, "")
    assert school.did("backup", "test-failure-command") == "unchanged\n"
    assert school.did("backup", "test-failure-command") == "unchanged\n"
    command = f"cat >> {school.folder / 'told'}"
    for settings, said in ((command, "tested\n"), ("", "unchanged\n"), (command, "tested\n")):
        told_by(school, settings)
        assert school.did("backup", "test-failure-command") == said
    assert (school.folder / "told").read_text().count("This is a test") == 2


def test_state_has_only_a_digest_of_the_failure_command(school: School) -> None:
    """The command may contain a token."""
    told_by(school, "cat > /dev/null # a-token-of-a-service")
    school.did("backup", "test-failure-command")
    assert "a-token" not in json.dumps(school.state())
    assert re.fullmatch("[0-9a-f]{64}", school.state()["failure_command"]["command"])


def test_failing_failure_command_of_a_timer_is_an_error(school: School) -> None:
    """The log of the timer has the reason."""
    told_by(school, "echo no route to mail >&2; exit 1")
    assert "backup_failure_command ended with 1: no route to mail" in school.refused(
        "failed", "scratch4school-backup.service"
    )
