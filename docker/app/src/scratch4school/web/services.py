"""The services of the application: `create_app` makes them once, and every request finds them with `services`."""

from dataclasses import dataclass

from flask import current_app

from ..config import Settings
from ..database.database import Database
from ..storage.file_store import FileStore

EXTENSION = "scratch4school"


@dataclass(frozen=True)
class Services:
    """The services that every domain needs; `login.login_services` has those that only logging in needs."""

    settings: Settings
    database: Database
    store: FileStore


def services() -> Services:
    """The services of the application that handles the current request."""
    return current_app.extensions[EXTENSION]  # type: ignore[no-any-return]
