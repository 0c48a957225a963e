"""Restores a backup into a scratch folder and a scratch server, to show that it can be restored."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

from .. import docker
from ..containers import APPLICATION_USER, FILES_GROUP, Containers
from ..databases.engines import DATABASE, OWNER, SQLITE_FILE, require_rows, roles_sql, sqlite_contents
from ..databases.scratch_server import ScratchServer
from ..errors import OperatorError
from ..files import empty_folder, read_json
from ..progress import Progress, megabytes, say
from ..settings import BackupSettings
from ..slots.state import Slots
from ..times import readable
from .repository import Repository
from .restore import compare, unpack
from .state import remember

SERVER = "scratch4school-drill"
PROJECTS_TRIED = 20


def drill(settings: BackupSettings, slots: Slots, containers: Containers, backup: str) -> None:
    """Restore a backup into a scratch folder, check, migrate and time it, and remove the folder.

    :param backup: `latest`, or the first digits of an id.
    :raises OperatorError: when the backup cannot be restored; the reason is also recorded.
    """
    scratch = Path(settings.directory) / "drill"
    repository = Repository(settings, containers)
    progress = Progress(5)
    snapshot = None
    try:
        snapshot = repository.find(backup)
        manifest = repository.manifest(snapshot)
        if manifest["engine"] != settings.engine:
            raise OperatorError(
                f"Backup {snapshot.short} is one of {manifest['engine']}, and this host runs on {settings.engine}. "
                "Run backup.yml, then drill.yml."
            )
        _refuse_live_folders(settings, scratch)
        files = sum(size for size, _ in manifest["files"].values())
        settings.require_room(Path(settings.directory), 3 * manifest["database"]["size"] + files, "This drill")
        empty_folder(scratch)
        with progress.phase("unpack", f"backup {snapshot.short} of {readable(manifest['begun'])} into {scratch}"):
            dump = unpack(repository, snapshot, manifest, scratch, scratch / "uploads", progress)
            progress.sum_up(f"{len(manifest['files']):,} files, {megabytes(files)}")
        with progress.phase("compare", "sizes and hashes with the manifest"):
            compare(dump, scratch / "uploads", manifest, progress)
            progress.sum_up("all data is as it was backed up")
        is_postgres = settings.engine == "postgres"
        with progress.phase("load", f"the database into a {'server' if is_postgres else 'file'} of the drill's own"):
            database = (
                _Postgres(settings, containers, scratch) if is_postgres else _Sqlite(containers, scratch)
            )  # fmt: skip
            database.load(dump, manifest["rows"])
            progress.sum_up(f"{sum(manifest['rows'].values()):,} rows, as many as in the manifest")
        with progress.phase("migrate", "to the schema of the live release"):
            progress.sum_up(database.migrate(_application_image(slots, manifest)))
        with progress.phase("open", "a project as Scratch would"):
            progress.sum_up(_open_project(scratch / "uploads", manifest))
    except BaseException as problem:
        why = str(problem) if isinstance(problem, OperatorError) else type(problem).__name__
        remember(settings, "drill", ok=False, why=why, backup=snapshot.short if snapshot else "")
        raise
    finally:
        docker.run("rm", "--force", SERVER)
        shutil.rmtree(scratch, ignore_errors=True)
    remember(settings, "drill", ok=True, backup=snapshot.short, seconds=progress.total, phases=progress.seconds)
    say(f"Backup {snapshot.short} can be restored: {progress.total:.1f} s.")


def _refuse_live_folders(settings: BackupSettings, scratch: Path) -> None:
    """OperatorError when the scratch folder is, or contains, a folder of the live data."""
    for live in (settings.uploads, settings.sqlite_directory):
        if live and (Path(live).resolve() == scratch.resolve() or scratch.resolve() in Path(live).resolve().parents):
            raise OperatorError(f"The drill would take place in {live}, which is live; nothing was done.")


class _Postgres:
    """The restored database in a scratch server without a network."""

    def __init__(self, settings: BackupSettings, containers: Containers, scratch: Path) -> None:
        self._settings = settings
        self._containers = containers
        self._server = ScratchServer(SERVER, settings, containers, scratch / "server")

    def load(self, dump: Path, expected: dict[str, int]) -> None:
        self._server.start()
        self._server.sql(roles_sql(self._settings.database_roles), doing="Making the drill's roles")
        self._server.sql(
            f"CREATE DATABASE {DATABASE} OWNER {OWNER} TEMPLATE template0", doing="Making the drill's database"
        )
        self._server.load(dump, DATABASE, OWNER)
        require_rows(self._server.rows(), expected, "the drill's database")

    def migrate(self, image: str) -> str:
        # The scratch server needs no password, but the application refuses to start without one.
        password = self._server.folder.with_name("password")
        password.write_text("not-asked-for\n")
        password.chmod(0o444)
        return _migrate(
            self._containers.command(
                "db",
                "upgrade",
                image=image,
                network=f"container:{SERVER}",
                user=f"{APPLICATION_USER}:{FILES_GROUP}",
                mounts=[(password, "/run/secrets/password", "ro")],
                environment=[
                    f"SCRATCH4SCHOOL_DATABASE_URL=postgresql://{OWNER}@127.0.0.1:5432/{DATABASE}",
                    "SCRATCH4SCHOOL_DATABASE_PASSWORD_FILE=/run/secrets/password",
                ],
            )
        )


class _Sqlite:
    """The restored database as a SQLite file in the scratch folder."""

    def __init__(self, containers: Containers, scratch: Path) -> None:
        self._containers = containers
        self._folder = empty_folder(scratch / "rows", owner=APPLICATION_USER)

    def load(self, dump: Path, expected: dict[str, int]) -> None:
        target = self._folder / SQLITE_FILE
        shutil.copyfile(dump, target)
        if os.geteuid() == 0:
            os.chown(target, APPLICATION_USER, FILES_GROUP)
        require_rows(sqlite_contents(target).rows, expected, "the drill's file")

    def migrate(self, image: str) -> str:
        return _migrate(
            self._containers.command(
                "db",
                "upgrade",
                image=image,
                user=f"{APPLICATION_USER}:{FILES_GROUP}",
                environment=[f"SCRATCH4SCHOOL_DATABASE_URL=sqlite:////rows/{SQLITE_FILE}"],
                mounts=[(self._folder, "/rows", "rw")],
            )
        )


def _migrate(command: list[str]) -> str:
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if ended.returncode:
        raise OperatorError(
            "The restored database could not be migrated to the schema of the live release: "
            f"{docker.last_message(ended.stderr)}"
        )
    return docker.last_message(ended.stdout)


def _application_image(slots: Slots, manifest: dict[str, Any]) -> str:
    """The image of the live release, or else of the release that was live when the backup was made."""
    release = slots.live_release() or read_json(slots.releases / f"{manifest['release'].get('id', '')}.json")
    image = release.get("image", "")
    if not image:
        raise OperatorError("No release is live on this host, so there is no schema to migrate to; run deploy.yml.")
    return str(image)


def _open_project(uploads: Path, manifest: dict[str, Any]) -> str:
    """Open one of the last PROJECTS_TRIED projects by path: a zip with a readable project.json."""
    lacking = manifest["lacking"]
    projects = [path for path in manifest["files"] if path.startswith("projects/") and path not in lacking]
    why = ""
    for path in projects[-PROJECTS_TRIED:]:
        try:
            with zipfile.ZipFile(uploads / path) as archive:
                name = next(name for name in archive.namelist() if name.endswith("project.json"))
                content = json.loads(archive.read(name))
            return f"{Path(path).name}: {len(content.get('targets', []))} sprites and stages"
        except (zipfile.BadZipFile, StopIteration, ValueError, KeyError) as problem:
            why = f"{path}: {problem}"
    if projects:
        raise OperatorError(
            f"None of the projects in the backup that were tried can be opened as Scratch would ({why})."
        )
    return "there is no project yet"
