"""The command line of benchmarks/run: which parts, how long, and where the figures go."""

from __future__ import annotations

import argparse
import datetime
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from scratch4school_lab.hosts import plan as lab

from . import backups, classroom, floors, growth, migration, playbooks, revert, school, statements
from .host import LAB, BenchmarkFailed, Host, play
from .results import RESULTS, Results, machine

DESCRIPTION = """\
Measures what this bundle deploys, on lab hosts of this machine, as ratios inside one run. It brings the lab up and
deploys on it where needed, prints tables, and writes them with plots into benchmarks/results/<date>."""

SECONDS, QUICK_SECONDS = 10.0, 2.0
Part = Callable[[argparse.Namespace, Host, Results], None]


def _classroom(options: argparse.Namespace, host: Host, results: Results) -> None:
    classroom.measure(host, results, options.seconds, options.quick)


def _choice(options: argparse.Namespace, host: Host, results: Results) -> None:
    classroom.choose(host, results, options.seconds, options.quick)


def _floors(options: argparse.Namespace, host: Host, results: Results) -> None:
    floors.measure(host, results, options.seconds / 4)


def _growth(options: argparse.Namespace, host: Host, results: Results) -> None:
    growth.measure(host, results, options.seconds, options.quick)


def _playbooks(options: argparse.Namespace, _host: Host, results: Results) -> None:
    playbooks.measure(
        results, options.hosts[:1] if options.quick else options.hosts, 1 if options.quick else options.times
    )


def _revert(options: argparse.Namespace, host: Host, results: Results) -> None:
    revert.measure(host, results, options.quick)


def _migration(options: argparse.Namespace, host: Host, results: Results) -> None:
    migration.measure(host, results, options.quick)


def _backups(options: argparse.Namespace, host: Host, results: Results) -> None:
    backups.measure(host, results, options.quick)


PARTS: dict[str, tuple[str, Part]] = {
    "classroom": ("a class of 10 to 400 on four ways to deploy, CPU of every part", _classroom),
    "choice": ("the same class on other numbers of workers, threads and server connections", _choice),
    "floors": ("each operation beside its floor, and downloads beside nginx's own", _floors),
    "growth": (
        "a thousand to a million projects on both engines, 10 KB to 15 MB, plans of the hottest statements",
        _growth,
    ),
    "playbooks": ("deploy, rollback, restart, backup and drill on one, two and three hosts", _playbooks),
    "revert": ("from a failed verification to the previous release, three times; two seconds are promised", _revert),
    "migration": ("a class beside a migration that a long transaction blocks, against the class alone", _migration),
    "backups": ("backup, drill and restore of 1 GB of rows and 10 GB of files; 20 minutes, 40 GB of disk", _backups),
}


def main(arguments: list[str] | None = None) -> int:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/run",
        description=DESCRIPTION,
        epilog="parts:\n" + "\n".join(f"  {name:<11}{words}" for name, (words, _) in PARTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # argparse looks for the empty list among the choices when no part is named.
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help="default: all")
    parser.add_argument("--seconds", type=_seconds, default=SECONDS, metavar="T", help="of a class; default: 10")
    parser.add_argument(
        "--hosts",
        type=_hosts,
        default=list(playbooks.HOSTS),
        metavar="N,N",
        help="of the playbooks, at once; default: 1,2,3",
    )
    parser.add_argument(
        "--times", type=_times, default=playbooks.TIMES, metavar="N", help="of each playbook; default: 5"
    )
    parser.add_argument("--quick", action="store_true", help="only show that everything runs; the figures mean nothing")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="default: benchmarks/results/<date>")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seconds = QUICK_SECONDS
    # A run that is ended restores the deployed application on its way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder = options.results or RESULTS / datetime.date.today().isoformat()
    try:
        host = prepare()
        results = Results(folder, machine(host))
        for name in options.parts or PARTS:
            began = time.monotonic()
            print(f"benchmarks: {name}: {PARTS[name][0]}", flush=True)
            try:
                PARTS[name][1](options, host, results)
            finally:
                school.forget(host)
            print(f"benchmarks: {name} took {time.monotonic() - began:.0f} s", flush=True)
        results.draw()
    except (BenchmarkFailed, subprocess.CalledProcessError) as error:
        # The first error matters, and not an error of the cleaning up after it.
        first: BaseException = error
        while first.__context__ is not None:
            first = first.__context__
        for each in dict.fromkeys((first, error)):
            print(f"benchmarks: {each}", file=sys.stderr)
        return 1
    print(f"benchmarks: the figures are in {folder}")
    return 0


def _hosts(text: str) -> list[int]:
    counts = text.split(",")
    if not all(count.isdecimal() and 1 <= int(count) <= lab.MOST_HOSTS for count in counts):
        raise argparse.ArgumentTypeError(f"give numbers from 1 to {lab.MOST_HOSTS} with commas, such as 1,2,3")
    return [int(count) for count in counts]


def _times(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError("give a whole number from 1 to 100, such as 5")
    return int(text)


def _seconds(text: str) -> float:
    if not text.isdecimal() or not QUICK_SECONDS <= int(text) <= 600:
        raise argparse.ArgumentTypeError(f"give a whole number of seconds from {QUICK_SECONDS:.0f} to 600, such as 10")
    return float(text)


def prepare() -> Host:
    """The first lab host, deployed as this checkout says."""
    subprocess.run([LAB, "up"], check=True)
    host = Host()
    # A run that was killed may have left its own way of deploying.
    host.script("redeploy.py", "down")
    play([host.name], "deploy.yml")
    statements.log_nothing(host)
    school.forget(host)
    return host
