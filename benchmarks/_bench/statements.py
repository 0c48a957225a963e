"""Which statements the application sends: read from PostgreSQL's own log, which is told to hold them for a while.

On a school's server they never stand there, for they hold pupils' data (roles/database, postgresql.conf).
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from .host import Host

ROLE = "scratch4school_app"
_LINE = re.compile(r"^\d{4}-\d\d-\d\d [\d:.]+ UTC \[(\d+)\] LOG:  duration: ([\d.]+) ms  statement: (.*)$")
# What differs from one statement to the next of its kind.
_VALUES = re.compile(r"'(?:[^']|'')*'(?:::\w+)?|\b\d+\b|\bNULL\b")
_LIST = re.compile(r"\(\?(?:, \?)+\)")


@dataclass(frozen=True)
class Statement:
    """One that was sent: by which of PostgreSQL's processes it was met, its milliseconds there, and its text."""

    process: int
    milliseconds: float
    text: str

    @property
    def kind(self) -> str:
        """The text without its values."""
        return _LIST.sub("(?)", _VALUES.sub("?", " ".join(self.text.split())))


@contextlib.contextmanager
def logged(host: Host) -> Iterator[None]:
    """The log holds the application's statements while this lasts."""
    try:
        host.sql(f"ALTER ROLE {ROLE} SET log_min_duration_statement = 0")
        host.console("RECONNECT")
        yield
    finally:
        log_nothing(host)


def log_nothing(host: Host) -> None:
    """The log holds no statement, as it was deployed; also what a measurement said that was killed."""
    host.sql(f"ALTER ROLE {ROLE} RESET log_min_duration_statement")
    host.console("RELOAD")
    host.console("RECONNECT")


def since(host: Host, moment: float) -> list[Statement]:
    """What was logged since then (seconds since the epoch), in order."""
    # The log comes to the engine through a pipe, a moment later.
    time.sleep(0.5)
    said = host.run(f"sh -c 'docker logs --since {moment:.3f} scratch4school-postgres 2>&1'")
    found: list[Statement] = []
    for line in said.splitlines():
        if match := _LINE.match(line):
            found.append(Statement(int(match[1]), float(match[2]), match[3]))
        elif found and line.startswith("\t"):
            last = found[-1]
            found[-1] = Statement(last.process, last.milliseconds, f"{last.text}\n{line[1:]}")
    return found
