"""The routes of a login through the identity provider, and of logging out; `/session` is in people/user_routes.py."""

import hmac
import logging
import secrets
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Response, current_app, redirect, request
from itsdangerous import BadSignature, URLSafeTimedSerializer

from ..clock import utcnow
from ..database.database import DatabaseUnavailable
from ..monitoring.logs import request_id
from ..web.services import services
from . import claims, sessions
from .claims import ClaimsError
from .login_messages import UNKNOWN_PERSON, lasting, oauth_error, temporary
from .login_services import login_services
from .oidc import ProviderError
from .sign_in import sign_in

log = logging.getLogger(__name__)
blueprint = Blueprint("login", __name__)

_COOKIE = "scratch4school_login"
_COOKIE_PATH = "/backend"
_LOGIN_SECONDS = 600
# The original's rule for a provider that does not say how long its token lasts.
_DEFAULT_EXPIRY = timedelta(minutes=1)


class LoginError(Exception):
    """The login cannot continue; the message is shown to the person."""


@blueprint.get("/login")
def login() -> Response:
    """Send the browser to the identity provider; a signed cookie remembers the state and nonce that must come back."""
    state, nonce = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    response = redirect(login_services().provider.authorization_url(state, nonce))
    response.set_cookie(
        _COOKIE,
        _serializer().dumps({"state": state, "nonce": nonce}),
        max_age=_LOGIN_SECONDS,
        path=_COOKIE_PATH,
        secure=services().settings.public_url.startswith("https:"),
        httponly=True,
        samesite="Lax",
    )
    response.headers["Cache-Control"] = "no-store"
    return response  # type: ignore[return-value]


@blueprint.get("/authorize")
def authorize() -> Response:
    """Finish a login: redirect to the front end with a session id, or with a message that says why there is none."""
    try:
        outcome = f"session_id={_finish_login()}"
    except Exception as error:
        outcome = f"error={quote(_message(error), safe='')}"
    # A redirect to the configured front end only, never to an address from the request.
    response = redirect(f"{services().settings.public_url}/?{outcome}")
    response.delete_cookie(_COOKIE, path=_COOKIE_PATH)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response  # type: ignore[return-value]


@blueprint.route("/logout", methods=["GET", "POST"])
def logout() -> tuple[dict[str, Any], int]:
    """Delete the session; an unknown session counts as deleted."""
    session_id = sessions.session_id_of(request)
    if session_id is None:
        return {"success": False, "message": "no session id given"}, 400
    sessions.end(services().database, session_id)
    return {"success": True, "message": "logged out"}, 200


def _message(error: Exception) -> str:
    """The message for the person whose login failed; it is logged as well."""
    if isinstance(error, LoginError | ProviderError | ClaimsError):
        message = str(error)
    elif isinstance(error, DatabaseUnavailable):
        message = temporary("The service is busy or its database is restarting.", "the database does not answer")
    else:
        log.error("login failed", exc_info=error)
        cause = f"the application's log tells of it at the request {request_id()}"
        message = temporary("The login met a fault of this service.", cause)
    log.warning("login refused", extra={"reason": message})
    return message


def _finish_login() -> str:
    """Check what the browser brings back from the identity provider; returns the id of the new session."""
    expected = _remembered()
    if not hmac.compare_digest(expected["state"].encode(), request.args.get("state", "").encode()):
        raise LoginError("This login was begun in another window or browser, or it took too long. Please try again.")
    if "error" in request.args:
        raise LoginError(oauth_error(request.args["error"]))
    code = request.args.get("code")
    if not code:
        wrong = "The school's login service did not finish this login."
        raise LoginError(temporary(wrong, "the identity provider sent neither a code nor an error"))
    provider, oidc = login_services().provider, services().settings.oidc
    tokens = provider.exchange(code)
    if tokens.id_token is None:
        cause = "the identity provider sent no ID token; the scope in the settings needs openid"
        raise LoginError(lasting(UNKNOWN_PERSON, cause))
    identity = claims.identity(
        provider.verified_claims(tokens.id_token, expected["nonce"]), oidc.role_admin, oidc.role_teacher
    )
    expires_at = tokens.expires_at if tokens.expires_at is not None else utcnow() + _DEFAULT_EXPIRY
    if expires_at <= utcnow():
        wrong = "The school's login service sent a login that has already expired."
        cause = "the access token had expired when it came; compare the clocks of both servers"
        raise LoginError(lasting(wrong, cause))
    return sign_in(services().database, identity, tokens.access_token, tokens.refresh_token, expires_at)


def _remembered() -> dict[str, str]:
    try:
        remembered = _serializer().loads(request.cookies.get(_COOKIE, ""), max_age=_LOGIN_SECONDS)
        return {"state": remembered["state"], "nonce": remembered["nonce"]}
    except (BadSignature, KeyError, TypeError):
        raise LoginError(
            "This login took too long, was used already, or was not begun in this browser. Please try again, and allow "
            "this page to set cookies."
        ) from None


def _serializer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(current_app.secret_key, salt="login")  # type: ignore[arg-type]
