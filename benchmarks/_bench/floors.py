"""Measures the cost of each operation beside its floor: nginx, an answer, the statements, a durable file.

The floors are measured in the same run, on the same host, with one client at a time:

* nginx with its own configuration, before a gunicorn that reads the same body and returns the same answer
* pgbench with the same statements, through PgBouncer and directly
* the same bytes, written with fsync and rename

No application on these parts can be cheaper than their sum.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from . import school, statements
from .classroom import DEFAULTS, OURS, WAY, WAYS
from .driver import Request, Sender, Took, again, post
from .host import CPU_COLUMNS, BenchmarkFailed, Host, Meter
from .results import Results, Row

# Milliseconds, of time as “ms” and of CPU by part and as “all”.
Cost = Counter[str]

THUMBNAIL_BYTES = 5_300
KEPT = DEFAULTS["app_keep_revisions"]
SIZES = {"64 KB": 0.0, "1 MB": 1.0, "10 MB": 10.0}
LISTED = 20
DOWNLOADERS = 8
PGBENCH = "/usr/lib/postgresql/17/bin/pgbench"
ASSET = "\\set asset random(1, 9000000000000000)"
SECRET = "/etc/scratch4school/app/database_password"

OPERATIONS, BY_PART, DOWNLOADS = (
    "floors: milliseconds of CPU and of time, one client",
    "floors: our CPU by part, and how much of it is above the floor's",
    "floors: downloads, bytes per second of nginx's own",
)


@dataclass(frozen=True)
class Operation:
    """One kind of request, ours and the floor's, and the bytes of the files that it has to keep."""

    name: str
    ours: Callable[[int, int], Request]
    floor: Callable[[int, int], Request]
    writes: tuple[int, ...] = ()


def measure(host: Host, results: Results, seconds: float) -> None:
    """Every operation beside its floors; then downloads at full speed."""
    rows: list[Row] = []
    by_part: list[Row] = []
    with host.redeployed(**WAYS[WAY]):
        school.log_pupils_in(host, "pooled")
        projects = {size: make_project(host, megabytes) for size, megabytes in SIZES.items()}
        for _ in range(LISTED - len(projects)):
            make_project(host, 0.0)
        measured, bodies = operations(host, projects)
        texts = {name: body.decode() for name, body in bodies.items()}
        shape = (f"--workers={OURS['workers']}", f"--threads={OURS['threads']}")
        host.script("redeploy.py", "floors", *shape, f"--bodies={shlex.quote(json.dumps(texts))}")
        for operation in measured:
            row, parts = one(host, operation, seconds)
            rows.append(row)
            by_part.append(parts)
            print(f"  {operation.name}: {row['ours_cpu']} ms of CPU, floor {row['floor_cpu']}", flush=True)
        results.table(
            OPERATIONS,
            rows,
            "Means, of time and of CPU. The floor is nginx with a gunicorn that keeps no log, the statements through "
            "PgBouncer, and the files.",
        )
        results.table(
            BY_PART,
            by_part,
            "ms of CPU; what is above the floor in the application is Flask, SQLAlchemy and ours.",
        )
        results.table(
            DOWNLOADS,
            downloads(host, projects, seconds),
            "In “nginx+gunicorn” a gunicorn names the file without asking the database. Shares are of nginx alone.",
        )


def make_project(host: Host, megabytes: float) -> tuple[int, str]:
    """A project of the first pupil; its id, and the path of its file below the uploads."""
    sender = Sender(school.session(0), megabytes)
    made = post(host.url, sender.save("POST", "projects?title=benchmark", 0, 0))["id"]
    return made, host.sql(f"SELECT sb3_file_path FROM projects WHERE id = {made}")


def operations(host: Host, projects: dict[str, tuple[int, str]]) -> tuple[list[Operation], dict[str, bytes]]:
    """Return the requests to measure, and the bodies of our answers by name, which the floor gives back."""
    sender = Sender(school.session(0))
    small, _ = projects["64 KB"]
    bodies: dict[str, bytes] = {}

    def with_body(name: str, ours: Callable[[int, int], Request], writes: tuple[int, ...] = ()) -> Operation:
        bodies[f"b{len(bodies)}"] = again(host.url, ours, 0, at_least=1).answer
        path = f"/backend/x?body=b{len(bodies) - 1}"

        def floor(client: int, number: int) -> Request:
            asked = ours(client, number)
            return Request(asked.method, path, asked.session, asked.body, asked.content_type)

        return Operation(name, ours, floor, writes)

    found = [
        with_body("status", lambda *_: sender.get("status")),
        with_body("user", lambda *_: sender.get("user")),
        with_body(f"list of {LISTED}", lambda *_: sender.get("projects")),
        with_body("metadata", lambda *_: sender.get(f"projects/{small}/metadata")),
    ]
    for size, megabytes in SIZES.items():
        number, path = projects[size]
        saver = Sender(school.session(0), megabytes)
        content = len(saver.save("PUT", "", 0, 0).body or b"") - THUMBNAIL_BYTES
        ours = sender.get(f"projects/{number}/download")
        sent = Request("GET", f"/backend/x?file=/_uploads/{path}")
        found.append(Operation(f"download {size}", lambda *_, ours=ours: ours, lambda *_, sent=sent: sent))
        found.append(
            with_body(
                f"save {size}",
                lambda client, n, saver=saver, number=number: saver.save("PUT", f"projects/{number}", client, n),
                (content, THUMBNAIL_BYTES),
            )
        )
        if not megabytes:
            found.append(
                with_body(
                    f"create {size}",
                    lambda client, n: sender.save("POST", "projects?title=benchmark", client, n),
                    (content, THUMBNAIL_BYTES),
                )
            )
    found.append(with_body("asset upload 16 KB", sender.asset, (16_448,)))
    return found, bodies


def one(host: Host, operation: Operation, seconds: float) -> tuple[Row, Row]:
    """An operation and its floors; the row of the table, and that of our CPU by part."""
    sent = sent_by(host, operation)
    with Meter(host) as meter:
        work: dict[str, Callable[[], Cost]] = {
            "ours": lambda: cost(meter, again(host.url, operation.ours, seconds)),
            "floor": lambda: cost(meter, again(host.floor_url, operation.floor, seconds)),
            "pooled": lambda: pgbench(host, meter, sent, seconds, "scratch4school-pgbouncer", 6432),
            "direct": lambda: pgbench(host, meter, sent, seconds, "scratch4school-postgres", 5432),
            "files": lambda: durable(host, operation.writes, seconds),
        }
        # In both orders, because a shared machine becomes faster and slower meanwhile.
        taken: dict[str, list[Cost]] = {name: [] for name in work}
        for name in [*work, *reversed(work)]:
            taken[name].append(work[name]())
    ours, floor, pooled, direct, files = (between(*costs) for costs in taken.values())
    total = {part: floor[part] + pooled[part] + files[part] for part in ("ms", "all")}
    row: Row = {
        "operation": operation.name,
        "ours_ms": round(ours["ms"], 2),
        "ours_cpu": round(ours["all"], 2),
        "nginx+gunicorn_ms": round(floor["ms"], 2),
        "cpu": round(floor["all"], 2),
        "statements": len(sent),
        "pooled_ms": round(pooled["ms"], 2),
        "pooled_cpu": round(pooled["all"], 2),
        "direct_ms": round(direct["ms"], 2),
        "direct_cpu": round(direct["all"], 2),
        "files_ms": round(files["ms"], 2),
        "files_cpu": round(files["all"], 2),
        "floor_ms": round(total["ms"], 2),
        "floor_cpu": round(total["all"], 2),
        "ratio_ms": round(ours["ms"] / total["ms"], 2),
        "ratio_cpu": round(ours["all"] / total["all"], 2),
    }
    above = {part: ours[part] - floor[part] - pooled[part] - files[part] for part in CPU_COLUMNS}
    by_part: Row = {
        "operation": operation.name,
        **{part: round(ours[part], 2) for part in CPU_COLUMNS},
        **{f"{part} above": round(above[part], 2) for part in CPU_COLUMNS},
    }
    return row, by_part


def cost(meter: Meter, took: Took) -> Cost:
    """Return the milliseconds of one request: of time, and of CPU by part."""
    used = meter.between(took.began, took.ended)
    return Counter({"ms": took.mean_ms} | {part: 1000 * seconds / took.count for part, seconds in used.items()})


def between(first: Cost, second: Cost) -> Cost:
    """The mean of two measurements of the same."""
    return Counter({name: (first[name] + second[name]) / 2 for name in {*first, *second}})


def durable(host: Host, sizes: tuple[int, ...], seconds: float) -> Cost:
    """Return the milliseconds in which files of these sizes are stored, as the application stores them."""
    if not sizes:
        return Counter()
    took = json.loads(host.script("durable.py", seconds, *sizes))
    return Counter({"ms": took["ms"], "app": took["cpu_ms"], "all": took["cpu_ms"]})


def sent_by(host: Host, operation: Operation) -> list[statements.Statement]:
    """The statements of one request; BenchmarkFailed when two requests on end do not send the same."""
    for attempt in range(3):
        with statements.logged(host):
            # The first statements of a connection, and the record of a session's use, are no part of a request.
            # So many that the oldest content goes with each save, as it does from then on.
            again(host.url, operation.ours, 0, at_least=KEPT + 5)
            moment = time.time()
            again(host.url, lambda client, n, at=100 + 10 * attempt: operation.ours(client, n + at), 0, at_least=1)
            seen = statements.since(host, moment)
        first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
        if [each.kind for each in first] == [each.kind for each in second]:
            return second
    raise BenchmarkFailed(f"Two requests “{operation.name}” did not send the same statements: {seen}")


def script(sent: list[statements.Statement]) -> str:
    """The same statements as a script for pgbench; one message of the application stays one message.

    What a save inserts depends on what its UPDATE returned, and a costume is not there yet, as in the application.
    """
    lines: list[str] = []
    for statement in sent:
        text = statement.text.rstrip("; \n").replace("; ", "\\; ")
        if " assets " in text or text.startswith("SELECT assets."):
            lines = lines if ASSET in lines else [ASSET, *lines]
            text = re.sub(r"'[0-9a-f]{32}'", "lpad(:asset::text, 32, '0')", text)
        if text.startswith(("UPDATE projects ", "INSERT INTO projects ")):
            lines.append(f"{text} \\gset p_")
            continue
        if text.startswith("INSERT INTO project_revisions"):
            text, count = re.subn(r"VALUES \(\d+, \d+,", "VALUES (:p_id, :p_version,", text)
            if not count:
                raise BenchmarkFailed(f"The statement of a revision reads differently: {statement.text}")
        lines.append(f"{text};")
    return "\n".join(lines) + "\n"


def pgbench(host: Host, meter: Meter, sent: list[statements.Statement], seconds: float, server: str, port: int) -> Cost:
    """Return the milliseconds of one round of the statements; 0 without statements."""
    if not sent:
        return Counter()
    host.run(
        "sh -c 'mkdir -p /var/lib/scratch4school/benchmark && cat > /var/lib/scratch4school/benchmark/round.sql'",
        script(sent).encode(),
    )
    image = host.run("docker inspect --format {{.Config.Image}} scratch4school-postgres").strip()
    command = (
        "docker run --rm --network scratch4school --user 10001 "
        f"--mount type=bind,source={SECRET},target=/run/secret,readonly "
        "--mount type=bind,source=/var/lib/scratch4school/benchmark/round.sql,target=/round.sql,readonly "
        f"{image} sh -c 'PGPASSWORD=$(cat /run/secret) exec {PGBENCH} --no-vacuum --client=1 --file=/round.sql "
        f"--time={max(1, round(seconds))} --host={server} --port={port} --username={statements.ROLE} "
        "scratch4school 2>&1'"
    )
    began = time.time()
    printed = host.run(f"sh -c {shlex.quote(command)}")
    used = meter.between(began, time.time())
    done = re.search(r"transactions actually processed: (\d+)", printed)
    took = re.search(r"latency average = ([\d.]+) ms", printed)
    if not done or not took or not int(done[1]) or "ERROR" in printed or "aborted" in printed:
        raise BenchmarkFailed(f"pgbench did not come to its end: {printed[-800:]}")
    parts = {part: 1000 * used[part] / int(done[1]) for part in ("pooler", "database")}
    return Counter({"ms": float(took[1]), **parts, "all": sum(parts.values())})


def downloads(host: Host, projects: dict[str, tuple[int, str]], seconds: float) -> list[Row]:
    """Several at once: our way, with its question whether they may, beside less and less of it.

    First the question is left out, then the application: nginx sends the file itself.
    """
    sender, rows = Sender(school.session(0)), []
    for size, (number, path) in projects.items():
        asked = {
            "ours": (host.url, sender.get(f"projects/{number}/download")),
            "nginx+gunicorn": (host.floor_url, Request("GET", f"/backend/x?file=/_uploads/{path}")),
            "nginx": (host.floor_url, Request("GET", f"/static/{path}")),
        }
        taken: dict[str, list[tuple[float, Cost]]] = {name: [] for name in asked}
        with Meter(host) as meter:
            for name in [*asked, *reversed(asked)]:
                url, request = asked[name]
                took = again(url, lambda *_, request=request: request, seconds, DOWNLOADERS)
                taken[name].append((took.per_second * len(took.answer) / 1e6, cost(meter, took)))
        rates = {name: sum(rate for rate, _ in both) / len(both) for name, both in taken.items()}
        cpu = {name: between(*(each for _, each in both))["all"] for name, both in taken.items()}
        rows.append(
            {
                "size": size,
                **{f"{name}_MB/s": round(rate, 1) for name, rate in rates.items()},
                **{f"{name}_cpu_ms": round(milliseconds, 2) for name, milliseconds in cpu.items()},
                **{f"{name}_%": round(100 * rates[name] / rates["nginx"]) for name in ("ours", "nginx+gunicorn")},
                "ours by CPU, %": round(100 * cpu["nginx"] / cpu["ours"]),
            }
        )
    return rows
