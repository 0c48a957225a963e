"""Sessions: which user a request belongs to, and whether the session is still valid.

A client passes the session id in one of two ways, which its login chose (login_routes.py). A client of the original's
contract passes it itself. Our pages never see it: the browser sends it in a cookie that no script can read.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import wraps
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import sqlalchemy as sa
from flask import Request, Response, g, request
from sqlalchemy.engine import Row

from ..clock import utcnow
from ..database.database import Database, DatabaseUnavailable
from ..database.tables import oauth_sessions, users
from ..web.errors import ApiError
from ..web.services import services
from .login_services import login_services
from .oidc import ProviderAway, ProviderError

log = logging.getLogger(__name__)

_SESSION_ID = re.compile(r"[0-9A-Za-z-]{1,36}")
_LAST_ACCESSED_STEP = timedelta(minutes=1)
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Our pages name the user whose work they hold (`user_id`), because all tabs of a browser share one cookie.
_EXPECTED_USER = "X-Expected-User"

# Built once, because every request runs it.
_FIND = (
    sa.select(
        oauth_sessions.c.id,
        oauth_sessions.c.user_id,
        oauth_sessions.c.expires_at,
        oauth_sessions.c.last_accessed,
        users.c.username,
        users.c.email,
        users.c.role,
    )
    .join(users, users.c.id == oauth_sessions.c.user_id)
    .where(oauth_sessions.c.id == sa.bindparam("session_id"))
)

Handler = TypeVar("Handler", bound=Callable[..., Any])


@dataclass(frozen=True)
class Session:
    """A session that is valid now, and the user it belongs to.

    `shown_id` is the id that answers may contain: None for a session in a cookie, which scripts must not read.
    """

    id: str
    shown_id: str | None
    user_id: str
    username: str
    email: str | None
    role: str | None
    expires_at: datetime

    @property
    def is_staff(self) -> bool:
        return self.role in ("teacher", "admin")


def session_id_of(asking: Request, changes: bool = False) -> str | None:
    """The session id that a request names: in the query, else in X-Session-ID, as a bearer token, or in the cookie.

    ApiError 403 when the cookie comes with a request that may change something (an unsafe method, or `changes`) and
    that another origin may have sent: a browser adds the cookie to those as well.
    """
    if named := _named_by_client(asking):
        return named
    in_cookie = asking.cookies.get(cookie_name())
    if in_cookie and (changes or asking.method not in _SAFE_METHODS) and not _is_same_origin(asking):
        raise ApiError(403, "This request did not come from a page of this server.")
    return in_cookie or None


def is_in_cookie(asking: Request) -> bool:
    """Whether the request names its session by the cookie only."""
    return _named_by_client(asking) is None and cookie_name() in asking.cookies


def cookie_name() -> str:
    """The name of the session's cookie; its prefix makes browsers demand Secure, Path=/ and no Domain.

    Source: draft-ietf-httpbis-rfc6265bis, section 4.1.3.2. Without HTTPS, on a developer's machine, no browser would
    accept the prefix.
    """
    return "__Host-scratch4school" if _is_https() else "scratch4school"


def set_cookie(response: Response, session_id: str) -> None:
    """Pass a session to the browser. The cookie ends with the browser: pupils share computers."""
    response.set_cookie(cookie_name(), session_id, path="/", secure=_is_https(), httponly=True, samesite="Lax")


def delete_cookie(response: Response) -> None:
    """Remove the session's cookie from the browser."""
    response.delete_cookie(cookie_name(), path="/", secure=_is_https(), httponly=True, samesite="Lax")


def _named_by_client(asking: Request) -> str | None:
    if named := asking.args.get("session_id") or asking.headers.get("X-Session-ID"):
        return named
    scheme, _, credentials = asking.headers.get("Authorization", "").partition(" ")
    return credentials.strip() or None if scheme.lower() == "bearer" else None


def _is_https() -> bool:
    return services().settings.public_url.startswith("https:")


def _is_same_origin(asking: Request) -> bool:
    """Whether the browser says that a page of this server sent the request. Source: Fetch Metadata, W3C.

    A browser that does not send Sec-Fetch-Site sends Origin with each unsafe method.
    """
    site = asking.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = asking.headers.get("Origin")
    return origin is not None and _origin(origin) == _origin(services().settings.public_url)


def _origin(url: str) -> tuple[str, str | None, int | None] | None:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None


def require_session(handler: Handler) -> Handler:
    """Run a handler only for a valid session, which it gets by `current`; else ApiError 401."""

    @wraps(handler)
    def checked(*args: Any, **kwargs: Any) -> Any:
        session_id = session_id_of(request)
        if session_id is None:
            raise ApiError(401, "authentication required")
        g.session = check(session_id)
        expected = request.headers.get(_EXPECTED_USER)
        if expected is not None and unquote(expected) != g.session.user_id:
            raise ApiError(401, "another user is logged in now")
        return handler(*args, **kwargs)

    return checked  # type: ignore[return-value]


def current() -> Session:
    """The session of the current request, inside a handler that requires one."""
    return g.session  # type: ignore[no-any-return]


def check(session_id: str) -> Session:
    """The valid session with this id; an expired one is refreshed at the identity provider. ApiError 401 otherwise.

    ApiError 503 when the session expired and the provider does not answer; that takes ten seconds at most.
    """
    database = services().database
    row = _find(database, session_id)
    if row is None:
        raise ApiError(401, "invalid session")
    if row.expires_at <= utcnow():
        row = _refresh(database, row.id)
    _touch(database, row)
    return Session(
        id=row.id,
        shown_id=None if is_in_cookie(request) else row.id,
        user_id=row.user_id,
        username=row.username,
        email=row.email,
        role=row.role,
        expires_at=row.expires_at,
    )


def end(database: Database, session_id: str) -> None:
    """Delete one session; an unknown id is no error."""
    if _SESSION_ID.fullmatch(session_id):
        database.write(lambda connection: connection.execute(sa.delete(oauth_sessions).where(_is(session_id))))


def _find(database: Database, session_id: str) -> Row[Any] | None:
    # The database is not asked for a text that cannot be an id: PostgreSQL, for one, answers a NUL with an error.
    if not _SESSION_ID.fullmatch(session_id):
        return None
    return database.read(lambda connection: connection.execute(_FIND, {"session_id": session_id}).one_or_none())


def _is(session_id: str) -> sa.ColumnElement[bool]:
    return oauth_sessions.c.id == session_id


def _refresh(database: Database, session_id: str) -> Row[Any]:
    try:
        login_services().token_refresh.refresh(session_id)
    except ProviderAway as error:
        # The contract's 401 means that the provider refused, and sends the person to a login, which now fails as well.
        # At a 401 the front end drops the session together with the unsaved work. At a 503 it shows the message, and
        # its next autosave finds the session unchanged.
        raise ApiError(503, "The login service does not answer. Please try again in a moment.") from error
    except ProviderError as error:
        raise ApiError(401, "session expired", renewal_required=True) from error
    row = _find(database, session_id)
    if row is None or row.expires_at <= utcnow():
        raise ApiError(401, "invalid session")
    return row


def _touch(database: Database, row: Row[Any]) -> None:
    """Note that the session is in use, at most once a minute; a failure to note it does not fail the request."""
    now = utcnow()
    if row.last_accessed is not None and row.last_accessed > now - _LAST_ACCESSED_STEP:
        return
    stale = sa.or_(
        oauth_sessions.c.last_accessed.is_(None), oauth_sessions.c.last_accessed <= now - _LAST_ACCESSED_STEP
    )
    try:
        database.write(
            lambda connection: connection.execute(
                sa.update(oauth_sessions).where(_is(row.id), stale).values(last_accessed=now)
            )
        )
    except DatabaseUnavailable:
        log.warning("a session's last use was not recorded")
