"""`scratch4school sweep`: it removes unnamed files after their time and never a named one, whatever runs beside it."""

import contextlib
import errno
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from helpers import PNG, Device, project_file
from scratch4school import cli
from scratch4school.clock import utcnow
from scratch4school.database.tables import assets, oauth_sessions, project_revisions, users
from scratch4school.database.tables import projects as project_rows
from scratch4school.operations import sweep
from scratch4school.projects import projects, saved_versions, sharing
from scratch4school.web.services import Services

HOUR = 3600.0


def backdate(path: Path, hours: float = 100) -> None:
    os.utime(path, times=(time.time() - hours * HOUR,) * 2)


def put_file(services: Services, relative: str, hours: float = 100) -> Path:
    path = services.store.root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"a file")
    backdate(path, hours)
    return path


def execute(services: Services, statement: sa.Executable) -> None:
    services.database.write(lambda connection: connection.execute(statement))


def remove_files(services: Services, unnamed: float = 0) -> sweep.Swept:
    """Sweep files that were written an hour ago; `unnamed` as `min_unnamed` of sweep.remove_files."""
    return sweep.remove_files(services.database, services.store, HOUR, unnamed)


def age_note(services: Services, hours: float) -> None:
    """Change the note as if the last sweep had been `hours` ago."""
    note = services.store.root / sweep.NOTE
    seen = json.loads(note.read_text())
    note.write_text(json.dumps({path: since - hours * HOUR for path, since in seen.items()}))


@pytest.fixture
def command(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the sweep's command in this process, with the environment of its container."""
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    return lambda *arguments: cli.main(["sweep", *arguments])


UNNAMED = [
    "projects/0123456789abcdef/aa.sb3",
    "projects/7_ada.sb3",
    "thumbnails/0123456789abcdef/aa.png",
    "assets/costume/aa.bb.png",
    "costume/aa.png",
    "thumbnail/aa.jpg",
]


@pytest.mark.parametrize("relative", UNNAMED)
def test_old_unnamed_file_is_removed(services: Services, relative: str) -> None:
    path = put_file(services, relative)
    assert remove_files(services) == sweep.Swept(1, len(b"a file"), 0, 0)
    assert not path.exists()


def test_unnamed_file_waits_from_its_first_sweep(services: Services) -> None:
    """A running backup may have read the database when a row still named the file, however old the file is."""
    path = put_file(services, "projects/7_ada.sb3", hours=10_000)
    assert remove_files(services, unnamed=48 * HOUR) == sweep.Swept(0, 0, 1, 0)
    age_note(services, 47)
    assert remove_files(services, unnamed=48 * HOUR).removed == 0
    age_note(services, 1)
    assert remove_files(services, unnamed=48 * HOUR).removed == 1
    assert not path.exists()


def test_file_named_in_between_waits_again(services: Services, pupil: Device, project_id: int) -> None:
    path = put_file(services, "projects/7_ada.sb3")
    remove_files(services, unnamed=48 * HOUR)
    age_note(services, 100)
    execute(services, sa.update(project_rows).values(thumbnail_path="projects/7_ada.sb3"))
    remove_files(services, unnamed=48 * HOUR)
    execute(services, sa.update(project_rows).values(thumbnail_path=None))
    assert remove_files(services, unnamed=48 * HOUR).waiting == 1
    assert path.exists()


@pytest.mark.parametrize("note", ["", "{", "[1]", '{"projects/7_ada.sb3": null}', '{"projects/7_ada.sb3": 9e99}'])
def test_files_wait_again_after_an_unusable_note(services: Services, note: str) -> None:
    """It is written without a sync, so a power failure may damage it; a moment in the future does not count."""
    path = put_file(services, "projects/7_ada.sb3")
    (services.store.root / sweep.NOTE).write_text(note)
    assert remove_files(services, unnamed=HOUR) == sweep.Swept(0, 0, 1, 0)
    age_note(services, 2)
    assert remove_files(services, unnamed=HOUR).removed == 1
    assert not path.exists()


def test_file_within_the_grace_time_stays(services: Services) -> None:
    """It may belong to a save whose row is not committed yet."""
    path = put_file(services, "projects/7_ada.sb3", hours=0.5)
    assert remove_files(services) == sweep.Swept(0, 0, 0, 0)
    assert path.exists()


def test_foreign_files_and_links_stay(services: Services) -> None:
    kept = [put_file(services, name) for name in ("thumbnails/default.png", ".incoming/a.part", "notes/a.txt", "a.txt")]
    link = services.store.root / "projects" / "link"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(kept[2])
    assert remove_files(services).removed == 0
    assert all(path.exists() for path in [*kept, link])


def test_files_that_rows_name_stay(services: Services, pupil: Device, project_id: int) -> None:
    """Files of a project, its thumbnail, a saved version and an asset, also by the original's absolute paths."""
    pupil.save(project_id, project_file("second"), thumbnail=PNG)
    asset_id = pupil.upload(b"an asset", type="costume", format="png").json["assetId"]
    old = [put_file(services, name) for name in ("projects/1_ada.sb3", "thumbnails/thumb__ada_1.png", "costume/aa.png")]
    imported = {
        "sb3_file_path": "/app/app/../uploads/projects/1_ada.sb3",
        "thumbnail_path": "/app/app/../uploads/thumbnails/thumb__ada_1.png",
    }
    values = {"name": "alt", "version": 1, "owner_id": "ada", **imported}
    execute(services, sa.insert(project_rows).values(values))
    asset = {"asset_id": "aa", "md5": "aa", "asset_type": "costume", "data_format": "png", "size": 6, "owner_id": "ada"}
    execute(services, sa.insert(assets).values(file_path="/app/app/../uploads/costume/aa.png", **asset))
    files = [path for path in services.store.root.rglob("*") if path.is_file()]
    for path in files:
        backdate(path)
    assert remove_files(services) == sweep.Swept(0, 0, 0, 0)
    assert all(path.exists() for path in files)
    assert set(old) < set(files)
    assert len(files) == 7
    assert pupil.get(f"/api/assets/{asset_id}").data == b"an asset"


@pytest.fixture
def new_columns(services: Services) -> Iterator[None]:
    """A database with a column, a JSON column and a table that this release does not know."""
    statements = (
        "ALTER TABLE projects ADD COLUMN cover_path VARCHAR(255)",
        "ALTER TABLE users ADD COLUMN drawings JSON",
        "CREATE TABLE recordings (id INTEGER PRIMARY KEY, place TEXT)",
    )
    for statement in statements:
        execute(services, sa.text(statement))
    yield
    for statement in (
        "ALTER TABLE projects DROP COLUMN cover_path",
        "ALTER TABLE users DROP COLUMN drawings",
        "DROP TABLE recordings",
    ):
        execute(services, sa.text(statement))


@pytest.mark.usefixtures("new_columns", "project_id")
def test_files_of_undeclared_columns_stay(services: Services) -> None:
    """An engineer forgot to declare a new column, or a newer release added it before a rollback to this one."""
    names = ("projects/0123456789abcdef/cover.png", "assets/drawing/aa.bb.svg", "projects/old.wav")
    files = [put_file(services, name) for name in names]
    left = put_file(services, "projects/0123456789abcdef/unnamed.png")
    execute(services, sa.text(f"UPDATE projects SET cover_path = '{names[0]}'"))
    execute(services, sa.text("UPDATE users SET drawings = :paths").bindparams(paths=json.dumps(["x", names[1]])))
    execute(services, sa.text(f"INSERT INTO recordings VALUES (1, '/app/app/../uploads/{names[2]}')"))
    assert remove_files(services) == sweep.Swept(1, len(b"a file"), 0, 0)
    assert all(path.exists() for path in files)
    assert not left.exists()
    for statement in ("UPDATE projects SET cover_path = NULL", "UPDATE users SET drawings = NULL"):
        execute(services, sa.text(statement))
    assert remove_files(services).removed == 2
    assert files[2].exists()


@pytest.mark.usefixtures("project_id")
def test_files_of_a_newly_declared_column_stay(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """The declaration is all that the sweep needs, also for the original's absolute paths."""
    monkeypatch.setitem(users.c.email.info, "file", "thumbnail")
    path = put_file(services, "thumbnails/portrait.png")
    execute(services, sa.update(users).values(email="/app/app/../uploads/thumbnails/portrait.png"))
    assert remove_files(services) == sweep.Swept(0, 0, 0, 0)
    assert path.exists()


def test_files_of_a_deleted_project_are_removed(services: Services, pupil: Device, project_id: int) -> None:
    pupil.save(project_id, project_file("second"), thumbnail=PNG)
    pupil.request("DELETE", f"/api/projects/{project_id}")
    for path in services.store.files_of("ada"):
        backdate(path)
    assert remove_files(services).removed == 3
    assert services.store.files_of("ada") == []


def test_file_that_cannot_be_removed_does_not_stop_the_others(
    services: Services, monkeypatch: pytest.MonkeyPatch, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c"):
        put_file(services, f"projects/{name}")
    remove_files(services, unnamed=HOUR)
    age_note(services, 48)
    real = Path.unlink

    def refuse(path: Path, **options: Any) -> None:
        if path.name == "b":
            raise PermissionError
        real(path, **options)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert command() == 1
    assert "files removed: 2 (18 bytes), 1 could not be removed; 0 more wait" in capsys.readouterr().out


def test_full_disk_is_swept_before_the_note(
    services: Services, command: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Due files are removed although there is no room for the note, and the command prints one error line."""
    path = put_file(services, "projects/a")
    remove_files(services, unnamed=HOUR)
    age_note(services, 48)

    def no_room(note: Path, *_arguments: Any, **_options: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(note))

    monkeypatch.setattr(Path, "write_text", no_room)
    monkeypatch.setattr(sys, "argv", ["scratch4school", "sweep"])
    with pytest.raises(SystemExit) as ended:
        cli.entry_point()
    assert not path.exists()
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (cli.EX_IOERR, 1)
    assert "cannot be read or written: No space left on device" in said


def test_interrupted_sweep_is_finished_by_the_next(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        put_file(services, f"projects/{number}.sb3")
    real, calls = Path.unlink, []

    def die_at_the_fifth(path: Path, **options: Any) -> None:
        calls.append(path)
        if len(calls) == 5:
            raise KeyboardInterrupt
        real(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", die_at_the_fifth)
        with pytest.raises(KeyboardInterrupt):
            remove_files(services)
    assert remove_files(services) == sweep.Swept(6, 6 * len(b"a file"), 0, 0)
    assert remove_files(services) == sweep.Swept(0, 0, 0, 0)


def test_lowered_setting_prunes_saved_versions(services: Services, pupil: Device, project_id: int) -> None:
    other = pupil.create(project_file("other")).json["id"]
    for number in range(2, 7):
        pupil.save(project_id, project_file(number))
    assert sweep.prune_versions(services.database, 2, dry_run=True) == 3
    assert sweep.prune_versions(services.database, 2) == 3
    assert sweep.prune_versions(services.database, 2) == 0
    for project, left in ((project_id, [6, 5, 4]), (other, [1])):
        kept = services.database.read(
            lambda connection, project=project: saved_versions.of_project(connection, project)
        )
        assert [row.version for row in kept] == left


def test_only_long_dead_sessions_are_removed(services: Services, log_in: Callable[..., str]) -> None:
    """Not one that expired lately, nor one that was used lately: its refresh token may still be valid."""

    def session(expired_days: int, used_days: int | None) -> str:
        session_id = log_in("ada")
        now = utcnow()
        used = None if used_days is None else now - timedelta(days=used_days)
        changed = sa.update(oauth_sessions).where(oauth_sessions.c.id == session_id)
        execute(services, changed.values(expires_at=now - timedelta(days=expired_days), last_accessed=used))
        return session_id

    kept = {session(-1, 60), session(29, 60), session(31, 29)}
    gone = [session(31, 31), session(400, None)]
    assert sweep.remove_sessions(services.database, dry_run=True) == len(gone)
    assert sweep.remove_sessions(services.database) == len(gone)
    left = services.database.read(lambda connection: set(connection.scalars(sa.select(oauth_sessions.c.id))))
    assert left == kept


def test_many_dead_sessions_are_removed_in_steps(
    services: Services, log_in: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        log_in("ada")
    long_ago = utcnow() - timedelta(days=99)
    execute(services, sa.update(oauth_sessions).values(expires_at=long_ago, last_accessed=long_ago))
    monkeypatch.setattr(sweep, "_SESSIONS_AT_ONCE", 2)
    assert sweep.remove_sessions(services.database) == 5


def test_command_prints_a_line_for_each_part(
    services: Services, pupil: Device, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    path = put_file(services, "projects/7_ada.sb3")
    assert command() == 0
    age_note(services, 48)
    assert command("--dry-run") == 0
    assert path.exists()
    assert command("--grace-hours", "48") == 0
    assert not path.exists()
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(" (")[0] for line in lines] == [
        "versions removed: 0",
        "files removed: 0 (0 bytes); 1 more wait for the end of their grace time",
        "sessions removed: 0",
        "versions would be removed: 0",
        "files would be removed: 1 (6 bytes); 0 more wait for the end of their grace time",
        "sessions would be removed: 0",
        "versions removed: 0",
        "files removed: 1 (6 bytes); 0 more wait for the end of their grace time",
        "sessions removed: 0",
    ]


@pytest.mark.parametrize("hours", ["0", "-1", "1.5", "many", "99999"])
def test_grace_below_an_hour_is_refused(hours: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["sweep", "--grace-hours", hours])
    assert left.value.code == 2
    assert "a whole number of hours, at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_sweep_without_database_is_exit_status_69(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("SCRATCH4SCHOOL_DATABASE_URL", "postgresql://a@127.0.0.1:1/x")
    monkeypatch.setattr("sys.argv", ["scratch4school", "sweep"])
    with pytest.raises(SystemExit) as left:
        cli.entry_point()
    assert left.value.code == 69
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("scratch4school: The database cannot be reached")


def test_no_row_loses_its_file_beside_saves_restores_and_copies(
    services: Services, pupil: Device, project_id: int, together: Callable[..., list[Any]]
) -> None:
    """Sweeps without any wait, while eight devices save, restore and copy one project with two saved versions.

    Each file counts as old as soon as it is saved, so it is removed at the moment when its last row goes. Only the age
    that protects a save in flight stays on, because no lock protects that.
    """
    database, store = services.database, services.store
    removed: list[int] = []
    done = threading.Event()

    def save(*content: int) -> None:
        with store.receive() as file:
            file.write(project_file(content))
            row = projects.save(database, store, project_id, "ada", None, projects.Content(file, None), None, 1)
        path = store.find(row.sb3_file_path)
        if path is not None:
            backdate(path)

    def restore(*_content: int) -> None:
        oldest = database.read(lambda connection: saved_versions.of_project(connection, project_id))[-1].version
        with contextlib.suppress(saved_versions.VersionNotFound):
            saved_versions.restore(database, store, project_id, oldest, "ada", None, 1)

    def copy(*_content: int) -> None:
        row = sharing.copy(database, store, project_id, "ada", 1)
        assert store.find(row.sb3_file_path) is not None
        projects.delete(database, row.id, "ada")

    def device(index: int) -> None:
        for number in range(15):
            (save, restore, copy)[(index + number) % 3](index, number)

    def keep_sweeping() -> None:
        while not done.is_set():
            removed.append(remove_files(services).removed)

    sweeper = threading.Thread(target=keep_sweeping)
    sweeper.start()
    try:
        together(8, device)
    finally:
        done.set()
        sweeper.join()
    assert sum(removed) > 10
    named = database.read(
        lambda connection: [
            *connection.scalars(sa.select(project_rows.c.sb3_file_path)),
            *connection.scalars(sa.select(project_revisions.c.file_path)),
        ]
    )
    assert all(store.find(path) is not None for path in named)


@pytest.mark.parametrize("engine_name", ["postgresql"])
@pytest.mark.parametrize(
    ("module", "step", "work"),
    [
        (
            projects,
            "find_with_content",
            lambda services, number: sharing.copy(services.database, services.store, number, "ada", 1),
        ),
        (saved_versions, "_find", lambda services, number: restore(services, number)),
        (projects, "prune_versions", lambda services, number: sweep.prune_versions(services.database, 0)),
    ],
    ids=["copy", "restore", "pruning"],
)
def test_project_is_locked_before_its_files_are_chosen(
    services: Services,
    pupil: Device,
    project_id: int,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    step: str,
    work: Callable[[Services, int], Any],
) -> None:
    """The sweep relies on these locks; the test above meets the moment without a lock too seldom."""
    pupil.save(project_id, project_file("second"))
    locked = sa.select(project_rows.c.id).where(project_rows.c.id == project_id).with_for_update(nowait=True)
    real = getattr(module, step)
    refusals = []

    def check_lock_first(*arguments: Any) -> Any:
        with services.database.engine.connect() as other, pytest.raises(OperationalError) as refused:
            other.execute(locked)
        refusals.append(refused.value.orig.pgcode)
        return real(*arguments)

    monkeypatch.setattr(module, step, check_lock_first)
    work(services, project_id)
    assert refusals == ["55P03"]


def restore(services: Services, project_id: int) -> None:
    saved_versions.restore(services.database, services.store, project_id, 1, "ada", None, 1)
