"""Logging in through an identity provider over real HTTP: success, and every kind of failure."""

import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa
from joserfc.jwk import OctKey, RSAKey

from helpers import FakeProvider, wait_for
from scratch4school.clock import utcnow
from scratch4school.database.database import Database, DatabaseUnavailable
from scratch4school.database.tables import groups, oauth_sessions, user_groups, users
from scratch4school.login.login_messages import oauth_error
from scratch4school.web.services import Services

FRONT_END = "https://scratch.school.test/"

# How the messages begin, and the words before the cause.
REFUSED = "The school's login service refused this login."
AWAY = "The school's login service does not answer as it should."
UNCHECKED = "The login could not be checked."
TELL = "Tell the sysadmin:"
TRY_AGAIN = "Please try again in a moment. If that does not help, tell the sysadmin:"


class Browser:
    """A browser that goes through the login, under the prefix that the proxy strips."""

    def __init__(self, app: Any, provider: FakeProvider) -> None:
        self._client = app.test_client()
        self._provider = provider

    def begin(self) -> dict[str, str]:
        """Start a login; returns the query that the provider gets."""
        answer = self.get("/login")
        assert answer.status_code == 302
        asked = {key: value[0] for key, value in parse_qs(urlsplit(answer.location).query).items()}
        self._provider.nonce = asked["nonce"]
        return asked

    def return_from_provider(self, **query: str) -> dict[str, str]:
        """Return from the provider; returns the query that the front end gets."""
        answer = self.get("/authorize", query_string=query)
        assert answer.status_code == 302
        assert "\n" not in answer.location
        assert "\r" not in answer.location
        assert answer.location.startswith(FRONT_END + "?")
        return {key: value[0] for key, value in parse_qs(urlsplit(answer.location).query).items()}

    def log_in(self) -> dict[str, str]:
        return self.return_from_provider(code="code", state=self.begin()["state"])

    def get(self, path: str, **options: Any) -> Any:
        # The cookie belongs to /backend; the proxy hands the application the rest of the path.
        return self._client.get(path, base_url="https://scratch.school.test/backend", **options)


@pytest.fixture
def browser(app: Any, provider: FakeProvider) -> Browser:
    return Browser(app, provider)


def names(services: Services, column: Any) -> list[Any]:
    return services.database.read(lambda connection: list(connection.scalars(sa.select(column).order_by(column))))


def test_login_sends_the_query_of_oidc(browser: Browser, provider: FakeProvider) -> None:
    asked = browser.begin()
    assert asked["response_type"] == "code"
    assert asked["client_id"] == provider.client_id
    assert asked["redirect_uri"] == "https://scratch.school.test/backend/authorize"
    assert asked["scope"] == "openid profile uuid email groups"
    assert len(asked["state"]) > 30
    assert asked["state"] != asked["nonce"]


def test_cookie_is_short_lived_and_only_for_the_backend(browser: Browser) -> None:
    cookie = browser.get("/login").headers["Set-Cookie"]
    for part in ("Path=/backend", "HttpOnly", "Secure", "SameSite=Lax", "Max-Age=600"):
        assert part in cookie


def test_login_gives_a_session_with_the_user(browser: Browser, provider: FakeProvider) -> None:
    """From the login to a session with the user, with groups as IServ sends them."""
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


def test_each_login_replaces_memberships_and_names(
    browser: Browser, provider: FakeProvider, services: Services
) -> None:
    provider.claims = {"groups": [{"act": "klasse.5a", "name": "Klasse 5a"}, {"act": "admins"}]}
    browser.log_in()
    assert names(services, users.c.role) == ["admin"]
    provider.claims = {"groups": [{"act": "klasse.5a", "name": "Klasse 6a"}, "chor"]}
    browser.log_in()
    assert names(services, users.c.role) == ["student"]
    assert names(services, groups.c.name) == ["Klasse 6a", "admins", "chor"]
    assert len(names(services, user_groups.c.group_id)) == 2
    provider.claims = {"groups": ["klasse.5a"]}
    browser.log_in()
    assert "Klasse 6a" in names(services, groups.c.name)


def test_each_login_records_its_moment(browser: Browser, services: Services) -> None:
    """Also the first login; `created_at` stays the moment of the first."""
    browser.log_in()
    (first,), (created,) = names(services, users.c.last_login), names(services, users.c.created_at)
    browser.log_in()
    (second,) = names(services, users.c.last_login)
    assert created == first < second
    assert names(services, users.c.created_at) == [created]


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
def test_malformed_claims_do_not_fail_a_login(browser: Browser, provider: FakeProvider, odd: dict[str, Any]) -> None:
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


@pytest.mark.parametrize(
    ("forgery", "cause"),
    [
        ("another key", "is not signed with one of the keys at the address of the identity provider's keys"),
        ("none", "is signed by a method that is not accepted; RS256 is, and HS256 is not"),
        ("shared secret", "is signed by a method that is not accepted; RS256 is, and HS256 is not"),
        ("rubbish", "cannot be read"),
    ],
)
def test_forged_id_token_is_refused(
    browser: Browser, provider: FakeProvider, services: Services, forgery: str, cause: str
) -> None:
    """The message tells the sysadmin what is wrong with the keys."""
    state = browser.begin()["state"]
    if forgery == "another key":
        token = provider.id_token(key=RSAKey.generate_key(2048))
    elif forgery == "shared secret":
        token = provider.id_token("HS256", key=OctKey.import_key(provider.client_secret))
    else:
        token = {"none": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ.", "rubbish": "a.b.c"}[forgery]
    provider.answer = {"id_token": token}
    told = browser.return_from_provider(code="code", state=state)
    assert told == {"error": f"{UNCHECKED} {TRY_AGAIN} the ID token {cause}."}
    assert names(services, oauth_sessions.c.id) == []


def test_changed_keys_are_fetched_again(
    browser: Browser, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scratch4school.login.oidc._JWKS_PAUSE_SECONDS", 0)
    browser.log_in()
    provider.rotate_key()
    assert list(browser.log_in()) == ["session_id"]


@pytest.mark.parametrize("failure", ["fails", "hangs"])
def test_known_keys_are_used_while_new_ones_cannot_be_fetched(
    browser: Browser, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    """Keys are fetched again after an hour; a login with a valid key neither waits for that nor fails with it."""
    monkeypatch.setattr("scratch4school.login.oidc._JWKS_AGE_SECONDS", 0)
    browser.log_in()
    if failure == "fails":
        provider.keys_status = 503
    else:
        provider.answers_keys.clear()
    for _ in range(3):
        assert list(browser.log_in()) == ["session_id"]
    wait_for(lambda: provider.fetches_of_keys > 1)
    assert provider.fetches_of_keys == 2
    provider.answers_keys.set()


def test_failed_fetch_of_keys_is_not_repeated_at_each_login(browser: Browser, provider: FakeProvider) -> None:
    provider.keys_status = 503
    for _ in range(3):
        assert "identity provider's keys answers with the status 503" in browser.log_in()["error"]
    assert provider.fetches_of_keys == 1


def test_wrong_state_is_refused(browser: Browser, app: Any, provider: FakeProvider) -> None:
    """Another state, a missing one, one of another browser, and one used before."""
    state = browser.begin()["state"]
    assert "error" in browser.return_from_provider(code="code", state="another")
    assert "error" in browser.return_from_provider(code="code", state=state)
    browser.begin()
    assert "error" in browser.return_from_provider(code="code")
    assert "error" in Browser(app, provider).return_from_provider(code="code", state=state)
    assert provider.requests == []


def test_login_that_took_too_long_is_refused(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    state = browser.begin()["state"]
    monkeypatch.setattr("scratch4school.login.login_routes._LOGIN_SECONDS", -1)
    assert browser.return_from_provider(code="code", state=state) == {
        "error": "This login took too long, was used already, or was not begun in this browser. Please try again, and "
        "allow this page to set cookies."
    }


def test_text_of_the_provider_is_not_repeated(browser: Browser, provider: FakeProvider) -> None:
    """Text from the address does not reach the page: neither the provider's words nor a redirect."""
    state = browser.begin()["state"]
    told = browser.return_from_provider(
        state=state, error="access_denied", error_description="<script>\r\nX: y", next="//evil"
    )
    assert told == {
        "error": f"{REFUSED} {TRY_AGAIN} access_denied, so the login was cancelled, or the identity provider does not "
        "allow this account."
    }
    told = browser.return_from_provider(state=browser.begin()["state"], error="call 0900 for help")
    assert told == {
        "error": f"{REFUSED} {TRY_AGAIN} the identity provider answers with an error of its own; its log says more."
    }


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            {"error": "invalid_scope"},
            f"{REFUSED} {TELL} invalid_scope, so the scope in the settings asks for what the identity provider does "
            "not give.",
        ),
        (
            {"error": "temporarily_unavailable"},
            f"{REFUSED} {TRY_AGAIN} temporarily_unavailable, so the identity provider is out of order.",
        ),
        (
            {},
            f"The school's login service did not finish this login. {TRY_AGAIN} the identity provider sent neither a "
            "code nor an error.",
        ),
    ],
)
def test_return_without_a_code_gives_a_message(browser: Browser, query: dict[str, str], message: str) -> None:
    """The message says what the person does next, and what the sysadmin needs to know."""
    assert browser.return_from_provider(state=browser.begin()["state"], **query) == {"error": message}


@pytest.mark.parametrize(
    ("status", "raw", "message"),
    [
        (400, b"{}", f"{UNCHECKED} {TELL} the identity provider's token address answers without an access token."),
        (
            500,
            b"<h1>\nno</h1>",
            f"{AWAY} {TRY_AGAIN} the identity provider's token address answers with the status 500.",
        ),
        (401, b"", f"{AWAY} {TRY_AGAIN} the identity provider's token address answers with the status 401."),
        (
            200,
            b"not json",
            f"{AWAY} {TRY_AGAIN} the identity provider's token address answers with something that does not belong "
            "there.",
        ),
        (
            401,
            b'{"error": "invalid_client", "error_description": "<b>secret</b>"}',
            f"{REFUSED} {TELL} invalid_client, so the client id or the client secret in the settings is wrong.",
        ),
        (
            400,
            b'{"error": "invalid_grant"}',
            f"{REFUSED} {TRY_AGAIN} invalid_grant, so the login's code was used or too old, or the redirect address is "
            "another one.",
        ),
        (
            400,
            b'{"error": "server_error"}',
            f"{AWAY} {TRY_AGAIN} the identity provider's token address answers server_error.",
        ),
        (
            400,
            b'{"error": ["call 0900"]}',
            f"{REFUSED} {TRY_AGAIN} the identity provider answers with an error of its own; its log says more.",
        ),
        (
            200,
            b'{"access_token": "a"}',
            f"The school's login service did not say who you are. {TELL} the identity provider sent no ID token; the "
            "scope in the settings needs openid.",
        ),
    ],
)
def test_failing_token_address_gives_a_message(
    browser: Browser, provider: FakeProvider, status: int, raw: bytes, message: str
) -> None:
    """Each failure has its own cause for the sysadmin, without the provider's text."""
    state = browser.begin()["state"]
    provider.status, provider.raw = status, raw
    assert browser.return_from_provider(code="code", state=state) == {"error": message}


@pytest.mark.parametrize("which", ["token", "keys"])
@pytest.mark.parametrize("failure", ["silent", "closed", "untrusted"])
def test_address_without_answer_gives_a_message(
    make_app: Callable[..., Any],
    settings: Any,
    provider: FakeProvider,
    monkeypatch: pytest.MonkeyPatch,
    failure: str,
    which: str,
) -> None:
    """The message names the address, and whether network, certificate or provider is the cause."""
    monkeypatch.setattr("scratch4school.login.oidc._TIMEOUT_SECONDS", (1, 1))
    url = provider.url
    if failure == "closed":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    elif failure == "untrusted":
        url = provider.url.replace("http:", "https:")
    else:
        (provider.answers if which == "token" else provider.answers_keys).clear()
    changed = {"token_url": f"{url}/token"} if which == "token" else {"jwks_url": f"{url}/jwks"}
    told = Browser(make_app(oidc=replace(settings.oidc, **changed)), provider).log_in()
    provider.answers.set()
    provider.answers_keys.set()
    address = (
        "the identity provider's token address" if which == "token" else "the address of the identity provider's keys"
    )
    cause = {
        "silent": f"{address} does not answer in time",
        "closed": f"{address} cannot be reached",
        "untrusted": f"no TLS connection that can be trusted leads to {address}",
    }[failure]
    assert told == {"error": f"{AWAY if which == 'token' else UNCHECKED} {TRY_AGAIN} {cause}."}


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"aud": "another-client"}, "the ID token is meant for another client; compare the client id in the settings"),
        ({"iss": "https://another.test"}, "the ID token names another issuer than the settings"),
        ({"iss": "absent"}, "the ID token names another issuer than the settings"),
        ({"nonce": "another"}, "the ID token does not carry the nonce of this login"),
        ({"exp": 1000}, "the times in the ID token are wrong; compare the clocks of both servers"),
        ({"iat": 9999999999}, "the times in the ID token are wrong; compare the clocks of both servers"),
        ({"sub": 17}, "a claim of the ID token is not as it must be"),
    ],
)
def test_refused_id_token_names_the_setting(
    browser: Browser, provider: FakeProvider, changes: dict[str, Any], cause: str
) -> None:
    """Without any value of the token."""
    provider.claims = changes
    assert browser.log_in() == {"error": f"{UNCHECKED} {TRY_AGAIN} {cause}."}


def test_failed_login_is_logged_with_its_message(
    browser: Browser, provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """A sysadmin who knows only that a login failed finds the cause."""
    provider.answer = {"id_token": None}
    told = browser.log_in()["error"]
    (record,) = (record for record in caplog.records if record.message == "login refused")
    assert (record.levelname, vars(record)["reason"]) == ("WARNING", told)


def test_messages_are_complete_and_short() -> None:
    """The page at `/` shows no more than 500 characters (docker/proxy/html/index.html)."""
    codes = ["access_denied", "invalid_client", "invalid_grant", "invalid_request", "invalid_scope", "server_error"]
    for message in map(oauth_error, [*codes, "unknown", None]):
        assert message.endswith(".")
        assert len(message) < 300


def test_database_failure_gives_a_message_without_its_text(
    browser: Browser, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original put the database's message into the address, and its line break turned the login into a 500."""
    for error in (DatabaseUnavailable("secret\ndetail"), RuntimeError("(psycopg2) secret\ndetail")):

        def fail(*_arguments: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(Database, "write", fail)
        told = browser.log_in()["error"]
        assert "secret" not in told
        assert TRY_AGAIN in told


@pytest.mark.parametrize(
    ("answer", "lasts"),
    [
        ({"expires_in": None}, 60),
        ({"expires_in": "7200"}, 7200),
        ({"expires_in": 3600, "expires_at": 4102444800}, None),
    ],
)
def test_session_expires_with_its_token(
    browser: Browser, provider: FakeProvider, services: Services, answer: dict[str, Any], lasts: int | None
) -> None:
    provider.answer = answer
    # The library counts in whole seconds.
    before = utcnow().replace(microsecond=0)
    browser.log_in()
    after = utcnow()
    (expires_at,) = names(services, oauth_sessions.c.expires_at)
    if lasts is None:
        assert expires_at.year == 2100
    else:
        assert before <= expires_at - timedelta(seconds=lasts) <= after


def test_expired_token_is_refused(browser: Browser, provider: FakeProvider) -> None:
    provider.answer = {"expires_in": None, "expires_at": 1000}
    assert "already expired" in browser.log_in()["error"]


def test_logout_deletes_only_this_session(browser: Browser, log_in: Callable[..., str]) -> None:
    first, second = log_in("ada"), log_in("ada")
    assert browser.get(f"/logout?session_id={first}").json == {"success": True, "message": "logged out"}
    assert browser.get(f"/session?session_id={first}").status_code == 401
    assert browser.get(f"/session?session_id={second}").status_code == 200
    assert browser.get("/logout?session_id=unknown").status_code == 200
    none = browser.get("/logout")
    assert (none.status_code, none.json["success"]) == (400, False)
