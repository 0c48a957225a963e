"""The command scripts/classroom: its options, its refusals, and its exit statuses."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from .. import tools_python
from ..classroom import login, target
from ..hosts import plan as lab

DESCRIPTION = """\
Uses a deployed Scratch4School as a class does, and records every acknowledged save. At the end it reads all of them
back, and reports what was lost, torn, duplicated or orphaned.

Ctrl-C or SIGTERM ends the load early; what was saved is still read back and reported. A second one ends at once.
SIGUSR1 reads back during the load everything that was saved so far; --pulse has the result."""

EPILOG = """\
exit status: 0 every promise was kept; 1 one was broken; 2 the command line is wrong;
             69 the installation could not be reached, or a pupil could not log in

example:     scripts/classroom --users 50 --seconds 600 --think 0.5 --json report.json"""

BROKEN, USAGE, UNAVAILABLE, INTERRUPTED = 1, 2, 69, 130
# The largest project that the application takes is 16 MiB, and the form around it takes a little.
MOST_MEGABYTES = 15.5
# The mark of the devices' project has room for this many counts.
MOST_DEVICES = 60


def parser() -> argparse.ArgumentParser:
    """The options; numbers out of range are refused here."""
    options = argparse.ArgumentParser(
        prog="scripts/classroom",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    where = options.add_argument_group("which installation")
    where.add_argument("--inventory", type=Path, default=lab.INVENTORY, metavar="FILE", help="default: the lab's")
    where.add_argument("--host", metavar="NAME", help="of the inventory; default: its first")
    where.add_argument("--url", help="its address, in place of an inventory")
    where.add_argument("--ca", type=Path, metavar="FILE", help="authority to trust; the lab's is known")
    who = where.add_mutually_exclusive_group()
    who.add_argument("--accounts", type=Path, metavar="FILE", help="CSV of user,password; the lab's are known")
    who.add_argument(
        "--sessions", type=Path, metavar="FILE", help="CSV of user,session with valid sessions, in place of logins"
    )
    where.add_argument("--i-know", action="store_true", help="use a host that is not a lab, and disturb its users")
    what = options.add_argument_group("what the class does")
    what.add_argument("--users", type=_number(int, 1, 1000), default=100, metavar="N", help="default: 100")
    what.add_argument("--seconds", type=_number(float, 1, 86400), default=30, metavar="T", help="default: 30")
    what.add_argument(
        "--think", type=_number(float, 0, 3600), default=0, metavar="T", help="pause of a user between operations"
    )
    what.add_argument(
        "--max-requests", type=_number(int, 1, 100_000_000), default=200_000, metavar="N", help="default: 200000"
    )
    what.add_argument(
        "--devices",
        type=_number(int, 0, MOST_DEVICES),
        default=10,
        metavar="N",
        help="devices that save to one project at the same moments with versions, and as many without; default: 10",
    )
    what.add_argument(
        "--large-share", type=_number(float, 0, 1), default=0.02, metavar="P", help="of all saves; default: 0.02"
    )
    what.add_argument(
        "--large-megabytes", type=_number(float, 0.1, MOST_MEGABYTES), default=10, metavar="MB", help="default: 10"
    )
    what.add_argument("--seed", type=int, default=1, metavar="N", help="of the choices and bytes; default: 1")
    then = options.add_argument_group("results")
    then.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    then.add_argument("--save_record", type=Path, metavar="FILE", help="write a JSON line per acknowledged save")
    then.add_argument(
        "--pulse", type=Path, metavar="FILE", help="write the state of the load as a JSON line each second"
    )
    then.add_argument("--allow-failures", action="store_true", help="failed requests alone do not break a promise")
    then.add_argument("--keep", action="store_true", help="leave the projects of the run; else they are deleted")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the class that the command line asks for; returns the exit status."""
    tools_python.switch()
    options = parser().parse_args(arguments)
    try:
        import aiohttp  # noqa: F401
    except ImportError:
        return fail("the HTTP client is missing; run scripts/setup, then this command again.", UNAVAILABLE)
    try:
        installation = target.choose(options.inventory, options.host, options.url, options.ca)
        refuse_school(installation, options.i_know)
        accounts = target.accounts(options.sessions or options.accounts, installation.is_lab, options.users)
        refuse_unwritable(options.json, options.save_record, options.pulse)
    except target.TargetError as error:
        return fail(error, USAGE)
    try:
        sessions = accounts
        if not options.sessions:
            sessions = login.log_in_all(
                login.through_pages(installation.url, installation.ca), accounts, Progress("log in")
            )
    except login.LoginFailed as error:
        return fail(error, UNAVAILABLE)
    except KeyboardInterrupt:
        return fail("stopped before anything was saved.", INTERRUPTED)
    with contextlib.ExitStack() as files:
        record = files.enter_context(options.save_record.open("w")) if options.save_record else None
        pulse = files.enter_context(options.pulse.open("w")) if options.pulse else None
        return run_class(options, installation, sessions, record, pulse)


def refuse_school(installation: target.Target, i_know: bool) -> None:
    """TargetError for an installation that is not a lab, unless `i_know`."""
    if not installation.is_lab and not i_know:
        raise target.TargetError(
            f"{installation.url} is not a lab: its address is neither on this machine nor in {lab.SUBNET}. The class "
            "would disturb its users and fill its disk; add --i-know if you want that."
        )


def refuse_unwritable(*files: Path | None) -> None:
    """TargetError, before the run, for a report that could not be written after it."""
    for file in files:
        if file is None:
            continue
        written = file.absolute() if file.exists() else file.absolute().parent
        if file.is_dir() or not written.exists() or not os.access(written, os.W_OK):
            raise target.TargetError(f"{file} cannot be written; name a file in an existing folder.")


def run_class(
    options: argparse.Namespace,
    installation: target.Target,
    sessions: dict[str, str],
    record: TextIO | None,
    pulse: TextIO | None,
) -> int:
    """Run the class, print its report and write it; returns the exit status."""
    # Imported here, so that --help answers before scripts/setup has run: these need the HTTP client.
    from ..classroom import report
    from ..classroom.class_run import ClassFailed, ClassRun, Plan

    plan = Plan(
        url=installation.url,
        ca=installation.ca,
        seconds=options.seconds,
        think=options.think,
        max_requests=options.max_requests,
        devices=options.devices,
        large_share=options.large_share,
        large_megabytes=options.large_megabytes,
        seed=options.seed,
        keep=options.keep,
    )

    failures_written = 0

    def write_pulse(outcome: report.Outcome) -> None:
        nonlocal failures_written
        if pulse is not None:
            pulse.write(json.dumps(report.as_pulse(outcome, failures_written)) + "\n")
            pulse.flush()
            failures_written = len(outcome.load.failures)

    async def run() -> report.Outcome:
        class_run = ClassRun(plan, sessions, say, record, write_pulse)
        stop_on_signal(class_run.stop)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, class_run.check)
        return await class_run.run()

    try:
        outcome = asyncio.run(run())
    except ClassFailed as error:
        return fail(error, UNAVAILABLE)
    summary = report.as_json(outcome, options.allow_failures)
    print(report.as_text(summary), flush=True)
    if options.json:
        options.json.write_text(json.dumps(summary, indent=1) + "\n")
    return 0 if summary["kept"] else BROKEN


def stop_on_signal(stop: Callable[[str], None]) -> None:
    """End the load on the first SIGINT or SIGTERM, and this process on the second."""
    loop = asyncio.get_running_loop()
    seen: list[signal.Signals] = []

    def receive(number: signal.Signals) -> None:
        seen.append(number)
        if len(seen) > 1:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        say(f"{number.name}: the load ends here, and what was saved is read back; a second signal ends at once")
        stop(f"by {number.name}")

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, receive, number)


class Progress:
    """Prints the progress of a phase every few seconds, and its duration at the end."""

    def __init__(self, phase: str, every: float = 5.0) -> None:
        self._phase = phase
        self._every = every
        self._began = self._said = time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        now = time.monotonic()
        if done == of or now - self._said >= self._every:
            self._said = now
            say(f"{self._phase}: {done} of {of}, {now - self._began:.1f} s")


def say(line: str) -> None:
    """Print one line at once, also into a file."""
    print(f"classroom: {line}", flush=True)


def fail(error: Exception | str, status: int) -> int:
    """Print an error; returns the given exit status."""
    print(f"classroom: {error}", file=sys.stderr)
    return status


def _number(kind: type[int] | type[float], least: float, most: float) -> Callable[[str], float]:
    """A parser of numbers in a range, for argparse."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not a number from {least:,} to {most:,}")
        return value

    return read
