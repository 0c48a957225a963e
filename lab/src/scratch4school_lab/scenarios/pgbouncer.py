"""PgBouncer on a lab host: its console, its port on this machine, and clients with the application's login."""

from __future__ import annotations

import csv
import io
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg2

from ..hosts import plan
from ..hosts.plan import Host
from .faults import address_of
from .lab_hosts import listens, on_host, wait_for
from .worker import HOST

Client = psycopg2.extensions.connection

CONTAINER = "scratch4school-pgbouncer"
DATABASE = "scratch4school"
CONNECT_SECONDS = 60
APPLICATION = "scratch4school_app"
# As PgBouncer's own user, which may do everything from the socket in its container.
CONSOLE = (
    f"sudo docker exec {CONTAINER} psql --host /tmp --port 6432 --username pgbouncer --dbname pgbouncer "
    "--set ON_ERROR_STOP=1 --csv"
)


def console(command: str, host: Host = HOST) -> list[dict[str, str]]:
    """The rows of the console's answer."""
    return list(csv.DictReader(io.StringIO(on_host(f'{CONSOLE} -c "{command}"', host))))


def run_in_console(*commands: str, host: Host = HOST) -> None:
    """Run commands in the console, one after the other."""
    on_host(" ".join([CONSOLE, *(f'-c "{command}"' for command in commands)]), host)


def servers() -> list[dict[str, str]]:
    """The connections to PostgreSQL that the application's pool has at the moment."""
    ours = (DATABASE, APPLICATION)
    return [row for row in console("SHOW SERVERS") if (row["database"], row["user"]) == ours]


@contextmanager
def tunnel(host: Host) -> Iterator[str]:
    """PgBouncer's port of a lab host on this machine; gives libpq's options for it."""
    port = free_port()
    forward = f"127.0.0.1:{port}:{address_of(host, CONTAINER)}:6432"
    settings = (f"UserKnownHostsFile={plan.KNOWN_HOSTS}", "IdentitiesOnly=yes", "ExitOnForwardFailure=yes")
    options = [word for setting in settings for word in ("-o", setting)]
    command = ["ssh", *options, "-i", str(plan.SSH_KEY), "-N", "-L", forward, f"{plan.USER}@{host.address}"]
    process = subprocess.Popen(command)
    try:
        wait_for(lambda: listens(port) or process.poll() is not None)
        assert process.poll() is None, f"ssh ended with {process.returncode}"
        yield f"host=127.0.0.1 port={port}"
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """A port of the loopback on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def password_of_application(host: Host) -> str:
    """The password with which the application logs in."""
    return on_host("sudo cat /etc/scratch4school/app/database_password", host).strip()


def log_in(address: str, password: str, **options: Any) -> Client:
    """Log in through PgBouncer as the application does, with further options of libpq."""
    login = {"user": APPLICATION, "password": password, "dbname": DATABASE, "application_name": "scratch4school"}
    client = psycopg2.connect(address, connect_timeout=CONNECT_SECONDS, **login, **options)
    # The tests begin and end transactions themselves.
    client.autocommit = True
    return client


@contextmanager
def logged_in(host: Host, count: int) -> Iterator[list[Client]]:
    """So many clients of PgBouncer with the application's login; none is in a transaction yet."""
    password = password_of_application(host)
    with tunnel(host) as address, ExitStack() as closing:
        clients = []
        for _ in range(count):
            clients.append(log_in(address, password))
            closing.callback(clients[-1].close)
        yield clients


def ask(client: Client, sql: str) -> list[tuple[Any, ...]]:
    """The rows of the last one of some statements."""
    with client.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []
