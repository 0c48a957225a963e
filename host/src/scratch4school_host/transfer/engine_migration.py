"""Migrates this installation from SQLite to PostgreSQL, and back until that is confirmed; files stay where they are.

At each moment one of the two databases is complete. A file records which one before a slot on that engine becomes live.
Rows are copied only from the complete database to the other one. So neither an interruption nor a migration back loses
rows. SQLite's file has its normal name only while it is complete, because by that name preflight finds the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..containers import Containers
from ..databases.engines import SCHEMA_TABLE, SQLITE_FILE, Server
from ..errors import OperatorError
from ..files import read_json, write_json
from ..progress import Progress, say
from ..settings import TransferSettings
from ..slots import maintenance
from ..slots.state import Slots
from ..times import now, readable
from . import application
from .importing import REHEARSAL
from .source_database import SourceDatabase, copy_of_sqlite, scratch

PARTS = ("", "-wal", "-shm")
MIGRATED = ".migrated"


def state(settings: TransferSettings) -> dict[str, Any]:
    """The state of a migration: `complete` is the engine that has all rows; {} when no migration was begun."""
    return read_json(_state_file(settings))


def rehearse(settings: TransferSettings, slots: Slots, containers: Containers, _run: str) -> None:
    """Copy the current rows into a scratch PostgreSQL, compare them, and remove it, while the live slot goes on."""
    progress = Progress(4)
    with scratch(settings, containers) as place:
        with progress.phase("rows", "of SQLite's file, as they are now"):
            source = _copy(settings)
        target = partial(place.empty_database, REHEARSAL)
        application.rehearse(containers, settings, source.database, target, progress)
    say(f"The rehearsal succeeded in {progress.total:.1f} s. During the migration pupils wait for about as long.")


def to_postgres(settings: TransferSettings, slots: Slots, containers: Containers, run: str) -> None:
    """Copy the database from SQLite to PostgreSQL, in maintenance mode, which stays on afterwards."""
    begun = _resumed(settings)
    if begun.get("complete") == "postgres":
        since = readable(begun["since"])
        say(f"PostgreSQL has the complete database since {since}; the migration continues from there.")
        return
    if not begun:
        _refuse_foreign_rows(settings)
    folder = Path(settings.sqlite_directory)
    application.migrate(containers, settings, application.in_postgres(settings))
    _keep(settings, complete="sqlite", since=now())

    def work(progress: Progress) -> None:
        with scratch(settings, containers):
            with progress.phase("rows", "of SQLite's file"):
                source = _copy(settings)
            application.make_same(containers, settings, source.database, application.in_postgres(settings), progress)
        _rename(folder, "", MIGRATED)

    _in_maintenance(settings, slots, run, "move-to-postgres.yml is migrating to PostgreSQL", 3, work)
    _keep(settings, complete="postgres", since=now())


def to_sqlite(settings: TransferSettings, slots: Slots, containers: Containers, run: str) -> None:
    """Copy the database from PostgreSQL to SQLite's file, in maintenance mode, which stays on afterwards."""
    begun = _resumed(settings)
    if not begun:
        raise OperatorError(
            "Nothing was migrated, or SQLite's file was removed when the migration was confirmed. This host cannot "
            "migrate back."
        )
    if begun["complete"] == "sqlite":
        since = readable(begun["since"])
        say(f"SQLite has the complete database since {since}; the migration continues from there.")
        return
    folder = Path(settings.sqlite_directory)

    def work(progress: Progress) -> None:
        _rename(folder, MIGRATED, "")
        try:
            # PostgreSQL's schema may have been migrated since.
            application.migrate(containers, settings, application.in_sqlite(folder))
            application.make_same(
                containers, settings, application.in_postgres(settings), application.in_sqlite(folder), progress
            )
        except (OperatorError, OSError):
            _rename(folder, "", MIGRATED)
            raise

    _in_maintenance(settings, slots, run, "move-to-postgres.yml is migrating back to SQLite", 2, work)
    _keep(settings, complete="sqlite", since=now())


def complete(settings: TransferSettings) -> None:
    """Record that the release on the other engine is live and was verified; after a migration back, forget it all."""
    begun = state(settings)
    if begun.get("complete") == "postgres":
        _keep(settings, verified=now())
        say(f"SQLite's file is kept as {Path(settings.sqlite_directory) / SQLITE_FILE}{MIGRATED} until you confirm.")
    else:
        _state_file(settings).unlink(missing_ok=True)


def confirm(settings: TransferSettings) -> None:
    """Remove SQLite's file; a migration back to SQLite is then impossible."""
    if not state(settings).get("verified"):
        raise OperatorError(
            "Nothing was migrated that could be confirmed; run move-to-postgres.yml -e step=move first."
        )
    for part in PARTS:
        (Path(settings.sqlite_directory) / f"{SQLITE_FILE}{part}{MIGRATED}").unlink(missing_ok=True)
    _state_file(settings).unlink()
    say("Confirmed: this host runs on PostgreSQL, and SQLite's file is removed.")


def _resumed(settings: TransferSettings) -> dict[str, Any]:
    """Read the state, and give SQLite's file the name that belongs to it, as an interruption may have prevented."""
    begun = state(settings)
    if begun:
        _rename(
            Path(settings.sqlite_directory), *(("", MIGRATED) if begun["complete"] == "postgres" else (MIGRATED, ""))
        )
    return begun


def _in_maintenance(
    settings: TransferSettings, slots: Slots, run: str, reason: str, phases: int, work: Callable[[Progress], None]
) -> None:
    """Call `work` in maintenance mode; when it fails, end maintenance mode, which starts the previous slot."""
    maintenance.begin(slots, run, reason)
    progress = Progress(phases)
    try:
        work(progress)
    except (OperatorError, OSError):
        maintenance.end(slots, run)
        raise
    say(f"Both databases have the same rows ({progress.total:.1f} s).")


def _copy(settings: TransferSettings) -> SourceDatabase:
    return copy_of_sqlite(settings, Path(settings.sqlite_directory) / SQLITE_FILE)


def _rename(folder: Path, before: str, after: str) -> None:
    """Replace the suffix `before` of SQLite's files by `after`; files without that suffix stay."""
    for part in PARTS:
        source = folder / f"{SQLITE_FILE}{part}{before}"
        if source.exists():
            source.replace(folder / f"{SQLITE_FILE}{part}{after}")


def _refuse_foreign_rows(settings: TransferSettings) -> None:
    rows = Server(settings.postgres_container).rows()
    found = {table: count for table, count in rows.items() if count and table != SCHEMA_TABLE}
    if found:
        what = ", ".join(f"{count:,} {table}" for table, count in found.items())
        raise OperatorError(
            f"PostgreSQL on this host is not empty: it has {what}. Find out where these rows come from."
        )


def _state_file(settings: TransferSettings) -> Path:
    return Path(settings.directory) / "migration.json"


def _keep(settings: TransferSettings, **facts: Any) -> None:
    write_json(_state_file(settings), {**state(settings), **facts})
