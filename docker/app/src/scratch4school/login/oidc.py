"""The client of the identity provider (OpenID Connect): where the browser goes, and requests from server to server."""

import contextlib
import logging
import ssl
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import requests
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from joserfc import jwt
from joserfc.errors import ClaimError, DecodeError, JoseError, UnsupportedAlgorithmError
from joserfc.jwk import KeySet

from ..clock import EPOCH, utcnow
from ..config import OidcSettings
from ..single_flight import NoAnswer, SingleFlight
from .login_messages import lasting, oauth_error, temporary

log = logging.getLogger(__name__)

# To connect, and to answer: ten seconds together.
_TIMEOUT_SECONDS = (3, 7)
_JWKS_AGE_SECONDS = 3600
_JWKS_PAUSE_SECONDS = 5
_JWKS_PATIENCE_SECONDS = 10
_LEEWAY_SECONDS = 60
# Only signatures with a private key that stays at the provider: neither "none" nor a shared secret.
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
# OAuth errors that say nothing about the token that was sent.
_TEMPORARY_ERRORS = ("temporarily_unavailable", "server_error", "slow_down")
# The names of the settings' addresses in messages.
_TOKEN_ADDRESS = "the identity provider's token address"  # noqa: S105
_KEY_ADDRESS = "the address of the identity provider's keys"
_NOT_CHECKED = "The login could not be checked."
_CLAIM_CAUSES = {
    "aud": "the ID token is meant for another client; compare the client id in the settings",
    "iss": "the ID token names another issuer than the settings",
    "nonce": "the ID token does not carry the nonce of this login",
    **dict.fromkeys(("exp", "iat", "nbf"), "the times in the ID token are wrong; compare the clocks of both servers"),
}


class ProviderError(Exception):
    """The provider refused or did not answer; the message may be shown to the person who logs in."""


class ProviderAway(ProviderError):
    """The provider made no decision: it could not be reached, was too slow or is out of order."""

    def __init__(self, cause: str = f"{_TOKEN_ADDRESS} does not answer in time") -> None:
        super().__init__(temporary("The school's login service does not answer as it should.", cause))


@dataclass(frozen=True)
class Tokens:
    """The tokens of one answer; `expires_at` is None when the provider did not say."""

    access_token: str
    refresh_token: str | None
    id_token: str | None
    expires_at: datetime | None


class Provider:
    """The provider that the settings describe. Safe to use from many threads."""

    def __init__(self, settings: OidcSettings, redirect_uri: str) -> None:
        self._settings = settings
        self._redirect_uri = redirect_uri
        # One tuple, so that a thread never sees keys with the age of others.
        self._keys: tuple[KeySet, float] | None = None
        self._key_fetches: SingleFlight[KeySet] = SingleFlight(
            _JWKS_PATIENCE_SECONDS, _JWKS_PAUSE_SECONDS, ProviderError
        )

    def authorization_url(self, state: str, nonce: str) -> str:
        """Where the browser goes to log in."""
        with self._session() as session:
            url, _ = session.create_authorization_url(self._settings.authorize_url, state=state, nonce=nonce)
        return str(url)

    def exchange(self, code: str) -> Tokens:
        """The tokens for a code; ProviderError when the provider does not give them."""
        return self._tokens("fetch_token", grant_type="authorization_code", code=code)

    def refresh(self, refresh_token: str) -> Tokens:
        """New tokens for a refresh token; ProviderError when the provider does not give them."""
        return self._tokens("refresh_token", refresh_token=refresh_token)

    def verified_claims(self, id_token: str, nonce: str) -> dict[str, Any]:
        """The claims of an ID token with valid signature, audience, issuer, times and nonce; else ProviderError."""
        try:
            token = self._decode(id_token)
            checks: dict[str, Any] = {
                "aud": {"essential": True, "value": self._settings.client_id},
                "exp": {"essential": True},
                "nonce": {"essential": True, "value": nonce},
            }
            if self._settings.issuer is not None:
                checks["iss"] = {"essential": True, "value": self._settings.issuer}
            jwt.JWTClaimsRegistry(leeway=_LEEWAY_SECONDS, **checks).validate(token.claims)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            # The error's own text may quote the token: it helps the sysadmin, but a browser must not see it.
            log.warning("ID token refused", extra={"reason": f"{type(error).__name__}: {error}"})
            raise ProviderError(temporary(_NOT_CHECKED, _token_flaw(error))) from error
        return dict(token.claims)

    def _decode(self, id_token: str) -> jwt.Token:
        if self._keys is None:
            return jwt.decode(id_token, self._fetched_keys(), algorithms=_ALGORITHMS)
        keys, fetched = self._keys
        age = time.monotonic() - fetched
        if age > _JWKS_AGE_SECONDS:
            # The login uses the old keys meanwhile, so it neither waits for the new ones nor fails without them.
            threading.Thread(target=self._renew_keys, daemon=True).start()
        try:
            return jwt.decode(id_token, keys, algorithms=_ALGORITHMS)
        except (JoseError, ValueError):
            # The provider may have changed its keys since the last fetch.
            if age < _JWKS_PAUSE_SECONDS:
                raise
            return jwt.decode(id_token, self._fetched_keys(), algorithms=_ALGORITHMS)

    def _renew_keys(self) -> None:
        with contextlib.suppress(ProviderError):
            self._fetched_keys()

    def _fetched_keys(self) -> KeySet:
        """The provider's current keys: one fetch for all callers, and a pause after a failed fetch."""
        try:
            return self._key_fetches.call("keys", self._fetch_keys)
        except NoAnswer as error:
            raise ProviderAway(f"{_KEY_ADDRESS} does not answer in time") from error

    def _fetch_keys(self) -> KeySet:
        try:
            answer = requests.get(self._settings.jwks_url, timeout=_TIMEOUT_SECONDS, verify=trusted_authorities())
            answer.raise_for_status()
            keys = KeySet.import_key_set(answer.json())
        except (OSError, ValueError, KeyError, TypeError, JoseError) as error:
            log.warning("no keys from the identity provider", extra={"reason": type(error).__name__})
            raise ProviderError(temporary(_NOT_CHECKED, _cause(error, _KEY_ADDRESS))) from error
        self._keys = (keys, time.monotonic())
        return keys

    def _tokens(self, method: str, **parameters: Any) -> Tokens:
        try:
            with self._session() as session:
                answer = getattr(session, method)(
                    self._settings.token_url, timeout=_TIMEOUT_SECONDS, verify=trusted_authorities(), **parameters
                )
        # requests raises OSError, and passes it on, as for a missing file of certificate authorities.
        except (AuthlibBaseError, OSError, ValueError, TypeError, KeyError) as error:
            # Only the kind of the error is logged: its text may repeat the code or the token that was sent.
            log.warning("token request failed", extra={"reason": type(error).__name__})
            if not isinstance(error, AuthlibBaseError):
                raise ProviderAway(_cause(error, _TOKEN_ADDRESS)) from error
            if error.error in _TEMPORARY_ERRORS:
                raise ProviderAway(f"{_TOKEN_ADDRESS} answers {error.error}") from error
            raise ProviderError(oauth_error(error.error)) from error
        return _tokens(answer)

    def _session(self) -> OAuth2Session:
        return OAuth2Session(
            client_id=self._settings.client_id,
            client_secret=self._settings.client_secret.reveal(),
            token_endpoint_auth_method="client_secret_post",  # noqa: S106
            scope=self._settings.scope,
            redirect_uri=self._redirect_uri,
        )


def trusted_authorities() -> str | bool:
    """The host's certificate authorities instead of the library's own list: schools add their own to the host."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.capath or True


def _cause(error: Exception, address: str) -> str:
    """Why an address gave no usable answer, in a few words and without what was sent to it."""
    if isinstance(error, requests.exceptions.SSLError):
        return f"no TLS connection that can be trusted leads to {address}"
    if isinstance(error, requests.Timeout):
        return f"{address} does not answer in time"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"{address} answers with the status {error.response.status_code}"
    if isinstance(error, requests.ConnectionError):
        return f"{address} cannot be reached"
    if isinstance(error, OSError) and not isinstance(error, ValueError):
        return f"{address} cannot be asked ({type(error).__name__})"
    return f"{address} answers with something that does not belong there"


def _token_flaw(error: Exception) -> str:
    """The fault of an ID token, in a few words; of its content it names only claims."""
    if isinstance(error, ClaimError):
        return _CLAIM_CAUSES.get(error.claim, "a claim of the ID token is not as it must be")
    if isinstance(error, UnsupportedAlgorithmError):
        return "the ID token is signed by a method that is not accepted; RS256 is, and HS256 is not"
    if isinstance(error, DecodeError) or not isinstance(error, JoseError):
        return "the ID token cannot be read"
    return f"the ID token is not signed with one of the keys at {_KEY_ADDRESS}"


def _tokens(answer: Any) -> Tokens:
    access_token = answer.get("access_token") if isinstance(answer, dict) else None
    if not isinstance(access_token, str) or not access_token:
        raise ProviderError(lasting(_NOT_CHECKED, f"{_TOKEN_ADDRESS} answers without an access token"))
    refresh_token, id_token = answer.get("refresh_token"), answer.get("id_token")
    return Tokens(
        access_token=access_token.replace("\0", ""),
        refresh_token=refresh_token.replace("\0", "") if isinstance(refresh_token, str) and refresh_token else None,
        id_token=id_token if isinstance(id_token, str) and id_token else None,
        expires_at=_expiry(answer),
    )


def _expiry(answer: dict[str, Any]) -> datetime | None:
    """The token's `expires_at`, else now plus its `expires_in`; None when neither is a number."""
    for key, start in (("expires_at", EPOCH), ("expires_in", utcnow())):
        try:
            return start + timedelta(seconds=float(answer[key]))
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
    return None
