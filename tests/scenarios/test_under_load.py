"""A hundred pupils at once on a deployed host, with either database: nothing is lost, torn or doubled, nobody fails."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, Place

pytestmark = pytest.mark.alone

CLASSROOM = ROOT / "scripts" / "classroom"
PUPILS = 100
SECONDS = 20


@pytest.mark.parametrize("engine", ["postgres", "sqlite"])
def test_hundred_users_lose_nothing(engine: str, large: Place, small: Place, tmp_path: Path) -> None:
    """They log in, save, upload, open, share and copy, ten devices on one project among them; the ledger is whole."""
    place, report = {"postgres": large, "sqlite": small}[engine], tmp_path / "report.json"
    ended = subprocess.run(
        [CLASSROOM, "--host", place.name, "--json", report, "--users", str(PUPILS), "--seconds", str(SECONDS)],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    said = json.loads(report.read_text())
    assert said["users"] == PUPILS
    assert said["promises"] == {"lost": 0, "torn": 0, "duplicates": 0, "orphans": 0}
    assert (said["failed"], said["unread"]) == (0, [])
    # It was a class, and there were collisions to survive.
    assert said["ledger"]["acknowledged_saves"] > 5 * PUPILS
    assert said["conflicts"] > 0
