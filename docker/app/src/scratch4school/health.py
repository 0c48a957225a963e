"""Is the process alive, can it serve, and what did it count."""

import os
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from flask import Blueprint, Response, request
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from . import metrics, schema, users
from .clock import isoformat_utc
from .database import Database, DatabaseUnavailable
from .errors import ApiError
from .services import services

blueprint = Blueprint("health", __name__)


@dataclass(frozen=True)
class _Found:
    """What one look at the database found; `last_login` is None where the schema cannot be relied on."""

    revision: str | None
    last_login: datetime | None
    refuses_writes: bool


@blueprint.get("/healthz")
def alive() -> dict[str, str]:
    """The process answers; it asks nobody else, so that a lost database does not get every process restarted."""
    return {"status": "ok"}


@blueprint.get("/readyz")
def ready() -> tuple[dict[str, Any], int]:
    """Whether a save would succeed: database through the pool, its schema, uploads; 503 names what is wrong.

    It cannot know whether a person could log in, so it tells when one last did: `last_login`.
    """
    available = services()
    problems: list[str] = []
    found = None
    try:
        found = available.database.probe(lambda connection: _look(available.database, connection))
        if not schema.is_acceptable(found.revision):
            problems.append(
                f"schema: the database is at revision {found.revision or 'none'}, "
                f"this release needs {schema.needed()} or newer; run `scratch4school db upgrade`"
            )
        if found.refuses_writes:
            problems.append("database: it can only be read now; a standby or a read-only setting or disk does that")
    except (DatabaseUnavailable, SQLAlchemyError) as error:
        # A database error's own text is for the log of the database; its kind says enough here.
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


def _look(database: Database, connection: Connection) -> _Found:
    revision, last_login = schema.stamped_revision(connection), None
    if schema.is_acceptable(revision):
        connection.execute(sa.text("SELECT 1 FROM projects LIMIT 1"))
        last_login = users.last_login(connection)
    return _Found(revision, last_login, database.refuses_writes(connection))


@blueprint.get("/metrics")
def exposition() -> Response:
    """Prometheus text, for those inside: a request that came through the public proxy finds nothing here."""
    if "X-Forwarded-For" in request.headers:
        raise ApiError(404, "Not found.")
    text = metrics.exposition(os.environ.get("PROMETHEUS_MULTIPROC_DIR"))
    return Response(text, content_type=CONTENT_TYPE_LATEST)
