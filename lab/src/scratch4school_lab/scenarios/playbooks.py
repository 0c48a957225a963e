"""Runs playbooks against lab hosts, as a sysadmin would type them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkout import LAB_INVENTORY, ROOT, TOOLS
from ..hosts.plan import Host
from .worker import HOST

# The last line of a deploy that works.
VERIFIED = "Results: 6 passed, 0 failed"
MOST_INTERRUPTS, INTERRUPT_SECONDS = 5, 60
# Ansible forks right after the line that a test waits for.
FORK_SECONDS = 2


@dataclass(frozen=True)
class Run:
    """How a playbook ended: its exit status and everything that it printed."""

    status: int
    output: str

    @property
    def one_line(self) -> str:
        """The output on one line, because Ansible breaks its messages anywhere."""
        return " ".join(self.output.split())

    def recap(self, host: Host = HOST) -> dict[str, int]:
        """The counts of Ansible for the host: ok, changed, unreachable, failed, skipped, rescued, ignored."""
        line = re.findall(rf"^{re.escape(host.name)}\s+: (.*)$", self.output, flags=re.MULTILINE)[-1]
        return {word: int(number) for word, number in (pair.split("=") for pair in line.split())}


def start(
    playbook: str,
    *arguments: str,
    host: Host = HOST,
    folder: Path = ROOT,
    inventory: Path = LAB_INVENTORY,
    limit: str | None = None,
) -> subprocess.Popen[str]:
    """Start a playbook of the checkout in `folder`, or one with its whole path, in a process group of its own.

    It runs on one host, or on what `limit` names.
    """
    path = playbook if folder == ROOT / "deploy" or playbook.startswith("/") else f"deploy/{playbook}"
    limit = limit or f"{host.name},localhost"
    return subprocess.Popen(
        [str(TOOLS / "ansible-playbook"), "--inventory", str(inventory), "--limit", limit, path, *arguments],
        cwd=folder,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # The whole output fits into the pipe, so that the playbook never waits for its reader.
        pipesize=1 << 20,
        text=True,
        start_new_session=True,
    )


def play(playbook: str, *arguments: str, **where: Any) -> Run:
    """Run a playbook to its end; `where` is what `start` takes."""
    return finish(start(playbook, *arguments, **where))


def interrupt(process: subprocess.Popen[str]) -> Run:
    """Press Ctrl-C, as a person does: again, when nothing happens. Returns how the playbook ended.

    Python drops an interrupt that arrives while Ansible forks, in a handler whose exceptions it ignores. The next one
    would then kill Ansible without a message, so the first one waits.
    """
    time.sleep(FORK_SECONDS)
    for _ in range(MOST_INTERRUPTS):
        os.killpg(process.pid, signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=INTERRUPT_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        return Run(process.returncode, output)
    raise AssertionError(f"the playbook goes on after {MOST_INTERRUPTS} interrupts")


def finish(process: subprocess.Popen[str]) -> Run:
    """Wait for the end of a playbook that was started."""
    try:
        output, _ = process.communicate()
    except BaseException:
        # This process is being ended; the playbook, in a group of its own, would go on.
        os.killpg(process.pid, signal.SIGTERM)
        raise
    return Run(process.returncode, output)
