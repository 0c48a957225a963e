"""A class of growing size, on several ways to deploy the application; and which numbers of workers to choose.

The class is that of the original's measurement: projects of 64 KiB with a picture, and no pause between two requests of
a pupil. "The original's way" is our application with the original's command line: one sync worker, directly on
PostgreSQL. It shows the value of the way to deploy, and not the cost of the original's code.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from . import school
from .host import CA, CPU_COLUMNS, ROOT, BenchmarkFailed, Host, Meter
from .results import Results, Row

Name = TypeVar("Name")

USERS = (10, 50, 100, 200, 400)
DEFAULTS = yaml.safe_load((ROOT / "roles" / "app" / "defaults" / "main.yml").read_text())
OURS = {"workers": DEFAULTS["app_workers"], "threads": DEFAULTS["app_threads"]}
POOLER = yaml.safe_load((ROOT / "roles" / "pgbouncer" / "defaults" / "main.yml").read_text())

WAY, DIRECT, ORIGINAL, SQLITE = "ours, PgBouncer", "ours, no pooler", "original's way", "ours, SQLite"
WAYS: dict[str, dict[str, Any]] = {
    WAY: {**OURS, "database": "pooled"},
    DIRECT: {**OURS, "database": "direct"},
    ORIGINAL: {"workers": 1, "threads": 1, "gunicorn": "--worker-class sync", "database": "direct"},
    SQLITE: {**OURS, "database": "sqlite"},
}
# Processes and threads to choose from, on a machine with two cores, of which the driver uses a part.
SHAPES = ((1, 4), (2, 2), (2, 4), (2, 8), (3, 2), (3, 4), (4, 2), (4, 4), (6, 2), (8, 1))
SYNC_SHAPES = ((3, 1), (8, 1))
POOLS = (1, 2, 3, 5, 10)

LOAD, RATIOS, CHOICE, POOL_CHOICE = (
    "classroom: users and ways to deploy",
    "classroom: ours over the others, at 100 users",
    "classroom: workers and threads, 100 users",
    "classroom: server connections of the pool, 100 users",
)
CPU_NOTE = (
    "CPU is milliseconds per request of the server's containers, as the kernel counts it. It excludes the driver and "
    "Docker, which keeps their logs."
)


def run_class(host: Host, users: int, seconds: float, *more: str, beside: Callable[[], object] | None = None) -> Row:
    """Run a class of `users` for `seconds`; returns its figures with the CPU of every part.

    `beside` is called again and again during the load.
    """
    with tempfile.TemporaryDirectory() as name, Meter(host) as meter:
        folder = Path(name)
        report, pulse, sessions, log = (folder / kind for kind in ("report", "pulse", "sessions", "log"))
        school.write_sessions(sessions)
        command = [ROOT / "scripts" / "classroom", "--url", host.url, "--ca", CA, "--sessions", sessions]
        command += ["--users", users, "--seconds", seconds, "--json", report, "--pulse", pulse, "--devices", 0]
        command += ["--large-share", 0, "--max-requests", 10_000_000, *more]
        with log.open("w") as output:
            class_run = subprocess.Popen([*map(str, command)], stdout=output, stderr=output)
            try:
                while beside and class_run.poll() is None:
                    # Only during the load does it have an effect on the class.
                    if ": load " in log.read_text() and ": finish" not in log.read_text():
                        beside()
                    else:
                        time.sleep(0.2)
                class_run.wait()
            finally:
                class_run.kill()
                class_run.wait()
        if not report.exists():
            raise BenchmarkFailed(f"The class did not start: {log.read_text()[-1000:]}")
        outcome = json.loads(report.read_text())
        pulses = [json.loads(line) for line in pulse.read_text().splitlines()]
        first, last = pulses[0], pulses[-1]
        used = meter.between(first["at"], last["at"])
    requests = max(last["requests"] - first["requests"], 1)
    times = outcome["operations"]["all"]
    return {
        "requests/s": outcome["requests_per_second"],
        "p50_ms": times["p50_ms"],
        "p95_ms": times["p95_ms"],
        "p99_ms": times["p99_ms"],
        "failed": outcome["failed"],
        "broken": sum(outcome["promises"].values()) + len(outcome["unread"]),
        **{f"{part}_ms": round(1000 * used.get(part, 0.0) / requests, 3) for part in CPU_COLUMNS},
        "driver_ms": outcome["driver_cpu_ms_per_request"],
    }


def measure(host: Host, results: Results, seconds: float, quick: bool) -> None:
    """Measure all sizes, each on all ways; then the ratios within this run."""
    rows: list[Row] = []
    for users in USERS[:1] if quick else USERS:
        print(f"  {users} users", flush=True)
        measured = in_both_orders(list(WAYS), lambda way: deploy_and_run(host, WAYS[way], users, seconds), quick)  # noqa: B023
        rows += [{"way": way, "users": users, **measured[way]} for way in WAYS]
    results.table(LOAD, rows, CPU_NOTE)
    results.table(
        RATIOS, ratios(rows, USERS[0] if quick else 100), "Above 1 is more: of requests/s good, of the rest bad."
    )


def in_both_orders(names: list[Name], work: Callable[[Name], Row], quick: bool = False) -> dict[Name, Row]:
    """Measure in the given order and then in the opposite order; returns the means of both measurements.

    A shared machine becomes faster and slower by a third within minutes. So compared things are measured close
    together, in the order A, B, B, A. `spread_%` is the difference between the two results of one thing.
    """
    order = names if quick else [*names, *reversed(names)]
    taken: dict[Name, list[Row]] = {}
    for name in order:
        taken.setdefault(name, []).append(work(name))
        print(f"  {name}: {taken[name][-1]['requests/s']} requests/s", flush=True)
    return {name: mean(rows) for name, rows in taken.items()}


def mean(rows: list[Row]) -> Row:
    """The mean of each figure; failures are added up. `spread_%` is the distance of the requests/s."""
    figures = {name: sum(_number(row[name]) for row in rows) / len(rows) for name in rows[0]}
    totals = {name: sum(int(_number(row[name])) for row in rows) for name in ("failed", "broken")}
    rates = [_number(row["requests/s"]) for row in rows]
    apart = round(100 * (max(rates) - min(rates)) / figures["requests/s"])
    return {**{name: round(figure, 3) for name, figure in figures.items()}, **totals, "spread_%": apart}


def deploy_and_run(host: Host, options: dict[str, Any], users: int, seconds: float) -> Row:
    """Deploy the application that way, and run a class."""
    with host.redeployed(**options):
        school.log_pupils_in(host, options["database"])
        return run_class(host, users, seconds)


def ratios(rows: list[Row], users: int) -> list[Row]:
    """Our way divided by each other way, with the same number of users, within one run."""
    at = {row["way"]: row for row in rows if row["users"] == users}
    names = ("requests/s", "p50_ms", "p99_ms", "all_ms")
    return [
        {"ours over": way, **{name: round(_number(at[WAY][name]) / _number(at[way][name]), 2) for name in names}}
        for way in at
        if way != WAY
    ]


def choose(host: Host, results: Results, seconds: float, quick: bool) -> None:
    """Measure the same class with other numbers of processes, threads and server connections."""
    shapes = [("gthread", *shape) for shape in SHAPES] + [("sync", *shape) for shape in SYNC_SHAPES]

    def run_with_shape(shape: tuple[str, int, int]) -> Row:
        kind, workers, threads = shape
        options = {"workers": workers, "threads": threads, "gunicorn": f"--worker-class {kind}", "database": "pooled"}
        return deploy_and_run(host, options, 100, seconds)

    def run_with_pool(size: int) -> Row:
        try:
            # Without this, waiting clients would get the reserve, and hide the effect of the size.
            for setting in (f"default_pool_size = {size}", "reserve_pool_size = 0"):
                host.console(f"SET {setting}")
            host.console("RECONNECT")
            return run_class(host, 100, seconds)
        finally:
            host.console("RELOAD")

    measured = in_both_orders(shapes[:1] if quick else shapes, run_with_shape, quick)
    rows = [
        {"worker class": kind, "workers": workers, "threads": threads, **row}
        for (kind, workers, threads), row in measured.items()
    ]
    results.table(CHOICE, rows, CPU_NOTE)
    sizes = list(POOLS[:1] if quick else (*POOLS, POOLER["pgbouncer_pool_size"]))
    with host.redeployed(**WAYS[WAY]):
        school.log_pupils_in(host, "pooled")
        pools = in_both_orders(sizes, run_with_pool, quick)
    results.table(POOL_CHOICE, [{"server connections": size, **row} for size, row in pools.items()], CPU_NOTE)


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)
