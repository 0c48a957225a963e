"""The sessions that block a migration, as PostgreSQL names them.

After a statement has given up waiting, PostgreSQL no longer knows what it waited for. So a thread asks meanwhile.
"""

import threading

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

_PAUSE_SECONDS = 0.2

# Any role may read the user and the program of a session. Since when it runs, PostgreSQL shows only for sessions of the
# same role, or to a member of pg_read_all_stats. The statements of other sessions are not asked for.
_HOLDERS = sa.text(
    "SELECT pid, usename, application_name, extract(epoch FROM clock_timestamp() - xact_start)::integer AS seconds"
    " FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids(:waiting)) ORDER BY seconds DESC NULLS LAST, pid"
)


class LockWatch:
    """Inside `with`, notes the sessions that block the session `waiting`; `holders` describes those seen last."""

    def __init__(self, connection: Connection, waiting: int) -> None:
        """Another thread uses `connection` inside `with`; it must be in autocommit mode."""
        self._connection = connection
        self._waiting = waiting
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.holders: list[str] = []

    def __enter__(self) -> "LockWatch":
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(_PAUSE_SECONDS):
            try:
                found = self._connection.execute(_HOLDERS, {"waiting": self._waiting}).all()
            except DBAPIError:
                # This only explains a failure; it must not cause one.
                return
            if found:
                self.holders = [_described(row) for row in found]


def _described(row: sa.Row[tuple[int, str | None, str | None, int | None]]) -> str:
    application = f" with {row.application_name}" if row.application_name else ""
    duration = "" if row.seconds is None else f" for {row.seconds} s"
    return f"session {row.pid} of {row.usename or 'the server'}{application}{duration}"
