"""What happened to the requests: how long each kind took, and every one that failed, with its times."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

# Of a stack that is down a class makes thousands of failures alike: all are counted, and so many are kept to look at.
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
        """What failures are counted by."""
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

    @property
    def failed(self) -> int:
        """How many requests failed."""
        return self.failed_of.total()

    def note(self, operation: str, milliseconds: float) -> None:
        """A request was answered as it should be."""
        self.requests += 1
        kept = self.durations.get(operation)
        if kept is None:
            kept = self.durations[operation] = array("d")
        kept.append(milliseconds)

    def note_failure(self, failure: Failure) -> None:
        """A request failed; its duration is no operation's, for a quick refusal would flatter the percentiles."""
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
        """Every kept failure, in the order of their ends."""
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
