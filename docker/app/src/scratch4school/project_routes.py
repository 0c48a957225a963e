"""The routes of projects: what the front end sends and reads, in the original's shapes plus `version` and ETag."""

import re
from collections.abc import Callable
from typing import Any, TypeVar, cast

from flask import Blueprint, Response, jsonify, request
from sqlalchemy.engine import Row

from . import projects
from .clock import isoformat
from .errors import ApiError
from .files import IncomingFile, download_name
from .projects import Content
from .sending import send_stored
from .services import services
from .sessions import current, require_session
from .uploads import file_part, is_png, require_project

T = TypeVar("T")

blueprint = Blueprint("projects", __name__, url_prefix="/api/projects")

_ID = "<row_id:project_id>"
_LARGEST_VERSION = 2147483647


@blueprint.post("")
@require_session
def create() -> Response:
    """Save a new project."""
    content = _content()
    if content is None:
        raise ApiError(400, "A new project needs a project_file.")
    available = services()
    row = projects.create(
        available.database,
        available.store,
        current().user_id,
        _title() or projects.DEFAULT_TITLE,
        content,
        available.settings.keep_revisions,
    )
    return _answer(_saved_json(row), row)


@blueprint.put(f"/{_ID}")
@require_session
def update(project_id: int) -> Response:
    """Save over a project; 409 when the save names a version that is no longer the current one."""
    available, user_id = services(), current().user_id
    base = _base()
    # A save that cannot succeed is turned away before its content is looked at; what decides is the UPDATE.
    _translated(
        lambda: available.database.read(
            lambda connection: projects.refuse_if_hopeless(connection, project_id, user_id, base)
        )
    )
    content = _content()

    def work() -> Row[Any]:
        if content is None:
            title = _title_of_json()
            return projects.retitle(available.database, project_id, user_id, title, base)
        return projects.save(
            available.database,
            available.store,
            project_id,
            user_id,
            _title(),
            content,
            base,
            available.settings.keep_revisions,
        )

    row = _translated(work)
    return _answer(_saved_json(row), row)


@blueprint.get("")
@require_session
def index() -> dict[str, Any]:
    """The user's own projects, the last saved first."""
    database, user_id = services().database, current().user_id
    rows = database.read(lambda connection: projects.owned_by(connection, user_id))
    shared = database.read(lambda connection: projects.shared_with(connection, [row.id for row in rows]))
    listed = [
        {
            **_common_json(row),
            "thumbnail_url": f"/backend/api/projects/{row.id}/thumbnail",
            "is_published": bool(row.is_published),
            "shared_with_groups": shared[row.id],
        }
        for row in rows
    ]
    return {"projects": listed, "count": len(listed), "success": True}


@blueprint.get("/recent")
@require_session
def recent() -> tuple[dict[str, Any], int]:
    """The project saved last; 404 when there is none."""
    user_id = current().user_id
    rows = services().database.read(lambda connection: projects.owned_by(connection, user_id, limit=1))
    if not rows:
        return {"message": "No projects yet."}, 404
    return {"project": _saved_json(rows[0])}, 200


@blueprint.get(f"/{_ID}/metadata")
@require_session
def metadata(project_id: int) -> Response:
    """What is known about a project, for its owner, teachers and admins."""
    database, session = services().database, current()
    row = _find(project_id)
    if row.owner_id != session.user_id and not session.is_staff:
        raise ApiError(403, "This project belongs to somebody else.")
    shared = database.read(lambda connection: projects.shared_with(connection, [row.id]))
    fields = {
        **_common_json(row),
        # Always false in the original, and read by its front end as "not shared by a link".
        "is_shared": False,
        "is_published": bool(row.is_published),
        "shared_with_groups": shared[row.id],
        "success": True,
    }
    return _answer(fields, row)


@blueprint.get(f"/{_ID}/download")
@require_session
def download(project_id: int) -> Response:
    """The project file, for its owner, the groups it is shared with, teachers and admins."""
    database, session = services().database, current()
    row = _find(project_id)
    allowed = row.owner_id == session.user_id or session.is_staff
    if not allowed and not database.read(
        lambda connection: projects.is_shared_with_user(connection, row, session.user_id)
    ):
        raise ApiError(403, "This project is not shared with you.")
    response = send_stored(
        row.sb3_file_path, "application/octet-stream", download_name=download_name(row.name, ".sb3"), private=True
    )
    if response is None:
        raise ApiError(404, "The file of this project is missing.")
    response.headers["ETag"] = _etag(row)
    return response


@blueprint.get(f"/{_ID}/thumbnail")
def thumbnail(project_id: int) -> Response:
    """The project's picture, or the school's default one; asked for by <img> tags and therefore without a session."""
    row = _find(project_id)
    response = send_stored(row.thumbnail_path, "image/png") or send_stored("thumbnails/default.png", "image/png")
    if response is None:
        raise ApiError(404, "This project has no thumbnail.")
    # The address stays when the picture changes, so a browser has to ask each time.
    response.headers["Cache-Control"] = "no-cache"
    return response


@blueprint.delete(f"/{_ID}")
@require_session
def delete(project_id: int) -> dict[str, Any]:
    """Delete one's own project."""
    user_id = current().user_id
    _translated(lambda: projects.delete(services().database, project_id, user_id))
    # The original answers with the id as text.
    return {"success": True, "message": "Project deleted.", "id": str(project_id)}


def _find(project_id: int) -> Row[Any]:
    return _translated(lambda: services().database.read(lambda connection: projects.find(connection, project_id)))


def _translated(work: Callable[[], T]) -> T:
    try:
        return work()
    except projects.NotFound:
        raise ApiError(404, "There is no such project.") from None
    except projects.NotOwner:
        raise ApiError(403, "This project belongs to somebody else.") from None
    except projects.Conflict as conflict:
        raise ApiError(
            409,
            "This project was saved from somewhere else in the meantime. Load it again before saving, or save a copy.",
            version=conflict.version,
        ) from None


def _content() -> Content | None:
    """The uploaded project, checked; None when the request carries no file."""
    project = file_part(request, "project_file")
    if project is None:
        return None
    require_project(project)
    # A pupil's work is not refused over its picture: what is no PNG is left out.
    picture = request.files.get("thumbnail")
    thumbnail = cast(IncomingFile, picture.stream) if picture is not None else None
    return Content(project, thumbnail if thumbnail is not None and is_png(thumbnail) else None)


def _title() -> str | None:
    return _checked_title(request.args.get("title"))


def _title_of_json() -> str | None:
    if not request.is_json:
        raise ApiError(400, "The request has neither a project_file nor a JSON body.")
    try:
        body = request.get_json(silent=True)
    except RecursionError:
        # Brackets in brackets without end; the parser gives up, and so do we.
        body = None
    if not isinstance(body, dict) or not body:
        raise ApiError(400, "The JSON body must be an object with at least one field.")
    title = body.get("title")
    if title is not None and not isinstance(title, str):
        raise ApiError(400, "The title must be text.")
    return _title() or _checked_title(title)


def _checked_title(title: str | None) -> str | None:
    if title is None or not title.strip():
        return None
    if len(title) > projects.TITLE_LENGTH:
        raise ApiError(
            400, f"The title is longer than {projects.TITLE_LENGTH} characters; please choose a shorter one."
        )
    # A NUL or half a surrogate pair cannot be stored, and no keyboard types one.
    if "\0" in title or any("\ud800" <= character <= "\udfff" for character in title):
        raise ApiError(400, "The title contains a character that cannot be stored.")
    return title


def _base() -> int | None:
    """The version a save is based on: `version` in query or form, or If-Match; None when the client says nothing."""
    said: set[int] = set()
    for text in (request.args.get("version"), request.form.get("version")):
        if text is not None:
            said.add(_version_number(text))
    header = request.headers.get("If-Match")
    if header is not None and header.strip() != "*":
        said.add(_version_of_etag(header))
    if len(said) > 1:
        raise ApiError(400, "The request names two different versions.")
    return said.pop() if said else None


def _version_number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > _LARGEST_VERSION:
        raise ApiError(400, "The version must be a whole number.")
    return int(text)


def _version_of_etag(header: str) -> int:
    # Proxies that compress answers turn "3" into W/"3". A tag that was never ours matches no version.
    tag = re.fullmatch(r'\s*(?:W/)?"([0-9]{1,9})"\s*', header)
    return int(tag[1]) if tag else 0


def _common_json(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "title": row.name,
        "description": row.description,
        "created_at": isoformat(row.created_at),
        "updated_at": isoformat(row.updated_at),
        "version": row.version,
    }


def _saved_json(row: Row[Any]) -> dict[str, Any]:
    return {**_common_json(row), "success": True}


def _etag(row: Row[Any]) -> str:
    return f'"{row.version}"'


def _answer(fields: dict[str, Any], row: Row[Any]) -> Response:
    response = jsonify(fields)
    response.headers["ETag"] = _etag(row)
    return response
