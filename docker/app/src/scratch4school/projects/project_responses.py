"""Shared by the routes of projects: the version that a request is based on, the JSON of answers, and of errors."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

from flask import Response, jsonify, request
from sqlalchemy.engine import Row

from ..clock import isoformat
from ..web.errors import ApiError
from ..web.services import services
from . import projects, sharing

T = TypeVar("T")

ID = "<row_id:project_id>"
_MAX_VERSION = 2147483647


def find(project_id: int) -> Row[Any]:
    """The project's row, or ApiError 404."""
    database = services().database
    return translated(lambda: database.read(lambda connection: projects.find(connection, project_id)))


def translated(work: Callable[[], T]) -> T:
    """The result of `work`; exceptions of projects and sharing become ApiError 403, 404 or 409."""
    try:
        return work()
    except projects.NotFound:
        raise ApiError(404, "There is no such project.") from None
    except projects.FileMissing:
        raise ApiError(404, "The file of this project is missing.") from None
    except projects.NotOwner:
        raise ApiError(403, "This project belongs to another user.") from None
    except sharing.NotShared:
        raise ApiError(403, "This project is not shared with you.") from None
    except projects.Conflict as conflict:
        current = conflict.current
        raise ApiError(
            409,
            "This project was saved from somewhere else in the meantime. Load it again before saving, or save a copy.",
            version=current.version,
            based_on=conflict.base,
            updated_at=isoformat(current.updated_at),
            size=current.size,
            sha256=current.sha256,
            revisions_url=f"/backend/api/projects/{current.id}/revisions",
        ) from None


def base_version() -> int | None:
    """The version that a save is based on: `version` in query or form, or If-Match; None when the client names none."""
    named: set[int] = set()
    for text in (request.args.get("version"), request.form.get("version")):
        if text is not None:
            named.add(_version_number(text))
    header = request.headers.get("If-Match")
    if header is not None and header.strip() != "*":
        named.add(_version_of_etag(header))
    if len(named) > 1:
        raise ApiError(400, "The request names two different versions.")
    return named.pop() if named else None


def common_json(row: Row[Any]) -> dict[str, Any]:
    """The fields of every answer about a project."""
    return {
        "id": row.id,
        "title": row.name,
        "description": row.description,
        "created_at": isoformat(row.created_at),
        "updated_at": isoformat(row.updated_at),
        "version": row.version,
    }


def saved_json(row: Row[Any]) -> dict[str, Any]:
    """The answer to a save."""
    return {**common_json(row), "success": True}


def listed_json(row: Row[Any], shared_with: list[dict[str, Any]]) -> dict[str, Any]:
    """A project in a list."""
    return {
        **common_json(row),
        "thumbnail_url": thumbnail_url(row.id),
        "is_published": bool(row.is_published),
        "shared_with_groups": shared_with,
    }


def thumbnail_url(project_id: int) -> str:
    """The address of a project's thumbnail."""
    return f"/backend/api/projects/{project_id}/thumbnail"


def etag(row: Row[Any]) -> str:
    """The version as an entity tag."""
    return f'"{row.version}"'


def respond(fields: dict[str, Any], row: Row[Any], status: int = 200) -> Response:
    """A response with `fields` as JSON and the project's version as ETag."""
    response = jsonify(fields)
    response.status_code = status
    response.headers["ETag"] = etag(row)
    return response


def _version_number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > _MAX_VERSION:
        raise ApiError(400, "The version must be a whole number.")
    return int(text)


def _version_of_etag(header: str) -> int:
    # Proxies that compress answers turn "3" into W/"3". A foreign tag becomes 0, which is no version.
    tag = re.fullmatch(r'\s*(?:W/)?"([0-9]{1,9})"\s*', header)
    return int(tag[1]) if tag else 0
