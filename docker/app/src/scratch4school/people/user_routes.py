"""The routes about the person who is logged in: session, user and groups."""

from typing import Any

from flask import Blueprint, request
from sqlalchemy.engine import Row

from ..clock import isoformat
from ..login import sessions
from ..login.sessions import current, require_session
from ..web.errors import ApiError
from ..web.services import services
from . import users

blueprint = Blueprint("people", __name__)


@blueprint.get("/session")
def session() -> dict[str, Any]:
    """The named session and its user; 400 without a session id, 401 when the session is not valid."""
    session_id = sessions.session_id_of(request)
    if session_id is None:
        raise ApiError(400, "no session id given")
    found = sessions.check(session_id)
    database = services().database
    groups = database.read(lambda connection: users.groups_of(connection, found.user_id))
    avatar_url = database.read(lambda connection: users.avatar_url(connection, found.user_id))
    return {
        "session": {"id": found.id, "expires_at": isoformat(found.expires_at)},
        "user": {
            "id": found.user_id,
            "username": found.username,
            "email": found.email,
            "role": found.role,
            "groups": [_group_json(group) for group in groups],
            "avatar_url": avatar_url,
        },
        "authenticated": True,
    }


@blueprint.get("/api/user")
@require_session
def user() -> dict[str, Any]:
    """The user of the request's session."""
    found = current()
    return {
        "user": {
            "session_id": found.id,
            "user_id": found.user_id,
            "username": found.username,
            "email": found.email,
            "role": found.role,
        }
    }


@blueprint.get("/api/groups")
@require_session
def groups() -> dict[str, Any]:
    """The groups of the request's user, by name."""
    user_id = current().user_id
    found = services().database.read(lambda connection: users.groups_of(connection, user_id))
    return {"groups": [_group_json(row) for row in found]}


def _group_json(row: Row[Any]) -> dict[str, Any]:
    return {"id": row.id, "name": row.name, "external_id": row.external_id, "description": row.description}
