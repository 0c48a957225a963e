"""Debian 12 is a host like Debian 13: deployed from nothing, verified, used by a pupil."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
import requests
from conftest import PROJECTS, ROOT, on_host, play

BOOKWORM = "scratch4school-lab-2"
BOOKWORM_URL = "https://localhost:8444"


@pytest.fixture(scope="module")
def bookworm(deployed: str) -> str:
    """A second lab host, of Debian 12, with Scratch4School on it."""
    up = subprocess.run(
        [str(ROOT / "scripts" / "lab"), "up", "--hosts", "2", "--os", "bookworm"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert up.returncode == 0, up.stdout + up.stderr
    run = play("deploy.yml", limit=f"{BOOKWORM},localhost")
    assert run.status == 0, run.output[-4000:]
    assert "Results: 6 passed, 0 failed" in run.output
    return BOOKWORM_URL


def test_host_is_what_we_think(bookworm: str) -> None:
    """The second host really is Debian 12, with its own, older engine."""
    assert 'VERSION_ID="12"' in on_host("cat /etc/os-release", BOOKWORM)
    assert on_host("sudo docker version --format '{{.Server.Version}}'", BOOKWORM).startswith("20.10")


def test_deploy_again_changes_nothing(bookworm: str) -> None:
    """Idempotence does not depend on the engine's version."""
    run = play("deploy.yml", limit=f"{BOOKWORM},localhost")
    assert run.status == 0, run.output[-4000:]
    assert run.recap(BOOKWORM)["changed"] == 0


def test_pupil_saves_and_reads(bookworm: str, login: Callable[..., requests.Session]) -> None:
    """The same login and the same project as on Debian 13."""
    pupil = login("pupil16", bookworm)
    content = (PROJECTS / "default.sb3").read_bytes()
    answer = pupil.post(f"{bookworm}/backend/api/projects", files={"project_file": ("p.sb3", content)}, timeout=30)
    assert answer.status_code == 200, answer.text
    address = f"{bookworm}/backend/api/projects/{answer.json()['id']}"
    assert pupil.get(f"{address}/download", timeout=30).content == content
    assert pupil.delete(address, timeout=30).status_code == 200
