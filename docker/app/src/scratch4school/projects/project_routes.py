"""The routes of projects, with the original's requests and answers plus `version` and ETag."""

import shutil
from typing import Any, cast

from flask import Blueprint, Response, request
from sqlalchemy.engine import Row

from ..database.text import is_storable
from ..login.sessions import Session, check, current, require_session, session_id_of
from ..storage.file_store import DEFAULT_THUMBNAIL, IncomingFile
from ..web.downloads import download_name, send_stored
from ..web.errors import ApiError
from ..web.json_body import json_object
from ..web.services import services
from ..web.uploads import file_part
from . import projects, sharing
from .project_file import is_png, require_project
from .project_responses import (
    ID,
    base_version,
    common_json,
    etag,
    find,
    listed_json,
    respond,
    saved_json,
    thumbnail_url,
    translated,
)
from .projects import Content

blueprint = Blueprint("projects", __name__, url_prefix="/api/projects")


@blueprint.get("/can-save")
def can_save() -> dict[str, Any]:
    """Whether a save would be accepted, and from which user; without a valid session it would not."""
    session_id = session_id_of(request)
    session = None
    if session_id is not None:
        try:
            session = check(session_id)
        except ApiError as refusal:
            if refusal.status != 401:
                raise
    return {
        "canSave": session is not None,
        "userId": session.user_id if session else None,
        "username": session.username if session else None,
    }


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
    return respond(saved_json(row), row)


@blueprint.put("")
@require_session
def update_named_in_query() -> Response:
    """Save over the project `id` of the query: the original front end may leave the number out of the path."""
    named = request.args.get("id", "")
    if not (named.isascii() and named.isdigit() and len(named) < 10):
        raise ApiError(400, "The request does not say which project to save over: send it to /api/projects/<id>.")
    return _save(int(named))


@blueprint.put(f"/{ID}")
@require_session
def update(project_id: int) -> Response:
    """Save over a project; 409 when the save names a version that is no longer the current one."""
    return _save(project_id)


@blueprint.get("")
@require_session
def index() -> dict[str, Any]:
    """The user's own projects, the last saved first."""
    database, user_id = services().database, current().user_id
    rows = database.read(lambda connection: projects.owned_by(connection, user_id))
    shared = database.read(lambda connection: sharing.shared_with(connection, [row.id for row in rows]))
    listed = [listed_json(row, shared[row.id]) for row in rows]
    return {"projects": listed, "count": len(listed), "success": True}


@blueprint.get("/recent")
@require_session
def recent() -> tuple[dict[str, Any], int]:
    """The project saved last; 404 when there is none."""
    user_id = current().user_id
    rows = services().database.read(lambda connection: projects.owned_by(connection, user_id, limit=1))
    if not rows:
        return {"message": "No projects yet."}, 404
    return {"project": saved_json(rows[0])}, 200


@blueprint.get(f"/{ID}/metadata")
@require_session
def metadata(project_id: int) -> Response:
    """A project's metadata, for users who may open it; members of a group see only their own groups."""
    database, session = services().database, current()
    row = find(project_id)
    unlimited = row.owner_id == session.user_id or session.is_staff
    _require_open(row, session)
    seen_by = None if unlimited else session.user_id
    shared = database.read(lambda connection: sharing.shared_with(connection, [row.id], seen_by))
    fields = {
        **common_json(row),
        "is_shared": bool(row.is_published),
        "is_published": bool(row.is_published),
        "shared_with_groups": shared[row.id],
        "success": True,
    }
    return respond(fields, row)


@blueprint.get(f"/{ID}/download")
@require_session
def download(project_id: int) -> Response:
    """The project file, for its owner, the groups it is shared with, teachers and admins."""
    row = find(project_id)
    _require_open(row, current())
    response = send_stored(
        row.sb3_file_path, "application/octet-stream", download_name=download_name(row.name, ".sb3"), private=True
    )
    if response is None:
        raise ApiError(404, "The file of this project is missing.")
    response.headers["ETag"] = etag(row)
    return response


@blueprint.get(f"/{ID}/thumbnail")
def thumbnail(project_id: int) -> Response:
    """The project's thumbnail, or the school's default; without a session, because <img> tags ask for it."""
    row = find(project_id)
    response = send_stored(row.thumbnail_path, "image/png") or send_stored(DEFAULT_THUMBNAIL, "image/png")
    if response is None:
        raise ApiError(404, "This project has no thumbnail.")
    # A new thumbnail has the same address, so a browser must ask each time.
    response.headers["Cache-Control"] = "no-cache"
    return response


@blueprint.post(f"/{ID}/thumbnail")
@require_session
def set_thumbnail(project_id: int) -> Response:
    """Replace the thumbnail of the user's own project: a PNG as a file part or as the whole body. The version stays."""
    available, user_id = services(), current().user_id
    with available.store.receive() as body:
        picture = file_part(request, "thumbnail") or file_part(request, "file")
        if picture is None:
            shutil.copyfileobj(request.stream, body)
            picture = body
        if not is_png(picture):
            raise ApiError(400, "The thumbnail is not a PNG picture.")
        row = translated(
            lambda: projects.set_thumbnail(available.database, available.store, project_id, user_id, picture)
        )
    return respond({"success": True, "id": row.id, "thumbnail_url": thumbnail_url(row.id)}, row)


@blueprint.delete(f"/{ID}")
@require_session
def delete(project_id: int) -> dict[str, Any]:
    """Delete the user's own project."""
    user_id = current().user_id
    translated(lambda: projects.delete(services().database, project_id, user_id))
    # The original answers with the id as text.
    return {"success": True, "message": "Project deleted.", "id": str(project_id)}


def _require_open(row: Row[Any], session: Session) -> None:
    """ApiError 403 unless the user owns the project, is staff, or is in a group that it is shared with."""
    if row.owner_id == session.user_id or session.is_staff:
        return
    if not services().database.read(lambda connection: sharing.is_shared_with(connection, row, session.user_id)):
        raise ApiError(403, "This project is not shared with you.")


def _save(project_id: int) -> Response:
    available, user_id = services(), current().user_id
    base = base_version()
    content = _content()

    def work() -> Row[Any]:
        if content is None:
            find(project_id)
            return projects.retitle(available.database, project_id, user_id, _title_of_json(), base)
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

    row = translated(work)
    return respond(saved_json(row), row)


def _content() -> Content | None:
    """The uploaded project, checked; None when the request carries no file."""
    project = file_part(request, "project_file")
    if project is None:
        return None
    require_project(project)
    # A bad thumbnail must not fail the save: one that is no PNG is left out.
    picture = request.files.get("thumbnail")
    thumbnail = cast(IncomingFile, picture.stream) if picture is not None else None
    return Content(project, thumbnail if thumbnail is not None and is_png(thumbnail) else None)


def _title() -> str | None:
    return _checked_title(request.args.get("title"))


def _title_of_json() -> str | None:
    if not request.is_json:
        raise ApiError(400, "The request has neither a project_file nor a JSON body.")
    body = json_object()
    if not body:
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
    if not is_storable(title):
        raise ApiError(400, "The title contains a character that cannot be stored.")
    return title
