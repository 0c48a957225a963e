"""Logging in through the identity provider, looking at a session, and logging out."""

import hmac
import logging
import secrets
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Response, current_app, redirect, request
from itsdangerous import BadSignature, URLSafeTimedSerializer

from . import claims, sessions, users
from .claims import ClaimsError
from .clock import isoformat, utcnow
from .database import DatabaseUnavailable
from .errors import ApiError
from .logs import request_id
from .oidc import ProviderError
from .sentences import UNKNOWN_PERSON, lasting, passing, refusal
from .services import services

log = logging.getLogger(__name__)
blueprint = Blueprint("auth", __name__)

_COOKIE = "scratch4school_login"
_COOKIE_PATH = "/backend"
_LOGIN_SECONDS = 600
# What the original grants when the provider does not say how long its token lasts.
_UNSAID_EXPIRY = timedelta(minutes=1)


class LoginError(Exception):
    """The login cannot go on; the message is shown to the person."""


@blueprint.get("/login")
def login() -> Response:
    """Send the browser to the identity provider, and remember in a signed cookie what must come back."""
    state, nonce = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    response = redirect(services().provider.authorization_url(state, nonce))
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
    """Finish a login: back to the front end with a session id, or with a sentence saying why not."""
    try:
        target = f"session_id={_sign_in()}"
    except Exception as error:
        target = f"error={quote(_sentence(error), safe='')}"
    # The target is the configured front end and nothing a request could choose.
    response = redirect(f"{services().settings.public_url}/?{target}")
    response.delete_cookie(_COOKIE, path=_COOKIE_PATH)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response  # type: ignore[return-value]


@blueprint.get("/session")
def show() -> dict[str, Any]:
    """The session that is asked about and its user; 400 without an id, 401 when it is not valid."""
    session_id = sessions.session_id_of(request)
    if session_id is None:
        raise ApiError(400, "no session id given")
    available = services()
    session = sessions.check(available.database, available.renewals, session_id)
    groups = available.database.read(lambda connection: users.groups_of(connection, session.user_id))
    avatar_url = available.database.read(lambda connection: users.avatar_url(connection, session.user_id))
    return {
        "session": {"id": session.id, "expires_at": isoformat(session.expires_at)},
        "user": {
            "id": session.user_id,
            "username": session.username,
            "email": session.email,
            "role": session.role,
            "groups": [users.group_json(group) for group in groups],
            "avatar_url": avatar_url,
        },
        "authenticated": True,
    }


@blueprint.route("/logout", methods=["GET", "POST"])
def logout() -> tuple[dict[str, Any], int]:
    """Forget the session; an unknown one counts as forgotten."""
    session_id = sessions.session_id_of(request)
    if session_id is None:
        return {"success": False, "message": "no session id given"}, 400
    sessions.end(services().database, session_id)
    return {"success": True, "message": "logged out"}, 200


def _sentence(error: Exception) -> str:
    """What the person is told of a login that failed; the log is told it, too."""
    if isinstance(error, LoginError | ProviderError | ClaimsError):
        sentence = str(error)
    elif isinstance(error, DatabaseUnavailable):
        sentence = passing("The service is busy or its database is restarting.", "the database does not answer")
    else:
        log.error("login failed", exc_info=error)
        cause = f"the application's log tells of it at the request {request_id()}"
        return passing("The login met a fault of this service.", cause)
    log.warning("login refused", extra={"reason": sentence})
    return sentence


def _sign_in() -> str:
    available = services()
    expected = _remembered()
    if not hmac.compare_digest(expected["state"].encode(), request.args.get("state", "").encode()):
        raise LoginError("This login was begun in another window or browser, or it took too long. Please try again.")
    if "error" in request.args:
        raise LoginError(refusal(request.args["error"]))
    code = request.args.get("code")
    if not code:
        wrong = "The school's login service did not finish this login."
        raise LoginError(passing(wrong, "the identity provider sent neither a code nor an error"))
    tokens = available.provider.exchange(code)
    if tokens.id_token is None:
        cause = "the identity provider sent no ID token; the scope in the settings needs openid"
        raise LoginError(lasting(UNKNOWN_PERSON, cause))
    oidc = available.settings.oidc
    identity = claims.identity(
        available.provider.verified_claims(tokens.id_token, expected["nonce"]), oidc.role_admin, oidc.role_teacher
    )
    expires_at = tokens.expires_at if tokens.expires_at is not None else utcnow() + _UNSAID_EXPIRY
    if expires_at <= utcnow():
        wrong = "The school's login service sent a login that has already expired."
        cause = "the access token had expired when it came; compare the clocks of both servers"
        raise LoginError(lasting(wrong, cause))
    return users.sign_in(available.database, identity, tokens.access_token, tokens.refresh_token, expires_at)


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
