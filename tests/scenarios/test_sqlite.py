"""A host with SQLite on Debian 12: deployed, verified, used, restored, and kept on SQLite."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from conftest import PROJECTS

from scratch4school_lab.checkout import ROOT
from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.backups import backup_id, restore
from scratch4school_lab.scenarios.lab_hosts import http_status, on_host, running_containers, wait_for
from scratch4school_lab.scenarios.playbooks import VERIFIED, play
from scratch4school_lab.scenarios.pupils import create, read

Login = Callable[..., requests.Session]


def test_host_runs_debian_12_and_its_engine(sqlite_host: Host) -> None:
    """The workers' own hosts have Debian 13."""
    assert 'VERSION_ID="12"' in on_host("cat /etc/os-release", sqlite_host)
    assert on_host("sudo docker version --format '{{.Server.Version}}'", sqlite_host).startswith("20.10")


def test_sqlite_host_has_nothing_of_postgresql(sqlite_host: Host, tmp_path: Path) -> None:
    """It has no image, setting or password of PostgreSQL and PgBouncer, and a second deploy changes nothing."""
    built = on_host("sudo docker image ls --format '{{.Repository}}'", sqlite_host).split()
    assert not {"scratch4school/postgres", "scratch4school/pgbouncer"} & set(built)
    assert on_host("sudo ls /etc/scratch4school", sqlite_host).split() == ["app", "backup", "host", "proxy"]
    # Any other secret that the run uses would be made in this folder.
    for name in ("app_secret_key", "backup_password"):
        shutil.copy(ROOT / "inventories" / "lab" / ".secrets" / name, tmp_path)
    own_folder = f"scratch4school_secrets_directory={tmp_path}"
    run = play("deploy.yml", "--extra-vars", own_folder, host=sqlite_host)
    assert run.status == 0, run.output[-4000:]
    assert run.recap(sqlite_host)["changed"] == 0
    # The request for a login follows, until a person has logged in on this host.
    assert VERIFIED in run.output.rpartition("minutes\n")[2].splitlines()
    assert {path.name for path in tmp_path.iterdir()} == {"app_secret_key", "backup_password"}


def test_other_engine_is_refused(sqlite_host: Host) -> None:
    """A deploy with PostgreSQL ends before the first change and names the setting."""
    run = play("deploy.yml", "--extra-vars", "database_engine=postgres", host=sqlite_host)
    assert run.status != 0
    assert f"{sqlite_host.name} runs on sqlite; its database is in /var/lib/scratch4school/database" in run.one_line
    assert "Set database_engine: sqlite, or migrate: move-to-postgres.yml." in run.one_line
    assert run.recap(sqlite_host)["changed"] == 0


def test_saved_project_survives_stop_and_start(sqlite_host: Host, login: Login) -> None:
    """A pupil reads the same project after the unit has stopped and started all containers."""
    pupil = login("pupil17", sqlite_host)
    content = (PROJECTS / "default.sb3").read_bytes()
    answer = pupil.post(
        f"{sqlite_host.url}/backend/api/projects", files={"project_file": ("p.sb3", content)}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    address = f"{sqlite_host.url}/backend/api/projects/{answer.json()['id']}"
    assert pupil.get(f"{address}/download", timeout=60).content == content
    before = running_containers(sqlite_host)
    on_host("sudo systemctl stop scratch4school && sudo systemctl start scratch4school", sqlite_host)
    wait_for(lambda: http_status(sqlite_host) == 200)
    after = running_containers(sqlite_host)
    assert set(after) == set(before)
    assert all(after[name] != before[name] for name in after)
    assert pupil.get(f"{address}/download", timeout=60).content == content
    assert pupil.delete(address, timeout=60).status_code == 200


@pytest.mark.long
def test_restore_on_sqlite_brings_data_back(sqlite_host: Host, login: Login) -> None:
    """The same playbooks as with PostgreSQL; the database file and its log are replaced together."""
    pupil = login("pupil32", sqlite_host)
    kept = create(pupil, sqlite_host, "Datei", 3)
    backup = backup_id(play("backup.yml", host=sqlite_host))
    lost = create(pupil, sqlite_host, "danach")
    assert pupil.delete(kept, timeout=60).status_code == 200
    restore(backup, host=sqlite_host)
    assert (read(pupil, kept), read(pupil, lost)) == (3, None)
    drill = play("drill.yml", host=sqlite_host)
    assert drill.status == 0, drill.output[-4000:]
    assert pupil.delete(kept, timeout=60).status_code == 200
