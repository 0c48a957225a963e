"""The commands `backup`, `restore`, `drill` and `failed`."""

from __future__ import annotations

import json
import time
from argparse import Namespace

from ..backup import failure_command, restore
from ..backup.create import create as create_backup
from ..backup.drill import drill as drill_backup
from ..backup.job import Caller, changing, lower_priority
from ..backup.reliability import complaint, lines
from ..backup.repository import Repository
from ..backup.state import failure_recorded, known, remember, restore_state
from ..containers import Containers
from ..errors import OperatorError
from ..progress import say
from ..settings import BackupSettings
from ..times import readable
from .slots import slots_of


def caller_of(options: Namespace) -> Caller:
    """The caller's options from the command line."""
    return Caller(options.run, options.by, options.reason, options.dead_run, options.patience)


def _settings(options: Namespace) -> BackupSettings:
    return BackupSettings.read(options.settings)


def _reading(settings: BackupSettings) -> Containers:
    """Containers for a command that only reads, without the lock."""
    return Containers(settings, locked=False)


def init(options: Namespace) -> None:
    settings = _settings(options)
    is_new = Repository(settings, _reading(settings)).init()
    if is_new or not settings.state_file.exists():
        remember(settings, "initialized")
    print("initialized" if is_new else "exists")


def create(options: Namespace) -> None:
    settings, slots = _settings(options), slots_of(options)
    lower_priority(settings)
    with (
        changing(settings, caller_of(options), "backup") as (containers, run),
        failure_recorded(settings, "backup"),
    ):
        create_backup(settings, slots, containers, options.kind, run)


def list_backups(options: Namespace) -> None:
    settings = _settings(options)
    backups = Repository(settings, _reading(settings)).backups()
    if options.json:
        found = [{"id": one.short, "time": one.time[:19] + "Z", "kind": one.kind, "host": one.host} for one in backups]
        print(json.dumps(found))
        return
    for one in reversed(backups):
        print(f"{one.short}  {readable(one.time)}  {one.kind:<9} {one.host}")
    if not backups:
        print(f"There is no backup in {settings.repository}.")


def inspect(options: Namespace) -> None:
    settings = _settings(options)
    found = restore.inspect(settings, _reading(settings), options.backup)
    if options.json:
        print(json.dumps(found))
        return
    print(
        f"Backup {found['id']} of {readable(found['time'])} ({found['kind']}): {found['rows']} rows, {found['files']} "
        f"files; schema {found['schema']}, release {found['release']}."
    )
    if found["refusal"]:
        print(f"It cannot be restored here. {found['refusal']}")
    elif found["empty"]:
        print("This host is empty; nothing can be lost.")
    else:
        print("A restore would lose:")
        for loss in found["losses"] or ["nothing that was added since"]:
            print(f"- {loss}")


def prune(options: Namespace) -> None:
    settings = _settings(options)
    with (
        changing(settings, caller_of(options), "prune") as (containers, _),
        failure_recorded(settings, "prune"),
    ):
        if begun := restore_state(settings):
            raise OperatorError(
                f"A restore of {begun['snapshot']} was interrupted and may still need its backup; complete or undo it "
                "first."
            )
        repository = Repository(settings, containers)
        repository.unlock()
        print(repository.prune().strip())
        remember(settings, "prune", ok=True)


def check(options: Namespace) -> None:
    settings = _settings(options)
    with (
        changing(settings, caller_of(options), "check") as (containers, _),
        failure_recorded(settings, "check"),
    ):
        repository = Repository(settings, containers)
        repository.unlock()
        began = time.monotonic()
        repository.check()
        remember(settings, "check", ok=True, seconds=round(time.monotonic() - began, 1))
        say(f"The repository is whole, and so is the data that was read ({settings.read_percent} %).")


def status(options: Namespace) -> None:
    settings = _settings(options)
    found = known(settings)
    if options.json:
        print(json.dumps(found))
    else:
        print("\n".join(lines(found)))
    problem = "" if options.max_age is None else complaint(found, options.max_age, settings.host)
    if problem:
        raise OperatorError(problem)


def test_failure_command(options: Namespace) -> None:
    print("tested" if failure_command.test_once(_settings(options)) else "unchanged")


def failed(options: Namespace) -> None:
    failure_command.report_failure(_settings(options), options.unit)


def fetch(options: Namespace) -> None:
    settings = _settings(options)
    with changing(settings, caller_of(options), "fetch") as (containers, _):
        restore.fetch(settings, containers, options.backup)


def cut_over(options: Namespace) -> None:
    settings, slots = _settings(options), slots_of(options)
    with changing(settings, caller_of(options), "cutover") as (_, run):
        restore.cut_over(settings, slots, run)


def undo(options: Namespace) -> None:
    settings, slots = _settings(options), slots_of(options)
    with changing(settings, caller_of(options), "undo") as (_, run):
        restore.undo(settings, slots, run, options.keep_maintenance)


def commit(options: Namespace) -> None:
    settings = _settings(options)
    with changing(settings, caller_of(options), "commit"):
        restore.commit(settings)


def drill(options: Namespace) -> None:
    settings, slots = _settings(options), slots_of(options)
    lower_priority(settings)
    with changing(settings, caller_of(options), "drill") as (containers, _):
        drill_backup(settings, slots, containers, options.backup)
