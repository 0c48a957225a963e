"""The application factory: it makes a Flask application from the settings; gunicorn calls it in each worker."""

import os

from flask import Flask, Request
from flask.sessions import SessionInterface
from werkzeug.routing import IntegerConverter

from . import config
from .assets import asset_routes
from .backpack import backpack_routes
from .config import Settings
from .database.database import Database
from .login import login_routes, login_services
from .login.login_services import LoginServices
from .login.oidc import Provider
from .login.token_refresh import TokenRefresh
from .monitoring import logs, request_metrics
from .operations import health_routes
from .people import teacher_routes, user_routes
from .projects import project_routes, saved_version_routes, sharing_routes
from .storage.file_store import INCOMING, FileStore
from .web import errors, services
from .web.services import Services
from .web.uploads import BODY_LIMIT, UploadRequest

_ROUTES = (
    login_routes,
    user_routes,
    project_routes,
    saved_version_routes,
    sharing_routes,
    teacher_routes,
    backpack_routes,
    asset_routes,
    health_routes,
)


class _NoCookies(SessionInterface):
    """Turns Flask's own sessions off; ours are in login/sessions.py."""

    def open_session(self, app: Flask, request: Request) -> None:
        return None


class Application(Flask):
    request_class = UploadRequest
    session_interface = _NoCookies()


class RowId(IntegerConverter):
    """A row's number in an address. A number with more digits does not fit the column, so no row has it.

    The pattern says so instead of the converter's `max`, which would answer 405 instead of 404.
    """

    regex = "[0-9]{1,9}"


def create_app(settings: Settings | None = None) -> Flask:
    """The application. Without `settings` it reads them from the environment, or ends the process with status 78."""
    if settings is None:
        settings = config.load_or_exit(config.load, os.environ)
        logs.init()
    app = Application(__name__, static_folder=None)
    app.url_map.converters["row_id"] = RowId
    app.secret_key = settings.secret_key.reveal()
    app.config["MAX_CONTENT_LENGTH"] = BODY_LIMIT
    # A save has two file parts and one or two fields. Each part becomes a file on disk before any check.
    app.config["MAX_FORM_PARTS"] = 20
    app.json.sort_keys = False  # type: ignore[attr-defined]
    database = Database(settings.database, connections=settings.server.threads)
    provider = Provider(settings.oidc, settings.redirect_uri)
    app.extensions[services.EXTENSION] = Services(
        settings=settings, database=database, store=FileStore(settings.uploads)
    )
    app.extensions[login_services.EXTENSION] = LoginServices(
        provider=provider,
        # The processes of both slots share this folder.
        token_refresh=TokenRefresh(database, provider, settings.uploads / INCOMING / "token_refresh.lock"),
    )
    errors.init_app(app, BODY_LIMIT)
    logs.init_app(app)
    request_metrics.init_app(app)
    for module in _ROUTES:
        app.register_blueprint(module.blueprint)
    return app
