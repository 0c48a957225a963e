"""Who is in the way of a migration: the sessions that hold what it waits for, as PostgreSQL names them.

Once a statement has given up waiting, nobody can say any more what it waited for. So the question is asked meanwhile.
"""

import threading

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

_PAUSE_SECONDS = 0.2

# Who and with what, everybody may know. Since when, PostgreSQL tells of the sessions of one's own role, or to a member
# of pg_read_all_stats; the statement of others is nobody's business here.
_HOLDERS = sa.text(
    "SELECT pid, usename, application_name, extract(epoch FROM clock_timestamp() - xact_start)::integer AS seconds"
    " FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids(:waiting)) ORDER BY seconds DESC NULLS LAST, pid"
)


class LockWatch:
    """While entered, notes who keeps the session `waiting`; `holders` are those seen last, as words for an operator."""

    def __init__(self, connection: Connection, waiting: int) -> None:
        """`connection` is used by another thread as long as this is entered, and in a transaction of its own never."""
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
                # This only explains; whether the migration succeeds is not for it to decide.
                return
            if found:
                self.holders = [_words(row) for row in found]


def _words(row: sa.Row[tuple[int, str | None, str | None, int | None]]) -> str:
    application = f" with {row.application_name}" if row.application_name else ""
    duration = "" if row.seconds is None else f" for {row.seconds} s"
    return f"session {row.pid} of {row.usename or 'the server'}{application}{duration}"
