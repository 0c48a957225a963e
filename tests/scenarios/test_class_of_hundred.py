"""A hundred pupils at once, with either database engine: nothing is lost, torn or duplicated, and no request fails."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from scratch4school_lab.checkout import SCRIPTS
from scratch4school_lab.hosts.plan import Host

pytestmark = pytest.mark.alone

CLASSROOM = SCRIPTS / "classroom"
PUPILS = 100
# About twenty seconds on two cores.
LOAD = ("--seconds", "86400", "--max-requests", "8000")


@pytest.mark.parametrize("engine", ["postgres", "sqlite"])
def test_class_of_hundred_breaks_no_promise(engine: str, deployed: Host, sqlite_host: Host, tmp_path: Path) -> None:
    """They log in, save, upload, open, share and copy, and ten devices save to one project."""
    host, report = {"postgres": deployed, "sqlite": sqlite_host}[engine], tmp_path / "report.json"
    ended = subprocess.run(
        [CLASSROOM, "--host", host.name, "--json", report, "--users", str(PUPILS), *LOAD],
        capture_output=True,
        text=True,
        check=False,
    )
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    outcome = json.loads(report.read_text())
    assert outcome["users"] == PUPILS
    assert outcome["promises"] == {"lost": 0, "torn": 0, "duplicates": 0, "orphans": 0}
    assert (outcome["failed"], outcome["unread"]) == (0, [])
    # There were enough saves, and collisions among them.
    assert outcome["save_record"]["acknowledged_saves"] > 5 * PUPILS
    assert outcome["conflicts"] > 0
