"""What teachers and admins see: the school's pupils, and the projects of one person."""

from typing import Any

import sqlalchemy as sa
from flask import Blueprint
from sqlalchemy.engine import Connection, Row

from . import projects
from .errors import ApiError
from .project_answers import common_json, thumbnail_url
from .services import services
from .sessions import Session, current, require_session
from .tables import projects as project_rows
from .tables import users

blueprint = Blueprint("teacher", __name__, url_prefix="/api/teacher")


@blueprint.get("/students")
@require_session
def students() -> dict[str, Any]:
    """All pupils of the school with the number of their projects, by name."""
    _require_staff(current())
    counted = (
        sa.select(project_rows.c.owner_id, sa.func.count().label("projects"))
        .group_by(project_rows.c.owner_id)
        .subquery()
    )
    statement = (
        sa.select(users.c.id, users.c.username, sa.func.coalesce(counted.c.projects, 0).label("projects"))
        .outerjoin(counted, counted.c.owner_id == users.c.id)
        # Without a role: users of an old installation whose provider sent no groups. They are nobody's teachers.
        .where(sa.or_(users.c.role.is_(None), users.c.role.not_in(("teacher", "admin"))))
        .order_by(users.c.username, users.c.id)
    )
    rows = services().database.read(lambda connection: connection.execute(statement).all())
    found = [{"id": row.id, "username": row.username, "project_count": row.projects} for row in rows]
    return {"students": found, "count": len(found)}


# An identity provider puts what it likes into user ids, slashes too.
@blueprint.get("/students/<path:student_id>/projects")
@require_session
def projects_of(student_id: str) -> dict[str, Any]:
    """The projects of one person, the last saved first; 404 for somebody who never logged in."""
    _require_staff(current())
    database = services().database
    student = database.read(lambda connection: _find(connection, student_id))
    if student is None:
        raise ApiError(404, "There is no such student.")
    rows = database.read(lambda connection: projects.owned_by(connection, student_id))
    listed = [
        {**common_json(row), "thumbnail_url": thumbnail_url(row.id) if row.thumbnail_path else None} for row in rows
    ]
    return {
        "student": {"id": student.id, "username": student.username},
        "projects": listed,
        "count": len(listed),
    }


def _find(connection: Connection, user_id: str) -> Row[Any] | None:
    # PostgreSQL's text cannot hold a NUL, so nobody has such an id.
    if "\0" in user_id:
        return None
    return connection.execute(sa.select(users.c.id, users.c.username).where(users.c.id == user_id)).one_or_none()


def _require_staff(session: Session) -> None:
    if not session.is_staff:
        raise ApiError(403, "Only teachers and admins may see this.")
