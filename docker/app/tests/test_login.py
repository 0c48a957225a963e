"""Logging in, through a provider over real HTTP: the way it goes, and every way it can go wrong."""

import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa
from joserfc.jwk import OctKey, RSAKey

from helpers import FakeProvider, wait_for
from scratch4school.database import Database, DatabaseUnavailable
from scratch4school.sentences import refusal
from scratch4school.services import Services
from scratch4school.tables import groups, oauth_sessions, user_groups, users

FRONT_END = "https://scratch.school.test/"

# How the sentences begin, and what stands before the cause.
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
    provider.claims = {"groups": [{"act": "klasse.5a", "name": "Klasse 6a"}, "chor"]}
    browser.log_in()
    assert names(services, users.c.role) == ["student"]
    assert names(services, groups.c.name) == ["Klasse 6a", "admins", "chor"]
    assert len(names(services, user_groups.c.group_id)) == 2
    provider.claims = {"groups": ["klasse.5a"]}
    browser.log_in()
    assert "Klasse 6a" in names(services, groups.c.name)


def test_each_login_writes_when_it_was(browser: Browser, services: Services) -> None:
    """The first one, too, and `created_at` stays the moment of the first."""
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
    """And the sentence tells a sysadmin whose keys are the wrong ones."""
    state = browser.begin()["state"]
    if forgery == "another key":
        token = provider.id_token(key=RSAKey.generate_key(2048))
    elif forgery == "shared secret":
        token = provider.id_token("HS256", key=OctKey.import_key(provider.client_secret))
    else:
        token = {"none": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ.", "rubbish": "a.b.c"}[forgery]
    provider.answer = {"id_token": token}
    told = browser.come_back(code="code", state=state)
    assert told == {"error": f"{UNCHECKED} {TRY_AGAIN} the ID token {cause}."}
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
        assert "identity provider's keys answers with the status 503" in browser.log_in()["error"]
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
    assert browser.come_back(code="code", state=state) == {
        "error": "This login took too long, was used already, or was not begun in this browser. Please try again, and "
        "allow this page to set cookies."
    }


def test_errors_of_the_provider_are_not_repeated(browser: Browser, provider: FakeProvider) -> None:
    """What comes from outside does not reach the page: neither the provider's text nor a place to go to."""
    state = browser.begin()["state"]
    told = browser.come_back(state=state, error="access_denied", error_description="<script>\r\nX: y", next="//evil")
    assert told == {
        "error": f"{REFUSED} {TRY_AGAIN} access_denied, so the login was cancelled, or the identity provider does not "
        "allow this account."
    }
    told = browser.come_back(state=browser.begin()["state"], error="call 0900 for help")
    assert told == {
        "error": f"{REFUSED} {TRY_AGAIN} the identity provider answers with an error of its own; its log says more."
    }


@pytest.mark.parametrize(
    ("query", "sentence"),
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
def test_provider_that_sends_the_browser_back_without_a_code_is_a_sentence(
    browser: Browser, query: dict[str, str], sentence: str
) -> None:
    """What the person does next, and what the sysadmin has to know of it."""
    assert browser.come_back(state=browser.begin()["state"], **query) == {"error": sentence}


@pytest.mark.parametrize(
    ("status", "raw", "sentence"),
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
def test_failing_token_address_is_a_sentence(
    browser: Browser, provider: FakeProvider, status: int, raw: bytes, sentence: str
) -> None:
    """Each cause is another one to a sysadmin; none repeats what the provider wrote."""
    state = browser.begin()["state"]
    provider.status, provider.raw = status, raw
    assert browser.come_back(code="code", state=state) == {"error": sentence}


@pytest.mark.parametrize("which", ["token", "keys"])
@pytest.mark.parametrize("trouble", ["silent", "closed", "untrusted"])
def test_address_that_gives_no_answer_is_a_sentence(
    make_app: Callable[..., Any],
    settings: Any,
    provider: FakeProvider,
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
    which: str,
) -> None:
    """The sentence tells which of the two addresses it was, and whether to look at network, certificate or provider."""
    monkeypatch.setattr("scratch4school.oidc._TIMEOUT_SECONDS", (0.3, 0.3))
    url = provider.url
    if trouble == "closed":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    elif trouble == "untrusted":
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
    }[trouble]
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
def test_refused_id_token_says_which_setting_to_look_at(
    browser: Browser, provider: FakeProvider, changes: dict[str, Any], cause: str
) -> None:
    """Without a value of the token."""
    provider.claims = changes
    assert browser.log_in() == {"error": f"{UNCHECKED} {TRY_AGAIN} {cause}."}


def test_failed_login_stands_in_the_log_with_its_sentence(
    browser: Browser, provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """A sysadmin who was told only that it did not work finds the cause."""
    provider.answer = {"id_token": None}
    told = browser.log_in()["error"]
    (record,) = (record for record in caplog.records if record.message == "login refused")
    assert (record.levelname, vars(record)["reason"]) == ("WARNING", told)


def test_every_refusal_ends_and_is_short() -> None:
    """The page at `/` shows no more than 500 characters (docker/proxy/html/index.html)."""
    codes = ["access_denied", "invalid_client", "invalid_grant", "invalid_request", "invalid_scope", "server_error"]
    for sentence in map(refusal, [*codes, "unknown", None]):
        assert sentence.endswith(".")
        assert len(sentence) < 300


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
        assert TRY_AGAIN in told


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
