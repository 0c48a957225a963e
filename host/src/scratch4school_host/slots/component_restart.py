"""Restarts PostgreSQL, PgBouncer or the proxy while pupils wait; no request fails."""

from __future__ import annotations

import time

from .. import docker, locking, pooler
from ..errors import OperatorError
from ..progress import say
from .state import PROXY, Slots
from .switching import wait

NAMES = ("postgres", "pgbouncer", "proxy")
POSTGRES = "scratch4school-postgres"


def restart(slots: Slots, name: str, run: str) -> None:
    """Restart one component.

    :param name: one of NAMES.
    :raises OperatorError: when this host has no such component, or it does not answer afterwards.
    """
    if name != "proxy" and f"scratch4school-{name}" not in slots.dependencies:
        raise OperatorError(f"There is no {name} on this host, whose database is SQLite; use proxy.")
    locking.phase(slots.changes, run=run, name=f"restart {name}")
    began = time.monotonic()
    {"postgres": _restart_postgres, "pgbouncer": _restart_pgbouncer, "proxy": _restart_proxy}[name](slots.ready_seconds)
    say(f"Restarted {name} in {time.monotonic() - began:.1f} s.")


def _restart_postgres(ready_seconds: float) -> None:
    # A checkpoint first, so that the one at the shutdown is short.
    docker.ask("exec", POSTGRES, "psql", "--quiet", "--username=postgres", "--dbname=postgres", "--command=CHECKPOINT",
               seconds=ready_seconds)  # fmt: skip
    with pooler.paused():
        docker.must("restart", POSTGRES)
        ready = ("pg_isready", "--quiet", "--host=/run/postgresql", "--username=postgres")
        if not wait(lambda: docker.ask("exec", POSTGRES, *ready).returncode == 0, ready_seconds):
            raise OperatorError(f"PostgreSQL does not answer after its restart; read `docker logs {POSTGRES}`.")


def _restart_pgbouncer(ready_seconds: float) -> None:
    # Between two transactions, so that the application can repeat on a new connection what it began on a lost one.
    with pooler.paused():
        docker.must("restart", pooler.CONTAINER)
        if not wait(lambda: pooler.command("SHOW VERSION").returncode == 0, ready_seconds):
            raise OperatorError(
                f"PgBouncer does not answer after its restart; look at `docker logs {pooler.CONTAINER}`."
            )


def _restart_proxy(_ready_seconds: float) -> None:
    # A script in the proxy's image replaces nginx's processes: listening sockets stay open, and each request ends in
    # the process in which it began.
    docker.must("exec", PROXY, "renew")
