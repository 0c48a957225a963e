"""An existing school comes over: looked at, rehearsed, brought over while it runs, compared, served, or given up."""

from __future__ import annotations

import gzip
import hashlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from conftest import (
    CA,
    PROJECTS,
    ROOT,
    VERIFIED,
    Place,
    Run,
    empty_host,
    finish,
    forget,
    hand_over_images,
    on_host,
    play,
    start,
    status,
)
from faults import journal, kill_controller
from old_schools import EMPTY, FOLDER, ROWS, OldSchool, as_dump, by_compose, in_sqlite, larger, put
from tables import Tables

Login = Callable[..., requests.Session]
ADOPTION = "/var/lib/scratch4school/adoption"
REPORTS = ROOT / "inventories" / "lab" / ".adoption"
TITLE = "Das längste Spiel der Welt: Übermütige Bären 🐻 jagen süße Äpfel durch den Öl-Dschungel, bis es Abend"


def adopt(school: OldSchool, step: str, *more: str) -> Run:
    """Run one step."""
    place = school.place
    return play("adopt.yml", "-e", f"step={step}", *school.arguments, *more, limit=f"{place.name},localhost")


def done(run: Run) -> Run:
    """A step that has to succeed."""
    assert run.status == 0, run.output[-6000:]
    return run


def provisioned(place: Place) -> Place:
    """An empty host, ready to take a school."""
    forget(place)
    on_host(EMPTY, place.name)
    done(play("provision.yml", limit=f"{place.name},localhost"))
    return place


@pytest.fixture(scope="module")
def bare(images: dict[str, str]) -> Place:
    """A host of its own for schools that come over, with the images of the first."""
    place = empty_host()
    hand_over_images(place.name, images)
    return place


def project_hash(place: Place, browser: requests.Session, number: int) -> str:
    """The hash of a project's content as its owner gets it."""
    answer = browser.get(f"{place.url}/backend/api/projects/{number}/download", timeout=30)
    assert answer.status_code == 200, answer.text
    return hashlib.sha256(answer.content).hexdigest()


def still_logged_in(place: Place, session: str) -> requests.Session:
    """A browser that had logged in at the old place, and only knows that."""
    browser = requests.Session()
    browser.trust_env = False
    browser.verify = CA
    browser.headers["Authorization"] = f"Bearer {session}"
    assert browser.get(f"{place.url}/backend/session", params={"session_id": session}, timeout=30).status_code == 200
    return browser


def live_session(folder: Path, owner_of: int) -> str:
    """A login of a project's owner in the first school that is good until after 2030."""
    file = folder / "look.db"
    file.write_bytes(gzip.decompress((ROWS / "before-sqlite.db.gz").read_bytes()))
    database = sqlite3.connect(file)
    (found,) = database.execute(
        "SELECT s.id FROM oauth_sessions s JOIN projects p ON p.owner_id = s.user_id "
        "WHERE p.id = ? AND s.expires_at > '2030-01-01' ORDER BY s.id LIMIT 1",
        [owner_of],
    ).fetchone()
    database.close()
    return str(found)


def test_a_school_in_sqlite_comes_over_and_goes_on(bare: Place, login: Login, tmp_path: Path) -> None:
    """Step by step, with its counts; who was logged in still is; what was saved meanwhile comes with the end."""
    school = in_sqlite(provisioned(bare))
    looked = done(adopt(school, "look"))
    for words in (
        "The old database is the original's, before its fix.",
        "60 users",
        "140 projects",
        "projects/93_2abf38ef-6e0b-43a1-a550-d6c241f23bf4.sb3 (projects 93)",
        "projects/16_16672817-e215-46fa-a827-af3677a0d499.sb3 (projects 16): no zip",
        "- 81 files that no row names",
        "step=rehearse",
    ):
        assert words in looked.sentence, words
    assert json.loads((REPORTS / f"{bare.name}.json").read_text())["rows"]["rows"]["backpack_items"] == 30
    assert status(bare.url) != 200

    rehearsed = done(adopt(school, "rehearse"))
    assert "452 rows are the same, 0 differ" in rehearsed.output
    assert "adoption" not in on_host("sudo docker ps --all --format '{{.Names}}'", bare.name)

    done(adopt(school, "import"))
    refused = play("deploy.yml", limit=f"{bare.name},localhost")
    assert (refused.status, "adopt.yml is bringing a school over" in refused.sentence) == (2, True)
    # The old service still runs: a pupil saves over her project, another one makes a new one.
    school.sql("UPDATE projects SET name = 'anders', updated_at = '2025-11-15 08:00:00' WHERE id = 12;")
    put(bare, f"cat > {FOLDER}/uploads/projects/12_jorg.wei.sb3", (PROJECTS / "default.sb3").read_bytes())
    there = f"sudo sh -c 'cd {FOLDER}/db && md5sum *'"
    before = on_host(there, bare.name)
    assert "main.db-wal" in before
    asked = adopt(school, "finish")
    assert (asked.status, "Stop the old service now" in asked.sentence) == (2, True)
    finished = done(adopt(school, "finish", "-e", "stopped=true"))
    assert "projects: 140 rows: 0 new, 1 changed, 0 gone" in finished.output
    assert "Old and new are the same, row for row and file for file" in finished.output
    assert VERIFIED in finished.output
    assert on_host(there, bare.name) == before, "what was read is as it was"

    pupil = still_logged_in(bare, live_session(tmp_path, 87))
    listed = pupil.get(f"{bare.url}/backend/api/projects", timeout=30).json()["projects"]
    assert {14, 13, 10, 87} <= {one["id"] for one in listed}
    answer = pupil.put(
        f"{bare.url}/backend/api/projects/87",
        files={"project_file": ("p.sb3", (PROJECTS / "default.sb3").read_bytes())},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    assert project_hash(bare, pupil, 87) == hashlib.sha256((PROJECTS / "default.sb3").read_bytes()).hexdigest()
    psql = "sudo docker exec scratch4school-postgres psql -U postgres -d scratch4school -Atc"
    assert on_host(f"{psql} 'SELECT name FROM projects WHERE id IN (12, 62) ORDER BY id'", bare.name).splitlines() == [
        "anders",
        TITLE,
    ]
    assert login("pupil36", bare.url).get(f"{bare.url}/backend/api/projects", timeout=30).json()["count"] == 0
    kept = json.loads(on_host(f"sudo cat {ADOPTION}/orphans/list.json", bare.name))
    assert "thumbnails/Thumbs.db" in kept

    again = adopt(school, "import")
    assert (again.status, "was brought over to this host at" in again.sentence) == (2, True)
    idle = play("deploy.yml", limit=f"{bare.name},localhost")
    assert (idle.status, idle.recap(bare.name)["changed"]) == (0, 0), idle.output[-3000:]


@pytest.mark.long
@pytest.mark.parametrize("form", [as_dump, by_compose])
def test_whatever_form_it_comes_in(bare: Place, form: Callable[[Place], OldSchool]) -> None:
    """A packed dump with an archive; a running server that only Compose knows, upgraded in place by the original."""
    school = form(provisioned(bare))
    try:
        for step in ("look", "rehearse", "import"):
            done(adopt(school, step))
        finished = done(adopt(school, "finish", "-e", "stopped=true"))
        assert "Old and new are the same, row for row and file for file" in finished.output
        assert VERIFIED in finished.output
    finally:
        on_host("sudo docker rm --force old-postgres", bare.name)
    if form is by_compose:
        assert "another-secret-than-the-labs" in (REPORTS / f"{bare.name}.settings.yml").read_text()
        assert "another-secret-than-the-labs" not in finished.output
    idle = play("deploy.yml", limit=f"{bare.name},localhost")
    assert (idle.status, idle.recap(bare.name)["changed"]) == (0, 0), idle.output[-3000:]


@pytest.mark.long
def test_a_dump_comes_to_a_host_with_sqlite(small: Place) -> None:
    """Rows of the one engine for the other; the server for the dump is there as long as it takes."""
    school = as_dump(provisioned(small))
    done(adopt(school, "look"))
    done(adopt(school, "rehearse"))
    done(adopt(school, "import"))
    finished = done(adopt(school, "finish", "-e", "stopped=true"))
    assert "452 rows are the same, 0 differ" in finished.output
    assert VERIFIED in finished.output
    assert "postgres" not in on_host("sudo docker ps --all --format '{{.Names}}'", small.name)


@pytest.mark.long
@pytest.mark.parametrize("broken", ["torn", "cut off", "empty", "later"])
def test_what_is_no_school_is_refused(bare: Place, broken: str) -> None:
    """In a sentence, and nothing was changed."""
    school = in_sqlite(provisioned(bare))
    if broken == "later":
        school.sql("CREATE TABLE collaborative_projects (id INTEGER);")
        arguments, sentence = school.arguments, "since it has collaborative projects"
    else:
        school = as_dump(bare)
        script = {
            "torn": "zcat dump.sql.gz | head -c 50000 > x",
            "cut off": "head -c 9000 dump.sql.gz > x",
            "empty": ": > x",
        }
        put(bare, f"cd {FOLDER} && {script[broken]}", b"")
        arguments = (*school.arguments, "-e", f"adoption_database={FOLDER}/x")
        sentence = {"torn": "ends in the middle", "cut off": "is cut off or damaged", "empty": "is empty"}[broken]
    run = adopt(OldSchool(bare, arguments), "look")
    assert run.status == 2
    assert sentence in run.sentence
    assert "Traceback" not in run.output
    assert on_host("sudo docker ps --all --format '{{.Names}}' | grep adoption || true", bare.name) == ""


@pytest.mark.long
@pytest.mark.parametrize("phase", ["rehearse", "import", "finish", "start", "verify"])
def test_killed_at_a_step_and_run_again(bare: Place, phase: str) -> None:
    """Controller and program die; the same command goes on, and all of it is there."""
    school = in_sqlite(provisioned(bare))
    step = phase if phase in ("rehearse", "import") else "finish"
    if step == "finish":
        done(adopt(school, "import"))
    with journal(bare) as lines:
        arguments = ("adopt.yml", "-e", f"step={step}", *school.arguments, "-e", "stopped=true")
        process = start(*arguments, limit=f"{bare.name},localhost")
        lines.wait_for(phase, process)
        kill_controller(process)
        on_host("sudo pkill -KILL -f '[s]cratch4school-adoption/adopt' || true", bare.name)
    for one in {"rehearse": ("rehearse", "import", "finish"), "import": ("import", "finish")}.get(step, ("finish",)):
        done(adopt(school, one, "-e", "stopped=true"))
    assert status(bare.url) == 200
    assert on_host("sudo docker ps --all --format '{{.Names}}' | grep adoption || true", bare.name) == ""


@pytest.mark.long
def test_an_old_place_that_changes_at_the_end_fails_the_comparison(bare: Place) -> None:
    """Whoever says that it is stopped, and it is not, is told; then the same command ends well."""
    school = in_sqlite(provisioned(bare))
    done(adopt(school, "import"))
    with journal(bare) as lines:
        arguments = ("adopt.yml", "-e", "step=finish", *school.arguments, "-e", "stopped=true")
        process = start(*arguments, limit=f"{bare.name},localhost")
        lines.wait_for("close", process)
        # It goes on saving until the comparison has read it.
        for number in range(60):
            school.sql(f"UPDATE projects SET name = 'immer noch {number}' WHERE id = 12;")
            if process.poll() is not None:
                break
        run = finish(process)
    assert run.status == 2
    assert "projects 12 differs in name" in run.sentence
    assert "If the old service still runs, stop it" in run.sentence
    done(adopt(school, "finish", "-e", "stopped=true"))


@pytest.mark.long
def test_it_can_be_given_up(bare: Place) -> None:
    """What was brought over goes, the old place is as it was, and another school may come."""
    school = in_sqlite(provisioned(bare))
    before = on_host(f"sudo find {FOLDER} -type f -exec md5sum {{}} + | sort | md5sum", bare.name)
    done(adopt(school, "import"))
    done(adopt(school, "import", "-e", "undo=true"))
    assert before == on_host(f"sudo find {FOLDER} -type f -exec md5sum {{}} + | sort | md5sum", bare.name)
    assert on_host("sudo find /var/lib/scratch4school/uploads -type f | wc -l", bare.name).strip() == "0"
    done(play("deploy.yml", limit=f"{bare.name},localhost"))
    done(adopt(school, "import"))
    done(adopt(school, "finish", "-e", "stopped=true"))


@pytest.mark.long
def test_a_larger_school_takes_no_longer_for_each_thousand(bare: Place, tmp_path: Path, tables: Tables) -> None:
    """Once, and twenty times over: how long each step took."""
    for times in (1, 20):
        school = larger(provisioned(bare), times, tmp_path)
        done(adopt(school, "import"))
        known = json.loads(on_host("sudo /usr/local/lib/scratch4school-adoption/adopt status", bare.name))
        finished = done(adopt(school, "finish", "-e", "stopped=true"))
        assert "Old and new are the same" in finished.output
        pause = json.loads(on_host("sudo /usr/local/lib/scratch4school-adoption/adopt status", bare.name))["pause"]
        tables.add(
            "Schools that came over",
            {
                "projects": 140 * times,
                "import_s": sum(known["seconds"].values()),
                "s_per_thousand": 1000 * sum(known["seconds"].values()) / (140 * times),
                "pause_s": pause,
            },
        )
