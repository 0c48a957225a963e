"""The database goes away and comes back, on real connections: clear answers meanwhile, and no restart afterwards."""

import contextlib
import http.client
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from helpers import Forwarder, HttpClient, project_file, wait_for
from scratch4school.config import Settings
from scratch4school.database.database import Database
from scratch4school.database.engine import make_engine

# Longer than a request waits for its database.
AWAY_SECONDS = 16


@pytest.fixture
def url_through(forwarder: Forwarder, migrated: dict[str, str]) -> str:
    return make_url(migrated["postgresql"]).set(port=forwarder.port).render_as_string()


class Asking(threading.Thread):
    """A client that repeats a request until it is stopped; `answers` has status, headers and body of each answer."""

    def __init__(self, url: str, work: tuple[str, str, bytes | None], session_id: str) -> None:
        super().__init__()
        self._url, self._work, self._session_id = url, work, session_id
        self._stopped = threading.Event()
        self.answers: list[tuple[int, dict[str, str], Any]] = []

    def run(self) -> None:
        while not self._stopped.is_set():
            self.answers.append(ask(self._url, *self._work, self._session_id))

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def ask(
    url: str, method: str, path: str, file: bytes | None = None, session_id: str = ""
) -> tuple[int, dict[str, str], Any]:
    headers = {"X-Session-ID": session_id, "Content-Type": "multipart/form-data; boundary=b"}
    head = b'--b\r\nContent-Disposition: form-data; name="project_file"; filename="p"\r\n\r\n'
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.request(method, path, None if file is None else head + file + b"\r\n--b--\r\n", headers)
    response = connection.getresponse()
    body = json.loads(response.read())
    connection.close()
    return response.status, dict(response.headers), body


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_long_outage_of_the_database_is_survived(
    start_server: Callable[..., Any], log_in: Callable[..., str], forwarder: Forwarder, url_through: str
) -> None:
    """Saves and lists continue all the time: each gets 200, or 503 with Retry-After."""
    server = start_server(DATABASE_URL=url_through, WORKERS="2")
    device = HttpClient(server.url, log_in("ada"))
    project_id = device.create("before")
    save = ("PUT", f"/api/projects/{project_id}", project_file("x" * 200_000))
    clients = [Asking(server.url, save, device.session_id) for _ in range(3)]
    clients += [Asking(server.url, ("GET", "/api/projects", None), device.session_id) for _ in range(3)]
    for client in clients:
        client.start()
    wait_for(lambda: all(client.answers for client in clients))
    forwarder.cut()
    end = time.monotonic() + AWAY_SECONDS
    while time.monotonic() < end:
        assert ask(server.url, "GET", "/readyz")[0] == 503
        assert ask(server.url, "GET", "/healthz")[0] == 200
        assert ask(server.url, "GET", "/api/status")[0] == 200
    forwarder.open()
    back = [len(client.answers) for client in clients]
    # A request that waits when the database returns may still be refused; later ones succeed.
    wait_for(lambda: all(len(client.answers) > count + 3 for client, count in zip(clients, back, strict=True)))
    for client in clients:
        client.stop()
    for client, count in zip(clients, back, strict=True):
        refused = [answer for answer in client.answers if answer[0] != 200]
        assert refused
        for status, headers, body in refused:
            assert (status, headers.get("Retry-After")) == (503, "5"), body
            assert body["request_id"] == headers["X-Request-ID"]
        assert {status for status, _, _ in client.answers[count + 1 :]} == {200}
    assert ask(server.url, "GET", "/readyz")[0] == 200
    acknowledged = sum(status == 200 for client in clients[:3] for status, _, _ in client.answers)
    assert device.version(project_id) - 1 >= acknowledged
    assert device.content(project_id) == "x" * 200_000


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_connection_that_breaks_after_its_answer_is_replaced(settings: Settings) -> None:
    """The answer counts, and the pool, here of one connection, still has it afterwards."""
    database = Database(settings.database, connections=1)
    killer = make_engine(settings.database, None)

    def answer_and_break(connection: sa.Connection) -> int:
        own = connection.scalar(sa.text("SELECT pg_backend_pid()"))
        with killer.connect() as other:
            other.execute(sa.text("SELECT pg_terminate_backend(:own, 5000)"), {"own": own})
        return int(own or 0)

    answers = []
    for _ in range(3):
        database.read(lambda connection: connection.execute(sa.text("SELECT 1")))
        answers.append(database.read(answer_and_break))
    assert len(set(answers)) == 3
    assert database.write(lambda connection: connection.scalar(sa.text("SELECT 1"))) == 1
    database.dispose()


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_probes_of_a_silent_database_wait_one_at_a_time(
    make_app: Callable[..., Any], settings: Settings, forwarder: Forwarder
) -> None:
    """Like PgBouncer without a server: 503, and of many probes only one waits for an answer."""
    database = replace(settings.database, url=settings.database.url.set(port=forwarder.port))
    app = make_app(database=database, server=replace(settings.server, threads=3))
    client = app.test_client()
    assert client.get("/readyz").status_code == 200
    forwarder.mute()
    for _ in range(5):
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json["problems"]) == (503, ["database: DatabaseUnavailable"])
    assert app.extensions["scratch4school"].database.engine.pool.checkedout() == 1
    forwarder.cut()
    forwarder.open()
    wait_for(lambda: client.get("/readyz").status_code == 200)


@pytest.fixture
def read_only_server(postgres: Any) -> Iterator[None]:
    postgres.execute("ALTER DATABASE migrated SET default_transaction_read_only = on")
    yield
    postgres.execute("ALTER DATABASE migrated RESET default_transaction_read_only")


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_not_ready_on_a_read_only_server(app: Any, read_only_server: None) -> None:
    """As on a standby: every read works and no save does."""
    answer = app.test_client().get("/readyz")
    assert answer.status_code == 503
    assert answer.json["problems"][0].startswith("database: it can only be read now")


@contextlib.contextmanager
def only_reading(file: Path) -> Iterator[None]:
    """Take this process the right to write the file: root, who may write any file, acts as another user."""
    if os.geteuid() != 0:
        file.chmod(0o444)
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_file_of_another_user_refuses_writes(settings: Settings) -> None:
    # Not below pytest's own folder, which other users cannot enter; then the folder would refuse.
    with tempfile.TemporaryDirectory(prefix="scratch4school-") as name:
        Path(name).chmod(0o777)
        file = Path(shutil.copy(settings.database.url.database or "", name))
        file.chmod(0o644)
        database = Database(
            replace(settings.database, url=settings.database.url.set(database=str(file))), connections=1
        )
        with database.engine.connect() as connection:
            assert not database.refuses_writes(connection)
            with only_reading(file):
                assert file.read_bytes()[:6] == b"SQLite"
                assert database.refuses_writes(connection)
        database.dispose()
