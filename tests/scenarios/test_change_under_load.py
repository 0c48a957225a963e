"""Changes while a hundred pupils save, some of them ten megabytes: no request fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.background_class import BackgroundClass, background_classes
from scratch4school_lab.scenarios.faults import image_of, live_release
from scratch4school_lab.scenarios.held_migration import TRIES, migrate_behind_a_transaction, revision, undo_migration
from scratch4school_lab.scenarios.lab_hosts import on_host
from scratch4school_lab.scenarios.pgbouncer import CONTAINER
from scratch4school_lab.scenarios.playbooks import play
from scratch4school_lab.scenarios.variants import another_pooler, good, make, slow_lock
from scratch4school_lab.tables import Tables

pytestmark = pytest.mark.alone

Checkouts = dict[Callable[[Path], None], Path]

# They think for two seconds between two operations; without that two cores have no time left for Ansible.
CLASS = ["--users", "100", "--think", "2", "--large-share", "0.02", "--large-megabytes", "10"]
# The command of each change, in this order: PgBouncer first, while the release is this checkout's; and the rollback
# activates the release that the deploy has replaced.
CHANGES = {
    "deploy.yml, another PgBouncer": lambda host, copies: play_on(host, "deploy.yml", folder=copies[another_pooler]),
    "deploy.yml, the previous PgBouncer": lambda host, copies: play_on(host, "deploy.yml"),
    "deploy.yml": lambda host, copies: play_on(host, "deploy.yml", folder=copies[good]),
    "restart.yml": lambda host, copies: play_on(host, "restart.yml"),
    "systemctl restart": lambda host, copies: on_host("sudo systemctl restart scratch4school", host),
    "systemctl reload": lambda host, copies: on_host("sudo systemctl reload scratch4school", host),
    "migrate.yml": lambda host, copies: play_on(host, "migrate.yml"),
    "rollback.yml": lambda host, copies: play_on(host, "rollback.yml"),
    "rollback.yml, back again": lambda host, copies: play_on(host, "rollback.yml"),
    "restart.yml -e component=postgres": lambda host, copies: play_on(host, "restart.yml", "component=postgres"),
    "restart.yml -e component=pgbouncer": lambda host, copies: play_on(host, "restart.yml", "component=pgbouncer"),
    "restart.yml -e component=proxy": lambda host, copies: play_on(host, "restart.yml", "component=proxy"),
}
# The others consist of these steps; the rest runs with `scripts/test long`.
FIRST = (
    "deploy.yml",
    "systemctl restart",
    "rollback.yml",
    "restart.yml -e component=postgres",
)
# After these another release is live.
NEW_RELEASE = {"deploy.yml", "rollback.yml", "rollback.yml, back again"}
# After these PgBouncer runs from another image.
NEW_POOLER = {"deploy.yml, another PgBouncer", "deploy.yml, the previous PgBouncer"}


def play_on(host: Host, playbook: str, *extra_vars: str, **where: Path) -> None:
    """Run a playbook on the host; it has to succeed."""
    words = [word for setting in extra_vars for word in ("--extra-vars", setting)]
    run = play(playbook, *words, host=host, **where)
    assert run.status == 0, run.output[-6000:]


@pytest.fixture(scope="module")
def school(deployed: Host, checkouts: Checkouts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundClass]:
    """Deploy this checkout, and let a class save until the last change; then everything that it saved is read back."""
    with background_classes(tmp_path_factory.mktemp("class")) as start_class:
        # The image of the migration is built before, so that the class has only the migration beside it.
        play_on(deployed, "provision.yml", folder=checkouts[slow_lock])
        play_on(deployed, "deploy.yml")
        school = start_class(deployed, *CLASS)
        yield school
        report = school.end()
        assert report["promises"] == {"lost": 0, "torn": 0, "duplicates": 0, "orphans": 0}
        assert (report["failed"], report["unread"]) == (0, [])


@pytest.fixture(scope="module")
def checkouts(tmp_path_factory: pytest.TempPathFactory) -> Checkouts:
    """Variants of this checkout: two that can stay live, and one with a migration."""
    folder = tmp_path_factory.mktemp("variants")
    return {edit: make(folder, edit) for edit in (another_pooler, good, slow_lock)}


@pytest.mark.parametrize(
    "change", [change if change in FIRST else pytest.param(change, marks=pytest.mark.long) for change in CHANGES]
)
def test_change_fails_no_request(change: str, school: BackgroundClass, checkouts: Checkouts, tables: Tables) -> None:
    """Each request during the change is answered."""
    release, image, began = live_release(school.host), image_of(school.host, CONTAINER), time.time()
    make_change: Callable[[Host, Checkouts], object] = CHANGES[change]
    row: dict[str, object] = {"change": change, "seconds": None, "requests": None, "failed": None}
    tables.add("Changes under load", row)
    make_change(school.host, checkouts)
    row["seconds"] = time.time() - began
    interval = school.since(began)
    row.update(requests=interval.requests, failed=interval.failed)
    assert (interval.failed, interval.lost) == (0, 0), interval.explain()
    assert (live_release(school.host) != release) is (change in NEW_RELEASE)
    assert (image_of(school.host, CONTAINER) != image) is (change in NEW_POOLER)


def test_migration_behind_long_transaction_fails_no_request(
    school: BackgroundClass, checkouts: Checkouts, tables: Tables
) -> None:
    """Each try of the migration ends by its lock_timeout, no request fails, and the migration succeeds at the end.

    `benchmarks/run migration` measures how long requests wait.
    """
    row: dict[str, object] = {"change": "migrate.yml, table held", "seconds": None, "requests": None, "failed": None}
    tables.add("Changes under load", row)
    before, began = revision(school.host), time.time()
    try:
        run = migrate_behind_a_transaction(school.host, checkouts[slow_lock])
        row["seconds"] = time.time() - began
        migrated = revision(school.host)
        interval = school.since(began)
    finally:
        undo_migration(school.host, before)
    row.update(requests=interval.requests, failed=interval.failed)
    assert run.status == 0, run.output[-4000:]
    assert "No backup is made before the tables change" in run.one_line
    assert "In the way: session" in run.one_line
    assert run.one_line.count("The tables are in use (lock_timeout); trying again in") >= TRIES - 1
    assert run.one_line.count("The tables are in use (") == run.one_line.count("The tables are in use (lock_timeout)")
    assert migrated == f"{int(before) + 1:04}"
    assert (interval.failed, interval.lost) == (0, 0), interval.explain()
