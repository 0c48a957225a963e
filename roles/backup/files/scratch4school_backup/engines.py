"""The two engines: how rows become one file that belongs to one moment, and what a live database says of itself."""

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

from .base import HostSettings, Problem, sha256
from .containers import APPLICATION_USER, FILES_GROUP, Containers, docker, last_words, must
from .rows import NAMING, Contents, read_dump

DATABASE = "scratch4school"
SOCKET = "/run/postgresql"
SQLITE_FILE = "main.db"
TITLES = 3


class Engine(Protocol):
    """What backup, restore and drill ask of an engine."""

    # The name that the rows' file has in a backup.
    file: str

    def size(self) -> int:
        """Bytes that the live rows take, about."""

    def dump(self, folder: Path, tell: Callable[[str], None]) -> str:
        """Write the rows of this moment to a file in the folder; returns the versions that made it."""

    def contents(self, file: Path) -> Contents:
        """What such a file holds."""

    def live_rows(self) -> dict[str, int]:
        """How many rows each table has now."""

    def newer(self, moment: str) -> tuple[int, list[str]]:
        """How many projects were changed after a moment, and the titles of the newest."""


def engine(settings: HostSettings, containers: Containers) -> Engine:
    """The engine of this host."""
    return Postgres(settings, containers) if settings.engine == "postgres" else Sqlite(settings, containers)


class Server:
    """A PostgreSQL server in a container, asked as its administrator over its socket."""

    def __init__(self, container: str) -> None:
        self.container = container

    def sql(self, statement: str, database: str = "postgres", doing: str = "Asking PostgreSQL") -> str:
        """What statements answer, a line a row; Problem when one fails."""
        return must(*self._psql(database), doing=doing, input=statement)

    def rows(self, database: str = DATABASE) -> dict[str, int]:
        """How many rows each table has."""
        tables = self.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1", database).split()
        counts = " UNION ALL ".join(f"SELECT '{table}', count(*) FROM public.\"{table}\"" for table in tables)
        lines = self.sql(counts, database).splitlines() if counts else []
        return {line.split("|")[0]: int(line.split("|")[1]) for line in lines}

    def load(self, file: Path, database: str, owner: str) -> None:
        """Fill an empty database from a dump; Problem at the first error."""
        command = [
            "docker",
            "exec",
            "--interactive",
            self.container,
            "pg_restore",
            f"--host={SOCKET}",
            "--username=postgres",
        ]
        command += ["--exit-on-error", "--no-owner", f"--role={owner}", f"--dbname={database}"]
        with file.open("rb") as dump:
            ended = subprocess.run(command, stdin=dump, capture_output=True, check=False)
        if ended.returncode:
            raise Problem(f"Loading the rows failed: {last_words(ended.stderr)}")
        # Without it the first lesson would run on plans for empty tables.
        self.sql("ANALYZE", database, doing="Counting the rows for the planner")

    def answers(self) -> bool:
        """Whether it takes questions now."""
        ready = ("pg_isready", "--quiet", f"--host={SOCKET}", "--username=postgres")
        return docker("exec", self.container, *ready).returncode == 0

    def _psql(self, database: str) -> list[str]:
        flags = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        return [
            "exec",
            "--interactive",
            self.container,
            "psql",
            *flags,
            f"--host={SOCKET}",
            "--username=postgres",
            f"--dbname={database}",
        ]


class Postgres:
    """PostgreSQL: a dump in custom format, by a direct connection, as a role that may only read."""

    file = "database.dump"

    def __init__(self, settings: HostSettings, containers: Containers) -> None:
        self._settings = settings
        self._containers = containers
        self._server = Server(settings.postgres_container)

    def size(self) -> int:
        return int(self._server.sql(f"SELECT pg_database_size('{DATABASE}')"))

    def dump(self, folder: Path, tell: Callable[[str], None]) -> str:
        # Uncompressed: restic compresses, and finds what has not changed since yesterday only in plain data.
        command = self._containers.command(
            *self._containers.patiently("pg_dump", "--format=custom", "--compress=0", f"--file=/work/{self.file}"),
            f"--host={self._settings.postgres_container}", f"--username={DATABASE}_backup", "--no-password", DATABASE,
            mounts=[*self._containers.secrets(), (folder, "/work", "rw")],
            network=self._settings.network,
            environment=["PGPASSFILE=/run/secrets/pgpass"],
        )  # fmt: skip
        process = self._containers.start(command)
        watcher = threading.Thread(target=_watch, args=(process, folder / self.file, tell), daemon=True)
        watcher.start()
        _, said = process.communicate()
        watcher.join()
        if process.returncode:
            raise Problem(f"The database could not be dumped: {last_words(said)}")
        return self._server.sql("SHOW server_version").strip()

    def contents(self, file: Path) -> Contents:
        reader = self._containers.patiently("pg_restore", "--data-only", "--file=-", "/dump")
        command = self._containers.command(*reader, mounts=[(file, "/dump", "ro")])
        process = self._containers.start(command)
        assert process.stdout is not None
        assert process.stderr is not None
        contents = read_dump(process.stdout)
        said = process.stderr.read()
        process.stdout.close()
        process.stderr.close()
        if process.wait():
            raise Problem(f"The dump cannot be read: {last_words(said)}")
        return contents

    def live_rows(self) -> dict[str, int]:
        return self._server.rows()

    def newer(self, moment: str) -> tuple[int, list[str]]:
        words = self._server.sql(
            "SELECT json_build_array(count(*), "
            "(SELECT coalesce(json_agg(name), '[]') FROM (SELECT name FROM projects WHERE "
            f"updated_at > '{_naive(moment)}' ORDER BY updated_at DESC LIMIT {TITLES}) newest)) "
            f"FROM projects WHERE updated_at > '{_naive(moment)}'",
            DATABASE,
        )
        count, titles = json.loads(words)
        return int(count), list(titles)


class Sqlite:
    """SQLite: its online backup, in one step and so of one moment, by the user whose file it is."""

    file = "database.sqlite"

    def __init__(self, settings: HostSettings, containers: Containers) -> None:
        self._folder = Path(settings.sqlite_directory)
        self._containers = containers

    def size(self) -> int:
        return sum(
            (self._folder / f"{SQLITE_FILE}{end}").stat().st_size
            for end in ("", "-wal")
            if (self._folder / f"{SQLITE_FILE}{end}").exists()
        )

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
            raise Problem(f"The database could not be copied: {last_words(ended.stderr)}")
        (target / self.file).replace(folder / self.file)
        return ended.stdout.decode().strip()

    def contents(self, file: Path) -> Contents:
        return sqlite_contents(file)

    def live_rows(self) -> dict[str, int]:
        return self._ask(
            lambda rows: {
                table: rows.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0] for table in _tables(rows)
            }
        )

    def newer(self, moment: str) -> tuple[int, list[str]]:
        def ask(rows: sqlite3.Connection) -> tuple[int, list[str]]:
            if "projects" not in _tables(rows):
                return 0, []
            (count,) = rows.execute("SELECT count(*) FROM projects WHERE updated_at > ?", [_naive(moment)]).fetchone()
            newest = rows.execute(
                "SELECT name FROM projects WHERE updated_at > ? ORDER BY updated_at DESC LIMIT ?",
                [_naive(moment), TITLES],
            )
            return int(count), [row[0] for row in newest]

        return self._ask(ask)

    def _ask(self, question: Callable[[sqlite3.Connection], Any]) -> Any:
        try:
            with _opened(self._folder / SQLITE_FILE, live=True) as rows:
                return question(rows)
        except sqlite3.Error as problem:
            raise Problem(f"The live rows cannot be read: {problem}") from problem


def sqlite_contents(file: Path) -> Contents:
    """What a copy of a SQLite database holds."""
    contents = Contents()
    try:
        with _opened(file) as rows:
            for table in _tables(rows):
                (contents.rows[table],) = rows.execute(f'SELECT count(*) FROM "{table}"').fetchone()
            for table, namings in NAMING.items():
                columns = {row[1] for row in rows.execute(f'PRAGMA table_info("{table}")')}
                for naming in (naming for naming in namings if naming[0] in columns):
                    wanted = ", ".join(name if name in columns else "NULL" for name in naming)
                    for path, size, sha in rows.execute(
                        f'SELECT {wanted}{", NULL" * (3 - len(naming))} FROM "{table}"'
                    ):
                        contents.name(path, size, sha)
            if "alembic_version" in contents.rows:
                contents.schema = str((rows.execute("SELECT version_num FROM alembic_version").fetchone() or [""])[0])
    except sqlite3.Error as problem:
        raise Problem(f"The copy of the database cannot be read: {problem}") from problem
    return contents


@contextmanager
def _opened(file: Path, live: bool = False) -> Iterator[sqlite3.Connection]:
    """A SQLite file that is only read: a copy as it lies there, a live one beside whoever writes to it."""
    if not file.exists():
        raise Problem(f"There is no {file}.")
    # Nobody has a live one open when it has no log beside it, and then it may be read as it lies there, too.
    quiet = not (live and file.with_name(f"{file.name}-wal").exists())
    rows = sqlite3.connect(f"file:{quote(str(file))}?{'immutable=1' if quiet else 'mode=ro'}", uri=True, timeout=30)
    try:
        yield rows
    finally:
        rows.close()


def _tables(rows: sqlite3.Connection) -> list[str]:
    return [
        name
        for (name,) in rows.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    ]


def _naive(moment: str) -> str:
    """A moment as the rows hold theirs: UTC, without saying so."""
    return moment.rstrip("Z").replace("T", " ")


def _watch(process: subprocess.Popen[bytes], file: Path, tell: Callable[[str], None]) -> None:
    while process.poll() is None:
        if file.exists():
            tell(f"{file.stat().st_size / 1e6:.0f} MB written")
        time.sleep(1)


def same_content(file: Path, expected: dict[str, Any]) -> bool:
    """Whether a file is the one of which a manifest gives size and hash."""
    return file.stat().st_size == expected["size"] and sha256(file) == expected["sha256"]


def accept(found: dict[str, int], expected: dict[str, int], where: str) -> None:
    """Problem unless every table has as many rows as the backup says."""
    differences = [
        f"{table}: {found.get(table, 0)} in place of {count}"
        for table, count in sorted(expected.items())
        if found.get(table, 0) != count
    ]
    if differences:
        raise Problem(f"The rows in {where} are not those of the backup: {'; '.join(differences[:5])}.")


def roles_that_exist(names: Sequence[str]) -> str:
    """SQL that makes roles where they are missing, as a server that has nothing yet needs them."""
    return "\n".join(
        f"SELECT 'CREATE ROLE \"{name}\" LOGIN' "
        f"WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') \\gexec"
        for name in names
    )
