"""Debian 12 is a host like Debian 13: refused while bare, deployed, from nothing too, verified, used by a pupil."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import requests
from conftest import PROJECTS, VERIFIED, Place, forget, hand_over_images, lab_host, on_host, play


@pytest.fixture(scope="module")
def bare() -> Place:
    """Another lab host, of Debian 12, on which there is nothing of ours."""
    place = lab_host(system="bookworm")
    forget(place)
    return place


# The host stays bare for this one alone: what a scenario leaves behind, the health tests meet.
@pytest.mark.parametrize("playbook", ["verify.yml", "restart.yml"])
def test_verb_needs_a_deployed_host(bare: Place, playbook: str) -> None:
    """One sentence of ours instead of the engine's own error, where there may not even be an engine."""
    run = play(playbook, limit=f"{bare.name},localhost")
    assert run.status != 0
    assert f"Nothing is deployed on {bare.name}; run deploy.yml first." in run.sentence


@pytest.fixture(scope="module", params=["application", pytest.param("all", marks=pytest.mark.long)])
def bookworm(images: dict[str, str], request: pytest.FixtureRequest) -> Place:
    """That host with Scratch4School on it; so much of it built there, by its older engine."""
    place = lab_host(system="bookworm")
    forget(place, images=True)
    if request.param == "application":
        hand_over_images(place.name, images, but="app")
    run = play("deploy.yml", limit=f"{place.name},localhost")
    assert run.status == 0, run.output[-4000:]
    assert VERIFIED in run.output
    return place


def test_host_is_what_we_think(bookworm: Place) -> None:
    """The host really is Debian 12, with its own, older engine."""
    assert 'VERSION_ID="12"' in on_host("cat /etc/os-release", bookworm.name)
    assert on_host("sudo docker version --format '{{.Server.Version}}'", bookworm.name).startswith("20.10")


def test_deploy_again_changes_nothing(bookworm: Place) -> None:
    """Idempotence does not depend on the engine's version."""
    run = play("deploy.yml", limit=f"{bookworm.name},localhost")
    assert run.status == 0, run.output[-4000:]
    assert run.recap(bookworm.name)["changed"] == 0


def test_pupil_saves_and_reads(bookworm: Place, login: Callable[..., requests.Session]) -> None:
    """The same login and the same project as on Debian 13."""
    pupil = login("pupil16", bookworm.url)
    content = (PROJECTS / "default.sb3").read_bytes()
    answer = pupil.post(f"{bookworm.url}/backend/api/projects", files={"project_file": ("p.sb3", content)}, timeout=30)
    assert answer.status_code == 200, answer.text
    address = f"{bookworm.url}/backend/api/projects/{answer.json()['id']}"
    assert pupil.get(f"{address}/download", timeout=30).content == content
    assert pupil.delete(address, timeout=30).status_code == 200
