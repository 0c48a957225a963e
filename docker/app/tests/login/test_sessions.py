"""Sessions: where a request names them, when they expire, and how they are refreshed."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from helpers import FakeProvider, HttpClient, wait_for
from scratch4school.clock import utcnow
from scratch4school.config import Settings
from scratch4school.database.tables import oauth_sessions
from scratch4school.single_flight import SingleFlight
from scratch4school.web.services import Services


def stored(services: Services, session_id: str) -> Any:
    return services.database.read(
        lambda connection: connection.execute(sa.select(oauth_sessions).where(oauth_sessions.c.id == session_id)).one()
    )


def put(services: Services, session_id: str, **values: Any) -> None:
    services.database.write(
        lambda connection: connection.execute(
            sa.update(oauth_sessions).where(oauth_sessions.c.id == session_id).values(values)
        )
    )


def test_session_id_is_read_from_three_places_in_order(app: Any, log_in: Callable[..., str]) -> None:
    client = app.test_client()
    by_query, by_header, by_bearer = log_in("query"), log_in("header"), log_in("bearer")
    headers = {"X-Session-ID": by_header, "Authorization": f"Bearer {by_bearer}"}

    def asked(query: str, headers: dict[str, str]) -> str:
        return str(client.get(f"/api/user{query}", headers=headers).json["user"]["username"])

    assert asked(f"?session_id={by_query}", headers) == "query"
    assert asked("", headers) == "header"
    assert asked("", {"Authorization": f"bearer {by_bearer}"}) == "bearer"


@pytest.mark.parametrize("session_id", ["unknown", "x" * 500, "a\0b", "ä", "' OR 1=1 --", "%"])
def test_unknown_session_id_is_401(app: Any, session_id: str) -> None:
    answer = app.test_client().get("/api/user", query_string={"session_id": session_id})
    assert (answer.status_code, answer.json) == (401, {"error": "invalid session"})


def test_session_route_without_an_id_is_400(app: Any) -> None:
    assert app.test_client().get("/session").status_code == 400


def test_user_has_the_fields_of_the_original(app: Any, log_in: Callable[..., str]) -> None:
    session_id = log_in("frau.weber", "lehrer")
    answer = app.test_client().get("/api/user", query_string={"session_id": session_id}).json["user"]
    assert answer == {
        "session_id": session_id,
        "user_id": "frau.weber",
        "username": "frau.weber",
        "email": None,
        "role": "teacher",
    }


def test_expired_session_without_a_refresh_token_is_401(app: Any, log_in: Callable[..., str]) -> None:
    session_id = log_in("ada", expires_in=-1)
    for path in ("/api/user", "/session"):
        answer = app.test_client().get(path, query_string={"session_id": session_id})
        assert (answer.status_code, answer.json["renewal_required"]) == (401, True)


def test_expired_session_is_refreshed(
    app: Any, services: Services, provider: FakeProvider, log_in: Callable[..., str]
) -> None:
    """For twelve hours, as in the original, and with the provider's next refresh token."""
    session_id = log_in("ada", expires_in=-1, refresh_token="once")
    assert app.test_client().get("/api/user", query_string={"session_id": session_id}).status_code == 200
    row = stored(services, session_id)
    assert timedelta(hours=11, minutes=59) < row.expires_at - utcnow() <= timedelta(hours=12)
    assert row.refresh_token not in ("once", None)
    assert provider.requests[0]["refresh_token"] == "once"
    assert provider.requests[0]["client_secret"] == provider.client_secret


def test_requests_at_once_refresh_a_session_once(
    app: Any, provider: FakeProvider, log_in: Callable[..., str], together: Callable[..., list[Any]]
) -> None:
    """A front end sends several requests at once; a provider that rotates refresh tokens must not log it out."""
    session_id = log_in("ada", expires_in=-1, refresh_token="once")
    provider.delay = 0.2
    answers = together(
        8, lambda _: app.test_client().get("/api/user", query_string={"session_id": session_id}).status_code
    )
    assert answers == [200] * 8
    assert len(provider.requests) == 1


def test_session_refreshed_by_another_process_is_valid(
    app: Any,
    services: Services,
    provider: FakeProvider,
    log_in: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The provider refuses a token that another process has just used; the session that it refreshed is valid."""
    session_id = log_in("ada", expires_in=-1, refresh_token="once")
    provider.used_refresh_tokens.add("once")
    provider_client = app.extensions["scratch4school.login"].provider
    refresh = provider_client.refresh

    def while_another_refreshes(token: str) -> Any:
        put(services, session_id, expires_at=utcnow() + timedelta(hours=1))
        return refresh(token)

    monkeypatch.setattr(provider_client, "refresh", while_another_refreshes)
    assert app.test_client().get("/api/user", query_string={"session_id": session_id}).status_code == 200


def test_refused_refresh_is_401(app: Any, provider: FakeProvider, log_in: Callable[..., str]) -> None:
    provider.status = 400
    session_id = log_in("ada", expires_in=-1, refresh_token="once")
    answer = app.test_client().get("/api/user", query_string={"session_id": session_id})
    assert (answer.status_code, answer.json["renewal_required"]) == (401, True)


def test_refusal_of_a_refresh_is_remembered(
    make_app: Callable[..., Any],
    provider: FakeProvider,
    log_in: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Repeated requests do not ask the provider again at once; later they do."""
    provider.status = 400
    session_id = log_in("ada", expires_in=-1, refresh_token="once")
    for memory, calls in ((60, 1), (0, 4)):
        monkeypatch.setattr("scratch4school.login.token_refresh._MEMORY_SECONDS", memory)
        client = make_app().test_client()
        for _ in range(3):
            answer = client.get("/api/user", query_string={"session_id": session_id})
            assert (answer.status_code, answer.json["renewal_required"]) == (401, True)
        assert len(provider.requests) == calls


@pytest.fixture
def narrow(make_app: Callable[..., Any], settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An application with one database connection that waits one second for the provider."""
    monkeypatch.setattr("scratch4school.login.token_refresh._PATIENCE_SECONDS", 1)
    return make_app(server=replace(settings.server, threads=1))


def test_hanging_provider_blocks_no_connection(
    narrow: Any, provider: FakeProvider, log_in: Callable[..., str], together: Callable[..., list[Any]]
) -> None:
    """Eight requests of an expired session get 503 together; meanwhile another session uses the only connection."""
    expired, valid = log_in("ada", expires_in=-1, refresh_token="once"), log_in("berta")
    provider.answers.clear()

    def ask(index: int) -> Any:
        client = narrow.test_client()
        if index < 8:
            return client.get("/api/user", query_string={"session_id": expired})
        wait_for(lambda: provider.requests)
        answer = client.get("/api/groups", query_string={"session_id": valid})
        return answer.status_code, provider.answers.is_set()

    answers = together(9, ask)
    assert answers.pop() == (200, False)
    assert {(answer.status_code, answer.headers["Retry-After"]) for answer in answers} == {(503, "5")}
    # The front end turns saving off when the message contains this word.
    assert "authentication" not in answers[0].json["error"]
    assert narrow.test_client().get("/api/user", query_string={"session_id": expired}).status_code == 503
    assert len(provider.requests) == 1
    provider.answers.set()
    # The late answer counts: only its tokens still work.
    wait_for(lambda: narrow.test_client().get("/api/user", query_string={"session_id": expired}).status_code == 200)
    assert len(provider.requests) == 1


def test_slow_provider_is_not_asked_for_other_sessions(
    app: Any, provider: FakeProvider, log_in: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scratch4school.login.token_refresh._SLOW_SECONDS", 0)
    monkeypatch.setattr("scratch4school.login.token_refresh._MEMORY_SECONDS", 600)
    provider.status, provider.raw = 503, b"<h1>overloaded</h1>"
    sessions = [log_in(name, expires_in=-1, refresh_token=name) for name in ("ada", "berta", "cem")]
    client = app.test_client()
    statuses = [client.get("/api/user", query_string={"session_id": each}).status_code for each in sessions]
    assert statuses == [503] * 3
    assert len(provider.requests) == 1
    assert client.get("/api/user", query_string={"session_id": log_in("dana")}).status_code == 200


def test_trickling_provider_is_not_asked_for_other_sessions(
    app: Any, provider: FakeProvider, log_in: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte is in time, so no network time limit ends the call; one request that waited in vain is enough."""
    monkeypatch.setattr("scratch4school.login.token_refresh._SLOW_SECONDS", 0)
    monkeypatch.setattr("scratch4school.login.token_refresh._MEMORY_SECONDS", 600)
    token_refresh = app.extensions["scratch4school.login"].token_refresh
    monkeypatch.setattr(token_refresh._flights, "_patience", 0.5)
    call, asked_for = token_refresh._flights.call, []

    def call_and_note(key: str, work: Callable[[], None]) -> None:
        asked_for.append(key)
        call(key, work)

    monkeypatch.setattr(token_refresh._flights, "call", call_and_note)
    provider.answers.clear()
    sessions = [log_in(name, expires_in=-1, refresh_token=name) for name in ("ada", "berta", "cem")]
    client = app.test_client()
    statuses = [client.get("/api/user", query_string={"session_id": each}).status_code for each in sessions]
    wait_for(lambda: provider.requests)
    provider.answers.set()
    assert statuses == [503] * 3
    assert asked_for == sessions[:1]
    assert len(provider.requests) == 1


def test_call_whose_thread_cannot_start_does_not_block_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may have no free thread for a moment; the key must not stay blocked."""
    flights: SingleFlight[str] = SingleFlight(patience=5)

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            flights.call("key", lambda: "lost")
    assert flights.call("key", lambda: "done") == "done"


def test_workers_refresh_a_session_once(
    start_server: Callable[..., Any],
    services: Services,
    provider: FakeProvider,
    log_in: Callable[..., str],
    together: Callable[..., list[Any]],
) -> None:
    """Sixteen requests, two processes, and a slow provider that rotates tokens: no request is logged out."""
    server = start_server(WORKERS="2")
    session_id = log_in("ada", expires_in=-1, refresh_token="once")
    provider.delay = 2.5
    assert together(16, lambda _: HttpClient(server.url, session_id).ask("GET", "/api/user")[0]) == [200] * 16
    assert len(provider.requests) == 1
    assert stored(services, session_id).refresh_token != "once"


def test_tabs_share_one_session(
    start_server: Callable[..., Any],
    services: Services,
    log_in: Callable[..., str],
    together: Callable[..., list[Any]],
) -> None:
    """The original answered 253 of 787 such requests with 500. The session's last use is written once."""
    tab = HttpClient(start_server(WORKERS="2").url, log_in("ada"))
    project_id = tab.create("start")
    before = utcnow() - timedelta(minutes=5)
    put(services, tab.session_id, last_accessed=before)

    def use(index: int) -> set[Any]:
        seen = set()
        for number in range(8):
            if index % 4 == 0:
                assert tab.save(project_id, f"{index}-{number}") == 200
            else:
                assert tab.ask("GET", ("/api/user", "/api/projects", "/session")[index % 3])[0] == 200
            seen.add(stored(services, tab.session_id).last_accessed)
        return seen

    assert len(set().union(*together(12, use)) - {before}) == 1
    assert tab.version(project_id) == 1 + 3 * 8


def test_last_use_is_recorded_once_a_minute(app: Any, services: Services, log_in: Callable[..., str]) -> None:
    session_id = log_in("ada")
    for ago, is_recorded in ((30, False), (90, True)):
        before = utcnow() - timedelta(seconds=ago)
        put(services, session_id, last_accessed=before)
        assert app.test_client().get("/api/user", query_string={"session_id": session_id}).status_code == 200
        assert (stored(services, session_id).last_accessed > before) == is_recorded
