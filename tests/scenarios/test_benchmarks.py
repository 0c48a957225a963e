"""benchmarks/run comes to its end on a lab host and leaves the host as it was; its figures here are worth nothing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, on_host, status

pytestmark = pytest.mark.alone

OURS = "SELECT count(*) FROM users WHERE id LIKE 'bench-%' OR id LIKE 'row-%'"
COUNT = f'sudo docker exec scratch4school-postgres psql -U postgres -At scratch4school -c "{OURS}"'
LOGGED = "SELECT count(*) FROM pg_roles WHERE array_to_string(rolconfig, ',') LIKE '%log_min_duration%'"


@pytest.mark.parametrize(
    ("parts", "plots"),
    [
        (["classroom"], ["classroom.png", "cpu.png"]),
        pytest.param(["choice", "floors", "growth"], ["floors.png", "growth.png"], marks=pytest.mark.long),
        pytest.param(["verbs"], ["verbs.png"], marks=pytest.mark.long),
    ],
    ids=lambda words: "+".join(words),
)
def test_it_measures_and_leaves_no_trace(deployed: str, parts: list[str], plots: list[str], tmp_path: Path) -> None:
    """Tables, figures and plots are there; nothing of the measurement runs any more, and nobody made up is left."""
    command = [ROOT / "benchmarks" / "run", *parts, "--quick", "--results", tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert all(results["tables"].values())
    assert results["machine"]["PgBouncer"].startswith("PgBouncer 1.")
    assert (tmp_path / "tables.txt").read_text().count("\n") > len(results["tables"])
    assert [name for name in plots if not (tmp_path / name).read_bytes().startswith(b"\x89PNG")] == []
    assert status(deployed) == 200
    assert on_host("sudo readlink /var/lib/scratch4school/run/app/current").strip() in ("blue", "green")
    assert "benchmark" not in on_host("sudo ls /var/lib/scratch4school")
    assert on_host(COUNT.replace(OURS, LOGGED)).strip() == "0"
    assert "bench" not in on_host("sudo docker ps --all --format '{{.Names}}'")
    assert on_host(COUNT).strip() == "0"
