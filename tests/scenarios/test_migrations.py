"""The pending revisions of a migration; test_change_under_load.py and test_fault_matrix.py migrate."""

from __future__ import annotations

from pathlib import Path

from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.held_migration import revision
from scratch4school_lab.scenarios.playbooks import play
from scratch4school_lab.scenarios.variants import make, slow_lock


def test_check_mode_lists_pending_revisions(deployed: Host, tmp_path: Path) -> None:
    """It names number, kind and title, and counts a change, also without an image; without pending ones it does not."""
    current = revision(deployed)
    run = play("migrate.yml", "--check", folder=make(tmp_path, slow_lock), host=deployed)
    assert run.status == 0, run.output[-4000:]
    assert f"Would apply: revision {int(current) + 1:04} (expand): A rehearsal: alters projects." in run.one_line
    assert run.recap(deployed)["changed"] == 1
    run = play("migrate.yml", "--check", host=deployed)
    assert run.status == 0, run.output[-4000:]
    assert "Would apply" not in run.output
    assert run.recap(deployed)["changed"] == 0
    assert revision(deployed) == current
