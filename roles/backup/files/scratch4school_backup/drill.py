"""Rehearses a restore where nothing live can be met: a PostgreSQL of its own without a network, a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

from host_change import readable

from .base import Problem, Progress, Settings, empty_folder, megabytes, need_room, read_json, remember, say
from .containers import APPLICATION_USER, FILES_GROUP, Containers, docker, last_words
from .engines import DATABASE, SQLITE_FILE, accept, roles_that_exist, sqlite_contents
from .live import OWNER, serving_release
from .repository import Repository
from .restore import compare, unpack
from .scratch import ScratchServer

SERVER = "scratch4school-drill"


def drill(settings: Settings, containers: Containers, wish: str) -> None:
    """Restore a backup into a scratch place, check it, rehearse the migration, time it, and remove the place."""
    scratch = Path(settings.directory) / "drill"
    repository = Repository(settings, containers)
    progress = Progress(5)
    snapshot = None
    try:
        snapshot = repository.find(wish)
        manifest = repository.manifest(snapshot)
        if manifest["engine"] != settings.engine:
            raise Problem(
                f"Backup {snapshot.short} is one of {manifest['engine']}, and this host runs on {settings.engine}. "
                "Run backup.yml, then drill.yml."
            )
        _refuse_live_places(settings, scratch)
        files = sum(size for size, _ in manifest["files"].values())
        need_room(settings, Path(settings.directory), 3 * manifest["database"]["size"] + files, "This drill")
        empty_folder(scratch)
        with progress.phase("unpack", f"backup {snapshot.short} of {readable(manifest['begun'])} into {scratch}"):
            dump = unpack(repository, snapshot, manifest, scratch, scratch / "uploads", progress)
            progress.sum_up(f"{len(manifest['files']):,} files, {megabytes(files)}")
        with progress.phase("compare", "sizes and hashes with the manifest"):
            compare(dump, scratch / "uploads", manifest, progress)
            progress.sum_up("all is what was backed up")
        with progress.phase(
            "load", f"the rows into {'a server' if settings.engine == 'postgres' else 'a file'} of the drill's own"
        ):
            place = (
                _Postgres(settings, containers, scratch)
                if settings.engine == "postgres"
                else _Sqlite(containers, scratch)
            )
            place.load(dump, manifest["rows"])
            progress.sum_up(f"{sum(manifest['rows'].values()):,} rows, as many as in the manifest")
        with progress.phase("migrate", "to what the serving release needs"):
            progress.sum_up(place.migrate(_application_image(settings, manifest)))
        with progress.phase("open", "a project as Scratch would"):
            progress.sum_up(_open_project(scratch / "uploads", manifest))
    except BaseException as problem:
        why = str(problem) if isinstance(problem, Problem) else type(problem).__name__
        remember(settings, "drill", ok=False, why=why, backup=snapshot.short if snapshot else "")
        raise
    finally:
        docker("rm", "--force", SERVER)
        shutil.rmtree(scratch, ignore_errors=True)
    seconds = sum(progress.seconds.values())
    remember(settings, "drill", ok=True, backup=snapshot.short, seconds=seconds, phases=progress.seconds)
    say(f"Backup {snapshot.short} can be restored: {seconds:.1f} s.")


def _refuse_live_places(settings: Settings, scratch: Path) -> None:
    """What a drill writes to is no place that anything live has open."""
    for live in (settings.uploads, settings.sqlite_directory):
        if live and (Path(live).resolve() == scratch.resolve() or scratch.resolve() in Path(live).resolve().parents):
            raise Problem(f"The drill would take place in {live}, which is live; nothing was done.")


class _Postgres:
    """A server without a network: nothing but the drill can reach it, and it can reach nothing."""

    def __init__(self, settings: Settings, containers: Containers, scratch: Path) -> None:
        self._settings = settings
        self._containers = containers
        self._server = ScratchServer(SERVER, settings, containers, scratch / "server")

    def load(self, dump: Path, expected: dict[str, int]) -> None:
        self._server.start()
        self._server.sql(roles_that_exist(self._settings.database_roles), doing="Making the drill's roles")
        self._server.sql(
            f"CREATE DATABASE {DATABASE} OWNER {OWNER} TEMPLATE template0", doing="Making the drill's database"
        )
        self._server.load(dump, DATABASE, OWNER)
        accept(self._server.rows(), expected, "the drill's database")

    def migrate(self, image: str) -> str:
        # The drill's server asks nobody for a password, but the application insists on having one.
        password = self._server.folder.with_name("password")
        password.write_text("nobody-asks-for-it\n")
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
    """A file in the drill's folder."""

    def __init__(self, containers: Containers, scratch: Path) -> None:
        self._containers = containers
        self._folder = empty_folder(scratch / "rows", owner=APPLICATION_USER)

    def load(self, dump: Path, expected: dict[str, int]) -> None:
        target = self._folder / SQLITE_FILE
        shutil.copyfile(dump, target)
        if os.geteuid() == 0:
            os.chown(target, APPLICATION_USER, FILES_GROUP)
        accept(sqlite_contents(target).rows, expected, "the drill's file")

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
        raise Problem(
            f"The restored rows could not be brought to what the serving release needs: {last_words(ended.stderr)}"
        )
    return last_words(ended.stdout)


def _application_image(settings: Settings, manifest: dict[str, Any]) -> str:
    """The image of the release that serves now, else of the one that made the backup."""
    serving = serving_release(settings) or read_json(
        Path(settings.releases) / f"{manifest['release'].get('id', '')}.json"
    )
    image = serving.get("image", "")
    if not image:
        raise Problem("No release serves on this host, so nobody knows what the rows have to fit; run deploy.yml.")
    return str(image)


def _open_project(uploads: Path, manifest: dict[str, Any]) -> str:
    """One of the last projects by their paths that can be opened: a zip with a readable project.json."""
    lacking = manifest["lacking"]
    projects = [path for path in manifest["files"] if path.startswith("projects/") and path not in lacking]
    why = ""
    for path in projects[-20:]:
        try:
            with zipfile.ZipFile(uploads / path) as archive:
                content = json.loads(
                    archive.read(next(name for name in archive.namelist() if name.endswith("project.json")))
                )
            return f"{Path(path).name}: {len(content.get('targets', []))} sprites and stages"
        except (zipfile.BadZipFile, StopIteration, ValueError, KeyError) as problem:
            why = f"{path}: {problem}"
    if projects:
        raise Problem(f"None of the projects in the backup that were tried can be opened as Scratch would ({why}).")
    return "there is no project yet"
