"""The routes of a project's kept versions: for its owner, and for teachers and admins, who help when work is lost."""

from typing import Any

from flask import Blueprint, Response
from sqlalchemy.engine import Row

from . import revisions
from .clock import isoformat
from .errors import ApiError
from .files import download_name
from .project_answers import ID, answer, base_version, find, saved_json, translated
from .sending import send_stored
from .services import services
from .sessions import current, require_session

blueprint = Blueprint("revisions", __name__, url_prefix=f"/api/projects/{ID}/revisions")

_VERSION = "<row_id:version>"


@blueprint.get("")
@require_session
def index(project_id: int) -> Response:
    """The kept versions of a project, the newest first."""
    project = _find(project_id)
    versions = services().database.read(lambda connection: revisions.kept(connection, project_id))
    # A restored version names the file of the one it restored; the later of the two is what the project holds now.
    current_version = next((row.version for row in versions if row.file_path == project.sb3_file_path), None)
    fields = {
        "project_id": project.id,
        "version": project.version,
        "revisions": [_json(project.id, row, row.version == current_version) for row in versions],
        "count": len(versions),
        "success": True,
    }
    return answer(fields, project)


@blueprint.get(f"/{_VERSION}/download")
@require_session
def download(project_id: int, version: int) -> Response:
    """The project file as it was in a kept version."""
    project = _find(project_id)
    versions = services().database.read(lambda connection: revisions.kept(connection, project_id))
    wanted = next((row for row in versions if row.version == version), None)
    if wanted is None:
        raise _not_kept(version)
    name = download_name(f"{project.name}-v{version}", ".sb3")
    response = send_stored(wanted.file_path, "application/octet-stream", download_name=name, private=True)
    if response is None:
        raise ApiError(404, "The file of this version is missing.")
    return response


@blueprint.post(f"/{_VERSION}/restore")
@require_session
def restore(project_id: int, version: int) -> Response:
    """Put a kept version back, as a new version; answers as a save does, also with 409 when its base is stale."""
    _find(project_id)
    available, user_id, base = services(), current().user_id, base_version()

    def work() -> Row[Any]:
        try:
            return revisions.restore(
                available.database,
                available.store,
                project_id,
                version,
                user_id,
                base,
                available.settings.keep_revisions,
            )
        except revisions.NotKept:
            raise _not_kept(version) from None

    row = translated(work)
    return answer(saved_json(row), row)


def _find(project_id: int) -> Row[Any]:
    session = current()
    project = find(project_id)
    if project.owner_id != session.user_id and not session.is_staff:
        raise ApiError(403, "Only the owner of a project, teachers and admins see its former versions.")
    return project


def _not_kept(version: int) -> ApiError:
    return ApiError(404, f"Version {version} of this project is not kept; ask for its revisions to see which are.")


def _json(project_id: int, row: Row[Any], is_current: bool) -> dict[str, Any]:
    return {
        "version": row.version,
        "size": row.size,
        "sha256": row.sha256,
        "saved_by": {"id": row.saved_by, "username": row.saved_by_name},
        "created_at": isoformat(row.created_at),
        "is_current": is_current,
        "download_url": f"/backend/api/projects/{project_id}/revisions/{row.version}/download",
    }
