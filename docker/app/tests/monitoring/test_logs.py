"""Logs: what happened in which request, but nothing about the person."""

import contextlib
import http.client
import json
import logging
import re
import socket
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa
from gunicorn.config import Config

from helpers import FakeProvider, SlowUpload, project_file, wait_for
from scratch4school.database.tables import users
from scratch4school.monitoring.logs import GunicornLogger, JsonFormatter
from scratch4school.web.services import Services

REQUEST_ID = "0123456789abcdef0123456789abcdef"


class Visitor:
    """A client of a running server that sends a request id, as the proxy does."""

    def __init__(self, url: str) -> None:
        self._address = url.removeprefix("http://")

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        """The answer to a request; header names are given with underscores."""
        connection = http.client.HTTPConnection(self._address, timeout=30)
        named = {"X-Request-ID": REQUEST_ID} | {key.replace("_", "-"): value for key, value in headers.items()}
        connection.request(method, path, body, named)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response, content

    def log_in(self, provider: FakeProvider) -> tuple[str, str]:
        """Log in through the provider; returns the session's id and the state of the addresses."""
        begun, _ = self.ask("GET", "/login")
        asked = {key: value[0] for key, value in parse_qs(urlsplit(begun.headers["Location"]).query).items()}
        provider.nonce = asked["nonce"]
        cookie = begun.headers["Set-Cookie"].partition(";")[0]
        back, _ = self.ask("GET", f"/authorize?code=c0dec0de&state={asked['state']}", Cookie=cookie)
        return parse_qs(urlsplit(back.headers["Location"]).query)["session_id"][0], asked["state"]

    def send_raw(self, request: str) -> None:
        """Send a request that no client library would send."""
        host, port = self._address.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(request.encode())
            with contextlib.suppress(OSError):
                while connection.recv(4096):
                    pass


def test_log_of_all_requests_names_no_person(
    start_server: Callable[..., Any], log_in: Callable[..., str], provider: FakeProvider
) -> None:
    """Logins, all ways to name a session, refreshes, the teacher's view, the backpack, and all kinds of errors."""
    server = start_server(WORKERS="1")
    visitor = Visitor(server.url)
    provider.claims = {"email": "ylva@school.test", "uuid": "uuid-of-ylva", "groups": [{"act": "klasse.geheim"}]}
    session_id, state = visitor.log_in(provider)
    bearer = {"Authorization": f"Bearer {session_id}"}
    teacher = log_in("frau.weber", "lehrer")
    expired = log_in("cem.expired", expires_in=-1, refresh_token="refresh-cem")
    refused = log_in("dana.refused", expires_in=-1, refresh_token="refresh-dana")
    provider.used_refresh_tokens.add("refresh-dana")

    for path in (f"/api/user?session_id={session_id}", f"/session?session_id={session_id}"):
        assert visitor.ask("GET", path)[0].status == 200
    assert visitor.ask("GET", "/api/user", X_Session_ID=session_id)[0].status == 200
    assert visitor.ask("GET", "/api/user", X_Session_ID=expired)[0].status == 200
    assert visitor.ask("GET", "/api/user", X_Session_ID=refused)[0].status == 401
    assert visitor.ask("GET", "/api/teacher/students/uuid-of-ylva/projects", X_Session_ID=teacher)[0].status == 200
    item = {"type": "sprite", "mime": "application/zip", "name": "name-of-item", "body": "UEs=", "thumbnail": "UEs="}
    kept = visitor.ask("POST", "/api/backpack", json.dumps(item), Content_Type="application/json", **bearer)
    item_id = json.loads(kept[1])["id"]
    assert visitor.ask("DELETE", f"/api/backpack/{item_id}", **bearer)[0].status == 200
    assert SlowUpload(server.url, session_id, project_file("secret-content")).finish() == 200
    assert visitor.ask("GET", "/api/projects/1/download", **bearer)[0].status == 200
    assert visitor.ask("GET", f"/no/such/{session_id}/uuid-of-ylva")[0].status == 404
    assert visitor.ask("GET", f"/authorize?code=c0dec0de&state={state}")[0].status == 302
    assert visitor.ask("GET", f"/logout?session_id={teacher}")[0].status == 200
    assert visitor.ask("YLVA.LIND", f"/api/user?session_id={session_id}")[0].status == 405
    SlowUpload(server.url, session_id, project_file("x" * 3_000_000)).give_up()
    for malformed in (
        f"GET /api/user?session_id={session_id} HTTP/9.9\r\n\r\n",
        f"G\x01T /api/user?session_id={session_id} HTTP/1.1\r\n\r\n",
        f"GET / HTTP/1.1\r\nX-Session-ID : {session_id}\r\n\r\n",
        f"GET / HTTP/1.1\r\nAuthorization: Bearer {session_id}\r\n folded\r\n\r\n",
    ):
        visitor.send_raw(malformed)

    wait_for(lambda: server.log.read_text().count("a request could not be read") == 4)
    text = server.log.read_text()
    secrets = [session_id, teacher, expired, refused, state, provider.nonce, item_id, provider.client_secret]
    secrets += [form.get("refresh_token", "c0dec0de") for form in provider.requests]
    secrets += [
        "access-token",
        # A name that no hexadecimal id contains by chance.
        "ylva",
        "YLVA.LIND",
        "weber",
        "cem.",
        "dana",
        "klasse.geheim",
        "name-of-item",
        "127.0.0.1:",
    ]
    own_address = server.url.removeprefix("http://")
    assert [secret for secret in secrets if str(secret) in text.replace(own_address, "")] == []

    entries = [json.loads(line) for line in text.splitlines()]
    requests = [entry for entry in entries if entry["message"] == "request"]
    assert not any({"path", "client"} & set(entry) for entry in requests)
    routes = {entry.get("route"): entry for entry in requests}
    assert routes["/api/projects/<row_id:project_id>/download"]["project"] == 1
    assert routes["/api/teacher/students/<path:student_id>/projects"]["status"] == 200
    # A request that matched no rule, by path or by method, has no route.
    assert {entry["status"] for entry in requests if "route" not in entry} >= {404, 405}
    assert {entry["method"] for entry in requests} <= {"GET", "POST", "DELETE", "other"}
    assert all(entry["request_id"] == REQUEST_ID for entry in requests if "route" in entry and "project" in entry)
    # A refresh runs in a thread of its own and still names its request.
    (refusal,) = [entry for entry in entries if entry["message"] == "token request failed"]
    assert refusal["request_id"] == REQUEST_ID


@pytest.mark.parametrize(
    ("given", "is_taken"),
    [
        (REQUEST_ID, True),
        ("a-b-c-0-1-2", True),
        ("short", False),
        ("a" * 65, False),
        ('0123456789"}', False),
        ("0123 456789", False),
        ("", False),
    ],
)
def test_request_id_is_the_proxys_or_a_new_one(app: Any, given: str, is_taken: bool) -> None:
    answer = app.test_client().get("/api/status", headers={"X-Request-ID": given})
    named = answer.headers["X-Request-ID"]
    assert (named == given) == is_taken
    assert re.fullmatch("[0-9a-f-]{32}", named) or is_taken


def test_failure_names_its_request_id(app: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """A 500 names its request id; a 404 is no fault and does not."""
    monkeypatch.setitem(app.view_functions, "health.status", lambda: 1 / 0)
    formatted: list[dict[str, Any]] = []
    handler = logging.Handler()
    handler.emit = lambda record: formatted.append(json.loads(JsonFormatter().format(record)))  # type: ignore[method-assign]
    logging.getLogger("scratch4school").addHandler(handler)
    try:
        answer = app.test_client().get("/api/status", headers={"X-Request-ID": REQUEST_ID})
    finally:
        logging.getLogger("scratch4school").removeHandler(handler)
    assert (answer.status_code, answer.json["request_id"]) == (500, REQUEST_ID)
    (entry,) = formatted
    assert entry["request_id"] == REQUEST_ID
    assert "ZeroDivisionError" in entry["exception"]
    assert "test_logs.py" in entry["exception"]
    assert "request_id" not in app.test_client().get("/nowhere").json


def test_database_errors_are_logged_without_the_row(services: Services) -> None:
    """With place and statement, but without the driver's message, which quotes the pupil."""
    user = sa.insert(users).values(id="id-of-ada", username="ada.lovelace")
    services.database.write(lambda connection: connection.execute(user))
    try:
        services.database.write(lambda connection: connection.execute(user))
    except sa.exc.IntegrityError:
        record = logging.makeLogRecord({"msg": "request failed", "exc_info": sys.exc_info()})
    exception = json.loads(JsonFormatter().format(record))["exception"]
    assert "ada" not in exception
    for told in ("IntegrityError: INSERT INTO users", "test_logs.py", "database.py"):
        assert told in exception


def test_gunicorn_error_is_logged_without_the_address(capfd: pytest.CaptureFixture[str]) -> None:
    logger = GunicornLogger(Config())
    logger.exception("Error handling request %s %s", "GET", "/api/user?session_id=5ecret")
    written = capfd.readouterr().err
    assert json.loads(written)["message"] == "Error handling request"
    assert "5ecret" not in written
