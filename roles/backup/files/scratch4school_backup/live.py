"""What stands on this host now, and how it is replaced as a unit: rows and files change places while nobody is served.

Both have a new side, which was loaded and checked beside the live one, and a former side, which is kept until the
restored school was verified. Every move is a rename, or one transaction, and can be taken up or back at any point.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .base import HostSettings, Problem, Settings, read_json, say, sync_folder
from .containers import APPLICATION_USER, last_words
from .engines import DATABASE, SQLITE_FILE, Server, accept, sqlite_contents

ASIDE = ".restore"
# The application's sweeper notes there what it saw unnamed, which is said of other rows than those of a backup.
SWEEP_NOTE = ".unnamed.json"

RESTORED = f"{DATABASE}_restored"
FORMER = f"{DATABASE}_former"
OWNER = f"{DATABASE}_owner"
RENAME_SECONDS = 30


class Folder:
    """A folder that containers have mounted: it stays, and what is in it changes places.

    The new and the former side lie in the folder itself, in one that begins with a dot, because only within one file
    system is a move a rename. Everything that begins with a dot stays where it is.
    """

    def __init__(self, live: Path) -> None:
        self.live = live
        self.aside = live / ASIDE
        self.new = self.aside / "new"
        self.former = self.aside / "former"

    def move_out(self) -> None:
        """The live content goes to the former side."""
        _move(self.live, self.former)

    def move_in(self) -> None:
        """The new content comes to the live side."""
        _move(self.new, self.live)

    def move_back_out(self) -> None:
        """What had come to the live side goes back to the new one."""
        _move(self.live, self.new)

    def move_back_in(self) -> None:
        """What had been live is so again."""
        _move(self.former, self.live)

    def settle(self) -> None:
        """Let go of both other sides."""
        shutil.rmtree(self.aside, ignore_errors=True)


def _move(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in sorted(os.listdir(source)) if source.is_dir() else []:
        if not name.startswith("."):
            (source / name).rename(target / name)
    for folder in (source, target):
        if folder.is_dir():
            sync_folder(folder)


class PostgresRows:
    """The rows in PostgreSQL: a database of another name beside the live one, and two renames in one transaction."""

    def __init__(self, settings: Settings) -> None:
        self._server = Server(settings.postgres_container)

    def load(self, dump: Path, expected: dict[str, int]) -> None:
        """Make the new side from a dump, and hold it against the manifest."""
        self._drop(RESTORED)
        self._server.sql(
            f"CREATE DATABASE {RESTORED} OWNER {OWNER} TEMPLATE template0;\n"
            f"REVOKE ALL ON DATABASE {RESTORED} FROM PUBLIC;\n"
            f"SELECT format('GRANT %s ON DATABASE {RESTORED} TO %I', a.privilege_type, a.grantee::regrole::text) "
            f"FROM pg_database d, aclexplode(d.datacl) a WHERE d.datname = '{DATABASE}' AND a.grantee <> 0 \\gexec\n",
            doing="Making a database beside the live one",
        )
        self._server.load(dump, RESTORED, OWNER)
        accept(self._server.rows(RESTORED), expected, "the database beside the live one")

    def swap(self) -> None:
        """The new side becomes the live one, in one transaction; nothing where that was done already."""
        if not self._exists(FORMER):
            self._rename((DATABASE, FORMER), (RESTORED, DATABASE))

    def swap_back(self) -> None:
        """The former side becomes the live one again."""
        if self._exists(FORMER):
            self._rename((DATABASE, RESTORED), (FORMER, DATABASE))

    def settle(self) -> None:
        """Let go of both other sides."""
        self._drop(FORMER)
        self._drop(RESTORED)

    def _exists(self, name: str) -> bool:
        return self._server.sql(f"SELECT 1 FROM pg_database WHERE datname = '{name}'").strip() == "1"

    def _drop(self, name: str) -> None:
        self._server.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", doing=f"Removing the database {name}")

    def _rename(self, *pairs: tuple[str, str]) -> None:
        """Rename databases, to which nobody may be connected; the pooler, which comes back, is sent off first."""
        names = ", ".join(f"'{name}'" for pair in pairs for name in pair)
        renames = "\n".join(f"ALTER DATABASE {old} RENAME TO {new};" for old, new in pairs)
        end = time.monotonic() + RENAME_SECONDS
        while True:
            try:
                self._server.sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    f"WHERE datname IN ({names}) AND pid <> pg_backend_pid();\n"
                    f"BEGIN;\n{renames}\nCOMMIT;\n",
                    doing="Giving the databases each other's names",
                )
            except Problem:
                if time.monotonic() > end:
                    raise
                time.sleep(0.3)
            else:
                return


class SqliteRows:
    """The rows in SQLite's file: the folder in which it lies with what SQLite keeps beside it."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def load(self, dump: Path, expected: dict[str, int]) -> None:
        """Make the new side of the copy."""
        self._folder.new.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = self._folder.new / SQLITE_FILE
        shutil.copyfile(dump, target)
        target.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(target, APPLICATION_USER, APPLICATION_USER)
        accept(sqlite_contents(target).rows, expected, "the file beside the live one")

    def swap(self) -> None:
        """It went with its folder."""

    def swap_back(self) -> None:
        """It went with its folder."""

    def settle(self) -> None:
        """Its other sides go with its folder's."""


class Live:
    """Rows and files of this host as one unit with a new and a former side."""

    def __init__(self, settings: Settings) -> None:
        self.uploads = Folder(Path(settings.uploads))
        self.folders = [self.uploads]
        self.rows: PostgresRows | SqliteRows
        if settings.engine == "postgres":
            self.rows = PostgresRows(settings)
        else:
            database = Folder(Path(settings.sqlite_directory))
            self.folders.append(database)
            self.rows = SqliteRows(database)

    def swap(self, step: str, keep: Callable[[str], None]) -> None:
        """Go on from a step (`closed`, `out`, `in`) until the new sides are live; `keep` writes down how far it is."""
        if step == "closed":
            keep("out")
        if step in ("closed", "out"):
            for folder in self.folders:
                folder.move_out()
            keep("in")
        for folder in self.folders:
            folder.move_in()
        self.rows.swap()

    def swap_back(self, step: str, keep: Callable[[str], None]) -> None:
        """From any step after `closed` back until the former sides are live."""
        self.rows.swap_back()
        if step in ("in", "swapped"):
            keep("in")
            for folder in self.folders:
                folder.move_back_out()
            keep("out")
        for folder in self.folders:
            folder.move_back_in()

    def settle(self) -> None:
        """Let go of what is not live."""
        self.rows.settle()
        for folder in self.folders:
            folder.settle()


def serving_release(settings: Settings) -> dict[str, Any]:
    """The release that serves, as its description says, which holds no secret; empty when none does."""
    ended = subprocess.run([settings.slots, "status", "--json"], capture_output=True, text=True, check=False)
    status = json.loads(ended.stdout or "{}") if ended.returncode == 0 else {}
    serving = status.get("containers", {}).get(status.get("slot", ""), {}).get("release", "")
    return read_json(Path(settings.releases) / f"{serving}.json") if serving else {}


def tell_slots(settings: HostSettings, *command: str) -> None:
    """Have the program that owns the slots do something; Problem with its own words when it refuses."""
    ended = subprocess.run([settings.slots, *command], capture_output=True, text=True, check=False)
    for line in ended.stdout.splitlines():
        say(f"      {line}")
    if ended.returncode:
        raise Problem(last_words(ended.stderr))
