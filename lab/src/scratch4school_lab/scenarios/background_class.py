"""A class that saves in the background of a scenario, and what happened to its requests meanwhile."""

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

from ..checkout import SCRIPTS
from ..hosts.plan import Host
from .lab_hosts import wait_for

# To read everything back takes minutes after a long load.
END_SECONDS = 1800


@dataclass(frozen=True)
class Interval:
    """The work of a class during a time: requests, failed ones, and the promises that were broken by its end."""

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
        """How many promises were broken: lost, torn, duplicated or orphaned."""
        return sum(self.promises.values())

    def explain(self) -> str:
        """Broken promises and failed requests, for the message of a failed test."""
        kinds = sorted({f"{each['operation']}: {each['status']} {each['message'][:150]}" for each in self.failures})
        return "\n".join([*self.breaches, *self.unread, *kinds[:20]])


class BackgroundClass:
    """`scripts/classroom` in the background: its state at any moment, and its report at the end."""

    def __init__(self, host: Host, folder: Path, *arguments: str) -> None:
        self.host = host
        self._report, self._log, self._pulse = (folder / f"{host.name}.{kind}" for kind in ("json", "log", "pulse"))
        # The kernel ends the class with the tests, also when they are killed.
        command = ["setpriv", "--pdeathsig", "TERM", SCRIPTS / "classroom", "--host", host.name]
        command += ["--json", self._report, "--pulse", self._pulse]
        # The test ends the load, and neither a number of requests nor, within the bound of a part, a duration.
        command += ["--seconds", "5400", "--max-requests", "100000000", *arguments]
        with self._log.open("w") as log:
            self._process = subprocess.Popen([*map(str, command)], stdout=log, stderr=subprocess.STDOUT)

    @property
    def output(self) -> str:
        """Everything that it has printed."""
        return self._log.read_text()

    def wait_for_load(self) -> None:
        """Wait until all pupils are logged in and save."""
        wait_for(lambda: ": load " in self.output or self._process.poll() is not None)
        assert self._process.poll() is None, self.output

    def since(self, began: float) -> Interval:
        """The work of the class since a moment (seconds since the epoch); a request counts by when it was sent."""
        asked = time.time()
        wait_for(lambda: self._is_complete_until(asked))
        pulses = self._pulses()
        before = [pulse for pulse in pulses if pulse["at"] <= began]
        failures = [each for pulse in pulses for each in pulse["failures"] if each["start"] >= began]
        last = pulses[-1]
        return Interval(
            seconds=asked - began,
            requests=last["requests"] - (before[-1]["requests"] if before else 0),
            failures=failures,
            promises=last["promises"],
            breaches=last["breaches"],
            unread=last["unread"],
        )

    def _is_complete_until(self, moment: float) -> bool:
        """Whether the newest pulse has the outcome of each request that was sent until a moment."""
        newest = self._pulses()[-1]
        oldest_open = newest["oldest_open"]
        return newest["at"] > moment and (oldest_open is None or oldest_open > moment)

    def start_check(self) -> int:
        """Let the class read everything back during its work; returns the argument of `wait_for_check`."""
        self._process.send_signal(signal.SIGUSR1)
        return self._pulses()[-1]["checks"] + 1

    def wait_for_check(self, checks: int) -> None:
        """Wait until everything was read back."""
        wait_for(lambda: self._pulses()[-1]["checks"] >= checks)

    def end(self) -> dict[str, Any]:
        """Stop the load, let the class read everything back, and return its report; a broken promise fails here."""
        self._process.terminate()
        assert self._process.wait(timeout=END_SECONDS) == 0, self.output
        report: dict[str, Any] = json.loads(self._report.read_text())
        return report

    def kill(self) -> None:
        """End it at once, after a test that failed."""
        self._process.kill()
        self._process.wait()

    def _pulses(self) -> list[dict[str, Any]]:
        # The last line may be incomplete.
        return [json.loads(line) for line in self._pulse.read_text().splitlines(keepends=True) if line.endswith("\n")]


@contextmanager
def background_classes(folder: Path) -> Iterator[Callable[..., BackgroundClass]]:
    """Yields a function that starts a class on a host; classes that still run at the end are killed."""
    with ExitStack() as stopping:

        def start(host: Host, *arguments: str) -> BackgroundClass:
            started = BackgroundClass(host, folder, *arguments)
            stopping.callback(started.kill)
            started.wait_for_load()
            return started

        yield start
