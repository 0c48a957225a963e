"""The services that only logging in needs: the identity provider, and the refresh of its tokens."""

from dataclasses import dataclass

from flask import current_app

from .oidc import Provider
from .token_refresh import TokenRefresh

EXTENSION = "scratch4school.login"


@dataclass(frozen=True)
class LoginServices:
    provider: Provider
    token_refresh: TokenRefresh


def login_services() -> LoginServices:
    """The login services of the application that handles the current request."""
    return current_app.extensions[EXTENSION]  # type: ignore[no-any-return]
