"""A sweep removes files that no row names after their grace time, and keeps pupils' files."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import requests
from conftest import PROJECTS

from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.lab_hosts import on_host
from scratch4school_lab.scenarios.playbooks import play

UPLOADS = "/var/lib/scratch4school/uploads"
LEFT = "projects/scenario/left.sb3"

# As if a save was killed before its commit, and a sweep three days ago has recorded its file.
LEAVE_BEHIND = f"""
cd {UPLOADS}
install -d -o 10001 -g 10000 -m 2750 projects/scenario
install -o 10001 -g 10000 -m 0640 /etc/os-release {LEFT}
touch -d "3 days ago" {LEFT}
echo "{{\\"{LEFT}\\": $(date -d "3 days ago" +%s)}}" > .unnamed.json
chown 10001:10000 .unnamed.json
"""


@pytest.fixture
def left_behind(deployed: Host) -> Iterator[str]:
    """A file that no row names, recorded long ago; its path on the host."""
    on_host(f"sudo sh -ec '{LEAVE_BEHIND}'")
    yield f"{UPLOADS}/{LEFT}"
    on_host(f"sudo rm -r {UPLOADS}/projects/scenario")


def test_sweep_removes_unnamed_file_only(
    left_behind: str, login: Callable[..., requests.Session], deployed: Host
) -> None:
    """The sweep prints the number of removed files, and a project is unchanged."""
    pupil = login("pupil18")
    content = (PROJECTS / "default.sb3").read_bytes()
    answer = pupil.post(f"{deployed.url}/backend/api/projects", files={"project_file": ("p.sb3", content)}, timeout=60)
    assert answer.status_code == 200, answer.text
    address = f"{deployed.url}/backend/api/projects/{answer.json()['id']}"
    run = play("sweep.yml")
    assert run.status == 0, run.output[-4000:]
    assert "files removed: 1 (" in run.one_line
    assert run.recap()["changed"] == 1
    assert on_host(f"sudo ls {left_behind} 2>&1 || true").endswith("No such file or directory\n")
    assert pupil.get(f"{address}/download", timeout=60).content == content
    assert pupil.delete(address, timeout=60).status_code == 200
