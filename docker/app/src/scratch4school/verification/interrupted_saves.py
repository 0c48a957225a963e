"""Interrupting saves of the running service before their commit, until the service gives up.

The service cannot be told to fail. So a lock on the project makes its transaction wait at the statement that changes
the row. Only this save waits for that lock, and its connection or statement is ended. PostgreSQL tells which session
waits for which, and the application's role may end its own connections.
"""

import threading
import time

import sqlalchemy as sa

from ..database.database import Database
from ..database.tables import projects

_PAUSE_SECONDS = 0.05
# Longer than the service retries after a lost connection, shorter than a client waits for its answer.
_MAX_SECONDS = 25

_WAITS_FOR_US = "FROM pg_stat_activity WHERE usename = current_user AND :holder = ANY (pg_blocking_pids(pid))"
_CUT_CONNECTION = sa.text(f"SELECT count(pg_terminate_backend(pid)) {_WAITS_FOR_US}")
_CUT_STATEMENT = sa.text(f"SELECT count(pg_cancel_backend(pid)) {_WAITS_FOR_US}")


def cut_saves(
    database: Database, project_id: int, ready: threading.Barrier, answered: threading.Event, connections: bool
) -> int:
    """Interrupt every save of a project from `ready` until `answered` is set; returns how many times.

    With `connections` it ends the connection, and the service retries for some seconds. Without, it ends the statement,
    and the service does not retry.
    """
    cut = 0
    statement = _CUT_CONNECTION if connections else _CUT_STATEMENT
    give_up = time.monotonic() + _MAX_SECONDS
    with database.engine.connect() as holding, holding.begin():
        holder = holding.scalar(sa.select(sa.func.pg_backend_pid()))
        holding.execute(sa.select(projects.c.id).where(projects.c.id == project_id).with_for_update())
        ready.wait()
        while not answered.wait(_PAUSE_SECONDS) and time.monotonic() < give_up:
            cut += database.read(lambda connection: connection.scalar(statement, {"holder": holder})) or 0
    return cut
