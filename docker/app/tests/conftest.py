"""Shared fixtures: a temporary PostgreSQL server, SQLite, a migrated database for each test, and the application.

They need Debian's PostgreSQL server programs, but neither Docker nor Ansible. A test that uses `settings`, or a fixture
made of it, runs once on each engine.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy.engine import make_url

from description import DescribedClient
from helpers import COMMAND, SOURCE_ON_PATH, Device, FakeProvider, Forwarder, project_file
from scratch4school import config
from scratch4school.app import create_app
from scratch4school.clock import utcnow
from scratch4school.config import Settings
from scratch4school.database import schema
from scratch4school.database.tables import metadata
from scratch4school.login.claims import identity
from scratch4school.login.sign_in import sign_in
from scratch4school.web.services import Services

PASSWORD = secrets.token_urlsafe(16)


@dataclass(frozen=True)
class PostgresServer:
    """The PostgreSQL server of this test session."""

    port: int

    def execute(self, statement: str, database: str = "postgres") -> None:
        connection = psycopg2.connect(self.dsn(database))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()

    def dsn(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres password={PASSWORD} dbname={database}"

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def postgres_binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.fail("PostgreSQL's server binaries are missing; install Debian's package `postgresql`.", pytrace=False)
    return found[-1].parent


@pytest.fixture(scope="session")
def postgres(postgres_binaries: Path) -> Iterator[PostgresServer]:
    # Not below pytest's own folder: the user `postgres` cannot enter it, and the server refuses to run as root.
    folder = Path(tempfile.mkdtemp(prefix="scratch4school-postgres-"))
    as_postgres: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
        as_postgres = ["runuser", "-u", "postgres", "--"]
    password_file = folder / "password"
    password_file.write_text(PASSWORD)
    password_file.chmod(0o644)
    data, port = folder / "data", free_port()
    initdb = [postgres_binaries / "initdb", "-D", data, "-U", "postgres", "--auth=scram-sha-256", "--no-sync"]
    initdb += [f"--pwfile={password_file}", "--encoding=UTF8", "--locale=C.UTF-8"]
    subprocess.run([*as_postgres, *initdb], check=True, capture_output=True, cwd=folder)
    options = (
        f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=300 "
        "-c fsync=off -c full_page_writes=off -c synchronous_commit=off"
    )
    pg_ctl = [*as_postgres, postgres_binaries / "pg_ctl", "-D", data]
    start = [*pg_ctl, "-w", "-l", folder / "log", "-o", options, "start"]
    subprocess.run(start, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        yield PostgresServer(port)
    finally:
        subprocess.run([*pg_ctl, "-m", "immediate", "stop"], check=True, cwd=folder, stdout=subprocess.DEVNULL)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def password_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secrets") / "database_password"
    path.write_text(PASSWORD + "\n")
    return path


def database_environment(url: str, password_file: Path) -> dict[str, str]:
    return {
        "SCRATCH4SCHOOL_DATABASE_URL": url,
        "SCRATCH4SCHOOL_DATABASE_PASSWORD_FILE": str(password_file),
    }


@pytest.fixture(scope="session")
def migrated(postgres: PostgresServer, password_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """For each engine the URL of a database at the newest revision."""
    postgres.execute("CREATE DATABASE migrated")
    file = tmp_path_factory.mktemp("migrated") / "main.db"
    urls = {"postgresql": postgres.url("migrated"), "sqlite": f"sqlite:///{file}"}
    for url in urls.values():
        schema.upgrade(config.load_database(database_environment(url, password_file)), say=lambda line: None)
    return urls


@pytest.fixture(params=["postgresql", "sqlite"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_url(engine_name: str, postgres: PostgresServer, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if engine_name == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.db"
        return
    name = f"empty_{secrets.token_hex(6)}"
    postgres.execute(f"CREATE DATABASE {name}")
    yield postgres.url(name)
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(engine_name: str, migrated: dict[str, str], postgres: PostgresServer, tmp_path: Path) -> Iterator[str]:
    """The URL of a database at the newest revision, without rows.

    On PostgreSQL all tests share one, which is emptied: a new one for each test would take most of the suite's time.
    """
    if engine_name == "sqlite":
        copy = tmp_path / "main.db"
        shutil.copy(make_url(migrated["sqlite"]).database or "", copy)
        yield f"sqlite:///{copy}"
        return
    names = ", ".join(metadata.tables)
    # CASCADE, because a later release runs these tests on its own schema, which may have more tables.
    postgres.execute(f"TRUNCATE {names} RESTART IDENTITY CASCADE", database="migrated")
    yield migrated["postgresql"]


@pytest.fixture(scope="session")
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as running:
        yield running


@pytest.fixture
def environment(database_url: str, password_file: Path, tmp_path: Path, provider: FakeProvider) -> dict[str, str]:
    """A complete environment, as the container gets it."""
    provider.reset()
    for name, value in (("secret_key", secrets.token_urlsafe(40)), ("client_secret", provider.client_secret)):
        (tmp_path / name).write_text(value)
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    return {
        **database_environment(database_url, password_file),
        "SCRATCH4SCHOOL_PUBLIC_URL": "https://scratch.school.test",
        "SCRATCH4SCHOOL_SECRET_KEY_FILE": str(tmp_path / "secret_key"),
        "SCRATCH4SCHOOL_OIDC_CLIENT_ID": provider.client_id,
        "SCRATCH4SCHOOL_OIDC_CLIENT_SECRET_FILE": str(tmp_path / "client_secret"),
        "SCRATCH4SCHOOL_OIDC_AUTHORIZE_URL": f"{provider.url}/auth",
        "SCRATCH4SCHOOL_OIDC_TOKEN_URL": f"{provider.url}/token",
        "SCRATCH4SCHOOL_OIDC_JWKS_URL": f"{provider.url}/jwks",
        "SCRATCH4SCHOOL_OIDC_ISSUER": provider.url,
        "SCRATCH4SCHOOL_ROLE_ADMIN": "admins",
        "SCRATCH4SCHOOL_ROLE_TEACHER": "lehrer",
        "SCRATCH4SCHOOL_UPLOADS": str(uploads),
        "SCRATCH4SCHOOL_RELEASE": "release-under-test",
    }


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    return config.load(environment)


@pytest.fixture
def make_app(settings: Settings) -> Iterator[Callable[..., Any]]:
    """Make applications with this test's settings, some of them changed."""
    made = []

    def make(**changes: Any) -> Any:
        app = create_app(replace(settings, **changes))
        app.test_client_class = DescribedClient
        made.append(app)
        return app

    yield make
    for app in made:
        app.extensions["scratch4school"].database.dispose()


@pytest.fixture
def app(make_app: Callable[..., Any]) -> Any:
    return make_app()


@pytest.fixture
def services(app: Any) -> Services:
    found: Services = app.extensions["scratch4school"]
    return found


@pytest.fixture
def log_in(services: Services) -> Callable[..., str]:
    """Record a login as the application does after the identity provider's part; returns the session's id."""

    def record(name: str, *groups: str, expires_in: float = 3600, refresh_token: str | None = None) -> str:
        claims = {"sub": name, "preferred_username": name, "groups": list(groups)}
        who = identity(claims, "admins", "lehrer")
        expires_at = utcnow() + timedelta(seconds=expires_in)
        return sign_in(services.database, who, "access", refresh_token, expires_at)

    return record


@pytest.fixture
def device(app: Any, log_in: Callable[..., str]) -> Callable[..., Device]:
    """Make a device of the user `name`, with the application in this process."""

    def of(name: str, *groups: str) -> Device:
        return Device(app.test_client(), log_in(name, *groups))

    return of


@pytest.fixture
def pupil(device: Callable[..., Device]) -> Device:
    return device("ada")


@pytest.fixture
def project_id(pupil: Device) -> int:
    return int(pupil.create(project_file("first"), title="Katze").json["id"])


@dataclass(frozen=True)
class Server:
    """A running gunicorn, as `scratch4school serve` starts it."""

    url: str
    process: subprocess.Popen[str]
    log: Path


@pytest.fixture
def start_server(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start `scratch4school serve`; after the test it is stopped, and must end with status 0."""
    running: list[Server] = []

    def start(**changes: str) -> Server:
        port = free_port()
        own = {f"SCRATCH4SCHOOL_{key}": value for key, value in changes.items()}
        bind = {"SCRATCH4SCHOOL_BIND": f"127.0.0.1:{port}", "SCRATCH4SCHOOL_WORKERS": "2"}
        log = tmp_path / f"server-{port}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [*COMMAND, "serve"],
                env={**os.environ, **SOURCE_ON_PATH, **environment, **bind, **own},
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        server = Server(f"http://127.0.0.1:{port}", process, log)
        running.append(server)
        if "BIND" not in changes:
            _wait_until_answering(server)
        return server

    yield start
    for server in running:
        if server.process.poll() is None:
            server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=90) == 0, server.log.read_text()


def _wait_until_answering(server: Server) -> None:
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up and server.process.poll() is None:
        # A connection is not enough: the socket listens before a worker has loaded the application.
        try:
            with urllib.request.urlopen(f"{server.url}/healthz", timeout=10):
                return
        except OSError:
            time.sleep(0.05)
    pytest.fail(f"the server did not start: {server.log.read_text()}", pytrace=False)


@pytest.fixture
def forwarder(postgres: PostgresServer) -> Iterator[Forwarder]:
    """A TCP port that leads to PostgreSQL and can be cut."""
    running = Forwarder(postgres.port)
    yield running
    running.cut()


@pytest.fixture
def together() -> Callable[..., list[Any]]:
    """Run `work(index)` in `count` threads that start at the same moment; returns the results."""

    def run(count: int, work: Callable[[int], Any]) -> list[Any]:
        start = threading.Barrier(count)
        results: list[Any] = [None] * count

        def task(index: int) -> None:
            start.wait()
            try:
                results[index] = work(index)
            except Exception as error:
                results[index] = error

        threads = [threading.Thread(target=task, args=(index,)) for index in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        raised = [result for result in results if isinstance(result, Exception)]
        if raised:
            raise raised[0]
        return results

    return run
