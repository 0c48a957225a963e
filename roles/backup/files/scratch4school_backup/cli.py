"""The command line: what a sysadmin, systemd's timers and the playbooks ask."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from host_change import readable

from . import restore
from .base import Problem, Settings, now, read_json, remember, say
from .containers import Containers
from .drill import drill
from .program import locked, locking_options, run, stand_back
from .repository import Repository
from .take import KINDS, take

HERE = Path(__file__).resolve().parent.parent
TELLING_SECONDS = 120


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it did what was asked."""
    return run(_parser(), lambda: Settings.read(HERE / "settings.json"), arguments)


def _make(settings: Settings, options: argparse.Namespace) -> None:
    repository = Repository(settings, Containers(settings, locked=False))
    made = repository.make()
    if made or not settings.state_file.exists():
        remember(settings, "made")
    print("made" if made else "there")


def _take(settings: Settings, options: argparse.Namespace) -> None:
    stand_back(settings)
    with locked(settings, options, "backup") as (containers, run), _noted(settings, "backup"):
        take(settings, containers, options.kind, run)


@contextmanager
def _noted(settings: Settings, what: str) -> Iterator[None]:
    """Write down why something failed, beside what is known of the last time that it did not."""
    try:
        yield
    except BaseException as problem:
        remember(settings, f"{what}_failed", why=str(problem) or type(problem).__name__)
        raise


def _prune(settings: Settings, options: argparse.Namespace) -> None:
    with locked(settings, options, "prune") as (containers, _), _noted(settings, "prune"):
        if begun := restore.state(settings):
            raise Problem(
                f"A restore of {begun['snapshot']} was cut short and may need its backup still; end that first."
            )
        repository = Repository(settings, containers)
        repository.unlock()
        print(repository.prune().strip())
        remember(settings, "prune", ok=True)


def _check(settings: Settings, options: argparse.Namespace) -> None:
    with locked(settings, options, "check") as (containers, _), _noted(settings, "check"):
        repository = Repository(settings, containers)
        repository.unlock()
        began = time.monotonic()
        repository.check()
        remember(settings, "check", ok=True, seconds=round(time.monotonic() - began, 1))
        say(f"The repository is whole, and so is the data that was looked at ({settings.read_percent} %).")


def _drill(settings: Settings, options: argparse.Namespace) -> None:
    stand_back(settings)
    with locked(settings, options, "drill") as (containers, _):
        drill(settings, containers, options.backup)


def _list(settings: Settings, options: argparse.Namespace) -> None:
    backups = Repository(settings, Containers(settings, locked=False)).backups()
    if options.json:
        print(
            json.dumps(
                [{"id": one.short, "time": one.time[:19] + "Z", "kind": one.kind, "host": one.host} for one in backups]
            )
        )
        return
    for one in reversed(backups):
        print(f"{one.short}  {readable(one.time)}  {one.kind:<9} {one.host}")
    if not backups:
        print(f"There is no backup in {settings.repository}.")


def _look(settings: Settings, options: argparse.Namespace) -> None:
    print(json.dumps(restore.look(settings, Containers(settings, locked=False), options.backup)))


def _fetch(settings: Settings, options: argparse.Namespace) -> None:
    with locked(settings, options, "fetch") as (containers, _):
        restore.fetch(settings, containers, options.backup)


def _swap(settings: Settings, options: argparse.Namespace) -> None:
    with locked(settings, options, "swap") as (_, run):
        restore.swap(settings, run)


def _undo(settings: Settings, options: argparse.Namespace) -> None:
    with locked(settings, options, "undo") as (_, run):
        restore.undo(settings, run, options.stay_closed)


def _settle(settings: Settings, options: argparse.Namespace) -> None:
    with locked(settings, options, "settle"):
        restore.settle(settings)


def _status(settings: Settings, options: argparse.Namespace) -> None:
    print(json.dumps({**read_json(settings.state_file), "restoring": restore.state(settings), "now": now()}))


def _failed(settings: Settings, options: argparse.Namespace) -> None:
    """What systemd calls when a timer's work failed: the sysadmin's own command, with the reason on its input."""
    lines = subprocess.run(
        ["journalctl", "--unit", options.unit, "--lines=20", "--output=cat", "--no-pager"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    print(f"{options.unit} failed on {settings.host}.")
    if settings.failure_command:
        _tell(
            settings,
            options.unit,
            f"{options.unit} failed on {settings.host} ({settings.school}) at {readable(now())}:\n\n{lines}",
        )


def _tell(settings: Settings, unit: str, text: str) -> None:
    """Run the sysadmin's command with a text on its input; Problem when it does not end well."""
    try:
        ended = subprocess.run(
            ["sh", "-c", settings.failure_command],
            input=text, capture_output=True, text=True, check=False, timeout=TELLING_SECONDS,
            env={**os.environ, "SCRATCH4SCHOOL_UNIT": unit, "SCRATCH4SCHOOL_HOST": settings.host},
        )  # fmt: skip
    except subprocess.TimeoutExpired as problem:
        raise Problem(f"backup_failure_command did not end within {TELLING_SECONDS} seconds.") from problem
    if ended.returncode:
        said = " ".join((ended.stderr or ended.stdout).split())[-300:]
        raise Problem(f"backup_failure_command ended with {ended.returncode}{f': {said}' if said else '.'}")


def _prove_failure_command(settings: Settings, options: argparse.Namespace) -> None:
    """Run a failure command that was never proved once, with a test message; say `proved`, or `unchanged`."""
    command = hashlib.sha256(settings.failure_command.encode()).hexdigest()
    if read_json(settings.state_file).get("failure_command", {}).get("command") == command:
        print("unchanged")
        return
    if settings.failure_command:
        unit = "scratch4school-test.service"
        _tell(
            settings,
            unit,
            f"This is a test from {settings.host} ({settings.school}) at {readable(now())}: nothing failed.\n"
            "When a backup, a look for damage or a drill fails, you are told in this way.\n",
        )
    remember(settings, "failure_command", command=command)
    print("proved" if settings.failure_command else "unchanged")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="backups", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    locking = locking_options()

    def add(name: str, act: Callable[[Settings, Any], None], text: str, locks: bool = True) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, parents=[locking] if locks else [])
        command.set_defaults(act=act)
        return command

    add("make", _make, "have a repository that the password opens", locks=False)
    add("take", _take, "make a backup and prove it").add_argument("--kind", choices=KINDS, default="manual")
    add("list", _list, "say which backups there are", locks=False).add_argument("--json", action="store_true")
    add("look", _look, "say what a restore would bring and lose, as JSON", locks=False).add_argument("backup")
    add("fetch", _fetch, "unpack and load a backup beside what is live").add_argument("backup")
    add("swap", _swap, "let what was loaded be live; nobody is served until a release is entered")
    undoing = add("undo", _undo, "let what was live before a restore be so again, and pupils in")
    undoing.add_argument("--stay-closed", action="store_true", help="let nobody in; whoever asks will")
    add("settle", _settle, "let go of what was live before a restore")
    add("drill", _drill, "rehearse a restore in a scratch place").add_argument("--backup", default="latest")
    add("prune", _prune, "remove backups beyond those that are kept")
    add("check", _check, "look for damage in the repository")
    add("status", _status, "say how backups are, as JSON", locks=False).add_argument("--json", action="store_true")
    proving = "run a new failure command once, with a test message"
    add("prove-failure-command", _prove_failure_command, proving, locks=False)
    add("failed", _failed, "tell the sysadmin that a timer's work failed", locks=False).add_argument("unit")
    return parser
