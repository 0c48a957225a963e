"""Our own rows from SQLite to PostgreSQL on one host, and back until that was confirmed; files stay where they are.

One of the two sides has all rows, and which one is written down before anybody is let in to it. Its rows are made those
of the other, never the other way round, so a run that was cut short loses nothing, and neither does the way back.
SQLite's file has its own name only while it has all rows, because by that name one tells what a host runs on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from host_change import readable
from scratch4school_backup.base import Problem, Progress, now, read_json, say, write_json
from scratch4school_backup.containers import Containers
from scratch4school_backup.engines import SQLITE_FILE, Server
from scratch4school_backup.live import tell_slots

from . import application
from .application import Database
from .old_rows import OldRows, lay_out_sqlite, scratch
from .settings import Settings
from .steps import REHEARSAL, STAMP

PARTS = ("", "-wal", "-shm")
KEPT = ".moved"


def state(settings: Settings) -> dict[str, Any]:
    """How far a move is: `rows` says which side has all of them, sqlite or postgres; empty when nothing was begun."""
    return read_json(_state_file(settings))


def rehearse(settings: Settings, containers: Containers, _run: str) -> None:
    """The rows of this moment into a PostgreSQL of the rehearsal's own, which is removed; pupils notice nothing."""
    progress = Progress(4)
    with scratch(settings, containers) as place:
        with progress.phase("rows", "of SQLite's file, as they are now"):
            old = _copy(settings)
        with progress.phase("schema", "in a database of the rehearsal's own"):
            new = place.empty_database(REHEARSAL)
            application.migrate(containers, settings, new)
        with progress.phase("bring over", "into it"):
            application.transfer(containers, settings, old.database, new)
        with progress.phase("compare", "row for row"):
            progress.sum_up(application.compare(containers, settings, old.database, new)[0])
    seconds = sum(progress.seconds.values())
    say(f"The rehearsal went well: {seconds:.1f} s, and pupils would wait for about as long.")


def move(settings: Settings, containers: Containers, run: str) -> None:
    """Nobody is served, and PostgreSQL has the rows that SQLite has."""
    begun = _taken_up(settings)
    if begun.get("rows") == "postgres":
        say(f"PostgreSQL has had all rows since {readable(begun['since'])}; it goes on from there.")
        return
    if not begun:
        _refuse_rows_of_others(settings)
    folder = Path(settings.sqlite_directory)
    application.migrate(containers, settings, application.in_postgres(settings))
    _keep(settings, rows="sqlite", since=now())

    def work(progress: Progress) -> None:
        with scratch(settings, containers):
            with progress.phase("rows", "of SQLite's file"):
                old = _copy(settings)
            _make_same(settings, containers, old.database, application.in_postgres(settings), progress)
        _rename(folder, "", KEPT)

    _while_closed(settings, run, "move-to-postgres.yml is moving its rows", 3, work)
    _keep(settings, rows="postgres", since=now())


def back(settings: Settings, containers: Containers, run: str) -> None:
    """Nobody is served, and SQLite's file has the rows that PostgreSQL has."""
    begun = _taken_up(settings)
    if not begun:
        raise Problem("Nothing was moved, or the move was confirmed and SQLite's file is gone; there is no way back.")
    if begun["rows"] == "sqlite":
        say(f"SQLite has had all rows since {readable(begun['since'])}; it goes on from there.")
        return
    folder = Path(settings.sqlite_directory)

    def work(progress: Progress) -> None:
        _rename(folder, KEPT, "")
        try:
            # The tables may have been changed since the move.
            application.migrate(containers, settings, application.in_sqlite(folder))
            _make_same(settings, containers, application.in_postgres(settings), application.in_sqlite(folder), progress)
        except (Problem, OSError):
            _rename(folder, "", KEPT)
            raise

    _while_closed(settings, run, "move-to-postgres.yml is moving its rows back", 2, work)
    _keep(settings, rows="sqlite", since=now())


def moved(settings: Settings) -> None:
    """The school serves from PostgreSQL and was verified."""
    _keep(settings, moved=now())
    say(f"SQLite's file is kept as {Path(settings.sqlite_directory) / SQLITE_FILE}{KEPT} until you confirm.")


def confirm(settings: Settings) -> None:
    """There is no way back any more: SQLite's file goes."""
    if not state(settings).get("moved"):
        raise Problem("Nothing was moved that could be confirmed; run move-to-postgres.yml -e step=move first.")
    for part in PARTS:
        (Path(settings.sqlite_directory) / f"{SQLITE_FILE}{part}{KEPT}").unlink(missing_ok=True)
    _state_file(settings).unlink()
    say("Confirmed: this host runs on PostgreSQL, and SQLite's file is gone.")


def forget(settings: Settings) -> None:
    """SQLite serves again and was verified: what PostgreSQL has is of no use any more."""
    _state_file(settings).unlink(missing_ok=True)


def _taken_up(settings: Settings) -> dict[str, Any]:
    """How far it is; and SQLite's file has the name that says so, also where a run was cut short in the middle."""
    begun = state(settings)
    if begun:
        _rename(Path(settings.sqlite_directory), *(("", KEPT) if begun["rows"] == "postgres" else (KEPT, "")))
    return begun


def _while_closed(settings: Settings, run: str, reason: str, phases: int, work: Callable[[Progress], None]) -> None:
    """Do something while nobody is served; if it fails, what served before does again."""
    tell_slots(settings, "close", "--run", run, "--reason", reason)
    progress = Progress(phases)
    try:
        work(progress)
    except (Problem, OSError):
        tell_slots(settings, "open", "--run", run)
        raise
    say(f"Both have the same rows ({sum(progress.seconds.values()):.1f} s).")


def _make_same(settings: Settings, containers: Containers, old: Database, new: Database, progress: Progress) -> None:
    with progress.phase("bring over", "the rows"):
        application.transfer(containers, settings, old, new)
    with progress.phase("compare", "row for row"):
        progress.sum_up(application.compare(containers, settings, old, new)[0])


def _copy(settings: Settings) -> OldRows:
    return lay_out_sqlite(settings, Path(settings.sqlite_directory) / SQLITE_FILE)


def _rename(folder: Path, before: str, after: str) -> None:
    """Give SQLite's file and what lies beside it another ending; what has it already stays."""
    for part in PARTS:
        former = folder / f"{SQLITE_FILE}{part}{before}"
        if former.exists():
            former.replace(folder / f"{SQLITE_FILE}{part}{after}")


def _refuse_rows_of_others(settings: Settings) -> None:
    rows = Server(settings.postgres_container).rows()
    found = {table: count for table, count in rows.items() if count and table != STAMP}
    if found:
        what = ", ".join(f"{count:,} {table}" for table, count in found.items())
        raise Problem(f"PostgreSQL on this host is not empty: there is {what}. Find out whose rows these are.")


def _state_file(settings: Settings) -> Path:
    return Path(settings.directory) / "move.json"


def _keep(settings: Settings, **facts: Any) -> None:
    write_json(_state_file(settings), {**state(settings), **facts})
