"""What every part needs: settings, the one kind of error, progress, and small files that a power cut does not tear."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Hosts have any Python since 3.10, which has no such name.
    from typing import Self

TELL_SECONDS = 5.0


class Problem(Exception):
    """It cannot be done; the text is a sentence for the sysadmin, with what to do about it."""


@dataclass(frozen=True)
class HostSettings:
    """What a role wrote down about this host for a program of its own: places, the engine, what containers may take.

    It is all that the parts know which programs share; each program is told more, in a class of its own.
    """

    host: str
    engine: str
    image: str
    network: str
    postgres_container: str
    postgres_image: str
    sqlite_directory: str
    uploads: str
    directory: str
    secrets: str
    change_directory: str
    slots: str
    floor_mb: int
    niceness: int
    memory: str

    # What the settings are for, and the verb that writes them.
    purpose = ""
    verb = ""
    # What a sysadmin can do where there is too little room.
    floor_name = ""
    more_room = ""

    @classmethod
    def read(cls, path: Path) -> Self:
        """The settings of this host; Problem when they are not there."""
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError as problem:
            raise Problem(f"There are no settings for {cls.purpose} on this host; run {cls.verb}.") from problem
        except (ValueError, TypeError) as problem:
            raise Problem(f"{path} does not fit this program ({problem}); run {cls.verb} again.") from problem

    @property
    def work(self) -> Path:
        """What is needed while the program runs; nothing in it survives the next run."""
        return Path(self.directory) / "work"

    @property
    def state_file(self) -> Path:
        """How far the program is, or what is known of its last runs."""
        return Path(self.directory) / "state.json"


@dataclass(frozen=True)
class Settings(HostSettings):
    """What backups are told beside: whose they are, what is in them, where they go and how long they are kept."""

    school: str
    database_roles: list[str]
    configuration: list[str]
    releases: str
    repository: str
    keep: dict[str, int]
    upload_kib: int
    download_kib: int
    read_percent: int
    failure_command: str

    purpose = "backups"
    verb = "deploy.yml"
    floor_name = "backup_floor_mb"
    more_room = "Free some, mount a larger disk there, or let backup_repository be another machine."

    @property
    def is_local(self) -> bool:
        """Whether the repository is a folder of this host."""
        return self.repository.startswith("/")


def say(text: str) -> None:
    """Tell how far it is. Nobody may be listening any more, which is no reason to stop half way."""
    try:
        print(text, flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


class Progress:
    """Says which phase of how many it is, how far that is, and how long it took."""

    def __init__(self, phases: int) -> None:
        self._phases = phases
        self._current = 0
        self._told = 0.0
        self._summary = ""
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, words: str) -> Iterator[None]:
        """One phase; `words` say what happens in it."""
        self._current += 1
        self._told = began = time.monotonic()
        self._summary = ""
        head = f"[{self._current}/{self._phases}] {name:<9}"
        say(f"{head} {words} …")
        yield
        self.seconds[name] = round(time.monotonic() - began, 1)
        say(f"{head} {self._summary or 'done'} ({self.seconds[name]:.1f} s)")

    def tell(self, text: str) -> None:
        """How far it is; said every few seconds at most."""
        if time.monotonic() - self._told >= TELL_SECONDS:
            self._told = time.monotonic()
            say(f"      {text}")

    def sum_up(self, text: str) -> None:
        """What the phase ends with, beside its time."""
        self._summary = text


def megabytes(size: float) -> str:
    """A size as a person reads it: 1.4 GB, 17 MB, 0.3 MB."""
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.0f} MB" if size >= 1e7 else f"{size / 1e6:.1f} MB"


def now() -> str:
    """This moment, as it is written everywhere."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")  # noqa: UP017


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; an empty one where there is none, or a power cut tore it."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: Mapping[str, Any], mode: int = 0o640) -> None:
    """Write a JSON object so that after a power cut there is the former one or this one, whole."""
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    with new.open("w") as file:
        os.fchmod(file.fileno(), mode)
        json.dump(content, file, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync_folder(path.parent)


def remember(settings: Settings, what: str, **facts: Any) -> None:
    """Note the outcome of a backup, drill, check or prune for those who ask how it is."""
    write_json(settings.state_file, {**read_json(settings.state_file), what: {"at": now(), **facts}})


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def empty_folder(folder: Path, owner: int | None = None, mode: int = 0o700) -> Path:
    """A folder with nothing in it; one that is there stays the same folder, since a disk may be mounted there."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    folder.chmod(mode)
    if owner is not None and os.geteuid() == 0:
        os.chown(folder, owner, 0)
    return folder


def sha256(path: Path) -> str:
    """The hexadecimal hash of a file's content."""
    total = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            total.update(chunk)
    return total.hexdigest()


def free_bytes(folder: Path) -> int:
    """Bytes that are free where the folder lies, or will lie."""
    while not folder.exists():
        folder = folder.parent
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def need_room(settings: HostSettings, folder: Path, needed: int, purpose: str) -> None:
    """Refuse before anything is written when there would not be room for it, and for the school beside it."""
    free = free_bytes(folder)
    if free < needed + settings.floor_mb * 1_000_000:
        raise Problem(
            f"{purpose} needs about {megabytes(needed)} in {folder}, and {megabytes(settings.floor_mb * 1e6)} have to "
            f"stay free ({settings.floor_name}); there are {megabytes(free)}. {settings.more_room}"
        )
