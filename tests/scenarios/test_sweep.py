"""The uploads folder is swept: what nothing names goes after its grace time, and what a pupil has stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import requests
from conftest import PROJECTS, on_host, play

UPLOADS = "/var/lib/scratch4school/uploads"
LEFT = "projects/scenario/left.sb3"

# As a save that was killed before its commit leaves a file, and a sweep three days ago noted it.
LEAVE_BEHIND = f"""
cd {UPLOADS}
install -d -o 10001 -g 10000 -m 2750 projects/scenario
install -o 10001 -g 10000 -m 0640 /etc/os-release {LEFT}
touch -d "3 days ago" {LEFT}
echo "{{\\"{LEFT}\\": $(date -d "3 days ago" +%s)}}" > .unnamed.json
chown 10001:10000 .unnamed.json
"""


@pytest.fixture
def left_behind(deployed: str) -> Iterator[str]:
    """A file that no row names, long noted; its path on the host."""
    on_host(f"sudo sh -ec '{LEAVE_BEHIND}'")
    yield f"{UPLOADS}/{LEFT}"
    on_host(f"sudo rm -r {UPLOADS}/projects/scenario")


def test_only_what_nothing_names_goes(left_behind: str, login: Callable[..., requests.Session], deployed: str) -> None:
    """The sweep says what it removed, and a project that was just saved over is there as it was."""
    pupil = login("pupil18")
    content = (PROJECTS / "default.sb3").read_bytes()
    answer = pupil.post(f"{deployed}/backend/api/projects", files={"project_file": ("p.sb3", content)}, timeout=30)
    assert answer.status_code == 200, answer.text
    address = f"{deployed}/backend/api/projects/{answer.json()['id']}"
    run = play("sweep.yml")
    assert run.status == 0, run.output[-4000:]
    assert "files removed: 1 (" in run.sentence
    assert run.recap()["changed"] == 1
    assert on_host(f"sudo ls {left_behind} 2>&1 || true").endswith("No such file or directory\n")
    assert pupil.get(f"{address}/download", timeout=30).content == content
    assert pupil.delete(address, timeout=30).status_code == 200
