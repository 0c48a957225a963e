"""Durations of the requests by operation, and every failed request with its times."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

# A server that is down gives thousands of similar failures: all are counted, and this many are kept.
MOST_FAILURES_KEPT = 20_000


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed request; times in seconds since the epoch, `status` None where no answer came."""

    start: float
    end: float
    operation: str
    status: int | None
    message: str

    @property
    def kind(self) -> str:
        """The kind by which failures are counted: the status, or the name of the exception."""
        return f"{self.status}" if self.status is not None else self.message.partition(":")[0]


@dataclass
class Records:
    """The requests of one phase. Durations are kept in milliseconds, by operation."""

    requests: int = 0
    conflicts: int = 0
    bytes_sent: int = 0
    bytes_read: int = 0
    durations: dict[str, array[float]] = field(default_factory=dict)
    failed_of: Counter[str] = field(default_factory=Counter)
    failed_by_kind: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    # When each request was sent that is not answered yet, in seconds since the epoch.
    _open: dict[object, float] = field(default_factory=dict)

    @property
    def oldest_open(self) -> float | None:
        """When the oldest request was sent that is not answered yet, in seconds since the epoch; None without one."""
        return min(self._open.values(), default=None)

    @contextmanager
    def open_since(self, start: float) -> Iterator[None]:
        """Count a request that was sent at `start` as open."""
        request = object()
        self._open[request] = start
        try:
            yield
        finally:
            del self._open[request]

    @property
    def failed(self) -> int:
        """How many requests failed."""
        return self.failed_of.total()

    def note(self, operation: str, milliseconds: float) -> None:
        """Record a request that was answered as expected."""
        self.requests += 1
        kept = self.durations.get(operation)
        if kept is None:
            kept = self.durations[operation] = array("d")
        kept.append(milliseconds)

    def note_failure(self, failure: Failure) -> None:
        """Record a failed request. Its duration is left out: quick refusals would improve the percentiles."""
        self.requests += 1
        self.failed_of[failure.operation] += 1
        self.failed_by_kind[failure.kind] += 1
        if len(self.failures) < MOST_FAILURES_KEPT:
            self.failures.append(failure)

    def summary(self) -> dict[str, dict[str, Any]]:
        """By operation, the most frequent first, and of `all`: count, failed, and milliseconds p50, p95, p99, max."""
        everything = array("d")
        for kept in self.durations.values():
            everything.extend(kept)
        names = sorted({*self.durations, *self.failed_of}, key=lambda name: -len(self.durations.get(name, ())))
        rows = {name: _row(self.durations.get(name, array("d")), self.failed_of[name]) for name in names}
        return {"all": _row(everything, self.failed), **rows}

    def failures_as_json(self) -> list[dict[str, Any]]:
        """Every kept failure, ordered by its end."""
        return [asdict(failure) for failure in self.failures]


def percentile(ordered: list[float], share: float) -> float:
    """The smallest value that at least `share` of the ordered values do not exceed; 0 where there is none."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _row(durations: array[float], failed: int) -> dict[str, Any]:
    ordered = sorted(durations)
    return {
        "count": len(ordered) + failed,
        "failed": failed,
        "p50_ms": round(percentile(ordered, 0.50), 1),
        "p95_ms": round(percentile(ordered, 0.95), 1),
        "p99_ms": round(percentile(ordered, 0.99), 1),
        "max_ms": round(ordered[-1], 1) if ordered else 0.0,
    }
