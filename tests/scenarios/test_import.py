"""Import of an existing installation with adopt.yml: look, rehearse, import while it runs, finish with a comparison."""

from __future__ import annotations

import gzip
import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from conftest import PROJECTS

from scratch4school_lab.checkout import LAB_INVENTORY
from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.existing_installations import (
    DATABASES,
    FOLDER,
    ExistingInstallation,
    adopt,
    as_dump,
    by_compose,
    in_sqlite,
    larger,
    prepare_host,
    put,
    succeed,
)
from scratch4school_lab.scenarios.lab_hosts import CA, http_status, on_host, remove_installation
from scratch4school_lab.scenarios.playbooks import VERIFIED, play
from scratch4school_lab.tables import Tables

Login = Callable[..., requests.Session]
ADOPTION = "/var/lib/scratch4school/adoption"
REPORTS = LAB_INVENTORY / ".adoption"
TITLE = "Das längste Spiel der Welt: Übermütige Bären 🐻 jagen süße Äpfel durch den Öl-Dschungel, bis es Abend"


def project_hash(host: Host, browser: requests.Session, number: int) -> str:
    """The hash of a project's content as its owner downloads it."""
    answer = browser.get(f"{host.url}/backend/api/projects/{number}/download", timeout=60)
    assert answer.status_code == 200, answer.text
    return hashlib.sha256(answer.content).hexdigest()


def still_logged_in(host: Host, session: str) -> requests.Session:
    """A browser with a session of the existing installation only."""
    browser = requests.Session()
    browser.trust_env = False
    browser.verify = CA
    browser.headers["Authorization"] = f"Bearer {session}"
    assert browser.get(f"{host.url}/backend/session", params={"session_id": session}, timeout=60).status_code == 200
    return browser


def live_session(folder: Path, owner_of: int) -> str:
    """A session of a project's owner in the first existing installation that is valid until after 2030."""
    file = folder / "sessions.db"
    file.write_bytes(gzip.decompress((DATABASES / "before-sqlite.db.gz").read_bytes()))
    database = sqlite3.connect(file)
    (found,) = database.execute(
        "SELECT s.id FROM oauth_sessions s JOIN projects p ON p.owner_id = s.user_id "
        "WHERE p.id = ? AND s.expires_at > '2030-01-01' ORDER BY s.id LIMIT 1",
        [owner_of],
    ).fetchone()
    database.close()
    return str(found)


@pytest.mark.parametrize("playbook", ["verify.yml", "restart.yml"])
def test_playbook_on_bare_host_is_refused(bare_host: Host, playbook: str) -> None:
    """The message names deploy.yml. The scenarios that follow import into this host."""
    remove_installation(bare_host)
    run = play(playbook, host=bare_host)
    assert run.status != 0
    assert f"Nothing is deployed on {bare_host.name}; run deploy.yml first." in run.one_line


def test_sqlite_installation_is_imported_and_used(bare_host: Host, login: Login, tmp_path: Path) -> None:
    """Each step prints its counts. Sessions stay valid, and what was saved during the import is in the result."""
    installation = in_sqlite(prepare_host(bare_host))
    looked = succeed(adopt(installation, "inspect"))
    for text in (
        "The source database is the original's, before its fix.",
        "60 users",
        "140 projects",
        "projects/93_2abf38ef-6e0b-43a1-a550-d6c241f23bf4.sb3 (projects 93)",
        "projects/16_16672817-e215-46fa-a827-af3677a0d499.sb3 (projects 16): no zip",
        "- 81 files that no row names",
        "step=rehearse",
    ):
        assert text in looked.one_line, text
    assert json.loads((REPORTS / f"{bare_host.name}.json").read_text())["rows"]["rows"]["backpack_items"] == 30
    assert http_status(bare_host) != 200

    rehearsed = succeed(adopt(installation, "rehearse"))
    assert "452 rows are the same, 0 differ" in rehearsed.output
    assert "transfer" not in on_host("sudo docker ps --all --format '{{.Names}}'", bare_host)

    succeed(adopt(installation, "import"))
    refused = play("deploy.yml", host=bare_host)
    assert (refused.status, "adopt.yml is importing a school" in refused.one_line) == (2, True)
    # The existing service still runs: a pupil saves over her project, another one creates one.
    installation.sql("UPDATE projects SET name = 'anders', updated_at = '2025-11-15 08:00:00' WHERE id = 12;")
    put(bare_host, f"cat > {FOLDER}/uploads/projects/12_jorg.wei.sb3", (PROJECTS / "default.sb3").read_bytes())
    checksums = f"sudo sh -c 'cd {FOLDER}/db && md5sum *'"
    before = on_host(checksums, bare_host)
    assert "main.db-wal" in before
    asked = adopt(installation, "finish")
    assert (asked.status, "Stop the old service now" in asked.one_line) == (2, True)
    finished = succeed(adopt(installation, "finish", "-e", "stopped=true"))
    assert "projects: 140 rows: 0 new, 1 changed, 0 gone" in finished.output
    assert "Source and this host are the same, row by row and file by file" in finished.output
    assert VERIFIED in finished.output
    assert on_host(checksums, bare_host) == before, "the source is unchanged"

    pupil = still_logged_in(bare_host, live_session(tmp_path, 87))
    listed = pupil.get(f"{bare_host.url}/backend/api/projects", timeout=60).json()["projects"]
    assert {14, 13, 10, 87} <= {one["id"] for one in listed}
    answer = pupil.put(
        f"{bare_host.url}/backend/api/projects/87",
        files={"project_file": ("p.sb3", (PROJECTS / "default.sb3").read_bytes())},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    assert project_hash(bare_host, pupil, 87) == hashlib.sha256((PROJECTS / "default.sb3").read_bytes()).hexdigest()
    psql = "sudo docker exec scratch4school-postgres psql -U postgres -d scratch4school -Atc"
    assert on_host(f"{psql} 'SELECT name FROM projects WHERE id IN (12, 62) ORDER BY id'", bare_host).splitlines() == [
        "anders",
        TITLE,
    ]
    assert login("pupil36", bare_host).get(f"{bare_host.url}/backend/api/projects", timeout=60).json()["count"] == 0
    kept = json.loads(on_host(f"sudo cat {ADOPTION}/orphans/list.json", bare_host))
    assert "thumbnails/Thumbs.db" in kept

    again = adopt(installation, "import")
    assert (again.status, "was imported to" in again.one_line) == (2, True)
    idle = play("deploy.yml", host=bare_host)
    assert (idle.status, idle.recap(bare_host)["changed"]) == (0, 0), idle.output[-3000:]


@pytest.mark.long
@pytest.mark.parametrize("form", [as_dump, by_compose])
def test_dump_and_compose_installation_are_imported(
    bare_host: Host, form: Callable[[Host], ExistingInstallation]
) -> None:
    """A compressed dump with an archive; a running server of Compose, which the original has upgraded in place."""
    installation = form(prepare_host(bare_host))
    try:
        for step in ("inspect", "rehearse", "import"):
            succeed(adopt(installation, step))
        finished = succeed(adopt(installation, "finish", "-e", "stopped=true"))
        assert "Source and this host are the same, row by row and file by file" in finished.output
        assert VERIFIED in finished.output
    finally:
        on_host("sudo docker rm --force old-postgres", bare_host)
    if form is by_compose:
        assert "another-secret-than-the-labs" in (REPORTS / f"{bare_host.name}.settings.yml").read_text()
        assert "another-secret-than-the-labs" not in finished.output
    idle = play("deploy.yml", host=bare_host)
    assert (idle.status, idle.recap(bare_host)["changed"]) == (0, 0), idle.output[-3000:]


@pytest.fixture
def replaced_school(sqlite_host: Host) -> Iterator[Host]:
    """The host with SQLite, for an import; afterwards it is deployed again, without the damaged files of the source."""
    yield prepare_host(sqlite_host)
    remove_installation(sqlite_host)
    assert play("deploy.yml", host=sqlite_host).status == 0


@pytest.mark.long
def test_postgres_dump_is_imported_to_sqlite_host(replaced_school: Host) -> None:
    """Rows of one engine for the other; the server that reads the dump is removed at the end."""
    sqlite_host = replaced_school
    installation = as_dump(sqlite_host)
    succeed(adopt(installation, "inspect"))
    succeed(adopt(installation, "rehearse"))
    succeed(adopt(installation, "import"))
    finished = succeed(adopt(installation, "finish", "-e", "stopped=true"))
    assert "452 rows are the same, 0 differ" in finished.output
    assert VERIFIED in finished.output
    assert "postgres" not in on_host("sudo docker ps --all --format '{{.Names}}'", sqlite_host)


@pytest.mark.long
def test_large_installation_is_imported(bare_host: Host, tmp_path: Path, tables: Tables) -> None:
    """Import it once, and twenty times its size; the table shows the seconds for each thousand projects."""
    for times in (1, 20):
        installation = larger(prepare_host(bare_host), times, tmp_path)
        succeed(adopt(installation, "import"))
        known = json.loads(on_host("sudo scratch4schoolctl import status --json", bare_host))
        finished = succeed(adopt(installation, "finish", "-e", "stopped=true"))
        assert "Source and this host are the same" in finished.output
        pause = json.loads(on_host("sudo scratch4schoolctl import status --json", bare_host))["pause"]
        tables.add(
            "Imported installations",
            {
                "projects": 140 * times,
                "import_s": sum(known["seconds"].values()),
                "s_per_thousand": 1000 * sum(known["seconds"].values()) / (140 * times),
                "pause_s": pause,
            },
        )
