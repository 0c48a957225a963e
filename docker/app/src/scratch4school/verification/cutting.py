"""Saves of the running service that lose connection or statement before they can commit, until the service gives up.

The service cannot be told to fail, so its transaction is made to wait: a lock on the project that it saves holds it at
the statement that changes the row. What waits for that lock is this save and nobody else's, and it is cut. The
application's role may do that to its own connections, and PostgreSQL tells who waits for whom.
"""

import threading
import time

import sqlalchemy as sa

from ..database import Database
from ..tables import projects

_PAUSE_SECONDS = 0.05
# Longer than the service tries again after a lost connection, and shorter than a client waits for its answer.
_MOST_SECONDS = 25

_WAITS_FOR_US = "FROM pg_stat_activity WHERE usename = current_user AND :holder = ANY (pg_blocking_pids(pid))"
_CUT_CONNECTION = sa.text(f"SELECT count(pg_terminate_backend(pid)) {_WAITS_FOR_US}")
_CUT_STATEMENT = sa.text(f"SELECT count(pg_cancel_backend(pid)) {_WAITS_FOR_US}")


def cut_saves(
    database: Database, project_id: int, ready: threading.Barrier, answered: threading.Event, connections: bool
) -> int:
    """Cut every save of a project until `answered` is set, from the moment of `ready` on; returns how often.

    A save that lost its connection is tried again by the service for some seconds, one that lost its statement is not.
    """
    cut = 0
    statement = _CUT_CONNECTION if connections else _CUT_STATEMENT
    give_up = time.monotonic() + _MOST_SECONDS
    with database.engine.connect() as holding, holding.begin():
        holder = holding.scalar(sa.select(sa.func.pg_backend_pid()))
        holding.execute(sa.select(projects.c.id).where(projects.c.id == project_id).with_for_update())
        ready.wait()
        while not answered.wait(_PAUSE_SECONDS) and time.monotonic() < give_up:
            cut += database.read(lambda connection: connection.scalar(statement, {"holder": holder})) or 0
    return cut
