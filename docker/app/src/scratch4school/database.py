"""The way to the database: one engine, and units of work that are repeated when the database asks for it.

Through PgBouncer's transaction pooling nothing may outlive a transaction, so the session is never configured: time
limits are set with SET LOCAL, and reads run as single statements without a transaction around them.
"""

import logging
import os
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psycopg2.extensions
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import NullPool

from . import metrics
from .config import DatabaseSettings
from .single_flight import NoAnswer, SingleFlight

T = TypeVar("T")
Work = Callable[[Connection], T]

# Serialization failure, deadlock, lock timeout: the transaction was undone and may simply be tried again.
_CONTENTION_CODES = {"40001": "serialization", "40P01": "deadlock", "55P03": "lock_timeout"}
_CONTENTION_ATTEMPTS = 8
# Each attempt may itself have waited for a lock for seconds, so their number alone would not bound the request.
_CONTENTION_SECONDS = 20.0
# A restarting pooler or server is back within two seconds, on a busy machine within five; a request waits twice that
# long rather than fail. A pupil whose save waits for ten seconds has saved, one who was sent away may not come back.
_RECONNECT_SECONDS = 10.0
# Whoever probes gives up after five seconds and has others to ask; a connection that died unnoticed is worth a retry.
_PROBE_SECONDS = 1.0
_PROBE_RECONNECT_SECONDS = 0.5
_SQLITE_BUSY_SECONDS = 10
_SQLITE_WAL_PAUSE_SECONDS = 0.02
_SQLITE_OUT_OF_SERVICE = (
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
)
_CONNECT_SECONDS = 5
_BEGIN = "BEGIN; SET LOCAL lock_timeout = '3s'; SET LOCAL statement_timeout = '15s'"

log = logging.getLogger(__name__)


class DatabaseUnavailable(Exception):
    """The database could not be reached, or stayed too busy; nothing was written."""


class CommitUnknown(DatabaseUnavailable):
    """The connection broke while committing: the work may or may not have been written."""


class Database:
    """An engine and the two ways to use it: `read` and `write`."""

    def __init__(self, settings: DatabaseSettings, connections: int) -> None:
        """`connections` is the most this process ever opens: one per thread, so that no thread waits for another."""
        self.engine = make_engine(settings, connections)
        self.is_sqlite = settings.is_sqlite
        # Both share the pool. Reading without a transaction saves BEGIN and ROLLBACK, two of three round trips.
        self._reading = self.engine.execution_options(without_begin=True)
        self._probes: SingleFlight[Any] = SingleFlight(_PROBE_SECONDS)

    def read(self, work: Work[T], patience: float | None = None) -> T:
        """The result of `work`, whose statements only read; DatabaseUnavailable when there is no answer to be had.

        A database that is away is tried again for `patience` seconds, or for as long as a person would wait.
        """

        def attempt() -> T:
            with _connection(self._reading) as connection:
                return work(connection)

        return self._persist(attempt, patience)

    def write(self, work: Work[T]) -> T:
        """The result of `work` once it is committed.

        `work` may run several times and must therefore do nothing but talk to the database. Raises CommitUnknown when
        the commit was sent and its answer lost, DatabaseUnavailable when nothing was written.
        """

        def attempt() -> T:
            with _connection(self.engine) as connection, connection.begin() as transaction:
                result = work(connection)
                self._commit(transaction)
                return result

        return self._persist(attempt)

    def probe(self, work: Work[T]) -> T:
        """What `read` does, for those who ask every few seconds: after a second at most, else DatabaseUnavailable.

        A pooler without a server takes a question and keeps it for a while. One probe at a time waits for that, and
        the others are told so at once, or they would come to hold all connections of the process.
        """
        try:
            return self._probes.call("probe", lambda: self.read(work, _PROBE_RECONNECT_SECONDS))
        except NoAnswer as error:
            raise DatabaseUnavailable(str(error)) from error

    def refuses_writes(self, connection: Connection) -> bool:
        """Whether the database only lets itself be read now: a standby, a server set read-only, a file of others."""
        if not self.is_sqlite:
            return connection.scalar(sa.text("SELECT current_setting('transaction_read_only')")) == "on"
        file = Path(self.engine.url.database or "")
        return not all(os.access(path, os.W_OK, effective_ids=True) for path in (file, file.parent))

    def insert(self, table: sa.Table) -> Any:
        """An INSERT of this database's dialect, which knows ON CONFLICT."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def dispose(self) -> None:
        self.engine.dispose()

    def _commit(self, transaction: sa.RootTransaction) -> None:
        try:
            transaction.commit()
        except DBAPIError as error:
            # SQLite after an input or output error: what was written to the log may turn up after a crash, or may not.
            if _is_disconnect(error) or _sqlite_code(error) == sqlite3.SQLITE_IOERR:
                raise CommitUnknown("the connection broke while committing") from error
            raise

    def _persist(self, attempt: Callable[[], T], patience: float | None = None) -> T:
        """Repeat `attempt` with growing, jittered pauses as long as the database says that this helps."""
        started = time.monotonic()
        reconnect_seconds = _RECONNECT_SECONDS if patience is None else patience
        tries = 0
        while True:
            tries += 1
            try:
                return attempt()
            except PoolTimeoutError as error:
                metrics.UNAVAILABLE.inc()
                raise DatabaseUnavailable("no connection became free") from error
            except CommitUnknown:
                metrics.UNAVAILABLE.inc()
                raise
            except DBAPIError as error:
                reason = retry_reason(error)
                if reason is None:
                    if _is_out_of_service(error):
                        metrics.UNAVAILABLE.inc()
                        raise DatabaseUnavailable("the database cannot do this now") from error
                    raise
                limit = reconnect_seconds if reason == "disconnect" else _CONTENTION_SECONDS
                exhausted = time.monotonic() - started > limit
                exhausted |= reason != "disconnect" and tries >= _CONTENTION_ATTEMPTS
                if exhausted:
                    metrics.UNAVAILABLE.inc()
                    log.warning("database gave up", extra={"reason": reason, "tries": tries})
                    raise DatabaseUnavailable(f"the database did not answer ({reason})") from error
                metrics.RETRIES.labels(reason).inc()
            # The jitter keeps the losers of one collision from meeting again at the next.
            time.sleep(random.uniform(0.2, 1.0) * min(0.5, 0.01 * 2**tries))  # noqa: S311


def _connection(engine: Engine) -> Connection:
    """A connection of the pool, whose wait for it is counted whether it came or not."""
    with metrics.POOL_WAIT_SECONDS.time():
        return engine.connect()


def make_engine(settings: DatabaseSettings, connections: int | None) -> Engine:
    """An engine with at most `connections` pooled connections, or with none kept when None.

    There is no pre-ping: it would cost a round trip on every checkout and still miss a connection that breaks a
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
        # The driver would begin each transaction with a round trip of its own, and switching it for reads costs too.
        isolation_level="AUTOCOMMIT" if connections is not None else None,
        **options,
    )
    if connections is not None:
        _prepare_postgres(engine)
    return engine


def retry_reason(error: DBAPIError) -> str | None:
    """Why trying again may help: a name for the metrics, or None when it would not."""
    if _is_disconnect(error):
        return "disconnect"
    code = getattr(error.orig, "pgcode", None)
    if code in _CONTENTION_CODES:
        return _CONTENTION_CODES[code]
    if isinstance(error.orig, sqlite3.OperationalError) and "locked" in str(error.orig):
        return "sqlite_busy"
    return None


def _is_out_of_service(error: DBAPIError) -> bool:
    """It is there and cannot do this now: cancelled after its time limit, read-only, out of disk or memory."""
    if isinstance(error.orig, sqlite3.Error):
        return _sqlite_code(error) in _SQLITE_OUT_OF_SERVICE
    code = getattr(error.orig, "pgcode", None) or ""
    return code in ("57014", "25006") or code.startswith("53")


def _sqlite_code(error: DBAPIError) -> int:
    """SQLite's primary result code; its extended ones say in the higher bits what exactly happened."""
    return int(getattr(error.orig, "sqlite_errorcode", 0)) & 0xFF


def _is_disconnect(error: DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.Error):
        return False
    if error.connection_invalidated:
        return True
    code = getattr(error.orig, "pgcode", None)
    # Class 08 is a lost connection, 57P0x a server going down or coming up, 53300 one that has no connection to spare.
    # An error without a code never came from PostgreSQL: it is the network's, libpq's or PgBouncer's.
    if code is None:
        return isinstance(error, OperationalError | InterfaceError)
    return code.startswith(("08", "57P0")) or code == "53300"


def _prepare_postgres(engine: Engine) -> None:
    """Let our units of work begin and end their transactions, with the time limits in the same round trip."""

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
        # A connection that broke has nothing to roll back, and asking it to would hide what broke it.
        if not _is_reading(connection) and not connection.invalidated:
            connection.exec_driver_sql("ROLLBACK")

    @sa.event.listens_for(engine, "reset")
    def leave_nothing_open(connection: Any, record: Any, _state: object) -> None:
        if not connection.closed and connection.info.transaction_status != psycopg2.extensions.TRANSACTION_STATUS_IDLE:
            record.invalidate()


def _is_reading(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get("without_begin"))


def _prepare_sqlite(engine: Engine) -> None:
    """Give SQLite the guarantees that PostgreSQL has by default."""

    @sa.event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        # The driver must not start transactions by itself: it would begin them deferred, and two readers that both
        # go on to write can then only fail.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        _switch_to_wal(connection)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if not _is_reading(connection):
            connection.exec_driver_sql("BEGIN IMMEDIATE")


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Let readers and a writer work side by side from here on; a property of the file, set by whoever opens it first.

    Of several who do so at once SQLite refuses all but one immediately, whatever the busy timeout: each has begun to
    read the file and now wants to write it, and two of these would wait for each other.
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
