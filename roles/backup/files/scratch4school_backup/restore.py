"""Brings a backup back: unpacked and loaded beside what is live, held against its manifest, then swapped as a unit.

How far it came stands in a file, so that whoever runs it again goes on from there, and whoever wants it undone gets
back what was live, until the restored school was verified.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from host_change import readable

from .base import (
    Problem,
    Progress,
    Settings,
    empty_folder,
    free_bytes,
    megabytes,
    need_room,
    now,
    read_json,
    remember,
    say,
    write_json,
)
from .containers import APPLICATION_USER, FILES_GROUP, USER, Containers
from .engines import engine, same_content
from .live import SWEEP_NOTE, Live, tell_slots
from .repository import MANIFEST, Repository, Snapshot
from .uploads import Files, verify_folder, walk, write_patterns

# In order. From `closed` on nobody is served; from `swapped` on the restored school is.
STEPS = ("fetching", "fetched", "loaded", "closed", "out", "in", "swapped")
# What is live is right, and the other sides are on their way out: from here there is no way back, only to the end.
FORGETTING = "forgetting"


def folder(settings: Settings) -> Path:
    """Where a restore keeps what is not live."""
    return Path(settings.directory) / "restore"


def state(settings: Settings) -> dict[str, Any]:
    """The restore that was begun and neither settled nor undone; empty when there is none."""
    return read_json(folder(settings) / "state.json")


def _keep(settings: Settings, **facts: Any) -> None:
    write_json(folder(settings) / "state.json", {**state(settings), **facts})


def look(settings: Settings, containers: Containers, wish: str) -> dict[str, Any]:
    """What a restore of the backup would bring and what it would lose; nothing is changed."""
    repository = Repository(settings, containers)
    snapshot = repository.find(wish)
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
        "bytes": manifest["database"]["size"] + sum(size for size, _ in manifest["files"].values()),
        **_losses(settings, containers, manifest),
        "refusal": _refusal(settings, manifest),
    }


def _losses(settings: Settings, containers: Containers, manifest: dict[str, Any]) -> dict[str, Any]:
    files = [found.st_size for path, found in walk(Path(settings.uploads)) if path not in manifest["files"]]
    try:
        live = engine(settings, containers)
        rows = live.live_rows()
        changed, titles = live.newer(manifest["begun"]) if rows.get("projects") else (0, [])
    except Problem as problem:
        return {"empty": False, "losses": [f"The live rows cannot be read, and all of them are replaced: {problem}"]}
    # A school of which nobody has logged in yet has nothing to lose.
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


def _refusal(settings: Settings, manifest: dict[str, Any]) -> str:
    if manifest["engine"] != settings.engine:
        return (
            f"It is a backup of {manifest['engine']}, and this host runs on {settings.engine}. "
            f"Set database_engine: {manifest['engine']} and provision an empty host."
        )
    rows, files = manifest["database"]["size"], sum(size for size, _ in manifest["files"].values())
    try:
        # The dump, what it becomes, and the files lie beside the live ones until the restored school was verified.
        _need_room(settings, rows, files)
    except Problem as problem:
        return str(problem)
    return ""


def _need_room(settings: Settings, rows: int, files: int) -> None:
    need_room(settings, Path(settings.directory), 2 * rows, "The restored database")
    shared = os.stat(settings.directory).st_dev == os.stat(settings.uploads).st_dev
    need_room(settings, Path(settings.uploads), files + (2 * rows if shared else 0), "Restoring beside what is live")


def fetch(settings: Settings, containers: Containers, snapshot_id: str) -> None:
    """Unpack and load a backup beside what is live, and hold it against its manifest; pupils are served meanwhile."""
    if state(settings).get("step") == FORGETTING:
        _forget(settings, Live(settings))
    begun = state(settings)
    if begun and begun["snapshot"] != snapshot_id and STEPS.index(begun["step"]) >= STEPS.index("closed"):
        raise Problem(
            f"A restore of {begun['snapshot']} was cut short. Run that one again (-e backup={begun['snapshot']} "
            f"-e confirm={begun['snapshot']}), or "
            "take it back with -e undo=true."
        )
    if begun.get("snapshot") == snapshot_id and begun["step"] not in ("fetching", "fetched"):
        say(f"Backup {snapshot_id} is loaded already; going on from there.")
        return
    live = Live(settings)
    repository = Repository(settings, containers)
    snapshot = repository.find(snapshot_id)
    manifest = repository.manifest(snapshot)
    _need_room(settings, manifest["database"]["size"], sum(size for size, _ in manifest["files"].values()))
    progress = Progress(3)
    live.settle()
    empty_folder(folder(settings))
    _keep(settings, snapshot=snapshot_id, step="fetching", since=now(), schema=manifest["schema"])
    files: Files = {path: (size, sha) for path, (size, sha) in manifest["files"].items()}
    with progress.phase("unpack", f"backup {snapshot.short} of {readable(manifest['begun'])}, beside what is live"):
        dump = unpack(repository, snapshot, manifest, folder(settings), live.uploads.new, progress)
        progress.sum_up(f"{len(files):,} files, {megabytes(sum(size for size, _ in files.values()))}")
    with progress.phase("compare", "what was unpacked with the manifest"):
        compare(dump, live.uploads.new, manifest, progress)
        _give_to_application(live.uploads.new)
        progress.sum_up("all is what was backed up")
    _keep(settings, step="fetched")
    with progress.phase("load", "the rows, beside those that are live"):
        live.rows.load(dump, manifest["rows"])
        progress.sum_up(f"{sum(manifest['rows'].values()):,} rows")
    dump.unlink()
    os.sync()
    _keep(settings, step="loaded", seconds=sum(progress.seconds.values()))


def unpack(
    repository: Repository,
    snapshot: Snapshot,
    manifest: dict[str, Any],
    target: Path,
    uploads: Path,
    progress: Progress,
) -> Path:
    """Unpack rows and manifest into one folder and the files into another; returns the rows' file."""
    first = empty_folder(target / "unpacked", owner=USER)
    includes = target / "includes"
    write_patterns(includes, (MANIFEST, str(manifest["database"]["name"])))
    repository.unpack(snapshot.id, first, includes)
    empty_folder(uploads, owner=USER)
    repository.unpack(f"{snapshot.id}:/uploads", uploads, None, lambda share: progress.tell(f"{100 * share:.0f} %"))
    return first / str(manifest["database"]["name"])


def compare(dump: Path, uploads: Path, manifest: dict[str, Any], progress: Progress) -> None:
    """Problem unless rows and files are those of the manifest; files that came after its moment are removed."""
    if not dump.is_file() or not same_content(dump, manifest["database"]):
        raise Problem("The database in the backup is damaged; take another backup.")
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


def swap(settings: Settings, run: str) -> None:
    """Stop serving, and let rows and files of the backup be the live ones."""
    begun = state(settings)
    step = begun.get("step", "")
    if step == "swapped":
        say("Rows and files have changed places already.")
        return
    if step not in STEPS[2:]:
        raise Problem("No backup is loaded that could become live; run restore.yml.")
    live = Live(settings)
    tell_slots(settings, "close", "--run", run, "--reason", f"restore.yml is bringing back {begun['snapshot']}")
    if step == "loaded":
        step = "closed"
        _keep(settings, step=step)
    live.swap(step, lambda to: _keep(settings, step=to))
    (live.uploads.live / SWEEP_NOTE).unlink(missing_ok=True)
    _keep(settings, step="swapped")
    say(f"Rows and files are those of backup {begun['snapshot']}; what was live is kept until they are verified.")


def undo(settings: Settings, run: str, stay_closed: bool) -> None:
    """Let what was live be so again, forget the restore, and let pupils in, unless the caller does that."""
    begun = state(settings)
    if begun:
        _take_back(settings, run, begun)
    if not stay_closed:
        tell_slots(settings, "open", "--run", run)


def _take_back(settings: Settings, run: str, begun: dict[str, Any]) -> None:
    live = Live(settings)
    if begun["step"] == FORGETTING:
        _forget(settings, live)
        say("The end of it had been decided already: what is live stays, and the rest of it is gone.")
        return
    if STEPS.index(begun["step"]) >= STEPS.index("closed"):
        tell_slots(settings, "close", "--run", run, "--reason", f"restore.yml takes back {begun['snapshot']}")
        live.swap_back(begun["step"], lambda to: _keep(settings, step=to))
    _forget(settings, live)
    remember(settings, "restore", ok=False, id=begun["snapshot"], undone=True)
    say("Rows and files are what they were before the restore.")


def settle(settings: Settings) -> None:
    """The restored school was verified: let go of what was live before."""
    begun = state(settings)
    if begun.get("step") not in ("swapped", FORGETTING):
        raise Problem("There is no restored school that could be settled; run restore.yml.")
    _forget(settings, Live(settings))
    remember(settings, "restore", ok=True, id=begun["snapshot"], since=begun["since"])
    say(f"What was live before is gone; {megabytes(free_bytes(Path(settings.directory)))} are free.")


def _forget(settings: Settings, live: Live) -> None:
    # The note goes last: as long as it is there, a run that was cut short is taken up. It says first that nothing may
    # be moved any more: half of the other sides, moved back, would be half a school.
    _keep(settings, step=FORGETTING)
    live.settle()
    for entry in folder(settings).iterdir():
        if entry.name != "state.json":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    (folder(settings) / "state.json").unlink(missing_ok=True)
