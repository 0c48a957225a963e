"""Runs another program and waits for its end."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

# The exit status of timeout(1).
TIMED_OUT = 124


def execute(command: Sequence[str], seconds: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program; the caller looks at the status, which is TIMED_OUT when it was killed after `seconds`."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        message = f"`{' '.join(command[:2])}` took more than {seconds:g} seconds"
        return subprocess.CompletedProcess(command, TIMED_OUT, "", message)
