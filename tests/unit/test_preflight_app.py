"""Refusals of preflight for the role `app`: login settings, and what the identity provider answered."""

from __future__ import annotations

from typing import Any

import pytest
from preflight import app

RIGHT = {
    "scratch4school_url": "https://scratch.school.de:8443",
    "app_oidc_client_id": "scratch4school",
    "app_oidc_client_secret": "as-long-as-the-provider-made-it",
    "app_oidc_authorize_url": "https://school.de/iserv/oauth/v2/auth",
    "app_oidc_token_url": "https://school.de/iserv/oauth/v2/token",
    "app_oidc_jwks_url": "https://school.de/iserv/public/jwk",
    "app_secret_key": "k" * 32,
    "inventory_hostname": "server",
}


def of_settings(**changed: Any) -> list[str]:
    """Return the messages about right settings with some changed."""
    return [message for rule in app.RULES.settings_rules for message in rule({**RIGHT, **changed})]


def test_right_settings_are_accepted() -> None:
    """An address may have a port."""
    assert of_settings() == []


@pytest.mark.parametrize("name", list(app.RULES.required))
@pytest.mark.parametrize("value", [None, "", False, {}])
def test_required_setting_without_a_value_is_refused_once(name: str, value: object) -> None:
    """With where to find it."""
    (said,) = of_settings(**{name: value})
    assert said.startswith(f"{name} is not set for server. Set it in the inventory's group_vars/scratch4school/: ")
    assert said.endswith(f"{app.RULES.required[name]}.")


@pytest.mark.parametrize("name", list(app.RULES.required))
@pytest.mark.parametrize(
    "value", ["change-me-please", "https://my-school.de/x", "Your Client-ID", "placeholder1", "XXXXXXXX"]
)
def test_placeholder_of_a_setting_is_refused(name: str, value: str) -> None:
    """The value is shown where it is no secret; a placeholder of a secret may be the secret."""
    (said,) = of_settings(**{name: value})
    assert said.startswith(f"{name} is still a placeholder")
    assert (f"“{value}”" in said) is (name != "app_oidc_client_secret")


@pytest.mark.parametrize("name", app.URLS)
@pytest.mark.parametrize(
    "value", ["???", "http://school.de/x", "school.de/x", "https://", "https://a b", 5, ["https://a"]]
)
def test_address_that_is_not_whole_is_refused(name: str, value: object) -> None:
    """With the value, and what an address looks like."""
    (said,) = of_settings(**{name: value})
    assert said.startswith(f"{name} is ")
    assert "it must be a whole address that begins with https://" in said


@pytest.mark.parametrize(
    ("value", "write"),
    [
        ("https://scratch.school.de/", "https://scratch.school.de"),
        ("https://scratch.school.de:8443/backend", "https://scratch.school.de:8443"),
    ],
)
def test_url_with_a_path_is_refused_with_what_to_write(value: str, write: str) -> None:
    """The redirect address is made of it."""
    assert of_settings(scratch4school_url=value) == [
        f"scratch4school_url is “{value}”; write {write}, without a path or a slash at the end."
    ]


def test_password_in_an_address_is_not_shown() -> None:
    """An address may hold one."""
    (said,) = of_settings(app_oidc_token_url="http://anna:hunter2@school.de")
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [("app_secret_key", "k" * 31, 32), ("app_secret_key", "", 32), ("app_oidc_client_secret", "7 chars", 8)],
)
def test_short_secret_is_refused_and_not_shown(name: str, value: str, least: int) -> None:
    """Each by itself, with what to do."""
    (said,) = of_settings(**{name: value})
    assert said.startswith(f"{name} must have at least {least} characters; ")
    assert not value or value not in said


# ---- what the identity provider answered

JWKS = "https://my-school.example/jwk"
TOKEN = "https://my-school.example/token"
AUTHORIZE = "https://my-school.example/auth"
URLS = {"app_oidc_jwks_url": JWKS, "app_oidc_token_url": TOKEN, "app_oidc_authorize_url": AUTHORIZE}


def refusals(answers: dict[str, Any]) -> list[str]:
    """Return the refusals of these answers."""
    return list(app.provider_refusals(URLS, {"provider": answers}))


def warnings(answers: dict[str, Any]) -> list[str]:
    """Return the warnings where wrong addresses are refused."""
    settings = {**URLS, "inventory_hostname": "server", "app_require_provider": True}
    return list(app.provider_warnings(settings, {"provider": answers}))


def answer(status: int = 200, keys: int = 0, problem: str = "") -> dict[str, Any]:
    """Return the survey's fact about one address."""
    return {"status": status, "keys": keys, "problem": problem}


@pytest.mark.parametrize(
    "answers",
    [
        {JWKS: answer(keys=1), TOKEN: answer(405)},
        {JWKS: answer(keys=2), TOKEN: answer(400)},
        {JWKS: answer(0, problem="timed out"), TOKEN: answer(0, problem="timed out")},
        {JWKS: answer(500), TOKEN: answer(503)},
        {},
    ],
    ids=["right", "right, and wants a form", "silent", "failing", "not asked"],
)
def test_provider_address_that_may_be_right_is_accepted(answers: dict[str, Any]) -> None:
    """A token address refuses a GET by its nature; a provider that is silent or ill says nothing of its address."""
    assert refusals(answers) == []


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("setting", list(URLS))
def test_provider_address_that_does_not_exist_is_refused(setting: str, status: int) -> None:
    """With the setting, its value and what the provider said, once."""
    answers = {JWKS: answer(keys=1), TOKEN: answer(405), URLS[setting]: answer(status)}
    (said,) = refusals(answers)
    assert said.startswith(
        f"{setting} is {URLS[setting]}, and the identity provider answers {status}: there is no such"
    )
    assert "copy the address from the provider" in said


def test_provider_address_of_keys_without_a_key_is_refused() -> None:
    """Under the address of a login page there are no keys, and every login would fail."""
    answers = {JWKS: answer(200), TOKEN: answer(400)}
    (said,) = refusals(answers)
    assert said.startswith(f"app_oidc_jwks_url is {JWKS}, and the identity provider answers 200 without any key.")


@pytest.mark.parametrize("status", [401, 403, 429])
def test_key_set_that_refuses_the_request_is_a_warning(status: int) -> None:
    """A firewall may refuse what the application is answered; that tells nothing of the address."""
    answers = {JWKS: answer(status), TOKEN: answer(status)}
    assert refusals(answers) == []
    (said,) = warnings(answers)
    assert said.startswith(f"{JWKS} answers {status};")


def test_provider_that_does_not_answer_is_a_warning() -> None:
    """One message for each address that the host must reach, with the cause or the status."""
    answers = {JWKS: answer(0, problem="timed out"), TOKEN: answer(502)}
    said = warnings(answers)
    assert said == [
        f"{TOKEN} answers 502; logins fail until the identity provider works again.",
        f"server does not reach {JWKS} (timed out); logins fail until it does.",
    ]
    one = {**URLS, "app_oidc_token_url": JWKS, "inventory_hostname": "server", "app_require_provider": True}
    assert len(list(app.provider_warnings(one, {"provider": answers}))) == 1
    assert warnings({JWKS: answer(404)}) == []


@pytest.mark.parametrize("required", [True, "true", False, "false"])
def test_wrong_address_is_a_refusal_or_a_warning(required: object) -> None:
    """As `app_require_provider` says, also where the command line says it: a rollback must not fail over it."""
    settings = {**URLS, "inventory_hostname": "server", "app_require_provider": required}
    survey = {"provider": {JWKS: answer(404)}}
    refused = list(app.wrong_provider_addresses(settings, survey))
    warned = list(app.provider_warnings(settings, survey))
    assert [len(refused), len(warned)] == ([1, 0] if required in (True, "true") else [0, 1])
    assert (refused + warned)[0].startswith(f"app_oidc_jwks_url is {JWKS}, and the identity provider answers 404")
    assert all(said.endswith(" To deploy in spite of this, add -e app_require_provider=false.") for said in refused)
