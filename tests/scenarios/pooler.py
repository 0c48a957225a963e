"""PgBouncer on the first lab host: its console, its port on this machine, and clients with the application's login."""

from __future__ import annotations

import csv
import io
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg2
from conftest import ROOT, Place, listens, on_host, wait_for
from faults import address_of

Client = psycopg2.extensions.connection

POOLER = "scratch4school-pgbouncer"
DATABASE = "scratch4school"
APPLICATION = "scratch4school_app"
TUNNEL_PORT = 18432
# As PgBouncer's own user, which may do everything from the socket in its container.
CONSOLE = (
    f"sudo docker exec {POOLER} psql --host /tmp --port 6432 --username pgbouncer --dbname pgbouncer "
    "--set ON_ERROR_STOP=1 --csv"
)


def console(command: str) -> list[dict[str, str]]:
    """What the console answers, row by row."""
    return list(csv.DictReader(io.StringIO(on_host(f'{CONSOLE} -c "{command}"'))))


def tell(*commands: str) -> None:
    """Say some things at the console, one after the other."""
    on_host(" ".join([CONSOLE, *(f'-c "{command}"' for command in commands)]))


def servers() -> list[dict[str, str]]:
    """The connections to PostgreSQL that the application's pool has at the moment."""
    ours = (DATABASE, APPLICATION)
    return [row for row in console("SHOW SERVERS") if (row["database"], row["user"]) == ours]


@contextmanager
def tunnel(place: Place) -> Iterator[str]:
    """The pooler's port of a lab host on this machine; gives what libpq has to be told."""
    known = f"UserKnownHostsFile={ROOT / '.lab' / 'known_hosts'}"
    to = f"127.0.0.1:{TUNNEL_PORT}:{address_of(place, POOLER)}:6432"
    options = [
        "-o",
        known,
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "ExitOnForwardFailure=yes",
        "-i",
        str(ROOT / ".lab" / "ssh_key"),
    ]
    process = subprocess.Popen(["ssh", *options, "-N", "-L", to, f"sysadmin@{place.address}"])
    try:
        wait_for(lambda: listens(TUNNEL_PORT), seconds=20)
        yield f"host=127.0.0.1 port={TUNNEL_PORT}"
    finally:
        process.terminate()
        process.wait(timeout=10)


def password_of_application(place: Place) -> str:
    """The password that the application logs in with."""
    return on_host("sudo cat /etc/scratch4school/app/database_password", place.name).strip()


def log_in(address: str, password: str, **options: Any) -> Client:
    """Come in through the pooler as the application does, with libpq's further options."""
    who = {"user": APPLICATION, "password": password, "dbname": DATABASE, "application_name": "scratch4school"}
    client = psycopg2.connect(address, connect_timeout=10, **who, **options)
    # Each says itself where its transactions begin and end.
    client.autocommit = True
    return client


@contextmanager
def logged_in(place: Place, count: int) -> Iterator[list[Client]]:
    """So many clients of the pooler with the application's login, none of which is in a transaction yet."""
    password = password_of_application(place)
    with tunnel(place) as address, ExitStack() as closing:
        clients = []
        for _ in range(count):
            clients.append(log_in(address, password))
            closing.callback(clients[-1].close)
        yield clients


def ask(client: Client, sql: str) -> list[tuple[Any, ...]]:
    """What the last of some statements answers."""
    with client.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []
