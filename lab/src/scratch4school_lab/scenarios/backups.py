"""Backups and restores of the installation on a lab host."""

from __future__ import annotations

import re

from .playbooks import VERIFIED, Run, play

# The program on the host.
PROGRAM = "sudo scratch4schoolctl"


def backup_id(run: Run) -> str:
    """The id of the backup that a playbook made and verified."""
    assert run.status == 0, run.output[-4000:]
    return re.findall(r"Backup ([0-9a-f]{8}) of \S+ is verified", run.output)[-1]


def restore(backup: str, *more: str, **where: object) -> Run:
    """Restore a backup in place of the live data; `where` is what `play` takes."""
    run = play("restore.yml", "-e", f"backup={backup}", "-e", f"confirm={backup}", *more, **where)
    assert run.status == 0, run.output[-6000:]
    assert VERIFIED in run.output
    return run
