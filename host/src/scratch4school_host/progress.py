"""Prints the progress of a long command."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

TELL_SECONDS = 5.0


def say(text: str) -> None:
    """Print a line at once. If the reader is gone, as after a lost connection, the command goes on without output."""
    try:
        print(text, flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def megabytes(size: float) -> str:
    """Format a size in bytes, with 1 MB = 1,000,000 bytes: 1.4 GB, 17 MB, 0.3 MB."""
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.0f} MB" if size >= 1e7 else f"{size / 1e6:.1f} MB"


class Progress:
    """Prints the number of each phase, its progress, and its duration; `seconds` has the durations by name."""

    def __init__(self, phases: int) -> None:
        self._phases = phases
        self._current = 0
        self._told = 0.0
        self._summary = ""
        self.seconds: dict[str, float] = {}

    @property
    def total(self) -> float:
        """Seconds that the finished phases took together."""
        return sum(self.seconds.values())

    @contextmanager
    def phase(self, name: str, description: str) -> Iterator[None]:
        """Run a block as one phase; `description` follows the name on the phase's first line."""
        self._current += 1
        self._told = began = time.monotonic()
        self._summary = ""
        head = f"[{self._current}/{self._phases}] {name:<9}"
        say(f"{head} {description} …")
        yield
        self.seconds[name] = round(time.monotonic() - began, 1)
        say(f"{head} {self._summary or 'done'} ({self.seconds[name]:.1f} s)")

    def tell(self, text: str) -> None:
        """Print the progress within a phase; at most one line in TELL_SECONDS, the others are dropped."""
        if time.monotonic() - self._told >= TELL_SECONDS:
            self._told = time.monotonic()
            say(f"      {text}")

    def sum_up(self, text: str) -> None:
        """Set the result on the phase's last line, which is “done” otherwise."""
        self._summary = text
