"""A migration while a class saves and a transaction holds the table: the class waits for neither."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.background_class import BackgroundClass
from scratch4school_lab.scenarios.held_migration import TRIES, migrate_behind_a_transaction, revision, undo_migration
from scratch4school_lab.scenarios.playbooks import play
from scratch4school_lab.scenarios.variants import make, slow_lock

CLASS = ["--users", "100", "--think", "1"]


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


@pytest.mark.alone
def test_migration_behind_long_transaction_fails_no_request(
    deployed: Host, start_class: Callable[..., BackgroundClass], tmp_path: Path
) -> None:
    """Each try of the migration ends by its lock_timeout, no request fails, and the migration succeeds at the end.

    `benchmarks/run migration` measures how long requests wait.
    """
    checkout = make(tmp_path, slow_lock)
    # The image is built before, so that the class has only the migration beside it.
    provisioned = play("provision.yml", folder=checkout, host=deployed)
    assert provisioned.status == 0, provisioned.output[-4000:]
    before = revision(deployed)
    background_class = start_class(deployed, *CLASS)
    try:
        run = migrate_behind_a_transaction(deployed, checkout)
        migrated = revision(deployed)
        report = background_class.end()
    finally:
        undo_migration(deployed, before)
    assert run.status == 0, run.output[-4000:]
    assert "No backup is made before the tables change" in run.one_line
    assert "In the way: session" in run.one_line
    assert run.one_line.count("The tables are in use (lock_timeout); trying again in") >= TRIES - 1
    assert run.one_line.count("The tables are in use (") == run.one_line.count("The tables are in use (lock_timeout)")
    assert migrated == f"{int(before) + 1:04}"
    assert report["promises"] == {"lost": 0, "torn": 0, "duplicates": 0, "orphans": 0}
    assert report["failed"] == 0, report["failed_by_kind"]
