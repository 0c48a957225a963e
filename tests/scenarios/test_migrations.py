"""A migration while a class saves, and somebody's transaction in its way: the class does not wait for either."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from conftest import Place, finish, on_host, play, wait_for
from faults import begun, held_lock
from lesson import lessons
from variants import make, slow_lock

pytestmark = pytest.mark.alone

CLASS = ["--users", "100", "--seconds", "900", "--think", "1"]
QUIET_SECONDS = 30
HELD_SECONDS = 60
# What one try waits for the table; whoever comes meanwhile waits behind it (docker/app/src/scratch4school/schema.py).
LOCK_TIMEOUT_MS = 2000
PSQL = "sudo docker exec scratch4school-postgres psql -XqAt -U postgres -d scratch4school -c"
WAITING = (
    f"{PSQL} \"SELECT count(*) FROM pg_locks WHERE relation = 'projects'::regclass AND NOT granted"
    " AND mode = 'AccessExclusiveLock'\""
)
REVISION = f'{PSQL} "SELECT version_num FROM alembic_version"'


def waits(place: Place) -> bool:
    """Whether somebody waits for the table to alter it."""
    return on_host(WAITING, place.name).strip() != "0"


def take_back(place: Place, revision: str) -> None:
    """Undo what the rehearsal's migration did, where it did it: this checkout does not know it."""
    on_host(
        f"{PSQL} \"BEGIN; SET LOCAL lock_timeout = '10s'; ALTER TABLE projects DROP COLUMN IF EXISTS rehearsal;"
        f" UPDATE alembic_version SET version_num = '{revision}'; COMMIT\"",
        place.name,
    )


def times_of_a_class(place: Place, folder: Path, meanwhile: Any) -> dict[str, float]:
    """What a class's requests took, in milliseconds, while `meanwhile()` ran; not one failed and nothing was lost."""
    folder.mkdir()
    with lessons(folder) as begin:
        lesson = begin(place, *CLASS)
        meanwhile()
        report = lesson.end()
    assert report["promises"] == {"lost": 0, "torn": 0, "duplicates": 0, "orphans": 0}
    assert report["failed"] == 0, report["failed_by_kind"]
    times: dict[str, float] = report["operations"]["all"]
    return times


def test_check_says_what_would_run(large: Place, tmp_path: Path) -> None:
    """By number, kind and sentence, and counts it as a change, before there is an image; with nothing to do neither."""
    revision = on_host(REVISION, large.name).strip()
    run = play("migrate.yml", "--check", folder=make(tmp_path, slow_lock), limit=f"{large.name},localhost")
    assert run.status == 0, run.output[-4000:]
    assert f"Would apply: revision {int(revision) + 1:04} (expand): A rehearsal: alters projects." in run.sentence
    assert run.recap(large.name)["changed"] == 1
    run = play("migrate.yml", "--check", limit=f"{large.name},localhost")
    assert run.status == 0, run.output[-4000:]
    assert "Would apply" not in run.output
    assert run.recap(large.name)["changed"] == 0
    assert on_host(REVISION, large.name).strip() == revision


def test_transaction_of_a_minute_queues_nobody_behind_a_migration(large: Place, tmp_path: Path) -> None:
    """It holds a table that is to be altered. No request fails, few wait as long as one try, and then it is done."""
    checkout = make(tmp_path, slow_lock)
    # The image is built before, so that the class is measured beside the migration alone.
    provisioned = play("provision.yml", folder=checkout, limit=f"{large.name},localhost")
    assert provisioned.status == 0, provisioned.output[-4000:]
    former = on_host(REVISION, large.name).strip()

    def migrate_against_the_lock() -> None:
        # Nor beside the backup that comes before a migration, which takes as long as the disk is slow.
        verb = ("migrate.yml", "-e", "backup_skip=true")
        with ExitStack() as somebody:
            somebody.enter_context(held_lock(large, "projects"))
            with begun(*verb, folder=checkout, limit=f"{large.name},localhost") as migration:
                wait_for(lambda: waits(large) or migration.poll() is not None, seconds=120)
                time.sleep(HELD_SECONDS)
                assert migration.poll() is None, finish(migration).output[-4000:]
                assert on_host(REVISION, large.name).strip() == former
                somebody.close()
                run = finish(migration)
        assert run.status == 0, run.output[-4000:]
        assert "No backup is made before the tables change" in run.sentence
        assert "The tables are in use (lock_timeout); trying again in" in run.sentence
        assert "In the way: session" in run.sentence
        assert f"{int(former) + 1:04}" in on_host(REVISION, large.name)

    quiet = times_of_a_class(large, tmp_path / "quiet", lambda: time.sleep(QUIET_SECONDS))
    try:
        held = times_of_a_class(large, tmp_path / "held", migrate_against_the_lock)
    finally:
        take_back(large, former)
    print(f"p99 {quiet['p99_ms']} ms quiet, {held['p99_ms']} ms beside the migration; longest {held['max_ms']} ms")
    assert held["p99_ms"] <= quiet["p99_ms"] + LOCK_TIMEOUT_MS
