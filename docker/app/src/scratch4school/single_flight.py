"""One piece of work for all who want the same at the same moment: in this process, and across those of this host."""

import contextvars
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")

# Failures are remembered for seconds, and so many of them come in seconds only when something is very wrong.
_MOST_REMEMBERED = 1000
_LOCK_STEP_SECONDS = 0.05


class NoAnswer(Exception):
    """The work has not ended in time; it may still."""


class _Flight(Generic[T]):
    def __init__(self) -> None:
        self.started = time.monotonic()
        self.landing: Future[T] = Future()
        self.traceback: TracebackType | None = None
        self.forget_at = float("inf")


class SingleFlight(Generic[T]):
    """Calls by key: one runs, those who ask meanwhile share its outcome, and none of them waits for long.

    The work runs in a thread of its own, because the time limits of a network library begin anew with each byte. What
    still has not ended after `patience` seconds is left to itself: whoever asks then is told so at once, and so does
    nobody start it again. A failure of the kind `remembered` is repeated for `memory` seconds without another call.
    """

    def __init__(self, patience: float, memory: float = 0, remembered: type[Exception] | tuple[()] = ()) -> None:
        self._patience = patience
        self._memory = memory
        self._remembered = remembered
        self._flights: dict[str, _Flight[T]] = {}
        self._lock = threading.Lock()

    def call(self, key: str, work: Callable[[], T]) -> T:
        """The result of `work`, or what it raised; NoAnswer when it takes longer than the patience."""
        with self._lock:
            self._forget()
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = _Flight()
                # The context makes log records of the work carry the id of the request that began it.
                arguments = (self._fly, key, flight, work)
                try:
                    threading.Thread(target=contextvars.copy_context().run, args=arguments, daemon=True).start()
                except RuntimeError:
                    # The system has no thread to spare now. Nobody will ever land this flight, so it must not stay.
                    del self._flights[key]
                    raise
        wait([flight.landing], max(0.0, flight.started + self._patience - time.monotonic()))
        if not flight.landing.done():
            raise NoAnswer(f"no answer within {self._patience:g} s")
        failure = flight.landing.exception()
        if failure is not None:
            # Several threads raise this one exception, and each raise would make its traceback longer.
            raise failure.with_traceback(flight.traceback)
        return flight.landing.result()

    def _fly(self, key: str, flight: _Flight[T], work: Callable[[], T]) -> None:
        try:
            result = work()
        except Exception as error:
            flight.traceback = error.__traceback__
            self._land(key, flight, isinstance(error, self._remembered))
            flight.landing.set_exception(error)
        else:
            self._land(key, flight, remember=False)
            flight.landing.set_result(result)

    def _land(self, key: str, flight: _Flight[T], remember: bool) -> None:
        with self._lock:
            if remember and len(self._flights) <= _MOST_REMEMBERED:
                flight.forget_at = time.monotonic() + self._memory
            else:
                del self._flights[key]

    def _forget(self) -> None:
        now = time.monotonic()
        for key in [key for key, flight in self._flights.items() if flight.forget_at <= now]:
            del self._flights[key]


class HostLock:
    """Locks by name that all processes of this host share: byte ranges of one empty file.

    The kernel takes them back from a process that dies, and nothing is left to clean up. They belong to the process,
    so they do not keep its threads apart; that is SingleFlight's part.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._opening = threading.Lock()

    @contextmanager
    def hold(self, name: str, patience: float) -> Iterator[None]:
        """Hold the lock `name`; NoAnswer when another process has it for `patience` seconds. Raises OSError."""
        descriptor = self._open()
        # 56 bits of a hash: no two names that exist will share a byte, and the file stays empty however far it lies.
        start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
        give_up = time.monotonic() + patience
        while True:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, start)
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() > give_up:
                    raise NoAnswer("another process is still at it") from None
            time.sleep(_LOCK_STEP_SECONDS)
        try:
            yield
        finally:
            fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, start)

    def _open(self) -> int:
        # Opened once and never closed: closing any descriptor of the file gives back all locks of the process.
        with self._opening:
            if self._descriptor is None:
                self._path.parent.mkdir(mode=0o750, exist_ok=True)
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            return self._descriptor
