"""The routes of health and metrics: is the process alive, can it save, and what has it counted."""

import os
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from flask import Blueprint, Response, request
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from ..clock import isoformat, isoformat_utc, utcnow
from ..database import schema
from ..database.database import Database, DatabaseUnavailable
from ..monitoring import metrics
from ..people import users
from ..web.errors import ApiError
from ..web.services import services

blueprint = Blueprint("health", __name__)


@dataclass(frozen=True)
class _Found:
    """The result of one read of the database; `last_login` is None if the schema is not one that this release knows."""

    revision: str | None
    last_login: datetime | None
    refuses_writes: bool


@blueprint.get("/api/status")
def status() -> dict[str, Any]:
    """Alive, for the front end."""
    return {"status": "ok", "timestamp": isoformat(utcnow())}


@blueprint.get("/healthz")
def alive() -> dict[str, str]:
    """Alive. It does not ask the database, so that a lost database does not get every process restarted."""
    return {"status": "ok"}


@blueprint.get("/readyz")
def ready() -> tuple[dict[str, Any], int]:
    """Whether a save would succeed: database through the pool, its schema, uploads. 503 names what is wrong.

    It cannot know whether people can log in, so it reports in `last_login` when a person last did.
    """
    available = services()
    problems: list[str] = []
    found = None
    try:
        found = available.database.probe(lambda connection: _read(available.database, connection))
        if not schema.is_acceptable(found.revision):
            problems.append(
                f"schema: the database is at revision {found.revision or 'none'}, "
                f"this release needs {schema.needed()} or newer; run `scratch4school db upgrade`"
            )
        if found.refuses_writes:
            problems.append("database: it can only be read now; a standby or a read-only setting or disk does that")
    except (DatabaseUnavailable, SQLAlchemyError) as error:
        # The database's own log has the error's text; its type is enough here.
        problems.append(f"database: {type(error).__name__}")
    try:
        available.store.check_writable()
    except OSError as error:
        problems.append(f"uploads: {error.strerror or 'not writable'}")
    answer = {
        "release": available.settings.release,
        "schema": found.revision if found else None,
        "last_login": isoformat_utc(found.last_login) if found else None,
    }
    if problems:
        return {**answer, "status": "not ready", "error": "; ".join(problems), "problems": problems}, 503
    return {**answer, "status": "ready"}, 200


def _read(database: Database, connection: Connection) -> _Found:
    revision, last_login = schema.current_revision(connection), None
    if schema.is_acceptable(revision):
        connection.execute(sa.text("SELECT 1 FROM projects LIMIT 1"))
        last_login = users.last_login(connection)
    return _Found(revision, last_login, database.refuses_writes(connection))


@blueprint.get("/metrics")
def exposition() -> Response:
    """The metrics as Prometheus text, only from inside; a request through the public proxy gets 404."""
    if "X-Forwarded-For" in request.headers:
        raise ApiError(404, "Not found.")
    text = metrics.exposition(os.environ.get("PROMETHEUS_MULTIPROC_DIR"))
    return Response(text, content_type=CONTENT_TYPE_LATEST)
