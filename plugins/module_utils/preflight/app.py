"""Refusals of the role `app`: login settings that cannot work, and wrong addresses of the identity provider."""

from __future__ import annotations

import re
from functools import partial

from .rules import Messages, Rules, Settings, Survey, as_text, where
from .settings import is_secret, is_true, memory, shown, text, whole_number

RULES = Rules(
    "app",
    bounds={
        "app_workers": whole_number(1, 64),
        "app_threads": whole_number(1, 1000),
        # gunicorn, three workers and what a save of 16 MB takes of each.
        "app_memory": memory(128),
        "app_keep_revisions": whole_number(0),
        "app_sweep_grace_hours": whole_number(1, 9999),
        "app_migrate_patience_seconds": whole_number(1),
        "app_oidc_scope": text(
            r"(.*\s)?openid(\s.*)?",
            "the claims as one text with the word openid in it, such as openid profile email groups",
        ),
        "app_oidc_issuer": text(
            r"(https?://\S+)?",
            "the issuer's whole address, as the provider writes it into its tokens, or leave it empty",
        ),
    },
    required={
        "scratch4school_url": "the address that pupils type, such as https://scratch.my-school.de",
        "app_oidc_client_id": "the client id that your identity provider shows for Scratch4School",
        "app_oidc_client_secret": "the client secret that your identity provider shows for Scratch4School",
        "app_oidc_authorize_url": "for IServ https://my-school.de/iserv/oauth/v2/auth",
        "app_oidc_token_url": "for IServ https://my-school.de/iserv/oauth/v2/token",
        "app_oidc_jwks_url": "for IServ https://my-school.de/iserv/public/jwk",
    },
)
URLS = ("scratch4school_url", "app_oidc_authorize_url", "app_oidc_token_url", "app_oidc_jwks_url")
PROVIDER_URLS = ("app_oidc_jwks_url", "app_oidc_token_url", "app_oidc_authorize_url")

_PLACEHOLDER = re.compile(
    r"change-?me|\byour[-_ ]|placeholder|\bexample\b|\bmy-school\b|^todo$|^secret$|^password$|^xxx", re.IGNORECASE
)
_URL = re.compile(r"https://[^/:\s]+(:[0-9]+)?(/\S*)?")


def required_setting(name: str, settings: Settings) -> Messages:
    """A required setting is no placeholder, and an address is whole. One rule each, as each may be of a wrong type."""
    value, hint = as_text(settings, name), RULES.required[name]
    if _PLACEHOLDER.search(value):
        yield f"{name} is still a placeholder{'' if is_secret(name) else f', {shown(name, value)}'}. {where(hint)}"
    elif value and name in URLS and not _URL.fullmatch(value):
        yield f"{name} is {shown(name, value)}; it must be a whole address that begins with https://: {hint}."
    elif name == "scratch4school_url" and "/" in value.removeprefix("https://"):
        plain = value[: value.index("/", len("https://"))]
        yield f"{name} is {shown(name, value)}; write {plain}, without a path or a slash at the end."


for _name in RULES.required:
    RULES.refuses_settings(partial(required_setting, _name))


@RULES.refuses_settings
def secret_key(settings: Settings) -> Messages:
    """Shorter keys can be guessed."""
    if len(str(settings["app_secret_key"] or "")) < 32:
        yield "app_secret_key must have at least 32 characters; leave it unset to have one generated."


@RULES.refuses_settings
def client_secret(settings: Settings) -> Messages:
    """A shorter one was cut when it was copied; one that is missing is refused as not set."""
    if 0 < len(as_text(settings, "app_oidc_client_secret")) < 8:
        yield "app_oidc_client_secret must have at least 8 characters; copy it whole from the identity provider."


@RULES.refuses_host
def wrong_provider_addresses(settings: Settings, survey: Survey) -> Messages:
    """Refused only where a release is made: a wrong address must not stand in the way of a rollback."""
    if is_true(settings["app_require_provider"]):
        for message in provider_refusals(settings, survey):
            yield f"{message} To deploy in spite of this, add -e app_require_provider=false."


@RULES.warns_of_host
def provider_warnings(settings: Settings, survey: Survey) -> Messages:
    """Wrong addresses where they are not refused, and addresses that the host must reach and does not."""
    if not is_true(settings["app_require_provider"]):
        yield from provider_refusals(settings, survey)
    # The login page is left out: browsers open it, and the host need not reach it.
    host, keys = settings["inventory_hostname"], settings["app_oidc_jwks_url"]
    for url in dict.fromkeys([settings["app_oidc_token_url"], keys]):
        answer = survey["provider"].get(url, {})
        status = int(answer.get("status") or 0)
        if answer.get("problem"):
            yield f"{host} does not reach {url} ({answer['problem']}); logins fail until it does."
        elif status >= 500 or (url == keys and status in (401, 403, 429)):
            # The key set must be readable without a login.
            yield f"{url} answers {status}; logins fail until the identity provider works again."


def provider_refusals(settings: Settings, survey: Survey) -> Messages:
    """Addresses of the provider that answer and are wrong.

    A provider that does not answer, or answers 5xx, tells nothing about its address.
    """
    for name in PROVIDER_URLS:
        url = settings[name]
        answer = survey["provider"].get(url, {})
        status = int(answer.get("status") or 0)
        if status in (404, 410):
            yield (
                f"{name} is {url}, and the identity provider answers {status}: there is no such address. "
                "Logins would fail; copy the address from the provider."
            )
        elif name == "app_oidc_jwks_url" and 200 <= status < 300 and not answer.get("keys"):
            yield (
                f"{name} is {url}, and the identity provider answers {status} without any key. "
                "Logins would fail; copy the address of the provider's key set (JWKS)."
            )
