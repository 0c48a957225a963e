"""One call for all callers that need the same result at the same moment: in this process, and across processes."""

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

# A bound on memory: failures are remembered for seconds, and a healthy service has few.
_MAX_REMEMBERED = 1000
_LOCK_STEP_SECONDS = 0.05


class NoAnswer(Exception):
    """The work did not end in time; it may still end."""


class _Flight(Generic[T]):
    def __init__(self) -> None:
        self.started = time.monotonic()
        self.landing: Future[T] = Future()
        self.traceback: TracebackType | None = None
        self.forget_at = float("inf")


class SingleFlight(Generic[T]):
    """Calls by key: one call runs, callers that ask meanwhile share its outcome, and no caller waits for long.

    The work runs in a thread of its own, because the time limits of a network library start again with each byte. Work
    that has not ended after `patience` seconds goes on alone: later callers get NoAnswer at once and do not start it
    again. A failure of the type `remembered` is raised again for `memory` seconds without another call.
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
                # With its context, log records of the work carry the id of the request that began it.
                arguments = (self._fly, key, flight, work)
                try:
                    threading.Thread(target=contextvars.copy_context().run, args=arguments, daemon=True).start()
                except RuntimeError:
                    # The system has no free thread now. This flight will never land, so it must not stay.
                    del self._flights[key]
                    raise
        wait([flight.landing], max(0.0, flight.started + self._patience - time.monotonic()))
        if not flight.landing.done():
            raise NoAnswer(f"no answer within {self._patience:g} s")
        failure = flight.landing.exception()
        if failure is not None:
            # Several threads raise this one exception; each raise would add to its traceback.
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
            if remember and len(self._flights) <= _MAX_REMEMBERED:
                flight.forget_at = time.monotonic() + self._memory
            else:
                del self._flights[key]

    def _forget(self) -> None:
        now = time.monotonic()
        for key in [key for key, flight in self._flights.items() if flight.forget_at <= now]:
            del self._flights[key]


class HostLock:
    """Locks by name that all processes of this host share: byte ranges of one empty file.

    The kernel releases them when a process dies, so nothing needs to be cleaned up. They belong to the process and do
    not exclude its other threads; SingleFlight does.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._opening = threading.Lock()

    @contextmanager
    def acquired(self, name: str, patience: float) -> Iterator[None]:
        """Take the lock `name`; NoAnswer if another process holds it for `patience` seconds. Raises OSError."""
        descriptor = self._open()
        # 56 bits of a hash: no two names share a byte, and the file stays empty although the offset is huge.
        start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
        give_up = time.monotonic() + patience
        while True:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, start)
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() > give_up:
                    raise NoAnswer("another process is still at work") from None
            time.sleep(_LOCK_STEP_SECONDS)
        try:
            yield
        finally:
            fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, start)

    def _open(self) -> int:
        # Opened once and never closed: closing any descriptor of the file releases all locks of the process.
        with self._opening:
            if self._descriptor is None:
                self._path.parent.mkdir(mode=0o750, exist_ok=True)
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            return self._descriptor
