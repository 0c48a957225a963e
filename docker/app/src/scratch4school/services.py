"""What a request needs and the application owns: made once by the factory, found again from anywhere in a request."""

from dataclasses import dataclass

from flask import current_app

from .config import Settings
from .database import Database
from .files import FileStore
from .oidc import Provider
from .renewals import Renewals


@dataclass(frozen=True)
class Services:
    settings: Settings
    database: Database
    store: FileStore
    provider: Provider
    renewals: Renewals


def services() -> Services:
    """The services of the application that handles the present request."""
    return current_app.extensions["scratch4school"]  # type: ignore[no-any-return]
