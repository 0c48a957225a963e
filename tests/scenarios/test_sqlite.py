"""A school without a database server: a host on SQLite, deployed from nothing, verified, used, and kept on SQLite."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import requests
from conftest import PROJECTS, ROOT, VERIFIED, Place, on_host, play, serving, status, wait_for


def test_nothing_is_made_for_another_engine(small: Place, tmp_path: Path) -> None:
    """No image, setting or password of PostgreSQL and PgBouncer, here or there; and to deploy again changes nothing."""
    built = on_host("sudo docker image ls --format '{{.Repository}}'", small.name).split()
    assert not {"scratch4school/postgres", "scratch4school/pgbouncer"} & set(built)
    assert on_host("sudo ls /etc/scratch4school", small.name).split() == ["app", "backup", "proxy"]
    # Whatever else was looked at would be made in this folder.
    for name in ("app_secret_key", "backup_password"):
        shutil.copy(ROOT / "inventories" / "lab" / ".secrets" / name, tmp_path)
    own_folder = f"scratch4school_secrets_directory={tmp_path}"
    run = play("deploy.yml", "--extra-vars", own_folder, limit=f"{small.name},localhost")
    assert run.status == 0, run.output[-4000:]
    assert run.recap(small.name)["changed"] == 0
    # Below it stands the request for a login, until a person has logged in on this host.
    assert VERIFIED in run.output.rpartition("minutes\n")[2].splitlines()
    assert {path.name for path in tmp_path.iterdir()} == {"app_secret_key", "backup_password"}


def test_engine_is_not_switched(small: Place) -> None:
    """Asked for PostgreSQL, the host keeps its rows: the play ends before the first change and names the setting."""
    run = play("deploy.yml", "--extra-vars", "database_engine=postgres", limit=f"{small.name},localhost")
    assert run.status != 0
    assert f"{small.name} runs on sqlite; its rows are in /var/lib/scratch4school/database" in run.sentence
    assert "Set database_engine: sqlite, or move them: move-to-postgres.yml." in run.sentence
    assert run.recap(small.name)["changed"] == 0


def test_saved_project_outlives_the_containers(small: Place, login: Callable[..., requests.Session]) -> None:
    """A pupil logs in, saves and reads; after a stop and a start of everything by the unit she reads the same."""
    pupil = login("pupil17", small.url)
    content = (PROJECTS / "default.sb3").read_bytes()
    answer = pupil.post(f"{small.url}/backend/api/projects", files={"project_file": ("p.sb3", content)}, timeout=30)
    assert answer.status_code == 200, answer.text
    address = f"{small.url}/backend/api/projects/{answer.json()['id']}"
    assert pupil.get(f"{address}/download", timeout=30).content == content
    before = serving(small.name)
    on_host("sudo systemctl stop scratch4school && sudo systemctl start scratch4school", small.name)
    wait_for(lambda: status(small.url) == 200, seconds=60)
    after = serving(small.name)
    assert set(after) == set(before)
    assert all(after[name] != before[name] for name in after)
    assert pupil.get(f"{address}/download", timeout=30).content == content
    assert pupil.delete(address, timeout=30).status_code == 200
