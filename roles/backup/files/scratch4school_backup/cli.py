"""The command line: what a sysadmin, systemd's timers and the playbooks ask."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import restore
from .base import Problem, Settings, now, read_json, remember, say, write_json
from .containers import Containers
from .drill import drill
from .repository import Repository
from .take import KINDS, take

HERE = Path(__file__).resolve().parent.parent
BEAT_SECONDS = 60.0
RETRY_SECONDS = 15.0

# host_change.py lies beside the package on the host, as the program for slots has it.
sys.path.insert(0, str(HERE))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it did what was asked."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # What was started is removed on the way out.
    signal.signal(signal.SIGTERM, _stop)
    options = _parser().parse_args(arguments)
    os.umask(0o077)
    import host_change

    try:
        settings = Settings.read(HERE / "settings.json")
        options.act(settings, options)
    except (Problem, host_change.ChangeError) as problem:
        print(problem, file=sys.stderr)
        return 1
    except OSError as problem:
        print(f"{problem.filename or 'A file'} cannot be read or written: {problem.strerror}.", file=sys.stderr)
        return 1
    return 0


def _stop(number: int, _frame: object) -> None:
    raise Problem(_Beat.lost or "Stopped before the end; nothing that was made so far counts.")


class _Beat:
    """Lets others see that this change lives, and ends it when the lock was taken away."""

    lost = ""

    def __init__(self, folder: str, run: str) -> None:
        self._folder, self._run = folder, run
        self._ended = threading.Event()

    def __enter__(self) -> None:
        threading.Thread(target=self._beat, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _beat(self) -> None:
        import host_change

        while not self._ended.wait(BEAT_SECONDS):
            try:
                host_change.beat(self._folder, run=self._run)
            except host_change.ChangeError as problem:
                _Beat.lost = str(problem)
                os.kill(os.getpid(), signal.SIGTERM)
                return
            except OSError:
                continue


@contextmanager
def _locked(settings: Settings, options: argparse.Namespace, verb: str) -> Iterator[tuple[Containers, str]]:
    """The host's lock: the one of the run that was named, or one of this process's own."""
    import host_change

    # One at a time also when the run that began the other one is gone: that one may still be at it.
    Path(settings.directory).mkdir(mode=0o750, parents=True, exist_ok=True)
    with (Path(settings.directory) / ".mutex").open("w") as mutex:
        try:
            fcntl.flock(mutex, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise Problem(
                "Another backup, restore or drill is at work on this host; try again when it has ended."
            ) from problem
        containers = Containers(settings, locked=True)
        if options.run:
            host_change.phase(settings.change_directory, run=options.run, name=verb)
            with _Beat(settings.change_directory, options.run):
                yield from _with(containers, options.run)
            return
        run = host_change.new_run()
        with _patiently(settings, run, verb, options), _Beat(settings.change_directory, run):
            yield from _with(containers, run)


def _with(containers: Containers, run: str) -> Iterator[tuple[Containers, str]]:
    containers.clear()
    try:
        yield containers, run
    finally:
        containers.clear()


@contextmanager
def _patiently(settings: Settings, run: str, verb: str, options: argparse.Namespace) -> Iterator[None]:
    """Take the lock, and wait for it for as long as was said: a nightly backup may meet a deploy."""
    import host_change

    end = time.monotonic() + options.patience
    while True:
        try:
            host_change.begin(
                settings.change_directory, run=run, verb=verb,
                owner=host_change.whoami(options.by or None), reason=options.reason, gone=options.gone or None,
            )  # fmt: skip
            break
        except host_change.ChangeError:
            if time.monotonic() > end:
                raise
            time.sleep(RETRY_SECONDS)
    outcome, why = "failed", ""
    try:
        yield
        outcome = "done"
    except BaseException as problem:
        why = str(problem)
        raise
    finally:
        host_change.end(settings.change_directory, run=run, outcome=outcome, reason=why[:300])


def _make(settings: Settings, options: argparse.Namespace) -> None:
    repository = Repository(settings, Containers(settings, locked=False))
    made = repository.make()
    if made or not settings.state_file.exists():
        remember(settings, "made")
    print("made" if made else "there")


def _stand_back(settings: Settings) -> None:
    """Let whatever serves pupils go first."""
    os.setpriority(os.PRIO_PROCESS, 0, settings.niceness)


def _take(settings: Settings, options: argparse.Namespace) -> None:
    _stand_back(settings)
    with _locked(settings, options, "backup") as (containers, run), _noted(settings, "backup"):
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
    with _locked(settings, options, "prune") as (containers, _), _noted(settings, "prune"):
        repository = Repository(settings, containers)
        repository.unlock()
        print(repository.prune().strip())
        remember(settings, "prune", ok=True)


def _check(settings: Settings, options: argparse.Namespace) -> None:
    with _locked(settings, options, "check") as (containers, _), _noted(settings, "check"):
        repository = Repository(settings, containers)
        repository.unlock()
        began = time.monotonic()
        repository.check()
        remember(settings, "check", ok=True, seconds=round(time.monotonic() - began, 1))
        say(f"The repository is whole, and so is the data that was looked at ({settings.read_percent} %).")


def _drill(settings: Settings, options: argparse.Namespace) -> None:
    _stand_back(settings)
    with _locked(settings, options, "drill") as (containers, _):
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
        print(f"{one.short}  {one.time[:19]}Z  {one.kind:<9} {one.host}")
    if not backups:
        print(f"There is no backup in {settings.repository}.")


def _look(settings: Settings, options: argparse.Namespace) -> None:
    print(json.dumps(restore.look(settings, Containers(settings, locked=False), options.backup)))


def _fetch(settings: Settings, options: argparse.Namespace) -> None:
    with _locked(settings, options, "fetch") as (containers, _):
        restore.fetch(settings, containers, options.backup)


def _swap(settings: Settings, options: argparse.Namespace) -> None:
    with _locked(settings, options, "swap") as (_, run):
        restore.swap(settings, run)


def _undo(settings: Settings, options: argparse.Namespace) -> None:
    with _locked(settings, options, "undo") as (_, run):
        restore.undo(settings, run, options.stay_closed)


def _settle(settings: Settings, options: argparse.Namespace) -> None:
    with _locked(settings, options, "settle"):
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
        ended = subprocess.run(
            ["sh", "-c", settings.failure_command],
            input=f"{options.unit} failed on {settings.host} ({settings.school}) at {now()}:\n\n{lines}",
            text=True, check=False, timeout=120,
            env={**os.environ, "SCRATCH4SCHOOL_UNIT": options.unit, "SCRATCH4SCHOOL_HOST": settings.host},
        )  # fmt: skip
        write_json(
            Path(settings.directory) / "told.json", {"at": now(), "unit": options.unit, "status": ended.returncode}
        )
        if ended.returncode:
            raise Problem(f"backup_failure_command ended with {ended.returncode}.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="backups", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    locking = argparse.ArgumentParser(add_help=False)
    locking.add_argument("--run", help="the change that has the host's lock; without it, this program takes it")
    locking.add_argument("--by", default="", help="who asks, for lock and journal")
    locking.add_argument("--reason", default="", help="why, for lock and journal")
    locking.add_argument(
        "--gone", default="", metavar="RUN", help="the change of which the caller knows that it is dead"
    )
    locking.add_argument("--patience", type=float, default=0, metavar="SECONDS", help="wait for the lock so long")

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
    add("failed", _failed, "tell the sysadmin that a timer's work failed", locks=False).add_argument("unit")
    return parser
