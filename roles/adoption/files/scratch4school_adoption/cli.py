"""The command line: what adopt.yml asks, and what a sysadmin may ask on the host."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scratch4school_backup.containers import Containers
from scratch4school_backup.program import locked, locking_options, run

from . import moving, steps
from .settings import Settings

HERE = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it did what was asked."""
    return run(_parser(), lambda: Settings.read(HERE / "settings.json"), arguments)


def _locking(verb: str, work: Callable[[Settings, Containers, str], None]) -> Callable[[Settings, Any], None]:
    """Work under the host's lock."""

    def act(settings: Settings, options: argparse.Namespace) -> None:
        with locked(settings, options, verb) as (containers, name):
            work(settings, containers, name)

    return act


def _status(settings: Settings, options: argparse.Namespace) -> None:
    print(json.dumps({**steps.state(settings), "move": moving.state(settings)}))


# Command -> what it does, and in words. Those of the first kind change the host, and do so alone.
ALONE: dict[str, tuple[Callable[[Settings, Containers, str], None], str]] = {
    "look": (steps.look, "say what the old place holds and what is wrong with it"),
    "rehearse": (steps.rehearse, "bring the rows over into a place that is removed, and compare"),
    "import": (steps.bring, "bring over what there is now, while the old service may go on"),
    "finish": (steps.finish, "bring over the final difference, and compare all of it"),
    "undo": (steps.undo, "remove what was brought over"),
    "move-rehearse": (moving.rehearse, "our rows from SQLite into a PostgreSQL that is removed"),
    "move": (moving.move, "our rows from SQLite into PostgreSQL; nobody is served until a release is activated"),
    "move-back": (moving.back, "our rows from PostgreSQL into SQLite's file; nobody is served likewise"),
}
NOTES: dict[str, tuple[Callable[[Settings], None], str]] = {
    "settle": (steps.settle, "note that the adopted school serves here"),
    "moved": (moving.moved, "note that the school serves from PostgreSQL and was verified"),
    "move-confirm": (moving.confirm, "remove SQLite's file"),
    "move-forget": (moving.forget, "note that the school serves from SQLite again"),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="adopt", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (work, text) in ALONE.items():
        commands.add_parser(name, help=text, parents=[locking_options()]).set_defaults(act=_locking(name, work))
    for name, (note, text) in NOTES.items():
        commands.add_parser(name, help=text).set_defaults(act=lambda settings, _, note=note: note(settings))
    commands.add_parser("status", help="say how far it is, as JSON").set_defaults(act=_status)
    return parser
