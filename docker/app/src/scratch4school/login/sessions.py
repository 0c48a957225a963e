"""Sessions: which user a request belongs to, and whether the session is still valid."""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import wraps
from typing import Any, TypeVar

import sqlalchemy as sa
from flask import Request, g, request
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
    """A session that is valid now, and the user it belongs to."""

    id: str
    user_id: str
    username: str
    email: str | None
    role: str | None
    expires_at: datetime

    @property
    def is_staff(self) -> bool:
        return self.role in ("teacher", "admin")


def session_id_of(asking: Request) -> str | None:
    """The session id that a request names: in the query, else in X-Session-ID, else as a bearer token."""
    if named := asking.args.get("session_id") or asking.headers.get("X-Session-ID"):
        return named
    scheme, _, credentials = asking.headers.get("Authorization", "").partition(" ")
    return credentials.strip() or None if scheme.lower() == "bearer" else None


def require_session(handler: Handler) -> Handler:
    """Run a handler only for a valid session, which it gets by `current`; else ApiError 401."""

    @wraps(handler)
    def checked(*args: Any, **kwargs: Any) -> Any:
        session_id = session_id_of(request)
        if session_id is None:
            raise ApiError(401, "authentication required")
        g.session = check(session_id)
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
