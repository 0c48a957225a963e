"""Runs backup_failure_command, which tells the sysadmin that a timer's unit failed."""

from __future__ import annotations

import hashlib
import os
import subprocess

from ..errors import OperatorError
from ..files import read_json
from ..processes import execute
from ..settings import BackupSettings
from ..times import now, readable
from .state import remember

COMMAND_SECONDS = 120.0
LOG_LINES = "20"


def report_failure(settings: BackupSettings, unit: str) -> None:
    """Run the command with the unit's name and last LOG_LINES lines on its standard input.

    :raises OperatorError: when the command fails, or does not end within COMMAND_SECONDS.
    """
    lines = execute(["journalctl", "--unit", unit, f"--lines={LOG_LINES}", "--output=cat", "--no-pager"]).stdout
    print(f"{unit} failed on {settings.host}.")
    if settings.failure_command:
        about = f"{unit} failed on {settings.host} ({settings.school}) at {readable(now())}:"
        _run(settings, unit, f"{about}\n\n{lines}")


def test_once(settings: BackupSettings) -> bool:
    """Run the command with a test message, unless it was tested and not changed since; returns whether it was run."""
    digest = hashlib.sha256(settings.failure_command.encode()).hexdigest()
    if read_json(settings.state_file).get("failure_command", {}).get("command") == digest:
        return False
    if settings.failure_command:
        _run(
            settings,
            "scratch4school-test.service",
            f"This is a test from {settings.host} ({settings.school}) at {readable(now())}: nothing failed.\n"
            "When a backup, a check for damage or a drill fails, you are told in this way.\n",
        )
    # Only a digest is stored, because the command may contain a token.
    remember(settings, "failure_command", command=digest)
    return bool(settings.failure_command)


def _run(settings: BackupSettings, unit: str, text: str) -> None:
    try:
        ended = subprocess.run(
            ["sh", "-c", settings.failure_command],
            input=text, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS,
            env={**os.environ, "SCRATCH4SCHOOL_UNIT": unit, "SCRATCH4SCHOOL_HOST": settings.host},
        )  # fmt: skip
    except subprocess.TimeoutExpired as problem:
        raise OperatorError(f"backup_failure_command did not end within {COMMAND_SECONDS:g} seconds.") from problem
    if ended.returncode:
        message = " ".join((ended.stderr or ended.stdout).split())[-300:]
        raise OperatorError(f"backup_failure_command ended with {ended.returncode}{f': {message}' if message else '.'}")
