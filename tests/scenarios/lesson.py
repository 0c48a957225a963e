"""A class that goes on saving in the background of a scenario, and what it has to say about what was done meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import ROOT, Place, wait_for

# A pulse a second; a request that was under way at the end of a stretch is answered within one more.
PULSES_SECONDS = 2.0


@dataclass(frozen=True)
class Stretch:
    """What the class did from one moment to another: requests, those that failed, and what was broken by its end."""

    seconds: float
    requests: int
    failures: list[dict[str, Any]]
    promises: dict[str, int]
    breaches: list[str]
    unread: list[str]

    @property
    def failed(self) -> int:
        """How many requests failed."""
        return len(self.failures)

    @property
    def lost(self) -> int:
        """How many promises were broken: lost, torn, doubled or orphaned."""
        return sum(self.promises.values())

    def explain(self) -> str:
        """What went wrong, for whoever reads the failed test."""
        kinds = sorted({f"{each['operation']}: {each['status']} {each['message'][:150]}" for each in self.failures})
        return "\n".join([*self.breaches, *self.unread, *kinds[:20]])


class Lesson:
    """`scripts/classroom` in the background: its state at any moment, and its report at the end."""

    def __init__(self, place: Place, folder: Path, *arguments: str) -> None:
        self.place = place
        self._report, self._said, self._pulse = (folder / f"{place.name}.{kind}" for kind in ("json", "log", "pulse"))
        command = [ROOT / "scripts" / "classroom", "--host", place.name, "--json", self._report]
        command += ["--pulse", self._pulse, *arguments]
        with self._said.open("w") as log:
            self._process = subprocess.Popen([*map(str, command)], stdout=log, stderr=subprocess.STDOUT)

    @property
    def said(self) -> str:
        """All it has printed."""
        return self._said.read_text()

    def wait_for_load(self) -> None:
        """Until everybody is logged in and saving."""
        wait_for(lambda: ": load " in self.said or self._process.poll() is not None, seconds=180)
        assert self._process.poll() is None, self.said

    def since(self, began: float) -> Stretch:
        """What the class did since a moment (seconds since the epoch); requests count by when they were sent."""
        asked = time.time()
        wait_for(lambda: self._pulses()[-1]["at"] > asked + PULSES_SECONDS, seconds=30)
        pulses = self._pulses()
        before = [pulse for pulse in pulses if pulse["at"] <= began]
        failures = [each for pulse in pulses for each in pulse["failures"] if each["start"] >= began]
        last = pulses[-1]
        return Stretch(
            seconds=asked - began,
            requests=last["requests"] - (before[-1]["requests"] if before else 0),
            failures=failures,
            promises=last["promises"],
            breaches=last["breaches"],
            unread=last["unread"],
        )

    def start_check(self) -> int:
        """Let the class read everything back, in the middle of its work; returns what `wait_for_check` wants."""
        self._process.send_signal(signal.SIGUSR1)
        return self._pulses()[-1]["checks"] + 1

    def wait_for_check(self, checks: int) -> None:
        """Until everything was read back."""
        wait_for(lambda: self._pulses()[-1]["checks"] >= checks, seconds=180)

    def end(self) -> dict[str, Any]:
        """Stop the load, let it read everything back, and return the report; a broken promise fails here."""
        self._process.terminate()
        assert self._process.wait(timeout=300) == 0, self.said
        report: dict[str, Any] = json.loads(self._report.read_text())
        return report

    def kill(self) -> None:
        """End it at once, where a test has failed."""
        self._process.kill()
        self._process.wait()

    def _pulses(self) -> list[dict[str, Any]]:
        # The last line may be half written.
        return [json.loads(line) for line in self._pulse.read_text().splitlines(keepends=True) if line.endswith("\n")]


@contextmanager
def lessons(folder: Path) -> Iterator[Callable[..., Lesson]]:
    """Yields the way to begin a lesson on a host; what still runs at the end is ended."""
    with ExitStack() as stopping:

        def begin(place: Place, *arguments: str) -> Lesson:
            begun = Lesson(place, folder, *arguments)
            stopping.callback(begun.kill)
            begun.wait_for_load()
            return begun

        yield begin
