"""Engine migration from SQLite to PostgreSQL, and back until it is confirmed, without a lost save."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import requests

from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.lab_hosts import http_status, on_host, remove_installation
from scratch4school_lab.scenarios.playbooks import VERIFIED, Run, play
from scratch4school_lab.scenarios.pupils import create, numbered, read
from scratch4school_lab.tables import Tables

pytestmark = pytest.mark.long

Login = Callable[..., requests.Session]
FOLDER = "/var/lib/scratch4school"


@pytest.fixture(scope="module")
def school(bare_host: Host) -> Iterator[Host]:
    """A host with SQLite, although its inventory sets PostgreSQL; its installation is removed afterwards."""
    remove_installation(bare_host)
    assert play_with(bare_host, "sqlite", "deploy.yml").status == 0
    yield bare_host
    remove_installation(bare_host)


def play_with(host: Host, engine: str, playbook: str, *arguments: str) -> Run:
    """Run a playbook with that database engine."""
    return play(playbook, "-e", f"database_engine={engine}", *arguments, host=host)


def migrate_engine(host: Host, *arguments: str, engine: str = "postgres") -> Run:
    """Run a step of the engine migration, which has to succeed."""
    run = play_with(host, engine, "move-to-postgres.yml", *arguments)
    assert run.status == 0, run.output[-6000:]
    return run


def save(pupil: requests.Session, project: str, number: int) -> int:
    """The status with which a save of the next number is answered."""
    return pupil.put(project, files={"project_file": ("p.sb3", numbered("Umzug", number))}, timeout=60).status_code


class Downtime:
    """How long the installation did not answer, measured by requests without a pause."""

    def __init__(self, host: Host) -> None:
        self._host, self._ended = host, threading.Event()
        self._answers: list[tuple[float, bool]] = []
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Downtime:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._ended.wait(0.2):
            self._answers.append((time.monotonic(), http_status(self._host) == 200))

    @property
    def seconds(self) -> float:
        """From the first to the last request without an answer."""
        failed = [moment for moment, answered in self._answers if not answered]
        return failed[-1] - failed[0] if failed else 0.0


def test_migration_to_postgresql_is_undone_and_confirmed(school: Host, login: Login, tables: Tables) -> None:
    """Rehearsal, migration, use, undo with the saves in between, migration again, confirmation."""
    pupil = login("pupil37", school)
    project = create(pupil, school, "Umzug", 1)
    refused = play_with(school, "postgres", "deploy.yml")
    assert (refused.status, "move-to-postgres.yml" in refused.one_line) == (2, True)
    wrong = play_with(school, "sqlite", "move-to-postgres.yml", "-e", "step=move")
    assert (wrong.status, "Set database_engine: postgres" in wrong.one_line) == (2, True)

    assert "0 differ" in migrate_engine(school, "-e", "step=rehearse").output
    assert save(pupil, project, 2) == 200, "SQLite is still live"
    with Downtime(school) as downtime:
        moved = migrate_engine(school, "-e", "step=move")
    assert VERIFIED in moved.output
    tables.add("From SQLite to PostgreSQL", {"what": "no answer during the migration", "seconds": downtime.seconds})
    assert read(pupil, project) == 2
    assert save(pupil, project, 3) == 200
    idle = play_with(school, "postgres", "deploy.yml")
    assert (idle.status, idle.recap(school)["changed"]) == (0, 0), idle.output[-3000:]
    assert on_host(f"sudo ls {FOLDER}/database", school).split() == ["main.db.migrated"]

    with Downtime(school) as downtime:
        migrate_engine(school, "-e", "undo=true", engine="sqlite")
    tables.add("From SQLite to PostgreSQL", {"what": "no answer during the undo", "seconds": downtime.seconds})
    assert read(pupil, project) == 3, "the undo keeps what was saved to PostgreSQL"
    assert save(pupil, project, 4) == 200
    idle = play_with(school, "sqlite", "deploy.yml")
    assert (idle.status, idle.recap(school)["changed"]) == (0, 0), idle.output[-3000:]
    assert "postgres" not in on_host("sudo docker ps --all --format '{{.Names}}'", school)
    verified = play_with(school, "sqlite", "verify.yml")
    assert verified.status == 0, verified.output[-4000:]

    migrate_engine(school, "-e", "step=move")
    assert read(pupil, project) == 4
    migrate_engine(school, "-e", "step=confirm")
    assert on_host(f"sudo ls {FOLDER}/database", school).split() == []
    undo = play_with(school, "sqlite", "move-to-postgres.yml", "-e", "undo=true")
    assert (undo.status, "There is no engine migration on" in undo.one_line) == (2, True)
    verified = play_with(school, "postgres", "verify.yml")
    assert verified.status == 0, verified.output[-4000:]
    assert pupil.delete(project, timeout=60).status_code == 200


def test_migration_with_broken_release_is_reverted(school: Host, login: Login) -> None:
    """The run itself reverts to SQLite; a run with a working release migrates."""
    remove_installation(school)
    assert play_with(school, "sqlite", "deploy.yml").status == 0
    pupil = login("pupil38", school)
    project = create(pupil, school, "Umzug", 1)
    broken = ("-e", "step=move", "-e", "app_url=nowhere")
    run = play_with(school, "postgres", "move-to-postgres.yml", *broken)
    assert run.status == 2
    assert "stays live" in run.one_line
    assert read(pupil, project) == 1
    assert save(pupil, project, 2) == 200
    migrate_engine(school, "-e", "step=move")
    assert read(pupil, project) == 2
    assert pupil.delete(project, timeout=60).status_code == 200
