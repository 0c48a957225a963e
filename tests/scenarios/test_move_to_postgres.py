"""A school outgrows SQLite: its rows move to PostgreSQL, and back until that is confirmed, without a lost save."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import requests
from conftest import VERIFIED, Place, Run, empty_host, forget, hand_over_images, on_host, play, status
from pupils import create, numbered, read
from tables import Tables

pytestmark = pytest.mark.long

Login = Callable[..., requests.Session]
FOLDER = "/var/lib/scratch4school"


@pytest.fixture(scope="module")
def school(images: dict[str, str]) -> Iterator[Place]:
    """A host that runs on SQLite, whatever the inventory says; it is forgotten afterwards."""
    place = empty_host()
    hand_over_images(place.name, images)
    forget(place)
    assert on(place, "sqlite", "deploy.yml").status == 0
    yield place
    forget(place)


def on(place: Place, engine: str, playbook: str, *arguments: str) -> Run:
    """A verb with that engine in the inventory."""
    return play(playbook, "-e", f"database_engine={engine}", *arguments, limit=f"{place.name},localhost")


def move(place: Place, *arguments: str, engine: str = "postgres") -> Run:
    """A step of the move that has to succeed."""
    run = on(place, engine, "move-to-postgres.yml", *arguments)
    assert run.status == 0, run.output[-6000:]
    return run


def save(pupil: requests.Session, project: str, number: int) -> int:
    """The status with which a save of the next number is answered."""
    return pupil.put(project, files={"project_file": ("p.sb3", numbered("Umzug", number))}, timeout=60).status_code


class Pause:
    """For how long nobody was served, by somebody who asks all the time."""

    def __init__(self, place: Place) -> None:
        self._place, self._ended = place, threading.Event()
        self._answers: list[tuple[float, bool]] = []
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Pause:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=30)

    def _ask(self) -> None:
        while not self._ended.wait(0.2):
            self._answers.append((time.monotonic(), status(self._place.url) == 200))

    @property
    def seconds(self) -> float:
        """From the first to the last time that it was not answered."""
        refused = [moment for moment, served in self._answers if not served]
        return refused[-1] - refused[0] if refused else 0.0


def test_there_and_back_and_there_for_good(school: Place, login: Login, tables: Tables) -> None:
    """Rehearsed, moved, used, taken back with all that was saved meanwhile, moved again, confirmed."""
    pupil = login("pupil37", school.url)
    project = create(pupil, school.url, "Umzug", 1)
    refused = on(school, "postgres", "deploy.yml")
    assert (refused.status, "move-to-postgres.yml" in refused.sentence) == (2, True)
    wrong = on(school, "sqlite", "move-to-postgres.yml", "-e", "step=move")
    assert (wrong.status, "Set database_engine: postgres" in wrong.sentence) == (2, True)

    assert "0 differ" in move(school, "-e", "step=rehearse").output
    assert save(pupil, project, 2) == 200, "SQLite serves on"
    with Pause(school) as pause:
        moved = move(school, "-e", "step=move")
    assert VERIFIED in moved.output
    tables.add("From SQLite to PostgreSQL", {"what": "nobody served while moving", "seconds": pause.seconds})
    assert read(pupil, project) == 2
    assert save(pupil, project, 3) == 200
    idle = on(school, "postgres", "deploy.yml")
    assert (idle.status, idle.recap(school.name)["changed"]) == (0, 0), idle.output[-3000:]
    assert on_host(f"sudo ls {FOLDER}/database", school.name).split() == ["main.db.moved"]

    with Pause(school) as pause:
        move(school, "-e", "undo=true", engine="sqlite")
    tables.add("From SQLite to PostgreSQL", {"what": "nobody served while going back", "seconds": pause.seconds})
    assert read(pupil, project) == 3, "what was saved to PostgreSQL came back with it"
    assert save(pupil, project, 4) == 200
    idle = on(school, "sqlite", "deploy.yml")
    assert (idle.status, idle.recap(school.name)["changed"]) == (0, 0), idle.output[-3000:]
    assert "postgres" not in on_host("sudo docker ps --all --format '{{.Names}}'", school.name)
    verified = on(school, "sqlite", "verify.yml")
    assert verified.status == 0, verified.output[-4000:]

    move(school, "-e", "step=move")
    assert read(pupil, project) == 4
    move(school, "-e", "step=confirm")
    assert on_host(f"sudo ls {FOLDER}/database", school.name).split() == []
    gone = on(school, "sqlite", "move-to-postgres.yml", "-e", "undo=true")
    assert (gone.status, "there is no way back" in gone.sentence) == (2, True)
    verified = on(school, "postgres", "verify.yml")
    assert verified.status == 0, verified.output[-4000:]
    assert pupil.delete(project, timeout=60).status_code == 200


def test_a_release_that_cannot_serve_leaves_sqlite_serving(school: Place, login: Login) -> None:
    """The rows are moved back by the run itself; and the next one that can serve moves them."""
    forget(school)
    assert on(school, "sqlite", "deploy.yml").status == 0
    pupil = login("pupil38", school.url)
    project = create(pupil, school.url, "Umzug", 1)
    broken = ("-e", "step=move", "-e", "app_oidc_issuer=nowhere", "-e", "release_ready_seconds=10")
    run = on(school, "postgres", "move-to-postgres.yml", *broken)
    assert run.status == 2
    assert "serves on" in run.sentence
    assert read(pupil, project) == 1
    assert save(pupil, project, 2) == 200
    move(school, "-e", "step=move")
    assert read(pupil, project) == 2
    assert pupil.delete(project, timeout=60).status_code == 200
