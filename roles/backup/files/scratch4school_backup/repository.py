"""The repository: what restic is asked, and what its refusals mean."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from host_change import readable

from .base import Problem, Settings, say
from .containers import Containers, last_words

OURS = "scratch4school"
# Only what was read back carries this, and only what carries it is a backup.
PROVED = "proved"
PLACE = "/backup"
MANIFEST = "manifest.json"
# What a manifest must say for this version to read it.
FORMAT = 1
# Restic takes a lock for dead after half an hour; it may be that of a machine that lost its power.
RETRY_LOCK = "32m"
# Restic itself goes on trying for a quarter of an hour, in which nobody would hear anything.
PATIENCE_SECONDS = 90.0
RETRY_SAY_SECONDS = 30.0
# In what it says where there is one: “config file already exists”, “… already initialized”.
ALREADY = "already"


@dataclass(frozen=True)
class Snapshot:
    """One backup as the repository lists it."""

    id: str
    time: str
    host: str
    tags: frozenset[str]

    @property
    def short(self) -> str:
        """What a person types."""
        return self.id[:8]

    @property
    def kind(self) -> str:
        """Why it was made: by hand, nightly, before a migration or a restore."""
        return next((tag.removeprefix("kind=") for tag in self.tags if tag.startswith("kind=")), "")

    @property
    def proved(self) -> bool:
        """Whether it was read back."""
        return PROVED in self.tags


class Repository:
    """One repository, by way of restic in a container."""

    def __init__(self, settings: Settings, containers: Containers) -> None:
        self._settings = settings
        self._containers = containers

    @property
    def _cache(self) -> Path:
        return Path(self._settings.directory) / "cache"

    def command(self, *arguments: str, mounts: Sequence[tuple[Path | str, str, str]] = ()) -> list[str]:
        """The command line that asks restic."""
        settings = self._settings
        mounts = [*self._containers.secrets(), (self._cache, "/cache", "rw"), *mounts]
        options = []
        if settings.is_local:
            mounts.append((settings.repository, "/repository", "rw"))
        if settings.repository.startswith("sftp:"):
            options.append(
                "sftp.args=-i /run/secrets/ssh_key -o UserKnownHostsFile=/run/secrets/known_hosts -o BatchMode=yes "
                "-o ServerAliveInterval=15 -o ServerAliveCountMax=4 -o ConnectTimeout=20"
            )
        restic = self._containers.patiently("restic", "--cache-dir=/cache", "--password-file=/run/secrets/password")
        restic += [f"--option={option}" for option in options]
        restic += [f"--limit-upload={settings.upload_kib}"] * (settings.upload_kib > 0)
        restic += [f"--limit-download={settings.download_kib}"] * (settings.download_kib > 0)
        return self._containers.command(
            *restic,
            *arguments,
            mounts=mounts,
            network="none" if settings.is_local else settings.network,
            environment=[f"RESTIC_REPOSITORY={'/repository' if settings.is_local else settings.repository}"],
            options=[f"--workdir={PLACE}"] if any(target.startswith(PLACE) for _, target, _ in mounts) else [],
        )

    def ask(self, *arguments: str, doing: str, seconds: float | None = None) -> str:
        """What restic prints; Problem when it fails, or has nothing to say within so many seconds."""
        command = self.command(*arguments)
        try:
            ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=seconds)
        except subprocess.TimeoutExpired as late:
            self._containers.end(command)
            raise Problem(
                f"{doing} took more than {seconds:g} seconds, so {self._settings.repository} is taken for away: "
                f"{_why(late.stderr or b'')}"
            ) from late
        if ended.returncode:
            raise self._problem(ended.returncode, ended.stderr, doing)
        return ended.stdout.decode(errors="replace")

    @contextmanager
    def reading(
        self, *arguments: str, doing: str, mounts: Sequence[tuple[Path | str, str, str]] = ()
    ) -> Iterator[IO[bytes]]:
        """What restic prints, while it prints it; Problem when it fails, also after all was read."""
        process = self._containers.start(self.command(*arguments, mounts=mounts))
        said: list[bytes] = []
        assert process.stdout is not None
        assert process.stderr is not None
        errors = process.stderr
        listener = threading.Thread(target=_listen, args=(errors, said), daemon=True)
        listener.start()
        try:
            with process.stdout as output:
                yield output
            status = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        finally:
            listener.join(timeout=10)
            errors.close()
        if status:
            raise self._problem(status, b"".join(said), doing)

    def identity(self) -> str:
        """The repository's own id; Problem when it cannot be opened."""
        said = self.ask("cat", "config", "--no-lock", doing="Opening the repository", seconds=PATIENCE_SECONDS)
        return str(json.loads(said)["id"])

    def make(self) -> bool:
        """Have a repository that our password opens; whether it had to be made."""
        if self._settings.is_local and (Path(self._settings.repository) / "config").exists():
            self.identity()
            return False
        # Made before it is looked for: `init` makes what it needs there, an S3 bucket too, and overwrites nothing. In a
        # bucket that is not there restic would look for a quarter of an hour.
        try:
            self.ask("init", doing="Making the repository", seconds=PATIENCE_SECONDS)
        except Problem as problem:
            if ALREADY not in str(problem):
                raise
            self.identity()
            return False
        return True

    def unlock(self) -> None:
        """Remove locks of those who are no more.

        A folder on this host is used by nobody without the host's lock, which we have, so all locks in it are of the
        dead. In a repository elsewhere restic itself decides, by their age.
        """
        self.ask("unlock", *(["--remove-all"] if self._settings.is_local else []), doing="Removing old locks")

    def snapshots(self) -> list[Snapshot]:
        """All that is ours, oldest first, proved or not."""
        said = json.loads(
            self.ask("snapshots", "--json", "--no-lock", "--tag", OURS, doing="Listing the backups") or "[]"
        )
        found = [
            Snapshot(one["id"], one["time"], one.get("hostname", ""), frozenset(one.get("tags") or []))
            for one in said or []
        ]
        return sorted(found, key=lambda one: one.time)

    def backups(self) -> list[Snapshot]:
        """What may be called a backup, oldest first."""
        return [one for one in self.snapshots() if one.proved]

    def find(self, wish: str) -> Snapshot:
        """The backup that is meant by `latest` or the first digits of an id; Problem with a list when none is."""
        backups = self.backups()
        if not backups:
            raise Problem(f"There is no backup in {self._settings.repository}.")
        if wish == "latest":
            return backups[-1]
        found = [one for one in backups if len(wish) >= 4 and one.id.startswith(wish)]
        if len(found) == 1:
            return found[0]
        known = ", ".join(f"{one.short} ({readable(one.time)})" for one in reversed(backups[-12:]))
        raise Problem(f"{'Several backups begin' if found else 'No backup begins'} with “{wish}”. There are: {known}.")

    def manifest(self, snapshot: Snapshot) -> dict[str, Any]:
        """What a backup says of itself."""
        said = self.ask("dump", "--no-lock", snapshot.id, f"/{MANIFEST}", doing="Reading the manifest")
        try:
            manifest = dict(json.loads(said))
        except ValueError as problem:
            raise Problem(f"The manifest of backup {snapshot.short} is damaged; take another backup.") from problem
        if manifest.get("format") != FORMAT:
            raise Problem(
                f"Backup {snapshot.short} is in format {manifest.get('format')}, and this version reads {FORMAT}; "
                "use the checkout that made it."
            )
        return manifest

    def store(
        self, mounts: Sequence[tuple[Path | str, str, str]], tags: Iterable[str], tell: Callable[[float, int], None]
    ) -> dict[str, Any]:
        """Store what is mounted below /backup as one snapshot; returns restic's summary, `tell` hears how far it is."""
        names = sorted({target.removeprefix(f"{PLACE}/").split("/")[0] for _, target, _ in mounts})
        # A dot at the top of the uploads is what is still coming in, and the sweeper's note.
        line = [
            "backup",
            "--json",
            f"--exclude={PLACE}/uploads/.*",
            f"--host={self._settings.host}",
            f"--retry-lock={RETRY_LOCK}",
        ]
        line += [f"--tag={tag}" for tag in (OURS, *tags)]
        summary: dict[str, Any] = {}
        with self.reading(*line, *names, doing="Storing the backup", mounts=mounts) as output:
            for raw in output:
                message = _message(raw)
                if message.get("message_type") == "status":
                    tell(float(message.get("percent_done", 0)), int(message.get("bytes_done", 0)))
                elif message.get("message_type") == "summary":
                    summary = message
        if not summary.get("snapshot_id"):
            raise Problem("Restic ended without a snapshot; nothing was backed up.")
        return summary

    def prove(self, snapshot: str) -> str:
        """Mark a snapshot as read back, from which moment it is a backup; returns the id that it has from then on."""
        said = self.ask(
            "tag", "--json", f"--add={PROVED}", f"--retry-lock={RETRY_LOCK}", snapshot, doing="Marking the backup"
        )
        for line in said.splitlines():
            if new := _message(line.encode()).get("new_snapshot_id"):
                return str(new)
        raise Problem("The backup was read back, but restic did not mark it; run backup.yml again.")

    def listing(self, snapshot: str) -> dict[str, int]:
        """Every file of a snapshot with its size."""
        found = {}
        with self.reading("ls", "--json", "--no-lock", snapshot, doing="Listing the backup's files") as output:
            for raw in output:
                node = _message(raw)
                if node.get("type") == "file":
                    found[str(node["path"]).lstrip("/")] = int(node.get("size", 0))
        return found

    def unpack(
        self, snapshot: str, target: Path, includes: Path | None = None, tell: Callable[[float], None] | None = None
    ) -> None:
        """Restore a snapshot, or the files that `includes` lists, into a folder that its user may write to."""
        line = ["restore", "--json", "--no-lock", "--target=/target", snapshot]
        mounts: list[tuple[Path | str, str, str]] = [(target, "/target", "rw")]
        if includes:
            line.append("--include-file=/includes")
            mounts.append((includes, "/includes", "ro"))
        with self.reading(*line, doing="Unpacking the backup", mounts=mounts) as output:
            for raw in output:
                message = _message(raw)
                if tell and message.get("message_type") == "status":
                    tell(float(message.get("percent_done", 0)))

    def forget(self, snapshots: Sequence[Snapshot]) -> None:
        """Remove snapshots by name; their data goes with the next prune."""
        if snapshots:
            self.ask(
                "forget",
                f"--retry-lock={RETRY_LOCK}",
                *(one.id for one in snapshots),
                doing="Removing unproved snapshots",
            )

    def prune(self) -> str:
        """Keep what is to be kept, remove the rest with its data, and return restic's last words."""
        keep = [f"--keep-{name}={count}" for name, count in sorted(self._settings.keep.items())]
        which = [f"--tag={OURS},{PROVED}", f"--host={self._settings.host}", "--group-by=host"]
        return self.ask("forget", "--prune", f"--retry-lock={RETRY_LOCK}", *which, *keep, doing="Removing old backups")

    def check(self) -> None:
        """Look at the structure of all and the data of a part; Problem when something is damaged."""
        self.ask(
            "check",
            f"--read-data-subset={self._settings.read_percent}%",
            f"--retry-lock={RETRY_LOCK}",
            doing="Checking the repository",
        )

    def _problem(self, status: int, said: bytes, doing: str) -> Problem:
        where = self._settings.repository
        if status == 10:
            return Problem(
                f"There is no repository at {where}. Correct backup_repository, or run deploy.yml, which makes one."
            )
        if status == 11:
            return Problem(f"Another program has locked the repository {where}; try again when it has ended.")
        if status == 12:
            return Problem(
                f"The password of this inventory does not open {where}. Put the right one into backup_password, or "
                "into .secrets/backup_password beside the inventory; without it nothing comes back."
            )
        return Problem(f"{doing} failed: {_why(said)}")


def _listen(errors: IO[bytes], said: list[bytes]) -> None:
    """Keep what restic complains of. That it tries again is told at once: it does so for a quarter of an hour."""
    told = 0.0
    for line in errors:
        said.append(line)
        if b"retrying after" in line and time.monotonic() - told > RETRY_SAY_SECONDS:
            told = time.monotonic()
            say(f"      {line.decode(errors='replace').strip()}")


def _message(raw: bytes) -> dict[str, Any]:
    try:
        content = json.loads(raw)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _why(said: bytes) -> str:
    """Restic's own reason. Where JSON was asked for, what went wrong comes before the sum of it."""
    messages = [_message(line) for line in said.splitlines()]
    reasons = [one["error"] for one in messages if isinstance(one.get("error"), dict)]
    fatal = [str(one["message"]) for one in messages if one.get("message_type") == "exit_error" and one.get("message")]
    found = [str(reason["message"]) for reason in reasons if reason.get("message")] or fatal
    return found[0].strip() if found else last_words(said)
