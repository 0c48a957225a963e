"""A hundred pupils go on saving, ten megabytes among it, while an operator does everything: not one request fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Place, on_host, play
from faults import image_of, serving_release
from lesson import Lesson, lessons
from pooler import POOLER
from tables import Tables
from variants import another_pooler, good, make

pytestmark = pytest.mark.alone

Checkouts = dict[Callable[[Path], None], Path]

# They think for two seconds between two things they do: a hundred who never do leave two cores nothing for Ansible.
LESSON = ["--users", "100", "--think", "2", "--seconds", "3600", "--large-share", "0.02", "--large-megabytes", "10"]
# The command of each change, in this order: first PgBouncer alone, while the release is this checkout's; and a rollback
# goes back to what the deploy replaced.
CHANGES = {
    "deploy.yml, another PgBouncer": lambda host, copies: play_on(host, "deploy.yml", folder=copies[another_pooler]),
    "deploy.yml, the former PgBouncer": lambda host, copies: play_on(host, "deploy.yml"),
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
# These are what the others are made of, and are tried with all other scenarios; the rest with `scripts/test long`.
FIRST = (
    "deploy.yml",
    "systemctl restart",
    "rollback.yml",
    "restart.yml -e component=postgres",
)
# After these another release serves than before.
NEW_RELEASE = {"deploy.yml", "rollback.yml", "rollback.yml, back again"}
# And after these PgBouncer is of another image.
NEW_POOLER = {"deploy.yml, another PgBouncer", "deploy.yml, the former PgBouncer"}


def play_on(host: str, playbook: str, *extra_vars: str, **place: Path) -> None:
    """Run a verb on the host; it has to succeed."""
    words = [word for setting in extra_vars for word in ("--extra-vars", setting)]
    run = play(playbook, *words, limit=f"{host},localhost", **place)
    assert run.status == 0, run.output[-6000:]


@pytest.fixture(scope="module")
def school(large: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lesson]:
    """This checkout, deployed, and a class that saves until the last change; then everything it saved is there."""
    with lessons(tmp_path_factory.mktemp("lesson")) as begin:
        play_on(large.name, "deploy.yml")
        lesson = begin(large, *LESSON)
        yield lesson
        report = lesson.end()
        assert report["promises"] == {"lost": 0, "torn": 0, "duplicates": 0, "orphans": 0}
        assert (report["failed"], report["unread"]) == (0, [])


@pytest.fixture(scope="module")
def checkouts(tmp_path_factory: pytest.TempPathFactory) -> Checkouts:
    """Checkouts that are as good as this one, by what was edited in them."""
    folder = tmp_path_factory.mktemp("variants")
    return {edit: make(folder, edit) for edit in (another_pooler, good)}


@pytest.mark.parametrize(
    "change", [change if change in FIRST else pytest.param(change, marks=pytest.mark.long) for change in CHANGES]
)
def test_change_fails_nobody(change: str, school: Lesson, checkouts: Checkouts, tables: Tables) -> None:
    """Whatever is done, everybody is answered."""
    former, pooler, began = serving_release(school.place), image_of(school.place, POOLER), time.time()
    change_it: Callable[[str, Checkouts], None] = CHANGES[change]
    row: dict[str, object] = {"change": change, "seconds": None, "requests": None, "failed": None}
    tables.add("Changes under load", row)
    change_it(school.place.name, checkouts)
    row["seconds"] = time.time() - began
    stretch = school.since(began)
    row.update(requests=stretch.requests, failed=stretch.failed)
    assert (stretch.failed, stretch.lost) == (0, 0), stretch.explain()
    assert (serving_release(school.place) != former) is (change in NEW_RELEASE)
    assert (image_of(school.place, POOLER) != pooler) is (change in NEW_POOLER)
