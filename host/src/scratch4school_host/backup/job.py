"""Runs a long change of data: under the host's lock, with a heartbeat, and with cleanup when it is stopped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from .. import locking
from ..containers import Containers
from ..errors import OperatorError
from ..settings import DataSettings


@dataclass(frozen=True)
class Caller:
    """The caller of a change, from the options of the command line.

    :param run: the run that has the host's lock; '' if this process has to take the lock.
    :param by: who makes the change, for the lock and the audit log; '' for the account that runs this program.
    :param reason: why, for the lock and the audit log.
    :param dead_run: a run whose process has ended, as the caller knows.
    :param patience: seconds to wait for the lock.
    """

    run: str = ""
    by: str = ""
    reason: str = ""
    dead_run: str = ""
    patience: float = 0.0


@contextmanager
def changing(settings: DataSettings, caller: Caller, verb: str) -> Iterator[tuple[Containers, str]]:
    """Run a block under the caller's lock, or under a new one; yields containers and the run's name.

    :raises OperatorError: when another change has the lock, and on SIGTERM.
    """
    signal.signal(signal.SIGTERM, _stop)
    Path(settings.directory).mkdir(mode=0o750, parents=True, exist_ok=True)
    deadline = time.monotonic() + caller.patience
    run = caller.run or locking.new_run()
    # The lock comes before the mutex: a process with the mutex that waits for the lock would block the lock's owner.
    lock = (
        nullcontext()
        if caller.run
        else locking.change(
            settings.change_directory, run=run, verb=verb,
            by=caller.by, reason=caller.reason, dead_run=caller.dead_run, deadline=deadline,
        )
    )  # fmt: skip
    # The mutex too: work of a run that has lost the lock may still be under way.
    busy = "Other work on backups is under way on this host; try again when it has ended."
    mutex = Path(settings.directory) / ".mutex"
    with lock, locking.Heartbeat(settings.change_directory, run), locking.exclusive(mutex, deadline, busy):
        if caller.run:
            locking.phase(settings.change_directory, run=run, name=verb)
        containers = Containers(settings, locked=True)
        containers.remove_left_behind()
        try:
            yield containers, run
        finally:
            containers.remove_left_behind()


def lower_priority(settings: DataSettings) -> None:
    """Give this process a lower priority than the application's processes."""
    os.setpriority(os.PRIO_PROCESS, 0, settings.niceness)


def _stop(number: int, _frame: object) -> None:
    # An exception, so that the finally clauses remove containers and folders.
    raise OperatorError(locking.Heartbeat.lost or "Stopped before the end; the unfinished work does not count.")
