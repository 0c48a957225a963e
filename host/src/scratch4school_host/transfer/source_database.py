"""Copies the source's database, from a SQLite file, a dump or an address, for the application to read."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from .. import docker
from ..containers import APPLICATION_USER, FILES_GROUP, USER, Containers
from ..databases.scratch_server import ScratchServer
from ..docker import last_message
from ..errors import OperatorError
from ..files import empty_folder
from ..progress import say
from ..settings import TransferSettings
from .application import Database
from .sqlite_copy import MAGIC, copy_sqlite

SERVER = "scratch4school-transfer"
SOURCE = "source"
# The first bytes of a dump in custom format, and the last comment of a plain dump.
CUSTOM = b"PGDMP"
LAST_COMMENT = b"PostgreSQL database dump complete"
# The estimated size of an unpacked dump, as a multiple of its compressed size.
UNPACKED = 20


@dataclass(frozen=True)
class SourceDatabase:
    """A copy of the source's database, and its approximate size in bytes."""

    database: Database
    bytes: int


class Scratch:
    """A folder, and if needed a server, for the copy of the source and for a rehearsal."""

    def __init__(self, settings: TransferSettings, containers: Containers) -> None:
        self.settings = settings
        self.containers = containers
        self._server: ScratchServer | None = None

    def server(self) -> ScratchServer:
        """The scratch server, which the first call starts."""
        if self._server is None:
            self._server = ScratchServer(SERVER, self.settings, self.containers, self.settings.work / "server")
            self._server.start()
        return self._server

    def empty_database(self, name: str) -> Database:
        """Make an empty database in the scratch server, in place of one of the same name."""
        server = self.server()
        server.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        server.sql(f"CREATE DATABASE {name} TEMPLATE template0", doing="Making a database for the source")
        # The path differs from the live server's socket, because a container may have both mounts.
        return Database(f"postgresql://postgres@/{name}?host=/scratch", [(server.socket, "/scratch", "rw")])


@contextmanager
def scratch(settings: TransferSettings, containers: Containers) -> Iterator[Scratch]:
    """A scratch folder and server, which are removed after the block."""
    empty_folder(settings.work)
    try:
        yield Scratch(settings, containers)
    finally:
        docker.run("rm", "--force", SERVER)
        shutil.rmtree(settings.work, ignore_errors=True)


def copy_source(place: Scratch) -> SourceDatabase:
    """Copy the source's database as it is now.

    :raises OperatorError: when it is missing, damaged or locked, or neither SQLite nor PostgreSQL.
    """
    source = place.settings.source_database
    if source.startswith(("postgresql://", "postgres://")):
        return _from_address(place, source)
    file = Path(source)
    if not file.is_file():
        raise OperatorError(
            f"There is no file {file}. adoption_database is a SQLite file, a dump or an address of PostgreSQL."
        )
    with file.open("rb") as opened:
        head = opened.read(16)
    if head == MAGIC:
        return copy_of_sqlite(place.settings, file)
    if head.startswith(CUSTOM):
        return _from_custom_dump(place, file)
    return _from_script(place, file, packed=head.startswith(b"\x1f\x8b"))


def copy_of_sqlite(settings: TransferSettings, file: Path) -> SourceDatabase:
    """Copy a SQLite database for the application, while another program may write to it."""
    folder = empty_folder(settings.work / "sqlite", owner=APPLICATION_USER)
    settings.require_room(folder, 2 * file.stat().st_size, "A copy of the source database")
    copy = folder / f"{SOURCE}.db"
    copy_sqlite(file, copy)
    if os.geteuid() == 0:
        os.chown(copy, APPLICATION_USER, FILES_GROUP)
    database = Database(f"sqlite:////{SOURCE}/{copy.name}", [(folder, f"/{SOURCE}", "rw")])
    return SourceDatabase(database, copy.stat().st_size)


def _from_address(place: Scratch, address: str) -> SourceDatabase:
    """Dump the source with pg_dump, which reads a consistent state and changes nothing."""
    folder = empty_folder(place.settings.work / "dump", owner=USER)
    parts = urlsplit(address)
    host, name = parts.hostname or "localhost", unquote(parts.path.lstrip("/"))
    network, host = _network_of(host)
    # The role `adoption` writes this file when the address has a password.
    passwords = Path(place.settings.secrets) / "pgpass"
    command = place.containers.command(
        *place.containers.nice("pg_dump", "--format=custom", "--compress=0", "--no-owner", "--no-privileges"),
        f"--host={host}", f"--port={parts.port or 5432}", f"--username={unquote(parts.username or 'postgres')}",
        "--no-password", f"--file=/work/{SOURCE}.dump", name,
        mounts=[(folder, "/work", "rw")] + ([(passwords, "/run/secrets/pgpass", "ro")] if passwords.exists() else []),
        network=network,
        environment=["PGPASSFILE=/run/secrets/pgpass"],
    )  # fmt: skip
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if ended.returncode:
        raise OperatorError(f"The source database could not be read: {last_message(ended.stderr)}")
    return _from_custom_dump(place, folder / f"{SOURCE}.dump")


def _network_of(host: str) -> tuple[str, str]:
    """Docker's network, and the name in it, by which a container reaches a host or a service of Docker Compose."""
    with contextlib.suppress(OSError):
        socket.getaddrinfo(host, None)
        return "host", host
    found = docker.run("ps", "--quiet", "--filter", f"label=com.docker.compose.service={host}").stdout.split()
    if len(found) != 1:
        raise OperatorError(
            f"The source database is on {host}, which this host cannot resolve, and {len(found)} running containers of "
            "Compose have that name. Write its address into adoption_database, or the path of a dump."
        )
    say(f"      {host} is the container {found[0]} here")
    return f"container:{found[0]}", "localhost"


def _from_custom_dump(place: Scratch, file: Path) -> SourceDatabase:
    database = place.empty_database(SOURCE)
    problem = f"{file.name} cannot be loaded; it may have been cut off."
    place.server().restore(file, SOURCE, "--no-privileges", problem=problem)
    return SourceDatabase(database, file.stat().st_size)


def _from_script(place: Scratch, file: Path, packed: bool) -> SourceDatabase:
    """Load a plain dump, which may be compressed; OperatorError when it is incomplete, or a statement fails."""
    script = file
    if packed:
        folder = empty_folder(place.settings.work / "dump")
        place.settings.require_room(folder, UNPACKED * file.stat().st_size, "The unpacked dump")
        script = folder / f"{SOURCE}.sql"
        try:
            with gzip.open(file) as source, script.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        except (EOFError, OSError) as problem:
            raise OperatorError(f"{file} is cut off or damaged: {problem}") from problem
        with script.open("rb") as opened:
            if opened.read(5) == CUSTOM:
                return _from_custom_dump(place, script)
    _refuse_incomplete(file, script)
    database = place.empty_database(SOURCE)
    place.server().sql(_roles_of(script), doing="Making the roles that the dump names")
    place.server().run_script(script, SOURCE, problem=f"{file} cannot be loaded:")
    return SourceDatabase(database, script.stat().st_size)


def _refuse_incomplete(file: Path, script: Path) -> None:
    size = script.stat().st_size
    with script.open("rb") as opened:
        head = opened.read(4096)
        opened.seek(max(0, size - 4096))
        tail = opened.read()
    if not size:
        raise OperatorError(f"{file} is empty. Make the dump again, and read what pg_dump prints.")
    if b"PostgreSQL database dump" not in head:
        raise OperatorError(f"{file} is neither a SQLite file nor a dump of PostgreSQL's pg_dump.")
    if LAST_COMMENT not in tail:
        raise OperatorError(
            f"{file} ends in the middle, so rows are missing. Make the dump again, with room on the disk."
        )
    with script.open("rb") as opened:
        if any(re.match(rb"\\connect ", line) for line in opened):
            raise OperatorError(
                f"{file} was made with --create or by pg_dumpall. Make it by pg_dump, without --create."
            )


def _roles_of(script: Path) -> str:
    """SQL that makes the roles that a plain dump names in its ALTER, GRANT and REVOKE statements."""
    names: set[str] = set()
    with script.open("r", errors="replace") as opened:
        for line in opened:
            if line.startswith(("ALTER ", "GRANT ", "REVOKE ")):
                names.update(re.findall(r'\b(?:OWNER TO|FOR ROLE|TO|FROM) ("(?:[^"]|"")+"|\w+)', line))
    names = {name.strip('"').replace('""', '"') for name in names - {"PUBLIC"}}
    literals = sorted(name.replace("'", "''") for name in names)
    return "\n".join(
        f"SELECT format('CREATE ROLE %I', '{name}') WHERE NOT EXISTS "
        f"(SELECT FROM pg_roles WHERE rolname = '{name}') \\gexec"
        for name in literals
    )
