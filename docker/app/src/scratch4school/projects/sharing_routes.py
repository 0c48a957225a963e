"""The routes of sharing: share a project with groups, list shared projects, copy one."""

from typing import Any

from flask import Blueprint, Response

from ..login.sessions import current, require_session
from ..web.errors import ApiError
from ..web.json_body import json_object
from ..web.services import services
from . import sharing
from .project_responses import ID, common_json, find, listed_json, respond, thumbnail_url, translated

blueprint = Blueprint("sharing", __name__, url_prefix="/api/projects")

_MAX_ID = 2147483647
# More groups than any user has; each becomes a parameter of a statement.
_MAX_GROUPS = 1000


@blueprint.post(f"/{ID}/share")
@require_session
def share(project_id: int) -> Response:
    """Share the user's own project with exactly the groups `group_ids`; groups that the user is not in are left out."""
    group_ids = _group_ids()
    database, user_id = services().database, current().user_id
    row = translated(lambda: sharing.share(database, project_id, user_id, group_ids))
    shared = database.read(lambda connection: sharing.shared_with(connection, [project_id]))
    return respond({"id": row.id, "title": row.name, "shared_with_groups": shared[project_id]}, row)


@blueprint.get(f"/{ID}/sharing")
@require_session
def shown(project_id: int) -> Response:
    """The groups that a project is shared with, for its owner, teachers and admins."""
    database, session = services().database, current()
    row = find(project_id)
    if row.owner_id != session.user_id and not session.is_staff:
        raise ApiError(403, "This project belongs to another user.")
    shared = database.read(lambda connection: sharing.shared_with(connection, [project_id]))
    fields = {
        "id": row.id,
        "title": row.name,
        "is_published": bool(row.is_published),
        "shared_with_groups": shared[project_id],
    }
    return respond(fields, row)


@blueprint.get("/shared")
@require_session
def index() -> dict[str, Any]:
    """The projects that others share with the user's groups, the last saved first."""
    database, user_id = services().database, current().user_id
    rows = database.read(lambda connection: sharing.shared_with_user(connection, user_id))
    shared = database.read(lambda connection: sharing.shared_with(connection, [row.id for row in rows], user_id))
    listed = [
        {**listed_json(row, shared[row.id]), "owner": {"id": row.owner_id, "username": row.owner_name}} for row in rows
    ]
    return {"projects": listed, "count": len(listed), "success": True}


@blueprint.post(f"/{ID}/copy")
@require_session
def copy(project_id: int) -> Response:
    """Copy a project that the user owns or sees by sharing."""
    available, user_id = services(), current().user_id
    row = translated(
        lambda: sharing.copy(
            available.database, available.store, project_id, user_id, available.settings.keep_revisions
        )
    )
    return respond({**common_json(row), "thumbnail_url": thumbnail_url(row.id), "success": True}, row, status=201)


def _group_ids() -> list[int]:
    body = json_object()
    group_ids = body.get("group_ids") if body is not None else None
    if not isinstance(group_ids, list) or not all(type(each) is int for each in group_ids):
        raise ApiError(400, 'The JSON body must name the groups by number: {"group_ids": [1, 2]}.')
    if len(group_ids) > _MAX_GROUPS:
        raise ApiError(400, f"The request names more than {_MAX_GROUPS} groups.")
    # A number that does not fit the column names no group.
    return [group_id for group_id in group_ids if 0 < group_id <= _MAX_ID]
