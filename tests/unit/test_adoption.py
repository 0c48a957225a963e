"""The compose file of an existing installation: where its database and files are, and its settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

COMPOSE = """
services:
  postgres:
    image: postgres:15-alpine
  backend:
    env_file: backend.env
    environment:
      - DATABASE_URI=postgresql://scratch:${DB_PASSWORD}@postgres:5432/scratch
      - OAUTH_CLIENT_ID=scratch-client
      - FRONTEND_URL=https://scratch.schule.example/
      - ROLE_TEACHER=${ROLE_TEACHER:-lehrer}
    volumes:
      - ./data/uploads:/app/uploads
      - ./data/db:/app/db
"""


def test_compose_file_is_read(filters: dict[str, Callable[..., Any]]) -> None:
    """Database, files, settings and the client's secret, with variables and files of variables."""
    files = filters["compose_files"](COMPOSE, "/srv/scratch")
    assert files == ["/srv/scratch/.env", "/srv/scratch/backend.env"]
    contents = {files[0]: "DB_PASSWORD='p:w'\n", files[1]: "OAUTH_CLIENT_SECRET=ganz geheim\n# nothing\n"}
    old = filters["compose_source"](COMPOSE, "/srv/scratch", contents)
    assert old["database"] == "postgresql://scratch:p:w@postgres:5432/scratch"
    assert old["uploads"] == "/srv/scratch/data/uploads"
    assert old["settings"] == {
        "app_oidc_client_id": "scratch-client",
        "app_oidc_client_secret": "ganz geheim",
        "app_role_teacher": "lehrer",
        "scratch4school_url": "https://scratch.schule.example",
    }
    here = {"app_oidc_client_id": "another", "app_role_teacher": "lehrer"}
    assert filters["settings_that_differ"](old["settings"], here) == [
        "app_oidc_client_id",
        "app_oidc_client_secret",
        "scratch4school_url",
    ]


def test_compose_file_with_sqlite_or_a_volume_is_read(filters: dict[str, Callable[..., Any]]) -> None:
    """Without an address the original has a file of its own; the path of a volume only Docker knows."""
    plain = COMPOSE.replace("      - DATABASE_URI=postgresql://scratch:${DB_PASSWORD}@postgres:5432/scratch\n", "")
    old = filters["compose_source"](plain, "/srv/scratch", {})
    assert old["database"] == "/srv/scratch/data/db/main.db"
    named = filters["compose_source"](plain.replace("./data/uploads", "uploads"), "/srv/scratch", {})
    assert (named["uploads"], "volume uploads" in named["note"]) == ("", True)
    home = filters["compose_source"](plain.replace("./data/uploads", "~/uploads"), "/srv/scratch", {})
    assert (home["uploads"], "a user's home" in home["note"]) == ("", True)
    assert "another program." in filters["compose_source"]("services: {web: {image: nginx}}", "/srv", {})["note"]


@pytest.mark.parametrize(
    ("address", "without", "line"),
    [
        (
            "postgresql://scratch:ab/cd+ef=#?@db:5432/scratch",
            "postgresql://scratch@db:5432/scratch",
            "*:*:*:*:ab/cd+ef=#?",
        ),
        ("postgresql://a:b%40c@h:5433/d", "postgresql://a@h:5433/d", "*:*:*:*:b@c"),
        ("postgresql+psycopg2://a:b:c@h/d", "postgresql://a@h/d", "*:*:*:*:b\\:c"),
        ("postgresql://a@h/d", "postgresql://a@h/d", "*:*:*:*:"),
        ("/srv/db/main.db", "/srv/db/main.db", "*:*:*:*:"),
    ],
)
def test_password_is_taken_out_of_an_address(
    filters: dict[str, Callable[..., Any]], address: str, without: str, line: str
) -> None:
    """It is in no list of settings, and escaped as PostgreSQL's programs read it."""
    assert filters["without_password"](address) == without
    assert filters["pgpass_line"](address) == line
