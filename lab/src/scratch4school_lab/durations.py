"""How long the setups, calls and teardowns of tests took: recorded by pytest's process, read by scripts/test."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Duration:
    """One phase of one test: "setup", "call" or "teardown", its seconds, and the worker ("" without workers)."""

    test: str
    phase: str
    seconds: float
    worker: str = ""

    @property
    def file(self) -> str:
        """The name of the test's file."""
        return self.test.partition("::")[0].rpartition("/")[2]


class Durations:
    """Durations of one run of pytest, in the order in which they were reported."""

    def __init__(self, recorded: Iterable[Duration] = ()) -> None:
        self.recorded = list(recorded)

    def add(self, test: str, phase: str, seconds: float, worker: str = "") -> None:
        """Record a phase of a test."""
        self.recorded.append(Duration(test, phase, seconds, worker))

    def write(self, path: Path) -> None:
        """Write them as JSON, for `read`."""
        path.write_text(json.dumps([asdict(each) for each in self.recorded]))

    @classmethod
    def read(cls, path: Path) -> Durations:
        """The durations that `write` wrote; none without a file, after a pytest that did not reach its end."""
        return cls(Duration(**each) for each in json.loads(path.read_text())) if path.exists() else cls()

    def by_file(self) -> dict[str, dict[str, float]]:
        """Seconds by file and phase, with their sum as "all" and the number of tests as "tests"; the longest first."""
        files: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for each in self.recorded:
            files[each.file][each.phase] += each.seconds
            files[each.file]["all"] += each.seconds
            files[each.file]["tests"] += each.phase == "setup"
        return dict(sorted(files.items(), key=lambda item: -item[1]["all"]))

    def slowest(self, phase: str, count: int) -> list[Duration]:
        """The tests whose `phase` took longest."""
        return sorted((each for each in self.recorded if each.phase == phase), key=lambda each: -each.seconds)[:count]

    def by_worker(self) -> dict[str, float]:
        """How long each worker was busy, in seconds."""
        workers: dict[str, float] = defaultdict(float)
        for each in self.recorded:
            workers[each.worker] += each.seconds
        return dict(sorted(workers.items()))
