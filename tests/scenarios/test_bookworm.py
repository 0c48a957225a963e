"""A host with PostgreSQL on Debian 12: refused while it is bare, deployed, from nothing too, used by a pupil.

Another host with Debian 12, deployed with SQLite, is in test_sqlite.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import requests
from conftest import PROJECTS

from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.lab_hosts import bookworm_host, copy_images, on_host, remove_installation
from scratch4school_lab.scenarios.playbooks import VERIFIED, play

pytestmark = pytest.mark.long

# A pupil for each installation: `login` keeps the sessions of a pupil, and a removed installation ends them.
PUPILS = {"application": "pupil16", "all": "pupil19"}


@pytest.fixture(scope="module")
def bare() -> Host:
    """The host with Debian 12, without an installation."""
    host = bookworm_host()
    remove_installation(host)
    return host


@pytest.mark.parametrize("playbook", ["verify.yml", "restart.yml"])
def test_playbook_on_bare_host_is_refused(bare: Host, playbook: str) -> None:
    """Also where the host has no Docker Engine yet."""
    run = play(playbook, host=bare)
    assert run.status != 0
    assert f"Nothing is deployed on {bare.name}; run deploy.yml first." in run.one_line


@pytest.fixture(scope="module", params=list(PUPILS))
def bookworm(images: dict[str, str], request: pytest.FixtureRequest) -> Host:
    """That host, deployed; its older engine builds the application's image, or all images."""
    host = bookworm_host()
    remove_installation(host, images=True)
    if request.param == "application":
        copy_images(host, [image for name, image in images.items() if name != "app"])
    run = play("deploy.yml", host=host)
    assert run.status == 0, run.output[-4000:]
    assert VERIFIED in run.output
    return host


def test_host_runs_debian_12_and_its_engine(bookworm: Host) -> None:
    """The other tests are about this host."""
    assert 'VERSION_ID="12"' in on_host("cat /etc/os-release", bookworm)
    assert on_host("sudo docker version --format '{{.Server.Version}}'", bookworm).startswith("20.10")


def test_deploy_again_changes_nothing(bookworm: Host) -> None:
    """Also with the older engine."""
    run = play("deploy.yml", host=bookworm)
    assert run.status == 0, run.output[-4000:]
    assert run.recap(bookworm)["changed"] == 0


def test_pupil_saves_and_reads(
    bookworm: Host, login: Callable[..., requests.Session], request: pytest.FixtureRequest
) -> None:
    """The same login and the same project as on Debian 13."""
    pupil = login(PUPILS[request.node.callspec.params["bookworm"]], bookworm)
    content = (PROJECTS / "default.sb3").read_bytes()
    answer = pupil.post(f"{bookworm.url}/backend/api/projects", files={"project_file": ("p.sb3", content)}, timeout=60)
    assert answer.status_code == 200, answer.text
    address = f"{bookworm.url}/backend/api/projects/{answer.json()['id']}"
    assert pupil.get(f"{address}/download", timeout=60).content == content
    assert pupil.delete(address, timeout=60).status_code == 200
