"""Runs programs, reports phases and errors: details go to the log, one message goes to the person."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .checkout import STATE

LOG = STATE / "lab.log"

# An ordinary user's PATH often leaves out the folders in which dockerd and iptables live.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


class LabError(Exception):
    """An error with a message for the person at the keyboard."""


def find(program: str) -> str | None:
    """The full path of a program, or None."""
    return shutil.which(program, path=SEARCH_PATH)


def log(text: str) -> None:
    with LOG.open("a", encoding="utf-8") as stream:
        stream.write(text if text.endswith("\n") else text + "\n")


def write(path: Path, text: str, mode: int) -> None:
    """Replace a file at once, so that a playbook that runs meanwhile reads the old text or the new one."""
    # Not beside it: Ansible reads every file of the inventory's folder.
    new = STATE / f"{path.name}.new"
    new.touch(mode=mode)
    new.chmod(mode)
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def run(*command: str, why: str, check: bool = True, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with its output in the log.

    Raises LabError(`why` it could not be done) when it fails and `check` is set.
    """
    log(f"$ {shlex.join(command)}")
    try:
        done = subprocess.run(
            command,
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            env={**os.environ, "PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
        )
    except FileNotFoundError:
        raise LabError(f"{why}: the program {command[0]} is missing.") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"{why}: {command[0]} did not end within {timeout:.0f} s.") from None
    log(done.stdout + done.stderr)
    if check and done.returncode != 0:
        raise LabError(f"{why}: {telling_line(done.stderr or done.stdout) or f'status {done.returncode}'}")
    return done


def telling_line(output: str) -> str:
    """The line of a failed program's output that likely says why: the first with an error, or the last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or line.startswith("E:")]
    return (errors or lines[-1:] or [""])[0]


def docker(*arguments: str, why: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run("docker", *arguments, why=why, check=check)


class Phase:
    """One step of the work; its line shows `note`, which says what was found or done."""

    def __init__(self) -> None:
        self.note = ""


@contextmanager
def phase(title: str) -> Iterator[Phase]:
    """Print one line with the step's duration when it is done."""
    started = time.monotonic()
    step = Phase()
    log(f"== {title}")
    yield step
    note = f"  {step.note}" if step.note else ""
    print(f"lab: {title:<24}{time.monotonic() - started:6.1f} s{note}", flush=True)


def wait_until(ready: Callable[[], bool], seconds: float, otherwise: str, pause: float = 0.2) -> None:
    """Call `ready()` until it is true; LabError(`otherwise`) when it is not true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise LabError(otherwise)
        time.sleep(pause)


def fail(error: LabError) -> int:
    log(f"!! {error}")
    print(f"lab: {error} (details: {os.path.relpath(LOG)})", file=sys.stderr)
    return 1
