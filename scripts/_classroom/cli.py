"""The command line of scripts/classroom: what is asked for, what is refused, and what the exit status says."""

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

from _lab import plan as lab

from . import login, target

DESCRIPTION = """\
Drives a deployed Scratch4School through its front door as a class does, keeps a ledger of every save that was
acknowledged, reads all of it back at the end, and says whether anything was lost, torn, doubled or orphaned.

Ctrl-C or SIGTERM ends the load early; what was saved is still read back and reported. A second one ends at once.
SIGUSR1 has everything that was saved so far read back while the load goes on; --pulse tells how that went."""

EPILOG = """\
exit status: 0 every promise was kept; 1 one was broken; 2 the command line is wrong;
             69 the stack could not be reached or not everybody could log in"""

BROKEN, USAGE, UNAVAILABLE, INTERRUPTED = 1, 2, 69, 130
# The largest project that the application takes is 16 MiB, and the form around it takes a little.
MOST_MEGABYTES = 15.5
# So many counts fit into the mark of the project that all devices save to.
MOST_DEVICES = 60


def parser() -> argparse.ArgumentParser:
    """The options; numbers out of range are refused here."""
    options = argparse.ArgumentParser(
        prog="scripts/classroom",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    where = options.add_argument_group("which stack")
    where.add_argument("--inventory", type=Path, default=lab.INVENTORY, metavar="FILE", help="default: the lab's")
    where.add_argument("--host", metavar="NAME", help="of the inventory; default: its first")
    where.add_argument("--url", help="address of the front door, in place of an inventory")
    where.add_argument("--ca", type=Path, metavar="FILE", help="authority to trust; the lab's is known")
    who = where.add_mutually_exclusive_group()
    who.add_argument("--accounts", type=Path, metavar="FILE", help="CSV of user,password; the lab's are known")
    who.add_argument(
        "--sessions", type=Path, metavar="FILE", help="CSV of user,session that are valid already; nobody logs in then"
    )
    where.add_argument("--i-know", action="store_true", help="drive a host that is not a lab, and disturb its users")
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
        help="that save to one project at the same moments, with versions, and as many without; default: 10",
    )
    what.add_argument(
        "--large-share", type=_number(float, 0, 1), default=0.02, metavar="P", help="of all saves; default: 0.02"
    )
    what.add_argument(
        "--large-megabytes", type=_number(float, 0.1, MOST_MEGABYTES), default=10, metavar="MB", help="default: 10"
    )
    what.add_argument("--seed", type=int, default=1, metavar="N", help="of the choices and bytes; default: 1")
    then = options.add_argument_group("what comes of it")
    then.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    then.add_argument("--ledger", type=Path, metavar="FILE", help="write a JSON line per acknowledged save")
    then.add_argument("--pulse", type=Path, metavar="FILE", help="write a JSON line a second: how the load stands")
    then.add_argument("--allow-failures", action="store_true", help="failed requests alone do not break a promise")
    then.add_argument("--keep", action="store_true", help="leave the projects of the run; else they are deleted")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; the exit status."""
    options = parser().parse_args(arguments)
    try:
        import aiohttp  # noqa: F401
    except ImportError:
        return fail("the HTTP client is missing; run scripts/setup, then this again.", UNAVAILABLE)
    try:
        stack = target.choose(options.inventory, options.host, options.url, options.ca)
        refuse_school(stack, options.i_know)
        accounts = target.accounts(options.sessions or options.accounts, stack.is_lab, options.users)
        refuse_unwritable(options.json, options.ledger, options.pulse)
    except target.TargetError as error:
        return fail(error, USAGE)
    try:
        sessions = accounts
        if not options.sessions:
            sessions = login.log_in_all(login.front_door(stack.url, stack.ca), accounts, Progress("log in"))
    except login.LoginFailed as error:
        return fail(error, UNAVAILABLE)
    except KeyboardInterrupt:
        return fail("stopped before anything was saved.", INTERRUPTED)
    with contextlib.ExitStack() as stacked:
        journal = stacked.enter_context(options.ledger.open("w")) if options.ledger else None
        pulse = stacked.enter_context(options.pulse.open("w")) if options.pulse else None
        return hold(options, stack, sessions, journal, pulse)


def refuse_school(stack: target.Target, i_know: bool) -> None:
    """TargetError for a stack that is not a lab, unless somebody knows what he does."""
    if not stack.is_lab and not i_know:
        raise target.TargetError(
            f"{stack.url} is not a lab: its address is neither on this machine nor in {lab.SUBNET}. A class of load "
            "would disturb its users and fill its disk; say --i-know if that is wanted."
        )


def refuse_unwritable(*files: Path | None) -> None:
    """TargetError for a report that could not be written: that is better known before the run than after it."""
    for file in files:
        if file is None:
            continue
        there = file.absolute() if file.exists() else file.absolute().parent
        if file.is_dir() or not there.exists() or not os.access(there, os.W_OK):
            raise target.TargetError(f"{file} cannot be written; name a file in a folder that is there.")


def hold(
    options: argparse.Namespace,
    stack: target.Target,
    sessions: dict[str, str],
    journal: TextIO | None,
    pulse: TextIO | None,
) -> int:
    """Hold the lesson and report it."""
    # These need the HTTP client, which --help does without.
    from . import report
    from .lesson import Lesson, LessonFailed, Plan

    plan = Plan(
        url=stack.url,
        ca=stack.ca,
        seconds=options.seconds,
        think=options.think,
        max_requests=options.max_requests,
        devices=options.devices,
        large_share=options.large_share,
        large_megabytes=options.large_megabytes,
        seed=options.seed,
        keep=options.keep,
    )

    failures_told = 0

    def tell(outcome: report.Outcome) -> None:
        nonlocal failures_told
        if pulse is not None:
            pulse.write(json.dumps(report.as_pulse(outcome, failures_told)) + "\n")
            pulse.flush()
            failures_told = len(outcome.load.failures)

    async def run() -> report.Outcome:
        lesson = Lesson(plan, sessions, say, journal, tell)
        stop_on_signal(lesson.stop)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lesson.check)
        return await lesson.hold()

    try:
        outcome = asyncio.run(run())
    except LessonFailed as error:
        return fail(error, UNAVAILABLE)
    summary = report.as_json(outcome, options.allow_failures)
    print(report.as_text(summary), flush=True)
    if options.json:
        options.json.write_text(json.dumps(summary, indent=1) + "\n")
    return 0 if summary["kept"] else BROKEN


def stop_on_signal(stop: Callable[[str], None]) -> None:
    """Let the first SIGINT or SIGTERM end the load, and the second one this process."""
    loop = asyncio.get_running_loop()
    seen: list[signal.Signals] = []

    def receive(number: signal.Signals) -> None:
        seen.append(number)
        if len(seen) > 1:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        say(f"{number.name}: the load ends here, what was saved is read back; a second one ends at once")
        stop(f"by {number.name}")

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, receive, number)


class Progress:
    """Says how far a phase is, but not more often than every few seconds, and how long it took at its end."""

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
    """One line to the person, at once, also when it goes to a file."""
    print(f"classroom: {line}", flush=True)


def fail(error: Exception | str, status: int) -> int:
    """One sentence to the person; the status is passed on."""
    print(f"classroom: {error}", file=sys.stderr)
    return status


def _number(kind: type[int] | type[float], least: float, most: float) -> Callable[[str], float]:
    """A number in a range, for argparse."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is no number from {least:,} to {most:,}")
        return value

    return read
