"""How long a class waits beside a migration that a long transaction blocks; at most one try of it more is promised."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from scratch4school_lab.hosts import plan as lab
from scratch4school_lab.scenarios import background_class, held_migration, playbooks, variants

from .host import BenchmarkFailed, Host
from .results import Results, Row

CLASS = ["--users", "100", "--think", "1"]
QUIET_SECONDS, QUIET_SECONDS_IF_QUICK = 30, 2
# How long one try waits for the table, and requests behind it (docker/app/src/scratch4school/database/schema.py).
PROMISED_MS = 2000
TABLE = "migration: milliseconds of the requests of a class of 100"


def measure(host: Host, results: Results, quick: bool) -> None:
    """The same class without and with the migration; BenchmarkFailed when its p99 grows by more than one try."""
    lab_host = lab.find_host(host.name)
    assert lab_host
    before = held_migration.revision(lab_host)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkout = variants.make(folder, variants.slow_lock)
        # The image is built before, so that the class is measured beside the migration only.
        succeed(playbooks.play("provision.yml", folder=checkout, host=lab_host))
        pause = QUIET_SECONDS_IF_QUICK if quick else QUIET_SECONDS
        quiet = times_of_class(lab_host, folder / "quiet", lambda: time.sleep(pause))
        try:
            held = times_of_class(
                lab_host,
                folder / "held",
                lambda: succeed(held_migration.migrate_behind_a_transaction(lab_host, checkout)),
            )
        finally:
            held_migration.undo_migration(lab_host, before)
    rows = [{"class": "alone", **quiet}, {"class": "beside the migration", **held}]
    results.table(TABLE, rows, f"Promised: a p99 of at most {PROMISED_MS} ms more beside the migration.")
    if held["p99_ms"] > quiet["p99_ms"] + PROMISED_MS and not quick:
        raise BenchmarkFailed(f"The p99 is {held['p99_ms']} ms beside the migration, and {quiet['p99_ms']} ms alone.")


def succeed(run: playbooks.Run) -> None:
    """BenchmarkFailed for a playbook that failed."""
    if run.status != 0:
        raise BenchmarkFailed(run.output[-2000:])


def times_of_class(host: lab.Host, folder: Path, meanwhile: Callable[[], None]) -> Row:
    """The milliseconds of a class's requests while `meanwhile()` ran; BenchmarkFailed when one failed."""
    folder.mkdir()
    with background_class.background_classes(folder) as start_class:
        running = start_class(host, *CLASS)
        meanwhile()
        report = running.end()
    if report["failed"]:
        raise BenchmarkFailed(f"Requests of the class failed: {report['failed_by_kind']}")
    times = report["operations"]["all"]
    return {name: times[name] for name in ("count", "p50_ms", "p99_ms", "max_ms")}
