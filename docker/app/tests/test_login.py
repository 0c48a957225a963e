"""Logging in, through a provider over real HTTP: the way it goes, and every way it can go wrong."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa
from joserfc.jwk import OctKey, RSAKey

from helpers import FakeProvider, wait_for
from scratch4school.database import Database, DatabaseUnavailable
from scratch4school.services import Services
from scratch4school.tables import groups, oauth_sessions, user_groups, users

FRONT_END = "https://scratch.school.test/"


class Browser:
    """A browser that goes through the login, under the prefix that the proxy strips."""

    def __init__(self, app: Any, provider: FakeProvider) -> None:
        self._client = app.test_client()
        self._provider = provider

    def begin(self) -> dict[str, str]:
        """Go to the login; returns what the provider was asked."""
        answer = self.get("/login")
        assert answer.status_code == 302
        asked = {key: value[0] for key, value in parse_qs(urlsplit(answer.location).query).items()}
        self._provider.nonce = asked["nonce"]
        return asked

    def come_back(self, **query: str) -> dict[str, str]:
        """Come back from the provider; returns what the front end is told."""
        answer = self.get("/authorize", query_string=query)
        assert answer.status_code == 302
        assert "\n" not in answer.location
        assert "\r" not in answer.location
        assert answer.location.startswith(FRONT_END + "?")
        return {key: value[0] for key, value in parse_qs(urlsplit(answer.location).query).items()}

    def log_in(self) -> dict[str, str]:
        return self.come_back(code="code", state=self.begin()["state"])

    def get(self, path: str, **options: Any) -> Any:
        # The cookie belongs to /backend; the proxy hands the application the rest of the path.
        return self._client.get(path, base_url="https://scratch.school.test/backend", **options)


@pytest.fixture
def browser(app: Any, provider: FakeProvider) -> Browser:
    return Browser(app, provider)


def names(services: Services, column: Any) -> list[Any]:
    return services.database.read(lambda connection: list(connection.scalars(sa.select(column).order_by(column))))


def test_login_asks_the_provider_properly(browser: Browser, provider: FakeProvider) -> None:
    asked = browser.begin()
    assert asked["response_type"] == "code"
    assert asked["client_id"] == provider.client_id
    assert asked["redirect_uri"] == "https://scratch.school.test/backend/authorize"
    assert asked["scope"] == "openid profile uuid email groups"
    assert len(asked["state"]) > 30
    assert asked["state"] != asked["nonce"]


def test_the_cookie_is_signed_short_lived_and_for_the_backend(browser: Browser) -> None:
    cookie = browser.get("/login").headers["Set-Cookie"]
    for part in ("Path=/backend", "HttpOnly", "Secure", "SameSite=Lax", "Max-Age=600"):
        assert part in cookie


def test_whole_login(browser: Browser, provider: FakeProvider) -> None:
    """From the login to a session that shows who it is, with IServ's shape of groups."""
    provider.claims = {
        "uuid": "11-22",
        "email": "ada@school.test",
        "picture": "https://school.test/ada.png",
        "groups": {"17": {"act": "klasse.5a", "name": "Klasse 5a"}, "4": {"act": "lehrer", "name": "Lehrer"}},
    }
    session_id = browser.log_in()["session_id"]
    assert provider.requests[0]["grant_type"] == "authorization_code"
    assert provider.requests[0]["redirect_uri"] == "https://scratch.school.test/backend/authorize"
    shown = browser.get(f"/session?session_id={session_id}").json
    assert shown["authenticated"] is True
    assert shown["session"]["id"] == session_id
    user = shown["user"]
    assert (user["id"], user["username"], user["role"]) == ("11-22", "ada.lovelace", "teacher")
    assert (user["email"], user["avatar_url"]) == ("ada@school.test", "https://school.test/ada.png")
    assert [(group["external_id"], group["name"]) for group in user["groups"]] == [
        ("klasse.5a", "Klasse 5a"),
        ("lehrer", "Lehrer"),
    ]


def test_groups_are_rebuilt_and_renamed_at_each_login(
    browser: Browser, provider: FakeProvider, services: Services
) -> None:
    provider.claims = {"groups": [{"act": "klasse.5a", "name": "Klasse 5a"}, {"act": "admins"}]}
    browser.log_in()
    assert names(services, users.c.role) == ["admin"]
    assert names(services, users.c.last_login) == [None]
    provider.claims = {"groups": [{"act": "klasse.5a", "name": "Klasse 6a"}, "chor"]}
    browser.log_in()
    assert names(services, users.c.role) == ["student"]
    assert names(services, users.c.last_login) != [None]
    assert names(services, groups.c.name) == ["Klasse 6a", "admins", "chor"]
    assert len(names(services, user_groups.c.group_id)) == 2
    provider.claims = {"groups": ["klasse.5a"]}
    browser.log_in()
    assert "Klasse 6a" in names(services, groups.c.name)


@pytest.mark.parametrize(
    "odd",
    [
        {"groups": None},
        {"groups": "klasse.5a"},
        {"groups": [None, 17, {"name": None}]},
        {"groups": {"1": {"name": "without act"}, "2": None}},
        {"groups": 3.5, "email": None, "name": None},
        {"preferred_username": "a\0b\nc", "email": ["x"]},
        {"picture": {"x": "\u0000"}},
    ],
)
def test_odd_claims_do_not_fail_a_login(browser: Browser, provider: FakeProvider, odd: dict[str, Any]) -> None:
    provider.claims = odd
    session_id = browser.log_in()["session_id"]
    assert browser.get(f"/session?session_id={session_id}").status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "another"},
        {"nonce": "absent"},
        {"aud": "another-client"},
        {"iss": "https://another.test"},
        {"exp": 1000},
        {"exp": "absent"},
        {"sub": "absent", "preferred_username": "ada"},
        {"sub": "s" * 500},
    ],
)
def test_wrong_id_token_is_refused(
    browser: Browser, provider: FakeProvider, services: Services, changes: dict[str, Any]
) -> None:
    provider.claims = changes
    assert list(browser.log_in()) == ["error"]
    assert names(services, oauth_sessions.c.id) == []


@pytest.mark.parametrize("forgery", ["another key", "none", "shared secret", "rubbish"])
def test_forged_id_token_is_refused(browser: Browser, provider: FakeProvider, services: Services, forgery: str) -> None:
    state = browser.begin()["state"]
    if forgery == "another key":
        token = provider.id_token(key=RSAKey.generate_key(2048))
    elif forgery == "shared secret":
        token = provider.id_token("HS256", key=OctKey.import_key(provider.client_secret))
    else:
        token = {"none": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ.", "rubbish": "a.b.c"}[forgery]
    provider.answer = {"id_token": token}
    assert list(browser.come_back(code="code", state=state)) == ["error"]
    assert names(services, oauth_sessions.c.id) == []


def test_changed_keys_of_the_provider_are_fetched_again(
    browser: Browser, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scratch4school.oidc._JWKS_PAUSE_SECONDS", 0)
    browser.log_in()
    provider.rotate_key()
    assert list(browser.log_in()) == ["session_id"]


@pytest.mark.parametrize("trouble", ["fails", "hangs"])
def test_known_keys_serve_while_new_ones_cannot_be_had(
    browser: Browser, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """Keys are fetched again after an hour; a login with a good key neither waits for that nor fails with it."""
    monkeypatch.setattr("scratch4school.oidc._JWKS_AGE_SECONDS", 0)
    browser.log_in()
    if trouble == "fails":
        provider.keys_status = 503
    else:
        provider.answers_keys.clear()
    for _ in range(3):
        assert list(browser.log_in()) == ["session_id"]
    wait_for(lambda: provider.fetches_of_keys > 1)
    assert provider.fetches_of_keys == 2
    provider.answers_keys.set()


def test_keys_that_cannot_be_had_are_not_asked_for_at_each_login(browser: Browser, provider: FakeProvider) -> None:
    provider.keys_status = 503
    for _ in range(3):
        assert browser.log_in()["error"] == "The identity provider's keys could not be fetched."
    assert provider.fetches_of_keys == 1


def test_wrong_state_is_refused(browser: Browser, app: Any, provider: FakeProvider) -> None:
    """Another state, none, none of this browser's, and one used before."""
    state = browser.begin()["state"]
    assert "error" in browser.come_back(code="code", state="another")
    assert "error" in browser.come_back(code="code", state=state)
    browser.begin()
    assert "error" in browser.come_back(code="code")
    assert "error" in Browser(app, provider).come_back(code="code", state=state)
    assert provider.requests == []


def test_login_that_took_too_long_is_refused(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    state = browser.begin()["state"]
    monkeypatch.setattr("scratch4school.auth._LOGIN_SECONDS", -1)
    assert "took too long" in browser.come_back(code="code", state=state)["error"]


def test_errors_of_the_provider_are_not_repeated(browser: Browser, provider: FakeProvider) -> None:
    """What comes from outside does not reach the page: neither the provider's text nor a place to go to."""
    state = browser.begin()["state"]
    told = browser.come_back(state=state, error="access_denied", error_description="<script>\r\nX: y", next="//evil")
    assert told == {"error": "The identity provider did not allow the login."}
    assert browser.come_back(state=browser.begin()["state"])["error"] == "The identity provider sent no code."


@pytest.mark.parametrize(
    ("status", "raw"), [(400, b"{}"), (500, b"<h1>\nno</h1>"), (200, b"not json"), (200, b"[]"), (200, b"{}")]
)
def test_failing_provider_is_a_sentence(browser: Browser, provider: FakeProvider, status: int, raw: bytes) -> None:
    state = browser.begin()["state"]
    provider.status, provider.raw = status, raw
    assert browser.come_back(code="code", state=state)["error"].startswith("The identity provider")


def test_database_trouble_is_a_sentence_without_newlines(
    browser: Browser, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original put the database's message into the address, and its newline made the login a bare 500."""
    for error in (DatabaseUnavailable("secret\ndetail"), RuntimeError("(psycopg2) secret\ndetail")):

        def fail(*_arguments: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(Database, "write", fail)
        told = browser.log_in()["error"]
        assert "secret" not in told


@pytest.mark.parametrize(
    ("answer", "lasts"),
    [
        ({"expires_in": None}, 60),
        ({"expires_in": "7200"}, 7200),
        ({"expires_in": 3600, "expires_at": 4102444800}, None),
    ],
)
def test_session_lasts_as_long_as_the_token(
    browser: Browser, provider: FakeProvider, services: Services, answer: dict[str, Any], lasts: int | None
) -> None:
    provider.answer = answer
    browser.log_in()
    (expires_at,), (created_at,) = (names(services, oauth_sessions.c[name]) for name in ("expires_at", "created_at"))
    if lasts is None:
        assert expires_at.year == 2100
    else:
        assert abs((expires_at - created_at).total_seconds() - lasts) < 5


def test_expired_token_is_refused(browser: Browser, provider: FakeProvider) -> None:
    provider.answer = {"expires_in": None, "expires_at": 1000}
    assert "already expired" in browser.log_in()["error"]


def test_logout_forgets_this_session_only(browser: Browser, log_in: Callable[..., str]) -> None:
    first, second = log_in("ada"), log_in("ada")
    assert browser.get(f"/logout?session_id={first}").json == {"success": True, "message": "logged out"}
    assert browser.get(f"/session?session_id={first}").status_code == 401
    assert browser.get(f"/session?session_id={second}").status_code == 200
    assert browser.get("/logout?session_id=unknown").status_code == 200
    none = browser.get("/logout")
    assert (none.status_code, none.json["success"]) == (400, False)
