"""The two engines, PostgreSQL and SQLite: consistent copies of the live database, and counts of its rows."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from .. import docker
from ..containers import APPLICATION_USER, FILES_GROUP, Containers
from ..errors import OperatorError
from ..files import sha256
from ..settings import DataSettings
from .dump_reader import FILE_COLUMNS, Contents, read_dump

DATABASE = "scratch4school"
OWNER = f"{DATABASE}_owner"
SOCKET = "/run/postgresql"
# How a program in the container of a server reaches it as its administrator.
LOGIN = (f"--host={SOCKET}", "--username=postgres")
SQLITE_FILE = "main.db"
# Alembic's table with the schema revision; all other tables have the school's rows.
SCHEMA_TABLE = "alembic_version"
TITLES = 3


class Engine(Protocol):
    """The interface of an engine for backup, restore and drill."""

    # The name of the database's copy in a backup.
    file: str

    def size(self) -> int:
        """Size of the live database on the disk, in bytes."""

    def dump(self, folder: Path, tell: Callable[[str], None]) -> str:
        """Write a consistent copy of the live database to `file` in the folder; returns the engine's version.

        :param tell: called with the progress, as text.
        :raises OperatorError: when the copy fails.
        """

    def contents(self, file: Path) -> Contents:
        """Read the row counts, named files and schema revision of such a copy; OperatorError when it is damaged."""

    def live_rows(self) -> dict[str, int]:
        """Number of rows by table in the live database."""

    def newer(self, moment: str) -> tuple[int, list[str]]:
        """Number of projects that were changed after a moment (ISO 8601 with a Z), and the TITLES newest titles."""


def engine(settings: DataSettings, containers: Containers) -> Engine:
    """The engine of this host."""
    return Postgres(settings, containers) if settings.engine == "postgres" else Sqlite(settings, containers)


class Server:
    """A PostgreSQL server in a container; programs in the container connect as its administrator."""

    def __init__(self, container: str) -> None:
        self.container = container

    def sql(self, statement: str, database: str = "postgres", doing: str = "Asking PostgreSQL") -> str:
        """Run statements and return their result, one line for each row; OperatorError when one fails.

        :param doing: begins the message of a failure.
        """
        flags = ("--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1")
        command = ("exec", "--interactive", self.container, "psql", *LOGIN, *flags, f"--dbname={database}")
        return docker.must(*command, doing=doing, stdin=statement)

    def rows(self, database: str = DATABASE) -> dict[str, int]:
        """Number of rows by table."""
        tables = self.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1", database).split()
        counts = " UNION ALL ".join(f"SELECT '{table}', count(*) FROM public.\"{table}\"" for table in tables)
        lines = self.sql(counts, database).splitlines() if counts else []
        return {line.split("|")[0]: int(line.split("|")[1]) for line in lines}

    def load(self, dump: Path, database: str, owner: str) -> None:
        """Fill an empty database from a dump in custom format, and collect statistics.

        :param owner: the role that owns the tables afterwards.
        :raises OperatorError: at the first error.
        """
        self.restore(dump, database, f"--role={owner}", problem="The database could not be loaded:")
        # Without statistics the first requests would run on plans for empty tables.
        self.sql("ANALYZE", database, doing="Collecting statistics for the planner")

    def restore(self, dump: Path, database: str, *options: str, problem: str) -> None:
        """Fill an empty database from a dump in custom format; OperatorError at the first error.

        :param options: more options of pg_restore.
        :param problem: begins the message of a failure.
        """
        flags = ("--exit-on-error", "--no-owner", *options, f"--dbname={database}")
        docker.feed(self.container, "pg_restore", *LOGIN, *flags, file=dump, problem=problem)

    def run_script(self, script: Path, database: str, problem: str) -> None:
        """Run a file of SQL, such as a plain dump; OperatorError at the first error.

        :param problem: begins the message of a failure.
        """
        flags = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={database}")
        docker.feed(self.container, "psql", *LOGIN, *flags, file=script, problem=problem)

    def is_ready(self) -> bool:
        """Whether it accepts connections now."""
        return docker.run("exec", self.container, "pg_isready", "--quiet", *LOGIN).returncode == 0


class Postgres:
    """PostgreSQL: pg_dump in custom format, with a direct connection and a read-only role."""

    file = "database.dump"

    def __init__(self, settings: DataSettings, containers: Containers) -> None:
        self._settings = settings
        self._containers = containers
        self._server = Server(settings.postgres_container)

    def size(self) -> int:
        return int(self._server.sql(f"SELECT pg_database_size('{DATABASE}')"))

    def dump(self, folder: Path, tell: Callable[[str], None]) -> str:
        # Uncompressed: restic compresses, and finds unchanged parts of the last dump only in uncompressed data.
        command = self._containers.command(
            *self._containers.nice("pg_dump", "--format=custom", "--compress=0", f"--file=/work/{self.file}"),
            f"--host={self._settings.postgres_container}", f"--username={DATABASE}_backup", "--no-password", DATABASE,
            mounts=[*self._containers.secrets(), (folder, "/work", "rw")],
            network=self._settings.network,
            environment=["PGPASSFILE=/run/secrets/pgpass"],
        )  # fmt: skip
        process = self._containers.start(command)
        watcher = threading.Thread(target=_watch, args=(process, folder / self.file, tell), daemon=True)
        watcher.start()
        _, errors = process.communicate()
        watcher.join()
        if process.returncode:
            raise OperatorError(f"The database could not be dumped: {docker.last_message(errors)}")
        return self._server.sql("SHOW server_version").strip()

    def contents(self, file: Path) -> Contents:
        reader = self._containers.nice("pg_restore", "--data-only", "--file=-", "/dump")
        command = self._containers.command(*reader, mounts=[(file, "/dump", "ro")])
        process = self._containers.start(command)
        assert process.stdout is not None
        assert process.stderr is not None
        contents = read_dump(process.stdout)
        errors = process.stderr.read()
        process.stdout.close()
        process.stderr.close()
        if process.wait():
            raise OperatorError(f"The dump cannot be read: {docker.last_message(errors)}")
        return contents

    def live_rows(self) -> dict[str, int]:
        return self._server.rows()

    def newer(self, moment: str) -> tuple[int, list[str]]:
        answer = self._server.sql(
            "SELECT json_build_array(count(*), "
            "(SELECT coalesce(json_agg(name), '[]') FROM (SELECT name FROM projects WHERE "
            f"updated_at > '{_naive(moment)}' ORDER BY updated_at DESC LIMIT {TITLES}) newest)) "
            f"FROM projects WHERE updated_at > '{_naive(moment)}'",
            DATABASE,
        )
        count, titles = json.loads(answer)
        return int(count), list(titles)


class Sqlite:
    """SQLite: an online backup in one step, as the user who owns the database's file."""

    file = "database.sqlite"

    def __init__(self, settings: DataSettings, containers: Containers) -> None:
        self._folder = Path(settings.sqlite_directory)
        self._containers = containers

    def size(self) -> int:
        files = [self._folder / f"{SQLITE_FILE}{ending}" for ending in ("", "-wal")]
        return sum(file.stat().st_size for file in files if file.exists())

    def dump(self, folder: Path, tell: Callable[[str], None]) -> str:
        target = folder / "sqlite"
        target.mkdir(mode=0o770)
        os.chown(target, APPLICATION_USER, FILES_GROUP)
        command = self._containers.command(
            "sqlite-copy", f"/database/{SQLITE_FILE}", f"/work/{self.file}",
            mounts=[(self._folder, "/database", "rw"), (target, "/work", "rw")],
            user=f"{APPLICATION_USER}:{FILES_GROUP}",
        )  # fmt: skip
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if ended.returncode:
            raise OperatorError(f"The database could not be copied: {docker.last_message(ended.stderr)}")
        (target / self.file).replace(folder / self.file)
        return ended.stdout.decode().strip()

    def contents(self, file: Path) -> Contents:
        return sqlite_contents(file)

    def live_rows(self) -> dict[str, int]:
        def count(database: sqlite3.Connection) -> dict[str, int]:
            return {
                table: database.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0] for table in _tables(database)
            }

        return self._ask(count)

    def newer(self, moment: str) -> tuple[int, list[str]]:
        def newest(database: sqlite3.Connection) -> tuple[int, list[str]]:
            if "projects" not in _tables(database):
                return 0, []
            since = [_naive(moment)]
            (count,) = database.execute("SELECT count(*) FROM projects WHERE updated_at > ?", since).fetchone()
            titles = database.execute(
                "SELECT name FROM projects WHERE updated_at > ? ORDER BY updated_at DESC LIMIT ?", [*since, TITLES]
            )
            return int(count), [row[0] for row in titles]

        return self._ask(newest)

    def _ask(self, question: Callable[[sqlite3.Connection], Any]) -> Any:
        try:
            with _opened(self._folder / SQLITE_FILE, live=True) as database:
                return question(database)
        except sqlite3.Error as problem:
            raise OperatorError(f"The live database cannot be read: {problem}") from problem


def sqlite_contents(file: Path) -> Contents:
    """Read the row counts, named files and schema revision of a copy; OperatorError when it is damaged."""
    contents = Contents()
    try:
        with _opened(file) as database:
            for table in _tables(database):
                (contents.rows[table],) = database.execute(f'SELECT count(*) FROM "{table}"').fetchone()
            for table, namings in FILE_COLUMNS.items():
                columns = {row[1] for row in database.execute(f'PRAGMA table_info("{table}")')}
                for naming in (naming for naming in namings if naming[0] in columns):
                    selected = ", ".join(str(name) if name in columns else "NULL" for name in naming)
                    for path, size, sha in database.execute(f'SELECT {selected} FROM "{table}"'):
                        contents.name(path, size, sha)
            if SCHEMA_TABLE in contents.rows:
                revision = database.execute(f"SELECT version_num FROM {SCHEMA_TABLE}").fetchone()
                contents.schema = str((revision or [""])[0])
    except sqlite3.Error as problem:
        raise OperatorError(f"The copy of the database cannot be read: {problem}") from problem
    return contents


@contextmanager
def _opened(file: Path, live: bool = False) -> Iterator[sqlite3.Connection]:
    """Open a SQLite file read-only; `live`: the application may write to it meanwhile."""
    if not file.exists():
        raise OperatorError(f"There is no {file}; restore a backup, or run deploy.yml.")
    # A live file without a write-ahead log is open in no process, so it is read like a copy.
    is_quiet = not (live and file.with_name(f"{file.name}-wal").exists())
    mode = "immutable=1" if is_quiet else "mode=ro"
    database = sqlite3.connect(f"file:{quote(str(file))}?{mode}", uri=True, timeout=30)
    try:
        yield database
    finally:
        database.close()


def _tables(database: sqlite3.Connection) -> list[str]:
    found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return [name for (name,) in found]


def _naive(moment: str) -> str:
    """Format a moment like a column of the database, in UTC without a zone: `2026-11-24 16:50:01`."""
    return moment.rstrip("Z").replace("T", " ")


def _watch(process: subprocess.Popen[bytes], file: Path, tell: Callable[[str], None]) -> None:
    while process.poll() is None:
        if file.exists():
            tell(f"{file.stat().st_size / 1e6:.0f} MB written")
        time.sleep(1)


def same_content(file: Path, expected: dict[str, Any]) -> bool:
    """Whether a file has the size and the SHA-256 of its entry in a manifest."""
    return file.stat().st_size == expected["size"] and sha256(file) == expected["sha256"]


def require_rows(found: dict[str, int], expected: dict[str, int], where: str) -> None:
    """Compare the number of rows of each table with the backup's; OperatorError when one differs.

    :param where: where the rows were found, for the message.
    """
    differences = [
        f"{table}: {found.get(table, 0)} instead of {count}"
        for table, count in sorted(expected.items())
        if found.get(table, 0) != count
    ]
    if differences:
        raise OperatorError(f"The rows in {where} are not those of the backup: {'; '.join(differences[:5])}.")


def roles_sql(names: Sequence[str]) -> str:
    """SQL for psql that creates those of the roles that do not exist."""
    return "\n".join(
        f"SELECT 'CREATE ROLE \"{name}\" LOGIN' "
        f"WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') \\gexec"
        for name in names
    )
