"""The command line of scratch4schoolctl: each command with its options, help and example, and the exit statuses."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import OperatorError
from .pooler import RESUME_AFTER_SECONDS
from .settings import FOLDER
from .slots.component_restart import NAMES as COMPONENTS
from .slots.state import NAMES as SLOTS

NAME = "scratch4schoolctl"
KINDS = ("manual", "nightly", "migration", "safety")

DESCRIPTION = """\
Operates Scratch4School on this host. Playbooks and systemd's units call it; a sysadmin may call it as root.
"""
EPILOG = f"""\
Exit status:
  0    done
  1    refused, or failed; a message on standard error says why, and what to do
  2    wrong command line
  3    another change has the host's lock; `{NAME} lock show` says which
  130  interrupted

Example:  sudo {NAME} status

Each group and each command has examples: `{NAME} backup --help`, `{NAME} backup create --help`.
"""


class Group:
    """A group of commands, such as `backup`; each command is a function of the group's module in commands/."""

    def __init__(
        self, commands: Any, module: str, prefix: str = "", parser: argparse.ArgumentParser | None = None
    ) -> None:
        """:param parser: the group's own help, which shows the example of its first command."""
        self._commands, self._module, self._prefix, self._parser = commands, module, prefix, parser

    def add(
        self,
        name: str,
        function: str,
        text: str,
        example: str = "",
        parents: Sequence[argparse.ArgumentParser] = (),
    ) -> argparse.ArgumentParser:
        """Add a command that calls a function of the group's module.

        :param text: the help, in the imperative and without a full stop.
        :param example: the arguments of an example, without the command.
        """
        line = " ".join(part for part in (NAME, self._prefix, name, example) if part)
        if self._parser and not self._parser.epilog:
            self._parser.epilog = (
                f"example:\n  {line}\n\nEach command explains itself: `{NAME} {self._prefix} {name} --help`."
            )
        command = self._commands.add_parser(
            name,
            help=f"{text[0].lower()}{text[1:]}",
            description=f"{text}.",
            epilog=f"example:\n  {line}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[*parents],
        )
        command.set_defaults(module=self._module, function=function)
        return command


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog=NAME, description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument(
        "--settings",
        type=Path,
        default=FOLDER,
        metavar="FOLDER",
        help=f"folder of the settings that the roles wrote (default: {FOLDER})",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def group(name: str, module: str, text: str) -> Group:
        one = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        return Group(one.add_subparsers(required=True, metavar="COMMAND"), module, name, one)

    alone = Group(commands, "status")
    status = alone.add("status", "status", "Print the state of the installation on one screen")
    _json(status)
    status.add_argument("--dead-run", default="", metavar="RUN", help="the change whose process is known to be dead")
    _slots(group("slots", "slots", "activate, drain, revert and restart the application's slots"))
    _others(group, commands)
    _backup(group("backup", "backup", "create, list, check and remove backups"))
    _restore(group("restore", "backup", "restore a backup, in the steps of restore.yml"))
    _data(group, commands)
    return top


def _run_required() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--run", required=True, help="the change that has the host's lock")
    return options


def _run_optional() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--run", default="", help="the change that has the host's lock; without it, this command takes it"
    )
    return options


def _long_change() -> argparse.ArgumentParser:
    """Options of the commands that change data and can wait for the lock."""
    options = _run_optional()
    options.add_argument("--by", default="", help="who makes the change, for the lock and the audit log")
    options.add_argument("--reason", default="", help="why, for the lock and the audit log")
    options.add_argument("--dead-run", default="", metavar="RUN", help="the change whose process is known to be dead")
    options.add_argument(
        "--patience", type=float, default=0, metavar="SECONDS", help="how long to wait for the lock (default: 0)"
    )
    return options


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON, for a program to read")


def _slots(group: Group) -> None:
    run, own = _run_required(), _run_optional()
    _json(group.add("list", "list_slots", "Print which slot is live, and the release in each slot"))
    activate = group.add(
        "activate",
        "activate",
        "Start a slot and switch to it when it is ready",
        "green --run 20261124T165001-4711",
        [run],
    )
    activate.add_argument("slot", choices=SLOTS)
    activate.add_argument(
        "--ready-seconds",
        type=float,
        help="how long the slot may take to become ready (default: release_ready_seconds)",
    )
    activate.add_argument(
        "--stop-first", action="store_true", help="stop the live slot first, if there is not enough memory for both"
    )
    activate.add_argument(
        "--confirm-seconds",
        type=float,
        default=0,
        help="revert unless the other slot is drained within this time (default: 0, never revert)",
    )
    drain = group.add(
        "drain", "drain", "Stop a slot when its open requests are answered", "blue --run 20261124T165001-4711", [run]
    )
    drain.add_argument("slot", choices=SLOTS)
    drain.add_argument(
        "--confirm-seconds",
        type=float,
        default=0,
        help="also drain the live slot, and start it again unless another slot is activated within this time",
    )
    revert = group.add(
        "revert", "revert", "Switch back to a slot, and drain the other one", "blue --run 20261124T165001-4711", [run]
    )
    revert.add_argument("slot", choices=SLOTS)
    # Only the timer that `activate --confirm-seconds` schedules passes this option.
    revert.add_argument("--unconfirmed", action="store_true", help=argparse.SUPPRESS)
    group.add("restart", "restart", "Restart the live release: activate its standby", parents=[own])
    group.add("start", "start", "Start everything, as systemd's unit does")
    group.add("stop", "stop", "Stop everything, as systemd's unit does")


def _others(group: Any, commands: Any) -> None:
    own = _run_optional()
    component = group("component", "slots", "restart one component while pupils wait")
    restart = component.add("restart", "restart_component", "Restart a component; no request fails", "postgres", [own])
    restart.add_argument("name", choices=COMPONENTS)
    clients = group("clients", "slots", "let clients of PgBouncer wait")
    pause = f"Let clients wait between two transactions, for {RESUME_AFTER_SECONDS} seconds at most"
    clients.add("pause", "pause_clients", pause)
    clients.add("resume", "resume_clients", "End a pause")
    maintenance = group("maintenance", "slots", "begin and end maintenance mode, in which no slot is live")
    begin = maintenance.add(
        "on", "begin_maintenance", "Stop the application until a slot is activated or maintenance mode is ended",
        "--reason 'the disk is being replaced'", [own],
    )  # fmt: skip
    begin.add_argument("--reason", required=True, help="why, as a clause that follows “because”")
    maintenance.add("off", "end_maintenance", "Start the slot that was live before", parents=[own])
    lock = group("lock", "lock", "show and release the host's lock")
    _json(lock.add("show", "show", "Print which change has the lock"))
    release = lock.add(
        "release", "release", "Remove the lock of an interrupted change", "--reason 'the notebook was stolen'"
    )
    release.add_argument("--reason", required=True, help="why, for the audit log")


def _backup(group: Group) -> None:
    change = _long_change()
    create = group.add(
        "create", "create", "Create a backup, and read it back", "--reason 'before the holidays'", [change]
    )
    create.add_argument("--kind", choices=KINDS, default="manual", help="why it is made (default: manual)")
    _json(group.add("list", "list_backups", "Print the backups, the newest first"))
    inspect = group.add(
        "inspect", "inspect", "Print the content of a backup, and the losses of a restore; read-only", "latest"
    )
    inspect.add_argument("backup", help="`latest`, or the first digits of its id")
    _json(inspect)
    group.add("init", "init", "Create the repository, unless there is one that the password opens")
    group.add("prune", "prune", "Remove old backups, by the settings backup_keep_*", parents=[change])
    group.add("check", "check", "Check the repository for damage", parents=[change])
    status = group.add("status", "status", "Print the results of the last backup and drill", "--max-age 30")
    _json(status)
    status.add_argument(
        "--max-age",
        type=float,
        metavar="HOURS",
        help="fail if the newest backup is older, or the last drill, check or prune failed",
    )
    group.add(
        "test-failure-command", "test_failure_command", "Run a new backup_failure_command once, with a test message"
    )


def _restore(group: Group) -> None:
    change = _long_change()
    run = "--run 20261124T165001-4711"
    fetch = group.add("fetch", "fetch", "Unpack and load a backup beside the live data", f"1a2b3c4d {run}", [change])
    fetch.add_argument("backup", help="the id of the backup, as `backup inspect` prints it")
    group.add("cutover", "cut_over", "Make the loaded backup live; maintenance mode stays on", run, [change])
    undo = group.add("undo", "undo", "Make the previous data live again, and start the application", run, [change])
    undo.add_argument("--keep-maintenance", action="store_true", help="let the caller end maintenance mode")
    group.add("commit", "commit", "Remove the previous data, so that the restore cannot be undone", run, [change])


def _data(group: Any, commands: Any) -> None:
    change = _long_change()
    alone = Group(commands, "backup")
    drill = alone.add("drill", "drill", "Restore a backup into a scratch folder, check and time it", parents=[change])
    drill.add_argument("--backup", default="latest", help="`latest`, or the first digits of its id (default: latest)")
    imports = group("import", "transfer", "import an existing installation, in the steps of adopt.yml")
    for name, text in (
        ("inspect", "Report database, files and faults of the source; read-only"),
        ("rehearse", "Import into a scratch database, compare, and remove it"),
        ("run", "Import database and files; the old service may go on"),
        ("finish", "Import the final difference, and compare everything"),
        ("undo", "Remove the imported database and files"),
    ):
        imports.add(name, f"import_{name}", text, parents=[change])
    imports.add("complete", "import_complete", "Record that the imported school is live here")
    _json(imports.add("status", "status", "Print which step an import or an engine migration has reached"))
    migration = group(
        "migrate-engine", "transfer", "migrate between SQLite and PostgreSQL, as move-to-postgres.yml does"
    )
    for name, text in (
        ("rehearse", "Copy the database into a scratch PostgreSQL, compare, and remove it, and compare"),
        ("to-postgres", "Copy the database from SQLite to PostgreSQL; maintenance mode stays on"),
        ("to-sqlite", "Copy the database from PostgreSQL back to SQLite; maintenance mode stays on"),
    ):
        migration.add(name, f"migrate_{name.replace('-', '_')}", text, parents=[change])
    migration.add("complete", "migrate_complete", "Record that the other engine is live and was verified")
    migration.add("confirm", "migrate_confirm", "Remove SQLite's file; a migration back to SQLite is then impossible")
    failed = alone.add(
        "failed", "failed", "Tell the sysadmin that the work of a timer failed, as systemd does",
        "scratch4school-backup.service",
    )  # fmt: skip
    failed.add_argument("unit", help="the unit that failed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    # A lost connection must not stop a change half way.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    options = parser().parse_args(arguments)
    options.program = program(options.settings)
    os.umask(0o077)
    try:
        getattr(importlib.import_module(f".commands.{options.module}", __package__), options.function)(options)
    except OperatorError as problem:
        print(problem, file=sys.stderr)
        return problem.status
    except OSError as problem:
        where = problem.filename or "A file"
        sudo = f" Run it as root: sudo {NAME} …" if isinstance(problem, PermissionError) and os.geteuid() else ""
        print(f"{where} cannot be read or written: {problem.strerror or problem}.{sudo}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    return 0


def program(settings: Path) -> list[str]:
    """The command line with which systemd can run this program, without a command."""
    return [os.path.abspath(sys.argv[0]), *([] if settings == FOLDER else ["--settings", str(settings)])]
