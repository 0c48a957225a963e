"""What a program on the host is: it ends in one sentence, changes the host alone, and lets others see that it lives."""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TextIO

import host_change

from .base import HostSettings, Problem
from .containers import Containers

BEAT_SECONDS = 60.0
RETRY_SECONDS = 15.0


def run(parser: argparse.ArgumentParser, read_settings: Callable[[], Any], arguments: Sequence[str] | None) -> int:
    """Do what a command line says: its `act`, with settings and options; 0 when it was done, else 1 and a sentence."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # What was started is removed on the way out.
    signal.signal(signal.SIGTERM, _stop)
    options = parser.parse_args(arguments)
    os.umask(0o077)
    try:
        options.act(read_settings(), options)
    except (Problem, host_change.ChangeError) as problem:
        print(problem, file=sys.stderr)
        return 1
    except OSError as problem:
        print(f"{problem.filename or 'A file'} cannot be read or written: {problem.strerror}.", file=sys.stderr)
        return 1
    return 0


def locking_options() -> argparse.ArgumentParser:
    """The options of commands that change the host."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--run", help="the change that has the host's lock; without it, this program takes it")
    parser.add_argument("--by", default="", help="who asks, for lock and journal")
    parser.add_argument("--reason", default="", help="why, for lock and journal")
    parser.add_argument(
        "--gone", default="", metavar="RUN", help="the change of which the caller knows that it is dead"
    )
    parser.add_argument("--patience", type=float, default=0, metavar="SECONDS", help="wait for the lock so long")
    return parser


def stand_back(settings: HostSettings) -> None:
    """Let whatever serves pupils go first."""
    os.setpriority(os.PRIO_PROCESS, 0, settings.niceness)


@contextmanager
def locked(settings: HostSettings, options: argparse.Namespace, verb: str) -> Iterator[tuple[Containers, str]]:
    """The host's lock: the one of the run that was named, or one of this process's own."""
    Path(settings.directory).mkdir(mode=0o750, parents=True, exist_ok=True)
    end = time.monotonic() + options.patience
    name = options.run or host_change.new_run()
    # The lock first: who waits for it with the mutex in his hand stands in the way of its holder.
    lock = nullcontext() if options.run else _patiently(settings, name, verb, options, end)
    with lock, _Beat(settings.change_directory, name), _mutex(settings, end):
        if options.run:
            host_change.phase(settings.change_directory, run=name, name=verb)
        yield from _with(Containers(settings, locked=True), name)


@contextmanager
def _mutex(settings: HostSettings, end: float) -> Iterator[None]:
    """One at a time also when the run that began the other one is gone: that one may still be at it."""
    with (Path(settings.directory) / ".mutex").open("w") as mutex:
        while not _alone(mutex):
            if time.monotonic() >= end:
                raise Problem("Other work on backups is under way on this host; try again when it has ended.")
            time.sleep(RETRY_SECONDS)
        yield


def _alone(mutex: TextIO) -> bool:
    try:
        fcntl.flock(mutex, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _with(containers: Containers, name: str) -> Iterator[tuple[Containers, str]]:
    containers.clear()
    try:
        yield containers, name
    finally:
        containers.clear()


@contextmanager
def _patiently(settings: HostSettings, name: str, verb: str, options: argparse.Namespace, end: float) -> Iterator[None]:
    """Take the lock, and wait for it until then: a nightly backup may meet a deploy."""
    while True:
        try:
            host_change.begin(
                settings.change_directory, run=name, verb=verb,
                owner=host_change.whoami(options.by or None), reason=options.reason, gone=options.gone or None,
            )  # fmt: skip
            break
        except host_change.ChangeError:
            if time.monotonic() > end:
                raise
            time.sleep(RETRY_SECONDS)
    outcome, why = "failed", ""
    try:
        yield
        outcome = "done"
    except BaseException as problem:
        why = str(problem)
        raise
    finally:
        host_change.end(settings.change_directory, run=name, outcome=outcome, reason=why[:300])


class _Beat:
    """Lets others see that this change lives, and ends it when the lock was taken away."""

    lost = ""

    def __init__(self, folder: str, name: str) -> None:
        self._folder, self._name = folder, name
        self._ended = threading.Event()

    def __enter__(self) -> None:
        threading.Thread(target=self._beat, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                host_change.beat(self._folder, run=self._name)
            except host_change.ChangeError as problem:
                _Beat.lost = str(problem)
                os.kill(os.getpid(), signal.SIGTERM)
                return
            except OSError:
                continue


def _stop(number: int, _frame: object) -> None:
    raise Problem(_Beat.lost or "Stopped before the end; nothing that was made so far counts.")
