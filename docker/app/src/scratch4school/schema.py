"""The database's schema: which revision it is at, what an unstamped database is, and how it is brought to the newest.

Migrations talk to PostgreSQL directly. Their advisory lock and their role belong to a session, and sessions do not
survive PgBouncer's transaction pooling.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from .config import DatabaseSettings
from .database import make_engine, retry_reason

BASELINE = "0001"

# Any number will do, as long as every release uses the same one.
_ADVISORY_LOCK = 7_234_205_118
_LOCK_WAIT_SECONDS = 120.0
_LOCK_TIMEOUT = "3s"
_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)

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
_PRIMARY_KEYS = {"user_groups": {"user_id", "group_id"}, "project_groups": {"project_id", "group_id"}}


class SchemaRefused(Exception):
    """The database is not one we know, so nothing is done to it; the message says what is unexpected."""


class LockNotObtained(Exception):
    """Another migration, or a long transaction, was in the way for too long; nothing half-done is left."""


def stamped_revision(connection: Connection) -> str | None:
    """The revision the database says it is at; None when it carries no stamp."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.scalar(sa.text("SELECT version_num FROM alembic_version"))


def head() -> str:
    """The newest revision this release knows."""
    return _revisions()[-1].revision


def is_acceptable(revision: str | None) -> bool:
    """Whether this release can serve with the database at `revision`.

    Newer is fine: schemas grow first and shed later, so a release keeps working on the schema of the one after it,
    which is what makes going back a switch of images. Revision ids are numbers so that "newer" can be asked.
    """
    return revision is not None and revision.isdigit() and int(revision) >= int(head())


def kind(revision: Script) -> str:
    """Whether a revision is an "expand" or a "contract"; each of its modules says so."""
    return str(revision.module.kind)


def recognise(connection: Connection) -> str | None:
    """The revision an unstamped database corresponds to: None when it is empty, else the baseline.

    Recognised by its columns and constraints: the original before its fix, after it, and upgraded in place by its
    start-up code. All three are the baseline to us, and revision 0002 adds to each what it lacks. Anything else is
    SchemaRefused.
    """
    inspector = sa.inspect(connection)
    tables = set(inspector.get_table_names()) - {"alembic_version"}
    if not tables:
        return None
    surprises = [f"the table {name} is missing" for name in sorted(_BASE_COLUMNS.keys() - tables)]
    surprises += [f"there is an unknown table {name}" for name in sorted(tables - _BASE_COLUMNS.keys())]
    for table in sorted(_BASE_COLUMNS.keys() & tables):
        surprises += _surprises(inspector, table)
    if surprises:
        raise SchemaRefused(
            "This database is neither empty, nor stamped by us, nor a Scratch4School database we know: "
            + "; ".join(surprises)
            + "."
        )
    return BASELINE


def _refuse_foreign(revision: str | None) -> None:
    if revision is not None and not revision.isdigit():
        raise SchemaRefused(
            f"The database is stamped with the revision {revision[:40]!r}, which is none of this application's; "
            "another program's migrations ran on it."
        )


def check(settings: DatabaseSettings) -> tuple[str | None, str, bool]:
    """The current revision, the newest, and whether nothing is pending; takes no lock. SchemaRefused if unknown."""
    with _engine(settings) as engine, engine.connect() as connection:
        current = stamped_revision(connection)
        if current is None:
            recognise(connection)
        _refuse_foreign(current)
        return current, head(), is_acceptable(current)


def upgrade(
    settings: DatabaseSettings, say: Callable[[str], None], pause: Callable[[float], None] = time.sleep
) -> None:
    """Bring the database to the newest revision, one transaction for each, telling `say` what happens.

    First the question that takes no lock. Then one migration at a time, under an advisory lock, and each statement
    waits at most three seconds for the tables: a long-running query can delay the migration but never queue the whole
    school behind it. SchemaRefused, LockNotObtained and database errors leave the schema at the last revision said.
    """
    current, newest, done = check(settings)
    if done:
        say(f"The database is at revision {current}; nothing to do (newest known: {newest}).")
        return
    with _engine(settings) as engine, _only_one(engine, pause):
        while (step := _patiently(lambda: _step(engine, settings, say), say, pause)) is not None:
            say(f"Now at revision {step}.")


def _step(engine: Engine, settings: DatabaseSettings, say: Callable[[str], None]) -> str | None:
    """Apply the next pending revision and return it; None at the newest."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
        current = stamped_revision(connection)
        if current is None and (recognised := recognise(connection)) is not None:
            say(f"The database carries no stamp; by its columns and constraints it is at revision {recognised}.")
            command.stamp(_alembic(connection), recognised)
            current = recognised
        _refuse_foreign(current)
        if is_acceptable(current):
            return None
        pending = next(script for script in _revisions() if current is None or script.revision > current)
        say(f"Applying revision {pending.revision} ({kind(pending)}): {pending.doc}")
        command.upgrade(_alembic(connection), pending.revision)
        if engine.dialect.name == "sqlite":
            _refuse_broken_references(connection)
        return pending.revision


def _patiently(
    work: Callable[[], str | None], say: Callable[[str], None], pause: Callable[[float], None]
) -> str | None:
    for seconds in (*_PAUSES, None):
        try:
            return work()
        except DBAPIError as error:
            reason = retry_reason(error)
            if reason in (None, "disconnect"):
                raise
            if seconds is None:
                raise LockNotObtained(
                    "The tables stayed in use for too long. Look for long-running queries and try again."
                ) from error
            say(f"The tables are in use ({reason}); trying again in {seconds:g} s.")
        pause(seconds)
    raise AssertionError("unreachable: the last round returns or raises")


@contextmanager
def _only_one(engine: Engine, pause: Callable[[float], None]) -> Iterator[None]:
    """Hold the advisory lock of migrations; on SQLite each step's own write lock does the same."""
    if engine.dialect.name != "postgresql":
        yield
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        waited = 0.0
        while not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_ADVISORY_LOCK))):
            if waited >= _LOCK_WAIT_SECONDS:
                raise LockNotObtained("Another migration is running and did not end in two minutes.")
            pause(1.0)
            waited += 1.0
        try:
            yield
        finally:
            connection.execute(sa.select(sa.func.pg_advisory_unlock(_ADVISORY_LOCK)))


@contextmanager
def _engine(settings: DatabaseSettings) -> Iterator[Engine]:
    engine = make_engine(settings, connections=None)
    if settings.role is not None and not settings.is_sqlite:
        role = engine.dialect.identifier_preparer.quote(settings.role)

        @sa.event.listens_for(engine, "connect")
        def act_as_owner(connection: Any, _record: object) -> None:
            with connection.cursor() as cursor:
                cursor.execute(f"SET ROLE {role}")
            connection.commit()

    if settings.is_sqlite:
        # Rebuilding a table drops it for a moment, which enforced references would forbid or, worse, follow.
        @sa.event.listens_for(engine, "connect")
        def loosen(connection: Any, _record: object) -> None:
            connection.execute("PRAGMA foreign_keys = OFF")

    try:
        yield engine
    finally:
        engine.dispose()


def _refuse_broken_references(connection: Connection) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if broken:
        tables = ", ".join(sorted({row[0] for row in broken}))
        raise SchemaRefused(f"Rows of {tables} refer to rows that do not exist; nothing was changed.")


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


def _alembic(connection: Connection) -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    configuration.attributes["connection"] = connection
    return configuration


@cache
def _revisions() -> tuple[Script, ...]:
    """All revisions of this release, the oldest first."""
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return tuple(reversed(list(ScriptDirectory.from_config(configuration).walk_revisions())))
