"""Sessions: where the id may stand, how long it is believed, and what a look costs."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from helpers import FakeProvider
from scratch4school.clock import utcnow
from scratch4school.services import Services
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


def test_last_use_is_noted_once_a_minute(app: Any, services: Services, log_in: Callable[..., str]) -> None:
    session_id = log_in("ada")
    for ago, is_noted in ((30, False), (90, True)):
        before = utcnow() - timedelta(seconds=ago)
        put(services, session_id, last_accessed=before)
        assert app.test_client().get("/api/user", query_string={"session_id": session_id}).status_code == 200
        assert (stored(services, session_id).last_accessed > before) == is_noted
