"""The statements that the application sends, read from PostgreSQL's log, in which they are recorded for a while.

On a school's server the log never has them, because they contain pupils' data (roles/database, postgresql.conf).
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
# The parts in which statements of one kind differ.
_VALUES = re.compile(r"'(?:[^']|'')*'(?:::\w+)?|\b\d+\b|\bNULL\b")
_LIST = re.compile(r"\(\?(?:, \?)+\)")


@dataclass(frozen=True)
class Statement:
    """A statement: the process of PostgreSQL that ran it, its milliseconds there, and its text."""

    process: int
    milliseconds: float
    text: str

    @property
    def kind(self) -> str:
        """The text without its values."""
        return _LIST.sub("(?)", _VALUES.sub("?", " ".join(self.text.split())))


@contextlib.contextmanager
def logged(host: Host) -> Iterator[None]:
    """Log the application's statements during the context."""
    try:
        host.sql(f"ALTER ROLE {ROLE} SET log_min_duration_statement = 0")
        host.console("RECONNECT")
        yield
    finally:
        log_nothing(host)


def log_nothing(host: Host) -> None:
    """Log no statements, as deployed; also after a measurement that was killed."""
    host.sql(f"ALTER ROLE {ROLE} RESET log_min_duration_statement")
    host.console("RELOAD")
    host.console("RECONNECT")


def since(host: Host, moment: float) -> list[Statement]:
    """The statements that were logged since then (seconds since the epoch), in order."""
    # The log reaches the engine through a pipe, a moment later.
    time.sleep(0.5)
    printed = host.run(f"sh -c 'docker logs --since {moment:.3f} scratch4school-postgres 2>&1'")
    found: list[Statement] = []
    for line in printed.splitlines():
        if match := _LINE.match(line):
            found.append(Statement(int(match[1]), float(match[2]), match[3]))
        elif found and line.startswith("\t"):
            last = found[-1]
            found[-1] = Statement(last.process, last.milliseconds, f"{last.text}\n{line[1:]}")
    return found
