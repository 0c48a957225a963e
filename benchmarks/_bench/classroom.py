"""A class of growing size, on the application as we deploy it and as it could stand; and which numbers to choose.

The class is that of the original's measurement: projects of 64 KiB with a picture, no pause between two requests of a
pupil. The way of the original is its command line, one sync worker straight to PostgreSQL, with our application: it
shows what the way of deploying is worth, and not what the original's code costs.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from . import school
from .host import CA, ROOT, BenchmarkFailed, Host, Meter
from .results import Results, Row

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
# Processes and threads to choose from, on a machine with two cores that the driver takes its share of.
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
    "CPU is milliseconds per request of the server's containers, as the kernel counts it; the driver's is not in it."
)


def hold(host: Host, users: int, seconds: float, *more: str, beside: Callable[[], object] | None = None) -> Row:
    """A class of so many for so long; what came out of it, CPU of every part included.

    `beside` is done again and again while it lasts.
    """
    with tempfile.TemporaryDirectory() as name, Meter(host) as meter:
        folder = Path(name)
        report, pulse, sessions, log = (folder / kind for kind in ("report", "pulse", "sessions", "log"))
        school.write_sessions(sessions)
        command = [ROOT / "scripts" / "classroom", "--url", host.url, "--ca", CA, "--sessions", sessions]
        command += ["--users", users, "--seconds", seconds, "--json", report, "--pulse", pulse, "--devices", 0]
        command += ["--large-share", 0, *more]
        with log.open("w") as said:
            lesson = subprocess.Popen([*map(str, command)], stdout=said, stderr=said)
            while beside and lesson.poll() is None:
                # Before the load nobody would notice it, and after it nobody would any more.
                if ": load " in log.read_text() and ": settle" not in log.read_text():
                    beside()
                else:
                    time.sleep(0.2)
            lesson.wait()
        if not report.exists():
            raise BenchmarkFailed(f"The class did not come about: {log.read_text()[-1000:]}")
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
        "broken": sum(outcome["promises"].values()),
        **{
            f"{part}_ms": round(1000 * used.get(part, 0.0) / requests, 3)
            for part in ("proxy", "app", "pooler", "database", "all")
        },
        "driver_ms": outcome["driver_cpu_ms_per_request"],
    }


def measure(host: Host, results: Results, seconds: float, quick: bool) -> None:
    """All ways, all sizes; then the ratios of this very run."""
    rows: list[Row] = []
    users = USERS[:1] if quick else USERS
    for way, options in WAYS.items():
        with host.standing(**options):
            school.log_everybody_in(host, options["database"])
            for number in users:
                rows.append({"way": way, "users": number, **hold(host, number, seconds)})
                print(f"  {way}, {number} users: {rows[-1]['requests/s']} requests/s", flush=True)
    results.table(LOAD, rows, CPU_NOTE)
    results.table(
        RATIOS, ratios(rows, users[-1] if quick else 100), "Above 1 is more: of requests/s good, of the rest bad."
    )


def ratios(rows: list[Row], users: int) -> list[Row]:
    """Our way over each other one, with as many users, in one run."""
    at = {row["way"]: row for row in rows if row["users"] == users}
    compared = []
    for way in at:
        if way != WAY:
            ours, other = at[WAY], at[way]
            ratio = {
                name: round(_number(ours[name]) / _number(other[name]), 2)
                for name in ("requests/s", "p50_ms", "p99_ms", "all_ms")
            }
            compared.append({"ours over": way, **ratio})
    return compared


def choose(host: Host, results: Results, seconds: float, quick: bool) -> None:
    """The same class on other numbers of processes, threads and server connections."""
    rows: list[Row] = []
    shapes = [("gthread", *shape) for shape in SHAPES] + [("sync", *shape) for shape in SYNC_SHAPES]
    for kind, workers, threads in shapes[:1] if quick else shapes:
        with host.standing(workers=workers, threads=threads, gunicorn=f"--worker-class {kind}", database="pooled"):
            school.log_everybody_in(host, "pooled")
            row = {"worker class": kind, "workers": workers, "threads": threads, **hold(host, 100, seconds)}
        rows.append(row)
        print(f"  {kind} {workers} × {threads}: {row['requests/s']} requests/s, p99 {row['p99_ms']} ms", flush=True)
    results.table(CHOICE, rows, CPU_NOTE)
    rows = []
    with host.standing(**WAYS[WAY]):
        school.log_everybody_in(host, "pooled")
        for size in POOLS[:1] if quick else (*POOLS, POOLER["pgbouncer_pool_size"]):
            try:
                # The reserve would otherwise be lent to whoever waits, and hide what the size alone is worth.
                for setting in (f"default_pool_size = {size}", "reserve_pool_size = 0"):
                    host.console(f"SET {setting}")
                host.console("RECONNECT")
                rows.append({"server connections": size, **hold(host, 100, seconds)})
            finally:
                host.console("RELOAD")
            print(f"  {size} server connections: {rows[-1]['requests/s']} requests/s", flush=True)
    results.table(POOL_CHOICE, rows, CPU_NOTE)


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value) or 0.001
