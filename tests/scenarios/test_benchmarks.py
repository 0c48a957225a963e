"""benchmarks/run succeeds on a lab host and restores it; with --quick its figures mean nothing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from scratch4school_lab.checkout import ROOT
from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.lab_hosts import http_status, on_host

pytestmark = [pytest.mark.alone, pytest.mark.long]

OURS = "SELECT count(*) FROM users WHERE id LIKE 'bench-%' OR id LIKE 'row-%'"
COUNT = f'sudo docker exec scratch4school-postgres psql -U postgres -At scratch4school -c "{OURS}"'
LOGGED = "SELECT count(*) FROM pg_roles WHERE array_to_string(rolconfig, ',') LIKE '%log_min_duration%'"


@pytest.mark.parametrize(
    ("parts", "plots"),
    [
        (["classroom"], ["classroom.png", "cpu.png"]),
        (["choice", "floors", "growth"], ["floors.png", "growth.png"]),
        (["playbooks"], ["playbooks.png"]),
        (["revert"], []),
        (["migration"], []),
    ],
    ids=lambda words: "+".join(words),
)
def test_benchmark_writes_results_and_restores_host(
    deployed: Host, parts: list[str], plots: list[str], tmp_path: Path
) -> None:
    """It writes tables and plots; no container and no row of the measurement is left."""
    command = [ROOT / "benchmarks" / "run", *parts, "--quick", "--results", tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert all(results["tables"].values())
    assert results["machine"]["PgBouncer"].startswith("PgBouncer 1.")
    assert (tmp_path / "tables.txt").read_text().count("\n") > len(results["tables"])
    assert [name for name in plots if not (tmp_path / name).read_bytes().startswith(b"\x89PNG")] == []
    assert http_status(deployed) == 200
    assert on_host("sudo readlink /var/lib/scratch4school/run/app/current").strip() in ("blue", "green")
    assert "benchmark" not in on_host("sudo ls /var/lib/scratch4school")
    assert on_host(COUNT.replace(OURS, LOGGED)).strip() == "0"
    assert "bench" not in on_host("sudo docker ps --all --format '{{.Names}}'")
    assert on_host(COUNT).strip() == "0"
