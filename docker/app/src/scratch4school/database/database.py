"""Units of work on the database: `read`, `write` and `probe`, repeated where another try can succeed."""

import logging
import os
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ..config import DatabaseSettings
from ..monitoring import metrics
from ..single_flight import NoAnswer, SingleFlight
from .driver_errors import is_disconnect, is_out_of_service, retry_reason, sqlite_code
from .engine import make_engine

T = TypeVar("T")
Work = Callable[[Connection], T]

_CONTENTION_ATTEMPTS = 8
# Each attempt may have waited seconds for a lock, so the number of attempts alone does not bound the request.
_CONTENTION_SECONDS = 20.0
# A restarting pooler or server is back within two seconds, on a busy machine within five. A request waits twice as long
# before it fails. A save that takes ten seconds is not lost, but after an error a pupil may not try again.
_RECONNECT_SECONDS = 10.0
# A prober gives up after five seconds and asks several things. A connection that died unnoticed is worth one more try.
_PROBE_SECONDS = 1.0
_PROBE_RECONNECT_SECONDS = 0.5

log = logging.getLogger(__name__)


class DatabaseUnavailable(Exception):
    """The database could not be reached, or stayed too busy; nothing was written."""


class CommitUnknown(DatabaseUnavailable):
    """The connection broke during the commit: the work may or may not have been written."""


class Database:
    """One engine, and the ways to use it: `read`, `write` and `probe`."""

    def __init__(self, settings: DatabaseSettings, connections: int) -> None:
        """`connections` is the most this process ever opens: one per thread, so that no thread waits for another."""
        self.engine = make_engine(settings, connections)
        self.is_sqlite = settings.is_sqlite
        # Both share the pool. A read without a transaction saves BEGIN and ROLLBACK, two of three round trips.
        self._reading = self.engine.execution_options(without_begin=True)
        self._probes: SingleFlight[Any] = SingleFlight(_PROBE_SECONDS)

    def read(self, work: Work[T], patience: float | None = None) -> T:
        """The result of `work`, whose statements only read; DatabaseUnavailable when no answer comes.

        `patience` is how long to try while the database is away, in seconds; by default as long as a person waits.
        """

        def attempt() -> T:
            with _connection(self._reading) as connection:
                return work(connection)

        return self._persist(attempt, patience)

    def write(self, work: Work[T]) -> T:
        """The result of `work` once it is committed.

        `work` may run several times, so it must do nothing but talk to the database. Raises CommitUnknown when the
        commit was sent and its answer lost, DatabaseUnavailable when nothing was written.
        """

        def attempt() -> T:
            with _connection(self.engine) as connection, connection.begin() as transaction:
                result = work(connection)
                self._commit(transaction)
                return result

        return self._persist(attempt)

    def probe(self, work: Work[T]) -> T:
        """Read as `read` does, in at most a second; else DatabaseUnavailable. For callers that ask every few seconds.

        A pooler without a server accepts a question and keeps it for a while. Only one probe at a time waits for its
        answer; the others fail at once, or they would take all connections of the process.
        """
        try:
            return self._probes.call("probe", lambda: self.read(work, _PROBE_RECONNECT_SECONDS))
        except NoAnswer as error:
            raise DatabaseUnavailable(str(error)) from error

    def refuses_writes(self, connection: Connection) -> bool:
        """Whether the database is read-only now: a standby, a read-only server, a file that belongs to another user."""
        if not self.is_sqlite:
            return connection.scalar(sa.text("SELECT current_setting('transaction_read_only')")) == "on"
        file = Path(self.engine.url.database or "")
        return not all(os.access(path, os.W_OK, effective_ids=True) for path in (file, file.parent))

    def insert(self, table: sa.Table) -> Any:
        """An INSERT of this database's dialect, which has ON CONFLICT."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def dispose(self) -> None:
        self.engine.dispose()

    def _commit(self, transaction: sa.RootTransaction) -> None:
        try:
            transaction.commit()
        except DBAPIError as error:
            # After an I/O error SQLite may or may not find the transaction in its write-ahead log later.
            if is_disconnect(error) or sqlite_code(error) == sqlite3.SQLITE_IOERR:
                raise CommitUnknown("the connection broke while committing") from error
            raise

    def _persist(self, attempt: Callable[[], T], patience: float | None = None) -> T:
        """Repeat `attempt` with growing, jittered pauses as long as its error says that another try may succeed."""
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
                    if is_out_of_service(error):
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
            # The jitter keeps transactions that collided once from colliding again.
            time.sleep(random.uniform(0.2, 1.0) * min(0.5, 0.01 * 2**tries))  # noqa: S311


def _connection(engine: Engine) -> Connection:
    """A connection of the pool; the wait for it is measured, also when none came."""
    with metrics.POOL_WAIT_SECONDS.time():
        return engine.connect()
