"""Measures the time of an operation as the school grows: from a thousand projects to a million, with files of any size.

One client, so that no operation waits for another. Where an index serves it, an
operation may grow no faster than the logarithm of the rows, which from a thousand to a million doubles. The ten
statements that took PostgreSQL most of its time at the end are shown with their plans.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import defaultdict
from collections.abc import Callable

from . import school, statements
from .classroom import OURS, run_class
from .driver import Request, Sender, again, post
from .host import Host
from .results import Results, Row

ROWS = (1_000, 10_000, 100_000, 1_000_000)
FILES_MEGABYTES = (0.01, 0.1, 1.0, 5.0, 15.0)
HOTTEST = 10
# Statements of a class of this size are looked at.
WATCHED, WATCHED_SECONDS = 20, 5.0

GROWTH, SIZES, PLANS = (
    "growth: p50 in ms, projects in the database",
    "growth: p50 in ms, size of a project",
    "growth: the ten hottest statements at the most rows",
)


def measure(host: Host, results: Results, seconds: float, quick: bool) -> None:
    """Rows on both engines, then file sizes, then plans."""
    counts = ROWS[:2] if quick else ROWS
    found: list[Row] = []
    for database in ("sqlite", "pooled"):
        with host.redeployed(**OURS, database=database):
            school.log_pupils_in(host, database)
            times: dict[str, list[float]] = defaultdict(list)
            for previous, count in itertools.pairwise((0, *counts)):
                began = time.monotonic()
                school.grow(host, database, previous + 1, count)
                print(f"  {database}: {count:,} projects, made in {time.monotonic() - began:.0f} s", flush=True)
                if not previous:
                    school.furnish(host, database, owner=1, seen_by=2)
                    work = operations(host)
                for name, make in work.items():
                    times[name].append(again(host.url, make, seconds / 5).p50_ms)
            engine = "SQLite" if database == "sqlite" else "PostgreSQL"
            found += [grown(engine, name, counts, took) for name, took in times.items()]
            if database == "pooled":
                results.table(
                    GROWTH, found, "“grown” is the last over the first, “logarithm” how far that of the rows grew."
                )
                results.table(
                    SIZES, files(host, seconds), "A project's time should grow with its bytes, and no faster."
                )
                plans(host, results)


def grown(engine: str, operation: str, counts: tuple[int, ...], took: list[float]) -> Row:
    """The row of an operation: milliseconds at each number of projects, and how much slower it became."""
    sizes = {f"{count:,}": round(each, 2) for count, each in zip(counts, took, strict=True)}
    allowed = math.log(counts[-1]) / math.log(counts[0])
    more = {"grown": round(took[-1] / took[0], 2), "logarithm": round(allowed, 2)}
    return {"engine": engine, "operation": operation, **sizes, **more}


def operations(host: Host) -> dict[str, Callable[[int, int], Request]]:
    """The operations of pupils with a few projects, by name. One pupil alone gets more; they are never listed."""
    sender, owner, seer, maker = (Sender(school.session(number)) for number in range(4))
    made = post(host.url, maker.save("POST", "projects?title=growth", 0, 0))["id"]
    own = [post(host.url, sender.save("POST", "projects?title=growth", 0, number))["id"] for number in range(10)]
    return {
        "session": lambda *_: sender.get("user"),
        "save": lambda client, n: sender.save("PUT", f"projects/{own[n % 10]}", client, n),
        "create": lambda client, n: maker.save("POST", "projects?title=growth", client, n),
        "copy": lambda *_: Request("POST", f"/backend/api/projects/{made}/copy", maker.session, b""),
        "list": lambda *_: owner.get("projects"),
        "recent": lambda *_: sender.get("projects/recent"),
        "metadata": lambda *_: sender.get(f"projects/{own[0]}/metadata"),
        "download": lambda *_: sender.get(f"projects/{own[0]}/download"),
        "shared list": lambda *_: seer.get("projects/shared"),
        "asset upload": sender.asset,
        "backpack": lambda *_: seer.get("backpack"),
        "groups": lambda *_: sender.get("groups"),
    }


def files(host: Host, seconds: float) -> list[Row]:
    """A save and a download of projects of growing size."""
    rows: list[Row] = []
    for megabytes in FILES_MEGABYTES:
        sender = Sender(school.session(4), megabytes)
        number = post(host.url, sender.save("POST", "projects?title=growth", 0, 0))["id"]
        path = f"projects/{number}"
        saved = again(host.url, lambda client, n: sender.save("PUT", path, client, n), seconds / 3)  # noqa: B023
        read = again(host.url, lambda *_: sender.get(f"{path}/download"), seconds / 3)  # noqa: B023
        rows.append(
            {
                "MB": megabytes,
                "save": round(saved.p50_ms, 1),
                "save, ms a MB": round(saved.p50_ms / megabytes, 1),
                "download": round(read.p50_ms, 1),
                "download, ms a MB": round(read.p50_ms / megabytes, 1),
            }
        )
    return rows


def plans(host: Host, results: Results) -> None:
    """The statements on which PostgreSQL spent most of its time during a class, with their plans."""
    with statements.logged(host):
        moment = time.time()
        # The projects are kept, so that each statement of a plan finds its rows.
        run_class(host, WATCHED, WATCHED_SECONDS, "--keep")
        seen = statements.since(host, moment)
    by_kind: dict[str, list[statements.Statement]] = defaultdict(list)
    for statement in seen:
        if statement.text.split(maxsplit=1)[0] in ("SELECT", "UPDATE", "INSERT", "DELETE", "WITH"):
            by_kind[statement.kind].append(statement)
    hottest = sorted(by_kind.values(), key=lambda some: -sum(each.milliseconds for each in some))[:HOTTEST]
    everything = sum(statement.milliseconds for statement in seen)
    rows, text = [], []
    for number, some in enumerate(hottest, start=1):
        plan = explain(host, some[-1].text)
        spent = sum(each.milliseconds for each in some)
        shape = " ".join(some[0].kind.split())
        rows.append(
            {
                "number": number,
                "statement": shape if len(shape) < 70 else f"{shape[:40]} … {shape[-27:]}",
                "times": len(some),
                "share %": round(100 * spent / everything, 1),
                "mean_ms": round(spent / len(some), 3),
                "reads whole tables": ", ".join(whole_tables(plan)) or "none",
            }
        )
        text.append(f"{number}. {shape}\n\n{plan}")
    (results.folder / "plans.txt").write_text("\n\n".join(text) + "\n")
    results.table(PLANS, rows, "The plans are in plans.txt. COMMIT, where a save waits for the disk, has none.")


def explain(host: Host, statement: str) -> str:
    """PostgreSQL's plan of a statement, while it runs the statement again; the changes are rolled back."""
    # An inserted row exists already, and cannot be inserted again.
    how = "COSTS OFF" if statement.startswith("INSERT") else "ANALYZE, BUFFERS, COSTS OFF, TIMING OFF"
    return host.sql(f"BEGIN; EXPLAIN ({how}) {statement.rstrip('; ')}; ROLLBACK")


def whole_tables(plan: str) -> list[str]:
    """The tables that a plan reads from one end to the other."""
    return sorted({line.split("Seq Scan on ")[1].split()[0] for line in plan.splitlines() if "Seq Scan on " in line})
