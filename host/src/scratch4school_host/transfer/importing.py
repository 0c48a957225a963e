"""The steps of an import: inspect, rehearse, import, finish, complete, and undo."""

from __future__ import annotations

import json
import os
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

from ..containers import APPLICATION_USER, Containers
from ..databases.engines import DATABASE, SCHEMA_TABLE, SQLITE_FILE, Server, engine
from ..errors import OperatorError
from ..files import read_json, write_json
from ..locking import maintenance_reason
from ..progress import Progress, megabytes, say
from ..settings import TransferSettings
from ..slots import maintenance
from ..slots.state import Slots
from ..times import now, readable
from ..uploads import walk
from . import application, report, source_files
from .source_database import Scratch, copy_source, scratch

# Rows per second on a host with two cores, for the estimate in the report.
ROWS_A_SECOND = 5000
REHEARSAL = "rehearsal"
IMPORTING = "adopt.yml is importing a school"


def state(settings: TransferSettings) -> dict[str, Any]:
    """The state of an import: `step` is `imported` after the first import, then `done`; {} before."""
    return read_json(settings.state_file)


def inspect(settings: TransferSettings, slots: Slots, containers: Containers, _run: str) -> None:
    """Report the rows, files and faults of the source; read-only.

    :raises OperatorError: when the source cannot be read, or this host has too little disk space for it.
    """
    progress = Progress(2)
    with scratch(settings, containers) as place:
        rows, files, seconds = _inspect(place, containers, progress)
    found = {
        "at": now(),
        "host": settings.host,
        # Without the list of all named files, which would make the report too long to mail.
        "rows": {name: value for name, value in rows.items() if name != "files"},
        "files": files,
        "need": {
            "bytes": files["bytes"] + files["orphan_bytes"] + 4 * rows["bytes"],
            # An import reads each file, writes it and reads it back; it reads the rows three times.
            "seconds": 3 * seconds + 3 * sum(rows["rows"].values()) / ROWS_A_SECOND,
        },
    }
    write_json(settings.report_file, found)
    # A file name that is not valid UTF-8 is written with escaped bytes.
    text = [line.encode(errors="backslashreplace").decode() for line in report.lines(found)]
    settings.report_file.with_suffix(".txt").write_text("\n".join(text) + "\n")
    for line in text:
        say(line)
    settings.require_room(Path(settings.uploads), found["need"]["bytes"], "The import")


def _inspect(
    place: Scratch, containers: Containers, progress: Progress
) -> tuple[dict[str, Any], dict[str, Any], float]:
    with progress.phase("rows", f"of {place.settings.source_database}"):
        source = copy_source(place)
        rows = {**json.loads(application.inspect(containers, place.settings, source.database)), "bytes": source.bytes}
        progress.sum_up(f"{sum(rows['rows'].values()):,} rows, {rows['shape']}")
    with (
        progress.phase("files", f"in {place.settings.source_uploads}, each of them read"),
        source_files.source_folder(place.settings) as root,
    ):
        began = time.monotonic()
        files = source_files.inspect(root, rows["files"], progress.tell)
        progress.sum_up(f"{files['there']:,} of {files['named']:,} that rows name, {megabytes(files['bytes'])}")
    return rows, files, time.monotonic() - began


def rehearse(settings: TransferSettings, slots: Slots, containers: Containers, _run: str) -> None:
    """Import into a scratch database, compare it with the source, and remove it."""
    progress = Progress(4)
    with scratch(settings, containers) as place:
        with progress.phase("rows", f"of {settings.source_database}"):
            source = copy_source(place)
            progress.sum_up(megabytes(source.bytes))
        target = (
            partial(place.empty_database, REHEARSAL)
            if settings.engine == "postgres"
            else partial(application.empty_sqlite, settings.work / REHEARSAL)
        )
        application.rehearse(containers, settings, source.database, target, progress)
    say(f"The rehearsal succeeded in {progress.total:.1f} s, and its scratch database is removed.")


def import_data(settings: TransferSettings, slots: Slots, containers: Containers, run: str) -> None:
    """Import the source's current rows and files, while the old service may still run; it can be repeated."""
    _refuse_what_is_done(settings)
    _refuse_foreign_data(settings, containers)
    _keep(settings, step="imported", began=state(settings).get("began", now()), source=settings.source, compared="")
    maintenance.begin(slots, run, IMPORTING)
    progress = Progress(4)
    _import(settings, containers, progress)
    _keep(settings, imported=now(), seconds=progress.seconds)
    say(f"All data is imported ({progress.total:.1f} s). The last step imports later changes of the source.")


def finish(settings: TransferSettings, slots: Slots, containers: Containers, run: str) -> None:
    """Import the final difference, and compare rows and files of both sides.

    :raises OperatorError: when they differ, or the first import is missing or was from another source.
    """
    if state(settings).get("step") == "done":
        _refuse_what_is_done(settings)
    begun = state(settings)
    if begun.get("step") != "imported":
        raise OperatorError("Nothing is imported yet; run adopt.yml -e step=import first, while the old service runs.")
    if begun["source"] != settings.source:
        raise OperatorError(
            f"The data here was imported from {begun['source']['database']} and {begun['source']['uploads']}. "
            "Since then adoption_database or adoption_uploads was changed. Correct it, or remove the imported data "
            "with -e undo=true."
        )
    if _pupils_may_have_worked(settings):
        when = readable(begun["compared"])
        say(
            f"Source and this host were the same at {when}. Pupils may have worked here since, so nothing more is "
            "imported; the run continues from there."
        )
        return
    _keep(settings, compared="")
    maintenance.begin(slots, run, IMPORTING)
    progress = Progress(6)
    _import(settings, containers, progress)
    # The source is read once more, so a change there since the import is reported as a difference.
    with scratch(settings, containers) as place:
        with progress.phase("rows", "once more, against those that are here"):
            source = copy_source(place)
            rows = json.loads(application.inspect(containers, settings, source.database))
            live = application.live(settings)
            verdict, differences = application.compare(containers, settings, source.database, live, refuse=False)
            progress.sum_up(verdict)
        with (
            progress.phase("files", "once more, against those that are here"),
            source_files.source_folder(settings) as root,
        ):
            same, different = source_files.compare(settings, root, rows["files"])
            differences += different
            progress.sum_up(f"{same:,} files are the same, {len(different):,} differ")
    if differences:
        raise OperatorError(
            "The data here differs from the source's: "
            + "; ".join(differences[:5])
            + (f"; and {len(differences) - 5} more" if len(differences) > 5 else "")
            + ". If the old service still runs, stop it; then run this again."
        )
    _keep(settings, compared=now(), pause=progress.total)
    say(f"Source and this host are the same, row by row and file by file ({progress.total:.1f} s).")


def _import(settings: TransferSettings, containers: Containers, progress: Progress) -> None:
    with scratch(settings, containers) as place:
        with progress.phase("rows", f"of {settings.source_database}"):
            source = copy_source(place)
            rows = json.loads(application.inspect(containers, settings, source.database))
            progress.sum_up(f"{sum(rows['rows'].values()):,} rows, {megabytes(source.bytes)}")
        application.make_same(containers, settings, source.database, application.live(settings), progress)
        with (
            progress.phase("files", f"of {settings.source_uploads}"),
            source_files.source_folder(settings) as root,
        ):
            done = source_files.transfer(settings, root, rows["files"], progress.tell)
            progress.sum_up(
                f"{done['copied']:,} copied and read back, {done['unchanged']:,} as before, {done['gone']:,} gone; "
                f"{done['orphans']:,} that no row names are in {settings.orphans}"
            )


def complete(settings: TransferSettings) -> None:
    """Record that the imported school is live here; a later import is refused."""
    if not state(settings).get("compared"):
        raise OperatorError("Nothing was compared yet, so nothing is finished; run adopt.yml -e step=finish.")
    _keep(settings, step="done", done=now())
    say(f"The import is complete. Files that no row names are in {settings.orphans}; remove them when you need none.")


def undo(settings: TransferSettings, slots: Slots, containers: Containers, run: str) -> None:
    """Remove the imported rows and files, and end maintenance mode; the source is unchanged."""
    if state(settings).get("step") == "done" or _pupils_may_have_worked(settings):
        _refuse_what_is_done(settings)
    if not state(settings) and not maintenance_reason(settings.change_directory):
        raise OperatorError("Nothing was imported, so there is nothing to remove.")
    maintenance.begin(slots, run, "adopt.yml is removing what it imported")
    if settings.engine == "postgres":
        server = Server(settings.postgres_container)
        tables = ", ".join(f'public."{table}"' for table in server.rows() if table != SCHEMA_TABLE)
        if tables:
            server.sql(f"TRUNCATE {tables} RESTART IDENTITY", DATABASE, doing="Removing the rows")
    else:
        _empty_sqlite(Path(settings.sqlite_directory))
        # A release that is live afterwards needs its tables to become ready.
        application.migrate(containers, settings, application.live(settings))
    for entry in [*Path(settings.uploads).iterdir(), settings.orphans]:
        if not entry.name.startswith(".") and entry.exists():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    settings.files_file.unlink(missing_ok=True)
    maintenance.end(slots, run)
    # The state is removed last, so that the same command continues after an interruption.
    settings.state_file.unlink(missing_ok=True)
    say("The imported data is removed; this host is empty, and the source is unchanged.")


def _empty_sqlite(folder: Path) -> None:
    for ending in ("-wal", "-shm"):
        (folder / f"{SQLITE_FILE}{ending}").unlink(missing_ok=True)
    file = folder / SQLITE_FILE
    file.write_bytes(b"")
    file.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(file, APPLICATION_USER, APPLICATION_USER)


def _pupils_may_have_worked(settings: TransferSettings) -> bool:
    """Whether a slot may have been live since both sides were the same; then no import may replace its rows."""
    return bool(state(settings).get("compared")) and not maintenance_reason(settings.change_directory)


def _refuse_what_is_done(settings: TransferSettings) -> None:
    begun = state(settings)
    if begun.get("step") == "done":
        raise OperatorError(
            f"A school was imported to this host at {readable(begun['done'])}, and it is live; a second one would "
            "replace it. Import another school on another host."
        )
    if _pupils_may_have_worked(settings):
        raise OperatorError(
            f"Source and this host were the same at {readable(begun['compared'])}. Pupils may have worked here since, "
            "and their saves would be lost. Complete the import with adopt.yml -e step=finish -e stopped=true."
        )


def _refuse_foreign_data(settings: TransferSettings, containers: Containers) -> None:
    """OperatorError when this host has rows or files that were not imported."""
    if state(settings).get("step") == "imported":
        return
    rows = engine(settings, containers).live_rows()
    found = {table: count for table, count in rows.items() if count and table != SCHEMA_TABLE}
    files = next(iter(walk(Path(settings.uploads))), None)
    if found or files:
        what = [f"{count:,} {table}" for table, count in found.items()] + ([f"the file {files[0]}"] if files else [])
        raise OperatorError(
            f"This host is not empty: it has {', '.join(what)}. Import a school to a host without data."
        )


def _keep(settings: TransferSettings, **facts: Any) -> None:
    write_json(settings.state_file, {**state(settings), **facts})
