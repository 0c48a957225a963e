"""A school without a database server: a host on SQLite, deployed from nothing, verified, used, and kept on SQLite."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from conftest import PROJECTS, ROOT, Place, hand_over_images, lab_host, on_host, play, serving, status, wait_for

# Everything that a deploy made, but for the engine and its images.
FORGET = """
sudo systemctl stop scratch4school 2>/dev/null
command -v docker >/dev/null && sudo docker ps --all --quiet --filter label=scratch4school | xargs -r sudo docker rm -f
sudo systemctl stop 'scratch4school-*.timer' 2>/dev/null
sudo rm -rf /etc/systemd/system/scratch4school* /etc/scratch4school /var/lib/scratch4school
"""


@pytest.fixture(scope="module")
def bare(deployed: str) -> Place:
    """A lab host that is to run on SQLite, and on which there is nothing of ours."""
    place = lab_host(database="sqlite")
    on_host(FORGET, place.name)
    return place


@pytest.fixture(scope="module")
def secrets(deployed: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for secrets of the first deploy alone, with those in it that the lab's other scenarios know."""
    folder = tmp_path_factory.mktemp("secrets")
    for name in ("app_secret_key", "backup_password"):
        shutil.copy(ROOT / "inventories" / "lab" / ".secrets" / name, folder)
    return folder


@pytest.fixture(scope="module")
def small(bare: Place, secrets: Path) -> Place:
    """That host, deployed and verified."""
    hand_over_images(bare.name)
    own_folder = f"scratch4school_secrets_directory={secrets}"
    run = play("deploy.yml", "--extra-vars", own_folder, limit=f"{bare.name},localhost")
    assert run.status == 0, run.output[-4000:]
    assert "SQLite: no pool" in run.sentence
    assert "Results: 6 passed, 0 failed" in run.output
    return bare


@pytest.mark.parametrize("playbook", ["verify.yml", "restart.yml"])
def test_verb_needs_a_deployed_host(bare: Place, playbook: str) -> None:
    """One sentence of ours instead of the engine's own error, where there may not even be an engine."""
    run = play(playbook, limit=f"{bare.name},localhost")
    assert run.status != 0
    assert f"Nothing is deployed on {bare.name}; run deploy.yml first." in run.sentence


def test_nothing_is_made_for_another_engine(small: Place, secrets: Path) -> None:
    """No image, no setting and no password of PostgreSQL or PgBouncer; the health tests know which containers run."""
    built = on_host("sudo docker image ls --format '{{.Repository}}'", small.name).split()
    assert not {"scratch4school/postgres", "scratch4school/pgbouncer"} & set(built)
    assert on_host("sudo ls /etc/scratch4school", small.name).split() == ["app", "backup", "proxy"]
    assert {path.name for path in secrets.iterdir()} == {"app_secret_key", "backup_password"}


def test_deploy_again_changes_nothing(small: Place) -> None:
    """The second run says changed=0, and proves again that it works."""
    run = play("deploy.yml", limit=f"{small.name},localhost")
    assert run.status == 0, run.output[-4000:]
    assert run.recap(small.name)["changed"] == 0
    assert run.output.rstrip().endswith("Results: 6 passed, 0 failed")


def test_engine_is_not_switched(small: Place) -> None:
    """Asked for PostgreSQL, the host keeps its rows: the play ends before the first change and names the setting."""
    run = play("deploy.yml", "--extra-vars", "database_engine=postgres", limit=f"{small.name},localhost")
    assert run.status != 0
    assert f"{small.name} runs on sqlite; its rows are in /var/lib/scratch4school/database" in run.sentence
    assert "Set database_engine: sqlite." in run.sentence
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
