"""Makes a backup: rows first, then files, then the repository, and all of it read back before it counts.

Files are written once and swept late, so whatever a row names at the moment of the dump is still there when the files
are stored. That is what makes the two one moment without a stop, and it is not believed but proved, each time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from .base import (
    Problem,
    Progress,
    Settings,
    empty_folder,
    megabytes,
    need_room,
    now,
    read_json,
    remember,
    say,
    sha256,
    write_json,
)
from .containers import USER, Containers, last_words
from .engines import Engine, engine
from .live import serving_release
from .repository import FORMAT, MANIFEST, PLACE, Repository
from .rows import Contents
from .uploads import Files, Hashes, hashed, read_back, walk

CONFIGURATION = "configuration.tar"
KINDS = ("manual", "nightly", "migration", "safety")


def take(settings: Settings, containers: Containers, kind: str, run: str) -> str:
    """Make a backup, prove it, and return its id; Problem when it cannot be called one."""
    progress = Progress(4)
    repository = Repository(settings, containers)
    source = engine(settings, containers)
    uploads = Path(settings.uploads)
    hashes = Hashes(Path(settings.directory) / "files.json")
    began = now()
    identity = repository.identity()
    repository.unlock()
    # What was stored and never proved is no backup, and nobody will ask for it.
    repository.forget([one for one in repository.snapshots() if not one.proved and one.host == settings.host])
    _need_room(settings, source, hashes)
    work = empty_folder(settings.work, owner=USER)
    try:
        with progress.phase("database", f"the rows of this moment, by {settings.engine}"):
            version = source.dump(work, progress.tell)
            # First: what is cut off by now cannot be read to its end, and what changes later has another hash.
            digest = sha256(work / source.file)
            contents = source.contents(work / source.file)
            progress.sum_up(f"{sum(contents.rows.values()):,} rows, {megabytes((work / source.file).stat().st_size)}")
        with progress.phase("files", "every file with its hash"):
            files = hashed(uploads, hashes, progress.tell)
            lacking = _lacking(contents, files)
            progress.sum_up(f"{len(files):,} files, {megabytes(sum(size for size, _ in files.values()))}")
        database = {"name": source.file, "size": (work / source.file).stat().st_size, "sha256": digest}
        manifest = _manifest(settings, kind, run, began, version, contents, files, lacking, database)
        _pack_configuration(settings, work / CONFIGURATION)
        write_json(work / MANIFEST, manifest, mode=0o644)
        with progress.phase("store", f"into {settings.repository}"):
            summary = _store(repository, settings, source, work, kind, run, progress)
            progress.sum_up(f"{megabytes(summary.get('data_added_packed', 0))} new in the repository")
        with progress.phase("read back", "what was stored, from the repository"):
            unproved = hashes.unproved(identity, files)
            _prove(repository, containers, settings, summary["snapshot_id"], manifest, unproved, progress)
            progress.sum_up(
                f"database and {len(unproved):,} files are what was backed up, {len(files):,} files are there"
            )
        snapshot = repository.prove(summary["snapshot_id"])
        hashes.keep(identity)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    remember(
        settings,
        "backup",
        ok=True,
        id=snapshot[:8],
        kind=kind,
        seconds=sum(progress.seconds.values()),
        phases=progress.seconds,
        rows=sum(contents.rows.values()),
        files=len(files),
        lacking=len(lacking),
        bytes=sum(size for size, _ in files.values()) + manifest["database"]["size"],
    )
    say(f"Backup {snapshot[:8]} of {settings.host} is proved ({sum(progress.seconds.values()):.1f} s).")
    _tell_of_lacking(settings, lacking)
    return snapshot


def _need_room(settings: Settings, source: Engine, hashes: Hashes) -> None:
    """The dump twice, as a file and in the repository, and what is new of the files."""
    rows = source.size()
    new = sum(found.st_size for path, found in walk(Path(settings.uploads)) if not hashes.known(path, found))
    directory, repository = Path(settings.directory), Path(settings.repository)
    shared = settings.is_local and os.stat(directory).st_dev == os.stat(repository).st_dev
    need_room(settings, directory, 2 * rows + new if shared else rows, "This backup")
    if settings.is_local and not shared:
        need_room(settings, repository, rows + new, "This backup")


def _lacking(contents: Contents, files: Files) -> dict[str, str]:
    """Files that rows name and that are not there, or are not what the rows say; with what is wrong."""
    found = {}
    for path, (size, sha) in contents.named.items():
        if path not in files:
            found[path] = "is missing"
        elif (sha and sha != files[path][1]) or (size is not None and size != files[path][0]):
            found[path] = "is not what its row says"
    return found


def _manifest(
    settings: Settings, kind: str, run: str, began: str, version: str, contents: Contents, files: Files,
    lacking: dict[str, str], database: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    return {
        "format": FORMAT,
        "school": settings.school,
        "host": settings.host,
        "kind": kind,
        "run": run,
        "begun": began,
        "engine": settings.engine,
        "engine_version": version,
        "schema": contents.schema,
        "release": serving_release(settings),
        "database": database,
        "rows": contents.rows,
        "files": {path: list(what) for path, what in sorted(files.items())},
        "lacking": lacking,
    }


def _pack_configuration(settings: Settings, target: Path) -> None:
    """What the host was told, secrets included, with owners and modes; the repository is encrypted."""
    with tarfile.open(target, "w") as archive:
        for path in settings.configuration:
            if os.path.exists(path):
                archive.add(path, arcname=path.lstrip("/"))
    if os.geteuid() == 0:
        os.chown(target, USER, 0)
    target.chmod(0o400)


def _store(
    repository: Repository, settings: Settings, source: Engine, work: Path, kind: str, run: str, progress: Progress
) -> dict[str, Any]:
    mounts = [(work / name, f"{PLACE}/{name}", "ro") for name in (MANIFEST, source.file, CONFIGURATION)]
    return repository.store(
        [*mounts, (settings.uploads, f"{PLACE}/uploads", "ro")],
        [f"kind={kind}", f"run={run}"],
        lambda share, size: progress.tell(f"{100 * share:.0f} %, {megabytes(size)} looked at"),
    )


def _prove(
    repository: Repository, containers: Containers, settings: Settings, snapshot: str,
    manifest: dict[str, Any], unproved: Files, progress: Progress,
) -> None:  # fmt: skip
    files: Files = {path: (size, sha) for path, (size, sha) in manifest["files"].items()}
    there = repository.listing(snapshot)
    gone = [path for path, (size, _) in files.items() if there.get(f"uploads/{path}") != size]
    if gone:
        raise Problem(
            f"{gone[0]}{f' and {len(gone) - 1} more' if len(gone) > 1 else ''} went while the backup was made, so it "
            "does not count. Run backup.yml again, and find out what removes files: nothing of ours does."
        )
    if (
        repository.ask("dump", "--no-lock", snapshot, f"/{MANIFEST}", doing="Reading the manifest back")
        != (settings.work / MANIFEST).read_text()
    ):
        raise Problem("The manifest in the repository is not the one that was stored; nothing was backed up.")
    progress.tell("the database")
    prove_dump(repository, containers, snapshot, manifest)
    read_back(repository, snapshot, unproved, files, settings.work / "back", progress.tell)


def prove_dump(repository: Repository, containers: Containers, snapshot: str, manifest: dict[str, Any]) -> None:
    """The rows' file as the repository gives it: the same bytes, and one that its own program can list."""
    expected = manifest["database"]
    found = hashlib.sha256()
    lister = None
    if manifest["engine"] == "postgres":
        lister = containers.start(containers.command("pg_restore", "--list"), stdin=subprocess.PIPE)
    with repository.reading(
        "dump", "--no-lock", snapshot, f"/{expected['name']}", doing="Reading the database back"
    ) as dump:
        while chunk := dump.read(1 << 20):
            found.update(chunk)
            if lister and lister.stdin and not lister.stdin.closed:
                try:
                    lister.stdin.write(chunk)
                except BrokenPipeError:
                    # It lists what stands at the beginning, and need not hear the end.
                    lister.stdin.close()
    if lister:
        listed, said = _end(lister)
        if lister.returncode or b"TABLE DATA" not in listed:
            raise Problem(f"The dump in the repository cannot be listed: {last_words(said)}")
    if found.hexdigest() != expected["sha256"]:
        raise Problem(
            "The database in the repository is not the one that was dumped; it is no backup. Run backup.yml again."
        )


def _end(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    if process.stdin and process.stdin.closed:
        process.stdin = None
    return process.communicate()


def _tell_of_lacking(settings: Settings, lacking: dict[str, str]) -> None:
    """Files that the school itself lacks fail one run, so that somebody hears of it, and are a line in later ones."""
    known_file = Path(settings.directory) / "lacking.json"
    known = read_json(known_file)
    if not lacking:
        # What was mended and is lost again is news.
        known_file.unlink(missing_ok=True)
        return
    new = {path: what for path, what in lacking.items() if path not in known}
    write_json(known_file, lacking)
    path, what = next(iter((new or lacking).items()))
    more = f", and so with {len(new or lacking) - 1} more" if len(new or lacking) > 1 else ""
    if new:
        raise Problem(
            f"The backup is whole, but the school is not: {path} {what}{more}. An older backup may hold it; "
            "restore.yml lists them. This is said once; from now on these files are only counted."
        )
    say(f"{len(lacking)} files that rows name were not there, as before: {path} {what}{more}.")
