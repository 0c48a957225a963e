"""Restores a backup: loads it beside the live data, compares it with its manifest, and makes it live.

A file records each step, so the same command continues after an interruption. Until the restored installation was
verified, `undo` makes the previous data live again.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from ..containers import APPLICATION_USER, FILES_GROUP, USER, Containers
from ..databases.engines import engine, same_content
from ..errors import OperatorError
from ..files import empty_folder, free_bytes, write_json
from ..progress import Progress, megabytes, say
from ..settings import BackupSettings
from ..slots import maintenance
from ..slots.state import Slots
from ..times import now, readable
from ..uploads import walk
from .cutover import SWEEP_NOTE, LiveData
from .repository import MANIFEST, Repository, Snapshot
from .state import remember, restore_folder, restore_state
from .stored_files import Files, verify_folder, write_patterns

# The steps, in order. From `maintenance` on, no slot is live; at `live`, the restored data is.
STEPS = ("fetching", "fetched", "loaded", "maintenance", "out", "in", "live")
# The step after a commit or an undo: the sides that are not live are being removed, and nothing else can follow.
DISCARDING = "discarding"


def _keep(settings: BackupSettings, **facts: Any) -> None:
    write_json(restore_folder(settings) / "state.json", {**restore_state(settings), **facts})


def is_past(step: str, begun: dict[str, Any]) -> bool:
    """Whether a restore has reached a step."""
    return begun["step"] in STEPS and STEPS.index(begun["step"]) >= STEPS.index(step)


def inspect(settings: BackupSettings, containers: Containers, backup: str) -> dict[str, Any]:
    """Describe a backup, the losses of a restore, and the reason when a restore is refused; read-only.

    :param backup: `latest`, or the first digits of an id.
    """
    repository = Repository(settings, containers)
    snapshot = repository.find(backup)
    manifest = repository.manifest(snapshot)
    return {
        "id": snapshot.short,
        "time": manifest["begun"],
        "kind": manifest["kind"],
        "school": manifest["school"],
        "host": manifest["host"],
        "engine": manifest["engine"],
        "schema": manifest["schema"],
        "release": manifest["release"].get("id", ""),
        "rows": sum(manifest["rows"].values()),
        "files": len(manifest["files"]),
        "bytes": manifest["database"]["size"] + _size(manifest),
        **_losses(settings, containers, manifest),
        "refusal": _refusal(settings, manifest),
    }


def _size(manifest: dict[str, Any]) -> int:
    return sum(size for size, _ in manifest["files"].values())


def _losses(settings: BackupSettings, containers: Containers, manifest: dict[str, Any]) -> dict[str, Any]:
    files = [found.st_size for path, found in walk(Path(settings.uploads)) if path not in manifest["files"]]
    try:
        live = engine(settings, containers)
        rows = live.live_rows()
        changed, titles = live.newer(manifest["begun"]) if rows.get("projects") else (0, [])
    except OperatorError as problem:
        return {"empty": False, "losses": [f"The live database cannot be read, and it is replaced: {problem}"]}
    # Without users and files there is nothing to lose.
    empty = not rows.get("users") and not files
    losses = []
    if changed:
        losses.append(
            f"{changed} projects that were made or changed since, the newest: "
            + ", ".join(f"“{title}”" for title in titles)
        )
    losses += [
        f"{rows[table] - manifest['rows'].get(table, 0)} more rows in {table} than then"
        for table in sorted(rows)
        if rows[table] > manifest["rows"].get(table, 0)
    ]
    if files:
        losses.append(f"{len(files)} files that are not in it ({megabytes(sum(files))})")
    return {"empty": empty, "losses": losses}


def _refusal(settings: BackupSettings, manifest: dict[str, Any]) -> str:
    if manifest["engine"] != settings.engine:
        return (
            f"It is a backup of {manifest['engine']}, and this host runs on {settings.engine}. "
            f"Set database_engine: {manifest['engine']} and provision an empty host."
        )
    try:
        _require_room(settings, manifest)
    except OperatorError as problem:
        return str(problem)
    return ""


def _require_room(settings: BackupSettings, manifest: dict[str, Any]) -> None:
    """Require disk space for dump, database and files beside the live data; OperatorError when there is too little."""
    rows, files = manifest["database"]["size"], _size(manifest)
    settings.require_room(Path(settings.directory), 2 * rows, "The restored database")
    shared = os.stat(settings.directory).st_dev == os.stat(settings.uploads).st_dev
    needed = files + (2 * rows if shared else 0)
    settings.require_room(Path(settings.uploads), needed, "Restoring beside the live data")


def fetch(settings: BackupSettings, containers: Containers, snapshot_id: str) -> None:
    """Unpack and load a backup beside the live data, and compare it with its manifest; the slot stays live.

    :raises OperatorError: for a damaged backup, for too little disk space, and while another restore is unfinished.
    """
    if restore_state(settings).get("step") == DISCARDING:
        _discard(settings, LiveData(settings))
    begun = restore_state(settings)
    if begun and begun["snapshot"] != snapshot_id and is_past("maintenance", begun):
        raise OperatorError(
            f"A restore of {begun['snapshot']} was interrupted. Run it again (-e backup={begun['snapshot']} "
            f"-e confirm={begun['snapshot']}), or undo it with -e undo=true."
        )
    if begun.get("snapshot") == snapshot_id and is_past("loaded", begun):
        say(f"Backup {snapshot_id} is loaded already; the restore continues from there.")
        return
    live = LiveData(settings)
    repository = Repository(settings, containers)
    snapshot = repository.find(snapshot_id)
    manifest = repository.manifest(snapshot)
    _require_room(settings, manifest)
    progress = Progress(3)
    live.discard()
    folder = empty_folder(restore_folder(settings))
    _keep(settings, snapshot=snapshot_id, step="fetching", since=now(), schema=manifest["schema"])
    files: Files = {path: (size, sha) for path, (size, sha) in manifest["files"].items()}
    with progress.phase("unpack", f"backup {snapshot.short} of {readable(manifest['begun'])}, beside the live data"):
        dump = unpack(repository, snapshot, manifest, folder, live.uploads.new, progress)
        progress.sum_up(f"{len(files):,} files, {megabytes(_size(manifest))}")
    with progress.phase("compare", "the unpacked data with the manifest"):
        compare(dump, live.uploads.new, manifest, progress)
        _give_to_application(live.uploads.new)
        progress.sum_up("all data is as it was backed up")
    _keep(settings, step="fetched")
    with progress.phase("load", "the database, beside the live one"):
        live.database.load(dump, manifest["rows"])
        progress.sum_up(f"{sum(manifest['rows'].values()):,} rows")
    dump.unlink()
    os.sync()
    _keep(settings, step="loaded", seconds=progress.total)


def unpack(
    repository: Repository,
    snapshot: Snapshot,
    manifest: dict[str, Any],
    target: Path,
    uploads: Path,
    progress: Progress,
) -> Path:
    """Unpack database and manifest into one folder and the files into another; returns the database's file."""
    first = empty_folder(target / "unpacked", owner=USER)
    includes = target / "includes"
    write_patterns(includes, (MANIFEST, str(manifest["database"]["name"])))
    repository.unpack(snapshot.id, first, includes)
    empty_folder(uploads, owner=USER)
    repository.unpack(f"{snapshot.id}:/uploads", uploads, None, lambda share: progress.tell(f"{100 * share:.0f} %"))
    return first / str(manifest["database"]["name"])


def compare(dump: Path, uploads: Path, manifest: dict[str, Any], progress: Progress) -> None:
    """Compare database and files with the manifest, and remove files that it does not name.

    :raises OperatorError: when one is missing or differs.
    """
    if not dump.is_file() or not same_content(dump, manifest["database"]):
        raise OperatorError("The database in the backup is damaged; choose another backup.")
    verify_folder(uploads, {path: (size, sha) for path, (size, sha) in manifest["files"].items()}, progress.tell)
    for path, _ in list(walk(uploads)):
        if path not in manifest["files"]:
            (uploads / path).unlink()


def _give_to_application(uploads: Path) -> None:
    for path, folders, names in os.walk(uploads):
        for name in names:
            os.chown(os.path.join(path, name), APPLICATION_USER, FILES_GROUP)
            os.chmod(os.path.join(path, name), 0o640)
        for name in folders:
            os.chown(os.path.join(path, name), APPLICATION_USER, FILES_GROUP)
            os.chmod(os.path.join(path, name), 0o2750)


def cut_over(settings: BackupSettings, slots: Slots, run: str) -> None:
    """Begin maintenance mode, and make database and files of the loaded backup live."""
    begun = restore_state(settings)
    step = begun.get("step", "")
    if step == "live":
        say("Database and files are those of the backup already.")
        return
    if not begun or not is_past("loaded", begun):
        raise OperatorError("No backup is loaded yet; run restore.yml.")
    live = LiveData(settings)
    maintenance.begin(slots, run, f"restore.yml is restoring {begun['snapshot']}")
    if step == "loaded":
        step = "maintenance"
        _keep(settings, step=step)
    live.cut_over(step, lambda to: _keep(settings, step=to))
    (live.uploads.live / SWEEP_NOTE).unlink(missing_ok=True)
    _keep(settings, step="live")
    say(f"Database and files are those of backup {begun['snapshot']}; the previous ones are kept until verification.")


def undo(settings: BackupSettings, slots: Slots, run: str, keep_maintenance: bool) -> None:
    """Make the previous data live again, forget the restore, and end maintenance mode.

    :param keep_maintenance: leave maintenance mode on; the caller ends it.
    """
    begun = restore_state(settings)
    if begun:
        _take_back(settings, slots, run, begun)
    if not keep_maintenance:
        maintenance.end(slots, run)


def _take_back(settings: BackupSettings, slots: Slots, run: str, begun: dict[str, Any]) -> None:
    live = LiveData(settings)
    if begun["step"] == DISCARDING:
        _discard(settings, live)
        say("This restore was committed or undone before. The live data stays; the rest of the restore is removed.")
        return
    if is_past("maintenance", begun):
        maintenance.begin(slots, run, f"restore.yml is undoing the restore of {begun['snapshot']}")
        live.undo(begun["step"], lambda to: _keep(settings, step=to))
    _discard(settings, live)
    remember(settings, "restore", ok=False, id=begun["snapshot"], undone=True)
    say("Database and files are what they were before the restore.")


def commit(settings: BackupSettings) -> None:
    """Remove the previous data, because the restored installation was verified."""
    begun = restore_state(settings)
    if begun.get("step") not in ("live", DISCARDING):
        raise OperatorError("There is no restore to commit; run restore.yml.")
    _discard(settings, LiveData(settings))
    remember(settings, "restore", ok=True, id=begun["snapshot"], since=begun["since"])
    say(f"The previous data is removed; {megabytes(free_bytes(Path(settings.directory)))} are free.")


def _discard(settings: BackupSettings, live: LiveData) -> None:
    # The step is recorded first: after an interruption, half of a removed side must not become live. The state is
    # removed last, so that an interrupted restore continues.
    _keep(settings, step=DISCARDING)
    live.discard()
    folder = restore_folder(settings)
    for entry in folder.iterdir():
        if entry.name != "state.json":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    (folder / "state.json").unlink(missing_ok=True)
