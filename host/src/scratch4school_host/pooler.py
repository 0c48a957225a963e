"""PgBouncer on this host: its console, the state of its pools, and a pause of its clients."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from . import docker, systemd
from .errors import OperatorError
from .processes import TIMED_OUT
from .progress import say

CONTAINER = "scratch4school-pgbouncer"
# The application's database, by the name that its clients give to PgBouncer.
DATABASE = "scratch4school"

# The limits of a pause, in seconds. Open transactions have PAUSE_SECONDS to end; the rest is for the restart. systemd
# ends the pause after RESUME_AFTER_SECONDS. Each client waits at least LEAST_WAIT_SECONDS, so it sees no error:
# preflight refuses a shorter pgbouncer_query_wait_timeout.
PAUSE_SECONDS = 5
RESUME_AFTER_SECONDS = 13
LEAST_WAIT_SECONDS = 15
# How long the status screen waits for PgBouncer.
POOLS_SECONDS = 5.0

# The name of the timer that ends a pause.
RESUME = "resume"
# On its unix socket, the console lets PgBouncer's own user in without a password.
_PSQL = ("psql", "--host=/tmp", "--port=6432", "--username=pgbouncer", "--dbname=pgbouncer")


def show_pools() -> str:
    """The answer to `SHOW POOLS`, unaligned, with a header; '' when PgBouncer does not answer."""
    show = ("--no-align", "--command", "SHOW POOLS")
    return docker.ask("exec", CONTAINER, *_PSQL, *show, seconds=POOLS_SECONDS).stdout


def command(statement: str) -> subprocess.CompletedProcess[str]:
    """Give a command to the console; the caller looks at the status, which is TIMED_OUT after PAUSE_SECONDS."""
    return docker.ask(*_in_console(statement))


def _in_console(statement: str) -> list[str]:
    return ["exec", CONTAINER, "timeout", str(PAUSE_SECONDS), *_PSQL, "--quiet", "--command", statement]


def pause() -> None:
    """Let clients wait between two transactions; systemd ends the pause, even if this program is killed.

    :raises OperatorError: when an open transaction does not end within PAUSE_SECONDS.
    """
    systemd.schedule(RESUME, RESUME_AFTER_SECONDS, ["docker", *_in_console(f"RESUME {DATABASE}")])
    ended = command(f"PAUSE {DATABASE}")
    if ended.returncode == TIMED_OUT:
        resume()
        raise OperatorError(
            f"A transaction did not end within {PAUSE_SECONDS} seconds, so nothing was restarted. Look for its client "
            "in pg_stat_activity, and try again."
        )
    if ended.returncode:
        # PgBouncer lets no client through now, and the component to be restarted may be the cause.
        say(f"PgBouncer does not answer, so no client is paused: {ended.stderr.strip()}")


def resume() -> None:
    """End a pause; without a pause this does nothing."""
    command(f"RESUME {DATABASE}")
    systemd.cancel(RESUME)


@contextmanager
def paused() -> Iterator[None]:
    """Pause clients during a block, and let them go on however the block ends."""
    pause()
    try:
        yield
    finally:
        resume()
