"""Backups of a large school: first, again, after a school day, drill, beside a class, and restored to an empty host.

The same run measures their floors: `pg_dump | cat` and `cp -r` of the same data.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable

from scratch4school_lab.hosts import plan as lab

from . import classroom, school
from .host import FOLDER, LAB, BenchmarkFailed, Host, lab_hosts, play
from .results import Results, Row

PROGRAM = "/usr/local/sbin/scratch4schoolctl"
ROWS_MEGABYTES, FILES_MEGABYTES = 1_000, 10_000
PUPILS, THINK, LOAD_SECONDS = 40, 1, 60
TABLE, BESIDE = "backups: seconds, a large school", "backups: a class beside them"


def measure(host: Host, results: Results, quick: bool) -> None:
    """Measure one after the other; each measurement works on what the previous ones left."""
    rows: list[Row] = []
    empty = another_host()
    files = FILES_MEGABYTES / (1000 if quick else 1)

    def note(what: str, seconds: float, phases: dict[str, float] | None = None) -> None:
        details = ", ".join(f"{name} {took}" for name, took in (phases or {}).items())
        rows.append({"what": what, "seconds": round(seconds, 1), "of it": details})
        print(f"  {what}: {seconds:.1f} s {details}", flush=True)

    fill(host, ROWS_MEGABYTES / (100 if quick else 1), files)
    dump = "docker exec scratch4school-postgres pg_dump -U postgres -Fc -Z0 scratch4school | cat >/dev/null"
    note("floor: pg_dump | cat", timed(lambda: host.run(f"sh -c '{dump}'")))
    try:
        note("floor: cp -r of the files", timed(lambda: host.run(f"cp -r {FOLDER}/uploads {FOLDER}/copy")))
    finally:
        host.run(f"rm -rf {FOLDER}/copy")
    note("backup, first", *backup(host))
    note("backup, nothing new", *backup(host))
    fill(host, 0, files * 0.02)
    note("backup, after a school day", *backup(host))
    host.run(f"{PROGRAM} drill")
    drill = json.loads(host.run(f"{PROGRAM} backup status --json"))["drill"]
    note("drill", drill["seconds"], drill["phases"])
    note("restore onto an empty host, command to verified", restore_elsewhere(host, empty))
    mega = [int(host.run(f"du -sm {FOLDER}/{folder}").split()[0]) for folder in ("postgres", "uploads")]
    results.table(TABLE, rows, f"PostgreSQL's folder takes {mega[0]} MB, the files {mega[1]} MB.")
    results.table(BESIDE, beside(host, quick), "A class of 40 with a pause between requests, as while a school works.")


def fill(host: Host, rows: float, files: float) -> None:
    """Add rows and files on the host, so many megabytes of each."""
    host.script("fill.py", f"--rows-megabytes={rows}", f"--files-megabytes={files}")


def timed(work: Callable[[], object]) -> float:
    """Seconds that something takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def backup(host: Host) -> tuple[float, dict[str, float]]:
    """Make a backup by the program on the host; returns its seconds, as a whole and by phase."""
    host.run(f"{PROGRAM} backup create")
    known = json.loads(host.run(f"{PROGRAM} backup status --json"))["backup"]
    return known["seconds"], known["phases"]


def beside(host: Host, quick: bool) -> list[Row]:
    """Measure a class while backups are made one after the other."""
    seconds = 2 if quick else LOAD_SECONDS

    def read_everything_again() -> None:
        host.run(f"rm -f {FOLDER}/backup/files.json")
        backup(host)

    rows: list[Row] = []
    school.log_pupils_in(host, "pooled")
    for what, work in (
        ("nothing", None),
        ("nightly backups", lambda: backup(host)),
        ("one that reads everything again", read_everything_again),
    ):
        row = classroom.run_class(host, PUPILS, seconds, "--think", str(THINK), beside=work)
        if row["failed"] or row["broken"]:
            raise BenchmarkFailed(f"Beside {what} a request failed or a promise was broken.")
        # The CPU of the class cannot be separated from that of the backup here.
        rows.append({"beside": what, **{name: row[name] for name in ("requests/s", "p50_ms", "p95_ms", "p99_ms")}})
    return rows


def another_host() -> Host:
    """A new lab host."""
    count = lab_hosts() + 1
    if count > lab.MOST_HOSTS:
        raise BenchmarkFailed("The lab has no room for another host; run scripts/lab down first.")
    subprocess.run([LAB, "up", "--hosts", str(count)], check=True, stdout=subprocess.DEVNULL)
    return Host(count)


def pipe(source: Host, command: str, target: Host, consumer: str) -> None:
    """Send the output of a command on one host to a command on another host."""
    with subprocess.Popen([LAB, "ssh", source.name, f"sudo {command}"], stdout=subprocess.PIPE) as sending:
        subprocess.run(
            [LAB, "ssh", target.name, f"sudo {consumer}"], stdin=sending.stdout, check=True, stdout=subprocess.DEVNULL
        )
    if sending.returncode:
        raise BenchmarkFailed(f"{command} failed on {source.name}.")


def restore_elsewhere(host: Host, empty: Host) -> float:
    """Seconds from the command to a verified installation, on a host that had only the repository."""
    empty.run("sh -c 'apt-get update -q && apt-get install -qy --no-install-recommends docker.io docker-cli'")
    images = " ".join(
        host.run(f"docker image ls --format '{{{{.Repository}}}}:{{{{.Tag}}}}' scratch4school/{name}").split()[0]
        for name in ("base", "proxy", "backup", "app", "postgres", "pgbouncer")
    )
    pipe(host, f"docker save {images}", empty, "docker load")
    play([empty.name], "provision.yml")
    # The repository is copied to the new host; the folder itself is the role's.
    repository = f"{FOLDER}/backup/repository"
    empty.run(f"sh -c 'rm -rf {repository}/*'")
    pipe(host, f"tar -C {repository} -c .", empty, f"tar -C {repository} -x")
    return timed(lambda: play([empty.name], "restore.yml", "-e", "backup=latest", "-e", "allow_foreign=true"))
