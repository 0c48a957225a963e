"""The steps of an adoption: look, rehearse, bring over, finish; and giving it up."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import host_change
from scratch4school_backup.base import Problem, Progress, megabytes, need_room, now, read_json, say, write_json
from scratch4school_backup.containers import APPLICATION_USER, Containers
from scratch4school_backup.engines import DATABASE, SQLITE_FILE, Server, engine
from scratch4school_backup.live import tell_slots
from scratch4school_backup.uploads import walk

from . import application, old_files, report
from .old_rows import Scratch, read_old_rows, scratch
from .settings import Settings

# Rows that a machine of two cores brings over in a second, for the estimate alone.
ROWS_A_SECOND = 5000
STAMP = "alembic_version"
REHEARSAL = "rehearsal"


def state(settings: Settings) -> dict[str, Any]:
    """How far the adoption is: `step` is brought (once at least) or done; empty before."""
    return read_json(settings.state_file)


def look(settings: Settings, containers: Containers, _run: str) -> None:
    """Say what there is and what is wrong with it. Nothing is changed, neither there nor here."""
    progress = Progress(2)
    with scratch(settings, containers) as place:
        rows, files, seconds = _look(place, containers, progress)
    found = {
        "at": now(),
        "host": settings.host,
        # Without the files that are as they should be: the report is meant to be mailed.
        "rows": {name: value for name, value in rows.items() if name != "files"},
        "files": files,
        "need": {
            "bytes": files["bytes"] + files["orphan_bytes"] + 4 * rows["bytes"],
            # Read, written and read back; and the rows three times.
            "seconds": 3 * seconds + 3 * sum(rows["rows"].values()) / ROWS_A_SECOND,
        },
    }
    write_json(settings.report_file, found)
    # A name that is no UTF-8 is written as the bytes that it is.
    text = [line.encode(errors="backslashreplace").decode() for line in report.lines(found)]
    settings.report_file.with_suffix(".txt").write_text("\n".join(text) + "\n")
    for line in text:
        say(line)
    need_room(settings, Path(settings.uploads), found["need"]["bytes"], "Bringing it over")


def _look(place: Scratch, containers: Containers, progress: Progress) -> tuple[dict[str, Any], dict[str, Any], float]:
    with progress.phase("rows", f"of {place.settings.old_database}"):
        old = read_old_rows(place)
        rows = {**json.loads(application.look(containers, place.settings, old.database)), "bytes": old.bytes}
        progress.sum_up(f"{sum(rows['rows'].values()):,} rows, {rows['shape']}")
    with (
        progress.phase("files", f"in {place.settings.old_uploads}, each of them read"),
        old_files.old_folder(place.settings) as root,
    ):
        began = time.monotonic()
        files = old_files.look(root, rows["files"], progress.tell)
        progress.sum_up(f"{files['there']:,} of {files['named']:,} that rows name, {megabytes(files['bytes'])}")
    return rows, files, time.monotonic() - began


def rehearse(settings: Settings, containers: Containers, _run: str) -> None:
    """Bring the rows over into a place that is removed afterwards, and hold them against the old ones."""
    progress = Progress(4)
    with scratch(settings, containers) as place:
        with progress.phase("rows", f"of {settings.old_database}"):
            old = read_old_rows(place)
            progress.sum_up(megabytes(old.bytes))
        with progress.phase("schema", "in a database of the rehearsal's own"):
            new = (
                place.empty_database(REHEARSAL)
                if settings.engine == "postgres"
                else application.empty_sqlite(settings.work / REHEARSAL)
            )
            application.migrate(containers, settings, new)
        with progress.phase("bring over", "into it"):
            application.transfer(containers, settings, old.database, new)
        with progress.phase("compare", "row for row"):
            progress.sum_up(application.compare(containers, settings, old.database, new)[0])
    say(f"The rehearsal went well: {sum(progress.seconds.values()):.1f} s. Nothing of it is left.")


def bring(settings: Settings, containers: Containers, run: str) -> None:
    """Bring over what there is now, while the old service may go on; so often as one likes."""
    _refuse_what_is_done(settings)
    _refuse_rows_of_others(settings, containers)
    _keep(settings, step="brought", began=state(settings).get("began", now()), old=settings.as_dict(), compared="")
    tell_slots(settings, "close", "--run", run, "--reason", "adopt.yml is bringing a school over")
    progress = Progress(4)
    _bring(settings, containers, progress)
    _keep(settings, brought=now(), seconds=progress.seconds)
    seconds = sum(progress.seconds.values())
    say(f"All of it is here ({seconds:.1f} s). What changes there from now on comes with the last step.")


def finish(settings: Settings, containers: Containers, run: str) -> None:
    """The final difference, and then nothing may differ: neither a row nor a file."""
    if state(settings).get("step") == "done":
        _refuse_what_is_done(settings)
    begun = state(settings)
    if begun.get("step") != "brought":
        raise Problem("Nothing was brought over yet; run adopt.yml -e step=import first, while the old service runs.")
    if begun["old"] != settings.as_dict():
        raise Problem(
            f"What was brought over came from {begun['old']['database']} and {begun['old']['uploads']}, and the old "
            "place is described otherwise now. Correct the description, or give it up with -e undo=true."
        )
    if _are_let_in(settings):
        when = host_change.readable(begun["compared"])
        say(f"Old and new were the same at {when}, and pupils came since; it goes on from there.")
        return
    _keep(settings, compared="")
    tell_slots(settings, "close", "--run", run, "--reason", "adopt.yml is bringing a school over")
    progress = Progress(6)
    _bring(settings, containers, progress)
    # Read anew: what changed there since is a difference like any other.
    with scratch(settings, containers) as place:
        with progress.phase("rows", "once more, against those that are here"):
            old = read_old_rows(place)
            rows = json.loads(application.look(containers, settings, old.database))
            live = application.live(settings)
            said, differences = application.compare(containers, settings, old.database, live, refuse=False)
            progress.sum_up(said)
        with (
            progress.phase("files", "once more, against those that are here"),
            old_files.old_folder(settings) as root,
        ):
            same, different = old_files.compare(settings, root, rows["files"])
            differences += different
            progress.sum_up(f"{same:,} files are the same, {len(different):,} differ")
    if differences:
        raise Problem(
            "The school here is not the old one: "
            + "; ".join(differences[:5])
            + (f"; and {len(differences) - 5} more" if len(differences) > 5 else "")
            + ". If the old service still runs, stop it; then run this again."
        )
    _keep(settings, compared=now(), pause=sum(progress.seconds.values()))
    say(f"Old and new are the same, row for row and file for file ({sum(progress.seconds.values()):.1f} s).")


def _bring(settings: Settings, containers: Containers, progress: Progress) -> None:
    with scratch(settings, containers) as place:
        with progress.phase("rows", f"of {settings.old_database}"):
            old = read_old_rows(place)
            rows = json.loads(application.look(containers, settings, old.database))
            progress.sum_up(f"{sum(rows['rows'].values()):,} rows, {megabytes(old.bytes)}")
        with progress.phase("bring over", "the rows"):
            live = application.live(settings)
            application.transfer(containers, settings, old.database, live)
        with progress.phase("compare", "row for row"):
            progress.sum_up(application.compare(containers, settings, old.database, live)[0])
        with progress.phase("files", f"of {settings.old_uploads}"), old_files.old_folder(settings) as root:
            done = old_files.transfer(settings, root, rows["files"], progress.tell)
            progress.sum_up(
                f"{done['copied']:,} copied and read back, {done['unchanged']:,} as before, {done['gone']:,} gone; "
                f"{done['orphans']:,} that no row names are in {settings.orphans}"
            )


def settle(settings: Settings) -> None:
    """The school serves here: from now on nothing is brought over any more."""
    if not state(settings).get("compared"):
        raise Problem("Nothing was compared yet, so nothing is finished; run adopt.yml -e step=finish.")
    _keep(settings, step="done", done=now())
    say(f"The school is here. Files that no row named are in {settings.orphans}; remove them when nobody misses any.")


def undo(settings: Settings, containers: Containers, run: str) -> None:
    """Give it up: remove what was brought over. The old place is as it was."""
    if state(settings).get("step") == "done" or _are_let_in(settings):
        _refuse_what_is_done(settings)
    if not state(settings) and not host_change.read_hold(settings.change_directory):
        raise Problem("Nothing was brought over, so there is nothing to remove.")
    tell_slots(settings, "close", "--run", run, "--reason", "adopt.yml is removing what it brought over")
    if settings.engine == "postgres":
        server = Server(settings.postgres_container)
        tables = ", ".join(f'public."{table}"' for table in server.rows() if table != STAMP)
        if tables:
            server.sql(f"TRUNCATE {tables} RESTART IDENTITY", DATABASE, doing="Removing the rows")
    else:
        _empty_sqlite(Path(settings.sqlite_directory))
        # A release that was deployed before would not become ready without its tables.
        application.migrate(containers, settings, application.live(settings))
    for entry in [*Path(settings.uploads).iterdir(), settings.orphans]:
        if not entry.name.startswith(".") and entry.exists():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    settings.files_file.unlink(missing_ok=True)
    tell_slots(settings, "open", "--run", run)
    # Last: as long as it is there, the same command goes on from here.
    settings.state_file.unlink(missing_ok=True)
    say("What was brought over is removed; this host is empty, and the old place is as it was.")


def _empty_sqlite(folder: Path) -> None:
    for ending in ("-wal", "-shm"):
        (folder / f"{SQLITE_FILE}{ending}").unlink(missing_ok=True)
    file = folder / SQLITE_FILE
    file.write_bytes(b"")
    file.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(file, APPLICATION_USER, APPLICATION_USER)


def _are_let_in(settings: Settings) -> bool:
    """Whether pupils may have worked here since both sides were the same: then nothing is brought over any more."""
    return bool(state(settings).get("compared")) and not host_change.read_hold(settings.change_directory)


def _refuse_what_is_done(settings: Settings) -> None:
    begun = state(settings)
    if begun.get("step") == "done":
        raise Problem(
            f"A school was brought over to this host at {host_change.readable(begun['done'])}, and it serves; a second "
            "one would replace it. Bring another school to another host."
        )
    if _are_let_in(settings):
        raise Problem(
            f"Old and new were the same at {host_change.readable(begun['compared'])}, and pupils have been let in here "
            "since; what they saved would be lost. End it with adopt.yml -e step=finish -e stopped=true."
        )


def _refuse_rows_of_others(settings: Settings, containers: Containers) -> None:
    """A school in which somebody has worked is never replaced."""
    if state(settings).get("step") == "brought":
        return
    rows = engine(settings, containers).live_rows()
    found = {table: count for table, count in rows.items() if count and table != STAMP}
    files = next(iter(walk(Path(settings.uploads))), None)
    if found or files:
        what = [f"{count:,} {table}" for table, count in found.items()] + ([f"the file {files[0]}"] if files else [])
        raise Problem(
            f"This host is not empty: there is {', '.join(what)}. A school is brought over to a host on which nobody "
            "has worked yet."
        )


def _keep(settings: Settings, **facts: Any) -> None:
    write_json(settings.state_file, {**state(settings), **facts})
