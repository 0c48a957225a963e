"""Replaces the live database and files together, in maintenance mode, and can reverse that.

Database and files each have three sides: the live one; the new one, loaded and checked beside it; and the previous one,
kept until the restored installation was verified. A side becomes another one by renames or by one transaction. After an
interruption at any point, a cutover can be continued or undone.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from ..containers import APPLICATION_USER
from ..databases.engines import DATABASE, OWNER, SQLITE_FILE, Server, require_rows, sqlite_contents
from ..errors import OperatorError
from ..files import sync_folder
from ..settings import BackupSettings

ASIDE = ".restore"
# In this file the application's sweep lists files that no row named, in the database before the restore.
SWEEP_NOTE = ".unnamed.json"

RESTORED = f"{DATABASE}_restored"
PREVIOUS = f"{DATABASE}_previous"
RENAME_SECONDS = 30


class Folder:
    """A folder that containers have mounted, so its content is replaced, and not the folder.

    The new and the previous side are in its subfolder ASIDE: within one file system a move is a rename. Other entries
    with a leading dot stay where they are.
    """

    def __init__(self, live: Path) -> None:
        self.live = live
        self.aside = live / ASIDE
        self.new = self.aside / "new"
        self.previous = self.aside / "previous"

    def move_out(self) -> None:
        """Move the live content to the previous side."""
        _move(self.live, self.previous)

    def move_in(self) -> None:
        """Make the new side live."""
        _move(self.new, self.live)

    def move_back_out(self) -> None:
        """Move the restored content from live back to the new side."""
        _move(self.live, self.new)

    def move_back_in(self) -> None:
        """Make the previous side live again."""
        _move(self.previous, self.live)

    def discard(self) -> None:
        """Remove the sides that are not live."""
        shutil.rmtree(self.aside, ignore_errors=True)


def _move(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in sorted(os.listdir(source)) if source.is_dir() else []:
        if not name.startswith("."):
            (source / name).rename(target / name)
    for folder in (source, target):
        if folder.is_dir():
            sync_folder(folder)


class PostgresDatabase:
    """In PostgreSQL each side is a database of its own name; one transaction renames two of them."""

    def __init__(self, settings: BackupSettings) -> None:
        self._server = Server(settings.postgres_container)

    def load(self, dump: Path, expected: dict[str, int]) -> None:
        """Load a dump into the new side; OperatorError unless its tables have the manifest's numbers of rows."""
        self._drop(RESTORED)
        self._server.sql(
            f"CREATE DATABASE {RESTORED} OWNER {OWNER} TEMPLATE template0;\n"
            f"REVOKE ALL ON DATABASE {RESTORED} FROM PUBLIC;\n"
            f"SELECT format('GRANT %s ON DATABASE {RESTORED} TO %I', a.privilege_type, a.grantee::regrole::text) "
            f"FROM pg_database d, aclexplode(d.datacl) a WHERE d.datname = '{DATABASE}' AND a.grantee <> 0 \\gexec\n",
            doing="Making a database beside the live one",
        )
        self._server.load(dump, RESTORED, OWNER)
        require_rows(self._server.rows(RESTORED), expected, "the database beside the live one")

    def cut_over(self) -> None:
        """Make the new side live, in one transaction; does nothing when it is live already."""
        if not self._exists(PREVIOUS):
            self._rename((DATABASE, PREVIOUS), (RESTORED, DATABASE))

    def undo(self) -> None:
        """Make the previous side live again; does nothing when there is none."""
        if self._exists(PREVIOUS):
            self._rename((DATABASE, RESTORED), (PREVIOUS, DATABASE))

    def discard(self) -> None:
        """Remove the sides that are not live."""
        self._drop(PREVIOUS)
        self._drop(RESTORED)

    def _exists(self, name: str) -> bool:
        return self._server.sql(f"SELECT 1 FROM pg_database WHERE datname = '{name}'").strip() == "1"

    def _drop(self, name: str) -> None:
        self._server.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", doing=f"Removing the database {name}")

    def _rename(self, *pairs: tuple[str, str]) -> None:
        """Rename databases in one transaction, and retry for RENAME_SECONDS: PgBouncer may connect again in between."""
        names = ", ".join(f"'{name}'" for pair in pairs for name in pair)
        renames = "\n".join(f"ALTER DATABASE {old} RENAME TO {new};" for old, new in pairs)
        end = time.monotonic() + RENAME_SECONDS
        while True:
            try:
                self._server.sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    f"WHERE datname IN ({names}) AND pid <> pg_backend_pid();\n"
                    f"BEGIN;\n{renames}\nCOMMIT;\n",
                    doing="Renaming the databases",
                )
            except OperatorError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.3)
            else:
                return


class SqliteDatabase:
    """In SQLite each side is a folder with the database's file and SQLite's own files beside it."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def load(self, dump: Path, expected: dict[str, int]) -> None:
        """Copy a backup's file to the new side; OperatorError unless its tables have the manifest's numbers of rows."""
        self._folder.new.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = self._folder.new / SQLITE_FILE
        shutil.copyfile(dump, target)
        target.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(target, APPLICATION_USER, APPLICATION_USER)
        require_rows(sqlite_contents(target).rows, expected, "the file beside the live one")

    def cut_over(self) -> None:
        """Do nothing: `LiveData` moves the folder."""

    def undo(self) -> None:
        """Do nothing: `LiveData` moves the folder."""

    def discard(self) -> None:
        """Do nothing: `LiveData` discards the folder's sides."""


class LiveData:
    """Database and files of this host, which become live together."""

    def __init__(self, settings: BackupSettings) -> None:
        self.uploads = Folder(Path(settings.uploads))
        self.folders = [self.uploads]
        self.database: PostgresDatabase | SqliteDatabase
        if settings.engine == "postgres":
            self.database = PostgresDatabase(settings)
        else:
            folder = Folder(Path(settings.sqlite_directory))
            self.folders.append(folder)
            self.database = SqliteDatabase(folder)

    def cut_over(self, step: str, keep: Callable[[str], None]) -> None:
        """Continue from a step until the new sides are live.

        :param step: the last recorded step: `maintenance`, `out` or `in`.
        :param keep: records the next step before its work begins.
        """
        if step == "maintenance":
            keep("out")
        if step in ("maintenance", "out"):
            for folder in self.folders:
                folder.move_out()
            keep("in")
        for folder in self.folders:
            folder.move_in()
        self.database.cut_over()

    def undo(self, step: str, keep: Callable[[str], None]) -> None:
        """Undo the steps from this one until the previous sides are live.

        :param step: the last recorded step, any one after `loaded`.
        :param keep: records the next step before its work begins.
        """
        self.database.undo()
        if step in ("in", "live"):
            keep("in")
            for folder in self.folders:
                folder.move_back_out()
            keep("out")
        for folder in self.folders:
            folder.move_back_in()

    def discard(self) -> None:
        """Remove the new and the previous sides."""
        self.database.discard()
        for folder in self.folders:
            folder.discard()
