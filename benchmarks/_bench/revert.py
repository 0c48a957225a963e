"""Measures the time until the previous release is live again after a failed verification; two seconds are promised."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from scratch4school_lab.hosts import plan as lab
from scratch4school_lab.scenarios import faults, playbooks, variants

from .host import BenchmarkFailed, Host
from .results import Results

TIMES = 3
PROMISED_SECONDS = 2.0
TABLE = "revert: seconds from the failed verification to the previous release"


def measure(host: Host, results: Results, quick: bool) -> None:
    """Deploy a release that fails its verification, again and again; BenchmarkFailed when a revert takes too long."""
    with tempfile.TemporaryDirectory() as folder:
        checkout = variants.make(Path(folder), variants.fails_verification)
        seconds = [revert(host, checkout, number) for number in range(1 if quick else TIMES)]
    row = {"median_s": statistics.median(seconds), "most_s": max(seconds), "runs": len(seconds)}
    results.table(TABLE, [{name: round(value, 2) for name, value in row.items()}], f"Promised: {PROMISED_SECONDS} s.")
    if max(seconds) > PROMISED_SECONDS and not quick:
        raise BenchmarkFailed(f"A revert took {max(seconds):.2f} s; {PROMISED_SECONDS} s are promised.")


def revert(host: Host, checkout: Path, number: int) -> float:
    """Seconds from the failed task to the switch back, of a release with a number of its own."""
    lab_host = lab.find_host(host.name)
    assert lab_host
    settings = f"app_keep_revisions={100 + number} release_observe_seconds=5 app_verify_quick=true"
    process = playbooks.start("deploy.yml", "--extra-vars", settings, folder=checkout, host=lab_host)
    run, failed_at = faults.finish_and_time_failure(process)
    if run.status == 0 or not failed_at:
        raise BenchmarkFailed(f"A release that fails its verification was deployed:\n{run.output[-2000:]}")
    return faults.switched_at(lab_host) - failed_at
