"""Sessions: where the id may stand, how long it is believed, and what a look costs."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from test_concurrency import Web

from helpers import FakeProvider, wait_for
from scratch4school.clock import utcnow
from scratch4school.config import Settings
from scratch4school.services import Services
from scratch4school.single_flight import SingleFlight
from scratch4school.tables import oauth_sessions


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


def test_three_places_in_this_order(app: Any, log_in: Callable[..., str]) -> None:
    client = app.test_client()
    by_query, by_header, by_bearer = log_in("query"), log_in("header"), log_in("bearer")
    headers = {"X-Session-ID": by_header, "Authorization": f"Bearer {by_bearer}"}

    def asked(query: str, headers: dict[str, str]) -> str:
        return str(client.get(f"/api/user{query}", headers=headers).json["user"]["username"])

    assert asked(f"?session_id={by_query}", headers) == "query"
    assert asked("", headers) == "header"
    assert asked("", {"Authorization": f"bearer {by_bearer}"}) == "bearer"


@pytest.mark.parametrize("session_id", ["unknown", "x" * 500, "a\0b", "ä", "' OR 1=1 --", "%"])
def test_what_is_no_session_is_401(app: Any, session_id: str) -> None:
    answer = app.test_client().get("/api/user", query_string={"session_id": session_id})
    assert (answer.status_code, answer.json) == (401, {"error": "invalid session"})


def test_show_without_an_id_is_400(app: Any) -> None:
    assert app.test_client().get("/session").status_code == 400


def test_user_has_the_originals_fields(app: Any, log_in: Callable[..., str]) -> None:
    session_id = log_in("frau.weber", "lehrer")
    answer = app.test_client().get("/api/user", query_string={"session_id": session_id}).json["user"]
    assert answer == {
        "session_id": session_id,
        "user_id": "frau.weber",
        "username": "frau.weber",
        "email": None,
        "role": "teacher",
    }


def test_expired_session_without_a_refresh_token(app: Any, log_in: Callable[..., str]) -> None:
    session_id = log_in("ada", expires_in=-1)
    for path in ("/api/user", "/session"):
        answer = app.test_client().get(path, query_string={"session_id": session_id})
        assert (answer.status_code, answer.json["renewal_required"]) == (401, True)


def test_expired_session_is_refreshed(
    app: Any, services: Services, provider: FakeProvider, log_in: Callable[..., str]
) -> None:
    """For twelve hours, as the original does, and with the provider's next refresh token."""
    session_id = log_in("ada", expires_in=-1, refresh_token="once")
    assert app.test_client().get("/api/user", query_string={"session_id": session_id}).status_code == 200
    row = stored(services, session_id)
    assert timedelta(hours=11, minutes=59) < row.expires_at - utcnow() <= timedelta(hours=12)
    assert row.refresh_token not in ("once", None)
    assert provider.requests[0]["refresh_token"] == "once"
    assert provider.requests[0]["client_secret"] == provider.client_secret


def test_requests_at_once_refresh_once(
    app: Any, provider: FakeProvider, log_in: Callable[..., str], together: Callable[..., list[Any]]
) -> None:
    """A front end asks several things at once; a provider that rotates refresh tokens must not log it out for that."""
    session_id = log_in("ada", expires_in=-1, refresh_token="once")
    provider.delay = 0.2
    answers = together(
        8, lambda _: app.test_client().get("/api/user", query_string={"session_id": session_id}).status_code
    )
    assert answers == [200] * 8
    assert len(provider.requests) == 1


def test_refresh_by_another_process_is_noticed(
    app: Any,
    services: Services,
    provider: FakeProvider,
    log_in: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The provider refuses a token that another process used a moment ago; the session that one renewed is valid."""
    session_id = log_in("ada", expires_in=-1, refresh_token="once")
    provider.used_refresh_tokens.add("once")
    refresh = services.provider.refresh

    def while_another_renews(token: str) -> Any:
        put(services, session_id, expires_at=utcnow() + timedelta(hours=1))
        return refresh(token)

    monkeypatch.setattr(services.provider, "refresh", while_another_renews)
    assert app.test_client().get("/api/user", query_string={"session_id": session_id}).status_code == 200


def test_refused_refresh_is_401(app: Any, provider: FakeProvider, log_in: Callable[..., str]) -> None:
    provider.status = 400
    session_id = log_in("ada", expires_in=-1, refresh_token="once")
    answer = app.test_client().get("/api/user", query_string={"session_id": session_id})
    assert (answer.status_code, answer.json["renewal_required"]) == (401, True)


def test_refusal_is_remembered_for_a_while(
    make_app: Callable[..., Any],
    provider: FakeProvider,
    log_in: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A front end that asks on does not have the provider asked on; later it is asked again."""
    provider.status = 400
    session_id = log_in("ada", expires_in=-1, refresh_token="once")
    for memory, calls in ((60, 1), (0, 4)):
        monkeypatch.setattr("scratch4school.renewals._MEMORY_SECONDS", memory)
        client = make_app().test_client()
        for _ in range(3):
            answer = client.get("/api/user", query_string={"session_id": session_id})
            assert (answer.status_code, answer.json["renewal_required"]) == (401, True)
        assert len(provider.requests) == calls


@pytest.fixture
def narrow(make_app: Callable[..., Any], settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An application with a single database connection that soon tires of waiting for the provider."""
    monkeypatch.setattr("scratch4school.renewals._PATIENCE_SECONDS", 1)
    return make_app(server=replace(settings.server, threads=1))


def test_hanging_provider_costs_one_call_and_no_connection(
    narrow: Any, provider: FakeProvider, log_in: Callable[..., str], together: Callable[..., list[Any]]
) -> None:
    """Eight requests of an expired session get their 503 together, and everybody else the only connection meanwhile."""
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
    # Its words must not be those at which the front end turns saving off.
    assert "authentication" not in answers[0].json["error"]
    assert narrow.test_client().get("/api/user", query_string={"session_id": expired}).status_code == 503
    assert len(provider.requests) == 1
    provider.answers.set()
    # The late answer is not lost: the tokens in it are the only ones that still work.
    wait_for(lambda: narrow.test_client().get("/api/user", query_string={"session_id": expired}).status_code == 200)
    assert len(provider.requests) == 1


def test_provider_that_kept_one_waiting_is_not_asked_for_others(
    app: Any, provider: FakeProvider, log_in: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scratch4school.renewals._SLOW_SECONDS", 0)
    provider.status, provider.raw = 503, b"<h1>overloaded</h1>"
    sessions = [log_in(name, expires_in=-1, refresh_token=name) for name in ("ada", "berta", "cem")]
    client = app.test_client()
    statuses = [client.get("/api/user", query_string={"session_id": each}).status_code for each in sessions]
    assert statuses == [503] * 3
    assert len(provider.requests) == 1
    assert client.get("/api/user", query_string={"session_id": log_in("dana")}).status_code == 200


def test_provider_that_trickles_is_not_asked_for_others(
    app: Any, provider: FakeProvider, log_in: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It breaks no time limit of the network's, each byte being in time; the first who waited in vain is enough."""
    monkeypatch.setattr("scratch4school.renewals._SLOW_SECONDS", 0.1)
    monkeypatch.setattr(app.extensions["scratch4school"].renewals._flights, "_patience", 0.5)
    provider.answers.clear()
    sessions = [log_in(name, expires_in=-1, refresh_token=name) for name in ("ada", "berta", "cem")]
    client = app.test_client()
    statuses = [client.get("/api/user", query_string={"session_id": each}).status_code for each in sessions]
    provider.answers.set()
    assert statuses == [503] * 3
    assert len(provider.requests) == 1


def test_call_whose_thread_cannot_start_does_not_block_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may have no thread to spare for a moment; the key must not be taken for good."""
    flights: SingleFlight[str] = SingleFlight(patience=5)

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            flights.call("key", lambda: "lost")
    assert flights.call("key", lambda: "done") == "done"


def test_workers_renew_in_turns(
    start_server: Callable[..., Any],
    services: Services,
    provider: FakeProvider,
    log_in: Callable[..., str],
    together: Callable[..., list[Any]],
) -> None:
    """Sixteen requests over two processes and a slow provider with rotating tokens: nobody is logged out."""
    server = start_server(WORKERS="2")
    session_id = log_in("ada", expires_in=-1, refresh_token="once")
    provider.delay = 2.5
    assert together(16, lambda _: Web(server.url, session_id).ask("GET", "/api/user")[0]) == [200] * 16
    assert len(provider.requests) == 1
    assert stored(services, session_id).refresh_token != "once"


def test_two_tabs_on_one_session(
    start_server: Callable[..., Any],
    services: Services,
    log_in: Callable[..., str],
    together: Callable[..., list[Any]],
) -> None:
    """The original answered 253 of 787 such requests with 500. The last use of the session is written once."""
    tab = Web(start_server(WORKERS="2").url, log_in("ada"))
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


def test_last_use_is_noted_once_a_minute(app: Any, services: Services, log_in: Callable[..., str]) -> None:
    session_id = log_in("ada")
    for ago, is_noted in ((30, False), (90, True)):
        before = utcnow() - timedelta(seconds=ago)
        put(services, session_id, last_accessed=before)
        assert app.test_client().get("/api/user", query_string={"session_id": session_id}).status_code == 200
        assert (stored(services, session_id).last_accessed > before) == is_noted
