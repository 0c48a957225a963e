"""SQLAlchemy engines for PostgreSQL and SQLite, with the guarantees that the application needs from both.

With PgBouncer's transaction pooling nothing may outlive a transaction. So the session is never configured: time limits
are set with SET LOCAL, and reads run as single statements without a transaction around them.
"""

import sqlite3
import time
from typing import Any

import psycopg2.extensions
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import NullPool

from ..config import DatabaseSettings

_CONNECT_SECONDS = 5
_BEGIN = "BEGIN; SET LOCAL lock_timeout = '3s'; SET LOCAL statement_timeout = '15s'"
_SQLITE_BUSY_SECONDS = 10
_SQLITE_WAL_PAUSE_SECONDS = 0.02


def make_engine(settings: DatabaseSettings, connections: int | None) -> Engine:
    """An engine with at most `connections` pooled connections; with None it keeps no connection.

    There is no pre-ping. It would cost a round trip for each checkout and still miss a connection that breaks a
    millisecond later. Instead the first error on a dead connection empties the pool, and the unit of work is repeated.
    """
    options: dict[str, Any] = {"hide_parameters": True}
    if connections is None:
        options["poolclass"] = NullPool
    else:
        options.update(pool_size=connections, max_overflow=0, pool_timeout=10)
    if settings.is_sqlite:
        engine = sa.create_engine(settings.url, connect_args={"timeout": _SQLITE_BUSY_SECONDS}, **options)
        _prepare_sqlite(engine)
        return engine
    password = settings.password.reveal() if settings.password else None
    engine = sa.create_engine(
        settings.url.set(password=password),
        connect_args={"connect_timeout": _CONNECT_SECONDS, "application_name": "scratch4school"},
        use_native_hstore=False,
        # Otherwise the driver begins each transaction by a round trip; switching the mode for reads costs another.
        isolation_level="AUTOCOMMIT" if connections is not None else None,
        **options,
    )
    if connections is not None:
        _prepare_postgres(engine)
    return engine


def _prepare_postgres(engine: Engine) -> None:
    """Begin and end transactions by statements of our own, which set the time limits in the same round trip."""

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if not _is_reading(connection):
            connection.exec_driver_sql(_BEGIN)

    @sa.event.listens_for(engine, "commit")
    def commit(connection: Connection) -> None:
        if not _is_reading(connection):
            connection.exec_driver_sql("COMMIT")

    @sa.event.listens_for(engine, "rollback")
    def roll_back(connection: Connection) -> None:
        # On a broken connection ROLLBACK would fail and hide the first error.
        if not _is_reading(connection) and not connection.invalidated:
            connection.exec_driver_sql("ROLLBACK")

    @sa.event.listens_for(engine, "reset")
    def drop_open_transaction(connection: Any, record: Any, _state: object) -> None:
        if not connection.closed and connection.info.transaction_status != psycopg2.extensions.TRANSACTION_STATUS_IDLE:
            record.invalidate()


def _is_reading(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get("without_begin"))


def _prepare_sqlite(engine: Engine) -> None:
    """Give SQLite the guarantees that PostgreSQL has by default."""

    @sa.event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        # The driver would begin transactions deferred. Two readers that both go on to write could then only fail.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        _switch_to_wal(connection)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if not _is_reading(connection):
            connection.exec_driver_sql("BEGIN IMMEDIATE")


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Switch the database file to write-ahead logging, so that readers do not block a writer; the file keeps the mode.

    When several processes switch at once, SQLite refuses all but one immediately, whatever the busy timeout. The reason
    is that each has begun to read the file and now wants to write. So a refused process tries again.
    """
    give_up = time.monotonic() + _SQLITE_BUSY_SECONDS
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(_SQLITE_WAL_PAUSE_SECONDS)
        else:
            return
