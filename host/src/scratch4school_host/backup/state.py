"""Records the results of the last backup, drill, check and prune, and the step of a restore."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..files import read_json, write_json
from ..settings import BackupSettings
from ..times import now


def remember(settings: BackupSettings, what: str, **facts: Any) -> None:
    """Record the result of a backup, drill, check or prune, with the current time.

    :param what: the name of the entry, which this result replaces.
    """
    write_json(settings.state_file, {**read_json(settings.state_file), what: {"at": now(), **facts}})


@contextmanager
def failure_recorded(settings: BackupSettings, what: str) -> Iterator[None]:
    """Record why a block failed, as `<what>_failed`, so that the last success stays recorded."""
    try:
        yield
    except BaseException as problem:
        remember(settings, f"{what}_failed", why=str(problem) or type(problem).__name__)
        raise


def restore_folder(settings: BackupSettings) -> Path:
    """Folder for the files of a restore that are not live."""
    return Path(settings.directory) / "restore"


def restore_state(settings: BackupSettings) -> dict[str, Any]:
    """The state of a restore that was neither committed nor undone; {} when there is none."""
    return read_json(restore_folder(settings) / "state.json")


def known(settings: BackupSettings) -> dict[str, Any]:
    """All recorded results by name, with the unfinished restore as `restoring`, and the current time as `now`."""
    return {**read_json(settings.state_file), "restoring": restore_state(settings), "now": now()}
