"""The number of the application's connections to PostgreSQL, counted at both ends while a check makes load."""

import threading
from contextlib import closing
from typing import Any

import psycopg2
import psycopg2.extras
import sqlalchemy as sa

from ..config import PoolerSettings, Settings
from ..database.database import Database

_PAUSE_SECONDS = 0.05
_SERVER_STATES = ("sv_active", "sv_active_cancel", "sv_being_canceled", "sv_idle", "sv_used", "sv_tested", "sv_login")
# A role sees its own connections, and only those count here.
_BACKENDS = sa.text(
    "SELECT count(*) FROM pg_stat_activity WHERE usename = current_user AND datname = current_database()"
)


class PoolWatcher:
    """Inside `with`, notes the highest number of server connections of the application's pool.

    `most` is PgBouncer's number. `most_backends` is PostgreSQL's, in two samples in a row, because a closed connection
    takes a moment to end. `limit` is what PgBouncer's settings allow, or None without a PgBouncer to ask.
    """

    def __init__(self, settings: Settings, service: Database) -> None:
        self._service = service
        self._pooler = settings.verification.pooler
        self._database = settings.database
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(self._pooler,), daemon=True)
        self._failure: Exception | None = None
        self.limit: int | None = None
        self.most = 0
        self.most_backends = 0
        self.samples = 0

    def __enter__(self) -> "PoolWatcher":
        if self._pooler is not None:
            with closing(self._connect(self._pooler)) as connection:
                self.limit = self._allowed(connection)
            self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._done.set()
        if self._pooler is not None:
            self._thread.join()
            if self._failure is not None:
                raise self._failure

    def remark(self) -> str:
        """The result, for the line of the check."""
        if self.limit is not None:
            return f"at most {max(self.most, self.most_backends)} of {self.limit} server connections"
        return "SQLite: no pool" if self._database.is_sqlite else "no pooler named in SCRATCH4SCHOOL_VERIFY_POOLER_URL"

    def _watch(self, pooler: PoolerSettings) -> None:
        try:
            before = 0
            with closing(self._connect(pooler)) as connection:
                while not self._done.wait(_PAUSE_SECONDS):
                    for row in _show(connection, "POOLS"):
                        if self._is_ours(row):
                            self.most = max(self.most, sum(int(row.get(state) or 0) for state in _SERVER_STATES))
                    backends = self._service.read(lambda service: service.scalar(_BACKENDS)) or 0
                    self.most_backends = max(self.most_backends, min(before, backends))
                    before = backends
                    self.samples += 1
        except Exception as error:
            self._failure = error

    def _is_ours(self, row: dict[str, Any]) -> bool:
        return row["database"] == self._database.url.database and row["user"] == self._database.url.username

    def _allowed(self, connection: Any) -> int:
        own = [row for row in _show(connection, "DATABASES") if row["name"] == self._database.url.database]
        if not own:
            raise LookupError(f"the pooler knows no database {self._database.url.database}")
        return int(own[0]["pool_size"]) + int(own[0].get("reserve_pool_size") or own[0].get("reserve_pool") or 0)

    @staticmethod
    def _connect(pooler: PoolerSettings) -> Any:
        url = pooler.url
        connection = psycopg2.connect(
            host=url.host,
            port=url.port,
            user=url.username,
            password=pooler.password.reveal(),
            dbname=url.database,
            connect_timeout=5,
        )
        # The console has no transactions.
        connection.autocommit = True
        return connection


def _show(connection: Any, what: str) -> list[dict[str, Any]]:
    with connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
        cursor.execute(f"SHOW {what}")
        return list(cursor.fetchall())
