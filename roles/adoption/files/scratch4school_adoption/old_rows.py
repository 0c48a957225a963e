"""The old rows, whatever they come as, as a database that nothing but this program has open."""

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

from scratch4school_backup import containers as backups
from scratch4school_backup.base import Problem, empty_folder, need_room, say
from scratch4school_backup.containers import APPLICATION_USER, FILES_GROUP, Containers, docker, last_words
from scratch4school_backup.engines import SOCKET
from scratch4school_backup.scratch import ScratchServer

from .application import Database
from .settings import Settings
from .sqlite_copy import MAGIC, copy_sqlite

SERVER = "scratch4school-adoption"
OLD = "old"
CUSTOM = b"PGDMP"
ENDS = b"PostgreSQL database dump complete"


@dataclass(frozen=True)
class OldRows:
    """The old rows as a database of this program's own, and about how many bytes they take."""

    database: Database
    bytes: int


class Scratch:
    """Where old rows are laid out, and a rehearsal takes place; a server is started there when one is needed."""

    def __init__(self, settings: Settings, containers: Containers) -> None:
        self.settings = settings
        self.containers = containers
        self._server: ScratchServer | None = None

    def server(self) -> ScratchServer:
        """A PostgreSQL of this program's own."""
        if self._server is None:
            self._server = ScratchServer(SERVER, self.settings, self.containers, self.settings.work / "server")
            self._server.start()
        return self._server

    def empty_database(self, name: str) -> Database:
        """Make a database, in place of one that is there."""
        server = self.server()
        server.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        server.sql(f"CREATE DATABASE {name} TEMPLATE template0", doing="Making a database for the old rows")
        # A place of its own: the old rows and a rehearsal's may meet in one container.
        return Database(f"postgresql://postgres@/{name}?host=/scratch", [(server.socket, "/scratch", "rw")])


@contextmanager
def scratch(settings: Settings, containers: Containers) -> Iterator[Scratch]:
    """A scratch place, and nothing of it afterwards."""
    empty_folder(settings.work)
    try:
        yield Scratch(settings, containers)
    finally:
        docker("rm", "--force", SERVER)
        shutil.rmtree(settings.work, ignore_errors=True)


def read_old_rows(place: Scratch) -> OldRows:
    """Lay the old rows out anew, as they are at this moment; Problem when they are not what they should be."""
    wish = place.settings.old_database
    if wish.startswith(("postgresql://", "postgres://")):
        return _from_address(place, wish)
    file = Path(wish)
    if not file.is_file():
        raise Problem(
            f"There is no file {file}. adoption_database is a SQLite file, a dump or an address of PostgreSQL."
        )
    with file.open("rb") as opened:
        head = opened.read(16)
    if head == MAGIC:
        return lay_out_sqlite(place.settings, file)
    if head.startswith(CUSTOM):
        return _from_custom_dump(place, file)
    return _from_script(place, file, packed=head.startswith(b"\x1f\x8b"))


def lay_out_sqlite(settings: Settings, file: Path) -> OldRows:
    """A copy of a SQLite database for the application; who writes to the database is not disturbed."""
    folder = empty_folder(settings.work / "sqlite", owner=APPLICATION_USER)
    need_room(settings, folder, 2 * file.stat().st_size, "A copy of the old database")
    copy_sqlite(file, folder / "old.db")
    if os.geteuid() == 0:
        os.chown(folder / "old.db", APPLICATION_USER, FILES_GROUP)
    database = Database(f"sqlite:////{OLD}/old.db", [(folder, f"/{OLD}", "rw")])
    return OldRows(database, (folder / "old.db").stat().st_size)


def _from_address(place: Scratch, address: str) -> OldRows:
    """A dump by PostgreSQL's own program: it only reads, and what it reads belongs to one moment."""
    folder = empty_folder(place.settings.work / "dump", owner=backups.USER)
    parts = urlsplit(address)
    host, name = parts.hostname or "localhost", unquote(parts.path.lstrip("/"))
    network, host = _way_to(host)
    # The password, where there is one, is in a file that the role wrote.
    passwords = Path(place.settings.secrets) / "pgpass"
    command = place.containers.command(
        *place.containers.patiently("pg_dump", "--format=custom", "--compress=0", "--no-owner", "--no-privileges"),
        f"--host={host}", f"--port={parts.port or 5432}", f"--username={unquote(parts.username or 'postgres')}",
        "--no-password", f"--file=/work/{OLD}.dump", name,
        mounts=[(folder, "/work", "rw")] + ([(passwords, "/run/secrets/pgpass", "ro")] if passwords.exists() else []),
        network=network,
        environment=["PGPASSFILE=/run/secrets/pgpass"],
    )  # fmt: skip
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if ended.returncode:
        raise Problem(f"The old database could not be read: {last_words(ended.stderr)}")
    return _from_custom_dump(place, folder / f"{OLD}.dump")


def _way_to(host: str) -> tuple[str, str]:
    """The network and the name by which a container comes to a host; one of Compose is another container here."""
    with contextlib.suppress(OSError):
        socket.getaddrinfo(host, None)
        return "host", host
    found = docker("ps", "--quiet", "--filter", f"label=com.docker.compose.service={host}").stdout.split()
    if len(found) != 1:
        raise Problem(
            f"The old database is said to be on {host}, which this host does not know, and {len(found)} running "
            f"containers of Compose are called so. Give its address, or a dump of it."
        )
    say(f"      {host} is the container {found[0]} here")
    return f"container:{found[0]}", "localhost"


def _from_custom_dump(place: Scratch, file: Path) -> OldRows:
    database = place.empty_database(OLD)
    command = ["docker", "exec", "--interactive", SERVER, "pg_restore", f"--host={SOCKET}", "--username=postgres"]
    command += ["--exit-on-error", "--no-owner", "--no-privileges", f"--dbname={OLD}"]
    with file.open("rb") as dump:
        ended = subprocess.run(command, stdin=dump, capture_output=True, check=False)
    if ended.returncode:
        raise Problem(f"{file.name} cannot be loaded; it may have been cut off. {last_words(ended.stderr)}")
    return OldRows(database, file.stat().st_size)


def _from_script(place: Scratch, file: Path, packed: bool) -> OldRows:
    """A plain dump: as text, whole by its own last words, loaded up to the first error."""
    script = file
    if packed:
        folder = empty_folder(place.settings.work / "dump")
        need_room(place.settings, folder, 20 * file.stat().st_size, "The unpacked dump")
        script = folder / f"{OLD}.sql"
        try:
            with gzip.open(file) as source, script.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        except (EOFError, OSError) as problem:
            raise Problem(f"{file} is cut off or damaged: {problem}") from problem
        with script.open("rb") as opened:
            if opened.read(5) == CUSTOM:
                return _from_custom_dump(place, script)
    _refuse_half_a_script(file, script)
    database = place.empty_database(OLD)
    place.server().sql(_roles_of(script), doing="Making the roles that the dump names")
    command = ["docker", "exec", "--interactive", SERVER, "psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]
    command += [f"--host={SOCKET}", "--username=postgres", f"--dbname={OLD}"]
    with script.open("rb") as dump:
        ended = subprocess.run(command, stdin=dump, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if ended.returncode:
        raise Problem(f"{file} cannot be loaded: {last_words(ended.stderr)}")
    return OldRows(database, script.stat().st_size)


def _refuse_half_a_script(file: Path, script: Path) -> None:
    size = script.stat().st_size
    with script.open("rb") as opened:
        head = opened.read(4096)
        opened.seek(max(0, size - 4096))
        tail = opened.read()
    if not size:
        raise Problem(f"{file} is empty. Make the dump again, and look at what pg_dump says.")
    if b"PostgreSQL database dump" not in head:
        raise Problem(f"{file} is neither a SQLite file nor a dump of PostgreSQL's pg_dump.")
    if ENDS not in tail:
        raise Problem(f"{file} ends in the middle, so rows are missing. Make the dump again, with room on the disk.")
    with script.open("rb") as opened:
        if any(re.match(rb"\\connect ", line) for line in opened):
            raise Problem(f"{file} was made with --create or by pg_dumpall. Make it by pg_dump, without --create.")


def _roles_of(script: Path) -> str:
    """SQL that makes the roles to which a dump gives its tables; here they own nothing else."""
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
