"""Runs Canaille, unchanged, as the lab's identity provider: `provider.py prepare` at build, `serve` at start."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import canaille
import directory
import hypercorn.asyncio
from asgiref.wsgi import WsgiToAsgi
from canaille.backends import Backend
from joserfc.jwk import RSAKey

PREPARED = Path("/srv/idp/directory.sqlite")
SIGNING_KEY = Path("/srv/idp/signing_key.json")
# Every start copies the prepared school, so that sessions and consents of earlier tests are gone.
DATABASE = Path("/tmp/directory.sqlite")
RUN = Path("/run/idp")
PORT = 9443


def settings(database: Path) -> dict:
    """Canaille's configuration on a database."""
    return {
        "SECRET_KEY": secrets.token_urlsafe(32),
        # Makes the issuer `https://ISSUER_HOST`, whatever address a request used.
        "SERVER_NAME": os.environ.get("ISSUER_HOST", f"localhost:{PORT}"),
        "PREFERRED_URL_SCHEME": "https",
        "CANAILLE": {
            "NAME": "Scratch4School lab",
            "DATABASE": "sql",
            "ENABLE_PASSWORD_RECOVERY": False,
            "SMTP": None,
            "LOGGING": {
                "version": 1,
                "formatters": {"line": {"format": "%(levelname)s %(message)s"}},
                "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
                "root": {"level": "INFO", "handlers": ["stderr"]},
            },
        },
        "CANAILLE_SQL": {
            "DATABASE_URI": f"sqlite:///{database}?timeout=30",
            # The password is public (README.md), so a slow hash would only slow the login of a class down.
            "PASSWORD_HASH_PARAMS": {"pbkdf2_sha512__rounds": 1000},
            "AUTO_MIGRATE": False,
        },
        "CANAILLE_OIDC": {
            "ACTIVE_JWKS": [json.loads(SIGNING_KEY.read_text())],
            "TRUSTED_DOMAINS": ["localhost"],
        },
    }


def prepare() -> None:
    """Generate the signing key, and the database with all people."""
    SIGNING_KEY.write_text(json.dumps(RSAKey.generate_key(2048, auto_kid=True).as_dict(private=True)))
    app = canaille.create_app(config=settings(PREPARED), init_backend=True)
    with app.app_context(), Backend.instance.session():
        directory.fill()


def serve() -> None:
    """Register the client with this lab's secret, and answer requests until the process is stopped."""
    shutil.copyfile(PREPARED, DATABASE)
    app = canaille.create_app(config=settings(DATABASE), init_backend=False)
    with app.app_context(), Backend.instance.session():
        directory.register_client(os.environ["CLIENT_ID"], (RUN / "client_secret").read_text().strip())
    canaille_app = app.wsgi_app

    def under_one_name(environ: dict, start_response: Callable) -> Iterable[bytes]:
        # Browsers use localhost, the applications use the address on the lab network. Canaille rejects requests for
        # another name than its own, and a second name would be a second issuer.
        environ["HTTP_HOST"] = app.config["SERVER_NAME"]
        return canaille_app(environ, start_response)

    app.wsgi_app = under_one_name
    server = hypercorn.Config()
    server.bind = [f"0.0.0.0:{PORT}"]
    server.certfile, server.keyfile = str(RUN / "tls.crt"), str(RUN / "tls.key")
    asyncio.run(hypercorn.asyncio.serve(WsgiToAsgi(app), server))


if __name__ == "__main__":
    {"prepare": prepare, "serve": serve}[sys.argv[1]]()
