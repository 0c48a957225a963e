"""The routes of a project's saved versions: for its owner, and for teachers and admins, who help to restore work."""

from typing import Any

from flask import Blueprint, Response
from sqlalchemy.engine import Row

from ..clock import isoformat
from ..login.sessions import current, require_session
from ..web.downloads import download_name, send_stored
from ..web.errors import ApiError
from ..web.services import services
from . import saved_versions
from .project_responses import ID, base_version, find, respond, saved_json, translated

blueprint = Blueprint("saved_versions", __name__, url_prefix=f"/api/projects/{ID}/revisions")

_VERSION = "<row_id:version>"


@blueprint.get("")
@require_session
def index(project_id: int) -> Response:
    """The saved versions of a project, the newest first."""
    project = _find(project_id)
    versions = services().database.read(lambda connection: saved_versions.of_project(connection, project_id))
    # A restored version names the file of the one it restored; the later of the two is the current content.
    current_version = next((row.version for row in versions if row.file_path == project.sb3_file_path), None)
    fields = {
        "project_id": project.id,
        "version": project.version,
        "revisions": [_json(project.id, row, row.version == current_version) for row in versions],
        "count": len(versions),
        "success": True,
    }
    return respond(fields, project)


@blueprint.get(f"/{_VERSION}/download")
@require_session
def download(project_id: int, version: int) -> Response:
    """The project file of a saved version."""
    project = _find(project_id)
    versions = services().database.read(lambda connection: saved_versions.of_project(connection, project_id))
    found = next((row for row in versions if row.version == version), None)
    if found is None:
        raise _not_found(version)
    name = download_name(f"{project.name}-v{version}", ".sb3")
    response = send_stored(found.file_path, "application/octet-stream", download_name=name, private=True)
    if response is None:
        raise ApiError(404, "The file of this version is missing.")
    return response


@blueprint.post(f"/{_VERSION}/restore")
@require_session
def restore(project_id: int, version: int) -> Response:
    """Restore a saved version as a new version; answers as a save does, also with 409 when its base is stale."""
    _find(project_id)
    available, user_id, base = services(), current().user_id, base_version()

    def work() -> Row[Any]:
        try:
            return saved_versions.restore(
                available.database,
                available.store,
                project_id,
                version,
                user_id,
                base,
                available.settings.keep_revisions,
            )
        except saved_versions.VersionNotFound:
            raise _not_found(version) from None

    row = translated(work)
    return respond(saved_json(row), row)


def _find(project_id: int) -> Row[Any]:
    session = current()
    project = find(project_id)
    if project.owner_id != session.user_id and not session.is_staff:
        raise ApiError(403, "Only the owner of a project, teachers and admins see its saved versions.")
    return project


def _not_found(version: int) -> ApiError:
    return ApiError(404, f"This project has no saved version {version}; its list of revisions names those that exist.")


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
