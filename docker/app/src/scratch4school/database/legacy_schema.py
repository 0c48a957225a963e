"""Recognising a database without an Alembic revision: empty, one of the original, or unknown and refused."""

import sqlalchemy as sa
from sqlalchemy.engine import Connection

BASELINE = "0001"

_BASE_COLUMNS: dict[str, set[str]] = {
    "users": {"id", "username", "email", "role", "created_at", "last_login", "user_data"},
    "groups": {"id", "name", "external_id", "description", "created_at"},
    "user_groups": {"user_id", "group_id", "joined_at"},
    "oauth_sessions": {"id", "user_id", "access_token", "refresh_token", "expires_at", "created_at", "last_accessed"},
    "projects": {
        "id",
        "name",
        "description",
        "sb3_file_path",
        "thumbnail_path",
        "owner_id",
        "created_at",
        "updated_at",
        "is_published",
    },
    "project_groups": {"project_id", "group_id", "published_at"},
    "assets": {"id", "asset_id", "asset_type", "data_format", "size", "md5", "owner_id", "file_path", "created_at"},
    "backpack_items": {"id", "type", "name", "mime", "body", "thumbnail", "owner_id", "created_at", "updated_at"},
}
TABLES = frozenset(_BASE_COLUMNS)
# The original's table since it replaced personal projects by collaborative ones.
_LATER = "collaborative_projects"
_PRIMARY_KEYS = {"user_groups": {"user_id", "group_id"}, "project_groups": {"project_id", "group_id"}}


class SchemaRefused(Exception):
    """The database is unknown, or cannot be upgraded; nothing is changed, and the message says why."""


def recognise(connection: Connection) -> str | None:
    """The revision that a database without an Alembic revision corresponds to: the baseline, or None if it is empty.

    It knows three schemas by their columns and constraints: the original before its fix, after it, and upgraded in
    place by its start-up code. All three count as the baseline, and revision 0002 adds what each lacks. SchemaRefused
    for any other.
    """
    inspector = sa.inspect(connection)
    tables = set(inspector.get_table_names()) - {"alembic_version"}
    if not tables:
        return None
    if _LATER in tables:
        raise SchemaRefused(
            f"This is a database of the original since it has collaborative projects (there is a table {_LATER}). Only "
            "its personal projects, as they were until November 2025, are known here, so nothing was changed."
        )
    surprises = [f"the table {name} is missing" for name in sorted(_BASE_COLUMNS.keys() - tables)]
    surprises += [f"there is an unknown table {name}" for name in sorted(tables - _BASE_COLUMNS.keys())]
    for table in sorted(_BASE_COLUMNS.keys() & tables):
        surprises += _surprises(inspector, table)
    if surprises:
        raise SchemaRefused(
            "This database is not empty, has no Alembic revision, and is no known Scratch4School database: "
            + "; ".join(surprises)
            + "."
        )
    return BASELINE


def _surprises(inspector: sa.Inspector, table: str) -> list[str]:
    columns = {column["name"] for column in inspector.get_columns(table)}
    expected = _BASE_COLUMNS[table] | ({"version"} & columns if table == "projects" else set())
    found = [f"{table}.{name} is missing" for name in sorted(expected - columns)]
    found += [f"there is an unknown column {table}.{name}" for name in sorted(columns - expected)]
    key = set(inspector.get_pk_constraint(table)["constrained_columns"])
    if key != _PRIMARY_KEYS.get(table, {"id"}):
        found.append(f"the primary key of {table} is ({', '.join(sorted(key)) or 'none'})")
    unique = {tuple(item["column_names"]) for item in inspector.get_unique_constraints(table)}
    if table == "groups" and ("external_id",) not in unique:
        found.append("groups.external_id is not unique")
    if table == "assets" and ("asset_id",) not in unique:
        found.append("assets.asset_id is not unique")
    return found


def shape(connection: Connection) -> str:
    """Which of the original's three schemas a recognised database has, in words."""
    inspector = sa.inspect(connection)
    version = next((column for column in inspector.get_columns("projects") if column["name"] == "version"), None)
    if version is None:
        return "the original's, before its fix"
    if version["default"] is None:
        return "the original's, made after its fix"
    return "the original's, from before its fix and upgraded in place"
