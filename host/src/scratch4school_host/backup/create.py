"""Makes a backup: dumps the database, hashes the files, stores both in the repository, and reads them back.

The application never changes a file, and the sweep removes one only long after its row. So each file that a row names
at the moment of the dump still exists when the files are stored. Database and files are then of one moment, while the
application runs; each backup checks that.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from ..containers import USER, Containers
from ..databases.dump_reader import Contents
from ..databases.engines import Engine, engine
from ..docker import last_message
from ..errors import OperatorError
from ..files import empty_folder, read_json, sha256, write_json
from ..progress import Progress, megabytes, say
from ..settings import BackupSettings
from ..slots.state import Slots
from ..times import now
from ..uploads import walk
from .repository import FOLDER, FORMAT, MANIFEST, Repository
from .state import remember
from .stored_files import Files, Hashes, hashed, read_back

CONFIGURATION = "configuration.tar"
SHORT_ID = 8


def create(settings: BackupSettings, slots: Slots, containers: Containers, kind: str, run: str) -> str:
    """Make a backup, verify it, and return its id.

    :param kind: the occasion: manual, nightly, migration or safety.
    :raises OperatorError: when it does not count as a backup; also once for each missing file that a row names.
    """
    progress = Progress(4)
    repository = Repository(settings, containers)
    source = engine(settings, containers)
    uploads = Path(settings.uploads)
    hashes = Hashes(Path(settings.directory) / "files.json")
    began = now()
    identity = repository.identity()
    repository.unlock()
    # An interrupted backup leaves a snapshot that was not verified; no command uses it.
    repository.forget([one for one in repository.snapshots() if not one.is_verified and one.host == settings.host])
    _require_room(settings, source, hashes)
    work = empty_folder(settings.work, owner=USER)
    try:
        with progress.phase("database", f"dump of {settings.engine}"):
            version = source.dump(work, progress.tell)
            # The hash is taken first: a dump that is cut off then cannot be read to its end; a later change is found by
            # its hash.
            digest = sha256(work / source.file)
            contents = source.contents(work / source.file)
            progress.sum_up(f"{sum(contents.rows.values()):,} rows, {megabytes((work / source.file).stat().st_size)}")
        with progress.phase("files", "every file with its hash"):
            files = hashed(uploads, hashes, progress.tell)
            lacking = _lacking(contents, files)
            progress.sum_up(f"{len(files):,} files, {megabytes(sum(size for size, _ in files.values()))}")
        database = {"name": source.file, "size": (work / source.file).stat().st_size, "sha256": digest}
        manifest = {
            "format": FORMAT,
            "school": settings.school,
            "host": settings.host,
            "kind": kind,
            "run": run,
            "begun": began,
            "engine": settings.engine,
            "engine_version": version,
            "schema": contents.schema,
            "release": slots.live_release(),
            "database": database,
            "rows": contents.rows,
            "files": {path: list(what) for path, what in sorted(files.items())},
            "lacking": lacking,
        }
        _pack_configuration(settings, work / CONFIGURATION)
        write_json(work / MANIFEST, manifest, mode=0o644)
        with progress.phase("store", f"into {settings.repository}"):
            summary = _store(repository, settings, source, work, kind, run, progress)
            progress.sum_up(f"{megabytes(summary.get('data_added_packed', 0))} new in the repository")
        with progress.phase("read back", "what was stored, from the repository"):
            unverified = hashes.unverified(identity, files)
            _verify(repository, containers, settings, summary["snapshot_id"], manifest, unverified, progress)
            progress.sum_up(
                f"database and {len(unverified):,} files are equal to the backup, {len(files):,} files are present"
            )
        snapshot = repository.mark_verified(summary["snapshot_id"])
        hashes.keep(identity)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    remember(
        settings,
        "backup",
        ok=True,
        id=snapshot[:SHORT_ID],
        kind=kind,
        seconds=progress.total,
        phases=progress.seconds,
        rows=sum(contents.rows.values()),
        files=len(files),
        lacking=len(lacking),
        bytes=sum(size for size, _ in files.values()) + manifest["database"]["size"],
    )
    say(f"Backup {snapshot[:SHORT_ID]} of {settings.host} is verified ({progress.total:.1f} s).")
    _report_lacking(settings, lacking)
    return snapshot


def _require_room(settings: BackupSettings, source: Engine, hashes: Hashes) -> None:
    """Require disk space for the dump, as a file and in the repository, and for new files in the repository."""
    rows = source.size()
    new = sum(found.st_size for path, found in walk(Path(settings.uploads)) if not hashes.known(path, found))
    directory, repository = Path(settings.directory), Path(settings.repository)
    shared = settings.is_local and os.stat(directory).st_dev == os.stat(repository).st_dev
    settings.require_room(directory, 2 * rows + new if shared else rows, "This backup")
    if settings.is_local and not shared:
        settings.require_room(repository, rows + new, "This backup")


def _lacking(contents: Contents, files: Files) -> dict[str, str]:
    """Files that rows name and that are missing or differ from the row's size or hash, each with its fault."""
    found = {}
    for path, (size, sha) in contents.named.items():
        if path not in files:
            found[path] = "is missing"
        elif (sha and sha != files[path][1]) or (size is not None and size != files[path][0]):
            found[path] = "differs from the size or hash in the database"
    return found


def _pack_configuration(settings: BackupSettings, target: Path) -> None:
    """Pack the host's settings and secrets, with owners and modes; the repository is encrypted."""
    with tarfile.open(target, "w") as archive:
        for path in settings.configuration:
            if os.path.exists(path):
                archive.add(path, arcname=path.lstrip("/"))
    if os.geteuid() == 0:
        os.chown(target, USER, 0)
    target.chmod(0o400)


def _store(
    repository: Repository, settings: BackupSettings, source: Engine, work: Path, kind: str, run: str,
    progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    mounts = [(work / name, f"{FOLDER}/{name}", "ro") for name in (MANIFEST, source.file, CONFIGURATION)]
    return repository.store(
        [*mounts, (settings.uploads, f"{FOLDER}/uploads", "ro")],
        [f"kind={kind}", f"run={run}"],
        lambda share, size: progress.tell(f"{100 * share:.0f} %, {megabytes(size)} read"),
    )


def _verify(
    repository: Repository, containers: Containers, settings: BackupSettings, snapshot: str,
    manifest: dict[str, Any], unverified: Files, progress: Progress,
) -> None:  # fmt: skip
    files: Files = {path: (size, sha) for path, (size, sha) in manifest["files"].items()}
    there = repository.listing(snapshot)
    gone = [path for path, (size, _) in files.items() if there.get(f"uploads/{path}") != size]
    if gone:
        raise OperatorError(
            f"{gone[0]}{f' and {len(gone) - 1} more' if len(gone) > 1 else ''} disappeared or changed during the "
            "backup, which therefore does not count. Find out which program does this, because Scratch4School does "
            "not, and run backup.yml again."
        )
    stored = repository.ask("dump", "--no-lock", snapshot, f"/{MANIFEST}", doing="Reading the manifest back")
    if stored != (settings.work / MANIFEST).read_text():
        raise OperatorError(
            "The manifest in the repository is not the one that was stored; nothing was backed up. Run "
            "backup.yml again."
        )
    progress.tell("the database")
    _verify_dump(repository, containers, snapshot, manifest)
    read_back(repository, snapshot, unverified, files, settings.work / "back", progress.tell)


def _verify_dump(repository: Repository, containers: Containers, snapshot: str, manifest: dict[str, Any]) -> None:
    """Compare the database in the repository with the dump's hash, and have pg_restore list it."""
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
                    # pg_restore reads only the table of contents at the beginning.
                    lister.stdin.close()
    if lister:
        listed, errors = _end(lister)
        if lister.returncode or b"TABLE DATA" not in listed:
            raise OperatorError(f"The dump in the repository cannot be listed: {last_message(errors)}")
    if found.hexdigest() != expected["sha256"]:
        raise OperatorError(
            "The database in the repository is not the one that was dumped; it is no backup. Run backup.yml again."
        )


def _end(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    if process.stdin and process.stdin.closed:
        process.stdin = None
    return process.communicate()


def _report_lacking(settings: BackupSettings, lacking: dict[str, str]) -> None:
    """Report the school's missing files: a new one fails this backup, so that the sysadmin sees it."""
    known_file = Path(settings.directory) / "lacking.json"
    known = read_json(known_file)
    if not lacking:
        # So a file that is restored, and missing again later, is reported again.
        known_file.unlink(missing_ok=True)
        return
    new = {path: what for path, what in lacking.items() if path not in known}
    write_json(known_file, lacking)
    path, what = next(iter((new or lacking).items()))
    more = f", and so with {len(new or lacking) - 1} more" if len(new or lacking) > 1 else ""
    if new:
        raise OperatorError(
            f"The backup is verified, but files of the school are lost or damaged: {path} {what}{more}. An older "
            "backup may contain them; restore.yml lists the backups. Later backups only count these files."
        )
    say(f"{len(lacking)} files that rows name were not there, as before: {path} {what}{more}.")
