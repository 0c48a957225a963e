"""The routes for teachers and admins: the school's pupils, and the projects of one person."""

from typing import Any

from flask import Blueprint

from ..login.sessions import Session, current, require_session
from ..projects import projects
from ..projects.project_responses import common_json, thumbnail_url
from ..web.errors import ApiError
from ..web.services import services
from .students import find, students

blueprint = Blueprint("teacher", __name__, url_prefix="/api/teacher")


@blueprint.get("/students")
@require_session
def index() -> dict[str, Any]:
    """All pupils of the school with the number of their projects, by name."""
    _require_staff(current())
    rows = services().database.read(students)
    found = [{"id": row.id, "username": row.username, "project_count": row.projects} for row in rows]
    return {"students": found, "count": len(found)}


# User ids of an identity provider may contain slashes.
@blueprint.get("/students/<path:student_id>/projects")
@require_session
def projects_of(student_id: str) -> dict[str, Any]:
    """The projects of one person, the last saved first; 404 for a person who never logged in."""
    _require_staff(current())
    database = services().database
    student = database.read(lambda connection: find(connection, student_id))
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


def _require_staff(session: Session) -> None:
    if not session.is_staff:
        raise ApiError(403, "Only teachers and admins may see this.")
