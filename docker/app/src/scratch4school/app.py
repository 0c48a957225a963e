"""The application factory: settings in, a Flask application out; gunicorn calls `create_app` in each worker."""

import os
from typing import Any

from flask import Flask, Request
from flask.sessions import SessionInterface
from werkzeug.routing import IntegerConverter

from . import (
    asset_routes,
    auth,
    backpack_routes,
    config,
    errors,
    health,
    logs,
    metrics,
    project_routes,
    revision_routes,
    sharing_routes,
    teacher_routes,
    users,
)
from .clock import isoformat, utcnow
from .config import Settings
from .database import Database
from .files import INCOMING, FileStore
from .oidc import Provider
from .renewals import Renewals
from .services import Services, services
from .sessions import current, require_session
from .uploads import BODY_LIMIT, UploadRequest

_ROUTES = (
    auth,
    project_routes,
    revision_routes,
    sharing_routes,
    teacher_routes,
    backpack_routes,
    asset_routes,
    health,
)


class _NoCookies(SessionInterface):
    """Flask's own sessions are not used, and not looked for in each request; ours are named in sessions.py."""

    def open_session(self, app: Flask, request: Request) -> None:
        return None


class Application(Flask):
    request_class = UploadRequest
    session_interface = _NoCookies()


class RowId(IntegerConverter):
    """A row's number in an address. More digits would not fit the column, so there can be no such row.

    It is the pattern that says so and not the converter's `max`, which answers 405 instead of 404.
    """

    regex = "[0-9]{1,9}"


def create_app(settings: Settings | None = None) -> Flask:
    """The application; without `settings` they are read from the environment, or the process ends with status 78."""
    if settings is None:
        settings = config.load_or_exit(config.load, os.environ)
        logs.init()
    app = Application(__name__, static_folder=None)
    app.url_map.converters["row_id"] = RowId
    app.secret_key = settings.secret_key.reveal()
    app.config["MAX_CONTENT_LENGTH"] = BODY_LIMIT
    # A save has two file parts and a field or two; each part is a file on disk before anything is checked.
    app.config["MAX_FORM_PARTS"] = 20
    app.json.sort_keys = False  # type: ignore[attr-defined]
    database = Database(settings.database, connections=settings.server.threads)
    provider = Provider(settings.oidc, settings.redirect_uri)
    app.extensions["scratch4school"] = Services(
        settings=settings,
        database=database,
        store=FileStore(settings.uploads),
        provider=provider,
        # The one folder that all processes share, those of both slots.
        renewals=Renewals(database, provider, settings.uploads / INCOMING / "renewals.lock"),
    )
    errors.init_app(app, BODY_LIMIT)
    logs.init_app(app)
    metrics.init_app(app)
    for module in _ROUTES:
        app.register_blueprint(module.blueprint)
    _small_routes(app)
    return app


def _small_routes(app: Flask) -> None:
    @app.get("/api/status")
    def status() -> dict[str, Any]:
        return {"status": "ok", "timestamp": isoformat(utcnow())}

    @app.get("/api/user")
    @require_session
    def user() -> dict[str, Any]:
        session = current()
        return {
            "user": {
                "session_id": session.id,
                "user_id": session.user_id,
                "username": session.username,
                "email": session.email,
                "role": session.role,
            }
        }

    @app.get("/api/groups")
    @require_session
    def groups() -> dict[str, Any]:
        user_id = current().user_id
        found = services().database.read(lambda connection: users.groups_of(connection, user_id))
        return {"groups": [users.group_json(row) for row in found]}
