"""Runs restic on the repository, and turns its failures into messages for the sysadmin."""

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

from .. import docker
from ..containers import Containers, Mount
from ..errors import OperatorError
from ..progress import say
from ..settings import BackupSettings
from ..times import readable

OURS = "scratch4school"
# The tag of a snapshot that was read back; only a snapshot with this tag is a backup.
VERIFIED = "verified"
FOLDER = "/backup"
MANIFEST = "manifest.json"
# The format of the manifests that this version writes and reads.
FORMAT = 1
# Restic removes another machine's lock after 30 minutes without a refresh, such as after a power failure.
RETRY_LOCK = "32m"
# Shorter than restic's own retries, which take 15 minutes and print nothing.
ANSWER_SECONDS = 90.0
RETRY_SAY_SECONDS = 30.0
# Part of restic's messages for an existing repository: “config file already exists”, “already initialized”.
ALREADY = "already"


@dataclass(frozen=True)
class Snapshot:
    """One snapshot in the repository's list."""

    id: str
    time: str
    host: str
    tags: frozenset[str]

    @property
    def short(self) -> str:
        """The first eight digits of the id, which a sysadmin types."""
        return self.id[:8]

    @property
    def kind(self) -> str:
        """The occasion of the backup: manual, nightly, migration or safety."""
        return next((tag.removeprefix("kind=") for tag in self.tags if tag.startswith("kind=")), "")

    @property
    def is_verified(self) -> bool:
        """Whether the snapshot was read back, which makes it a backup."""
        return VERIFIED in self.tags


class Repository:
    """The repository of this host; restic runs in a container."""

    def __init__(self, settings: BackupSettings, containers: Containers) -> None:
        self._settings = settings
        self._containers = containers

    @property
    def _cache(self) -> Path:
        return Path(self._settings.directory) / "cache"

    def command(self, *arguments: str, mounts: Sequence[Mount] = ()) -> list[str]:
        """The command line that runs restic."""
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
        restic = self._containers.nice("restic", "--cache-dir=/cache", "--password-file=/run/secrets/password")
        restic += [f"--option={option}" for option in options]
        restic += [f"--limit-upload={settings.upload_kib}"] * (settings.upload_kib > 0)
        restic += [f"--limit-download={settings.download_kib}"] * (settings.download_kib > 0)
        return self._containers.command(
            *restic,
            *arguments,
            mounts=mounts,
            network="none" if settings.is_local else settings.network,
            environment=[f"RESTIC_REPOSITORY={'/repository' if settings.is_local else settings.repository}"],
            options=[f"--workdir={FOLDER}"] if any(target.startswith(FOLDER) for _, target, _ in mounts) else [],
        )

    def ask(self, *arguments: str, doing: str, seconds: float | None = None) -> str:
        """Run restic and return its output.

        :param doing: begins the message of a failure.
        :raises OperatorError: when it fails, or does not end within `seconds`.
        """
        command = self.command(*arguments)
        try:
            ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=seconds)
        except subprocess.TimeoutExpired as late:
            self._containers.remove(command)
            raise OperatorError(
                f"{doing} took more than {seconds:g} seconds, so {self._settings.repository} counts as unreachable: "
                f"{_why(late.stderr or b'')}"
            ) from late
        if ended.returncode:
            raise self._problem(ended.returncode, ended.stderr, doing)
        return ended.stdout.decode(errors="replace")

    @contextmanager
    def reading(self, *arguments: str, doing: str, mounts: Sequence[Mount] = ()) -> Iterator[IO[bytes]]:
        """Run restic during a block and yield its output as a stream; OperatorError at the end when restic failed."""
        process = self._containers.start(self.command(*arguments, mounts=mounts))
        messages: list[bytes] = []
        assert process.stdout is not None
        assert process.stderr is not None
        errors = process.stderr
        listener = threading.Thread(target=_listen, args=(errors, messages), daemon=True)
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
            raise self._problem(status, b"".join(messages), doing)

    def identity(self) -> str:
        """The repository's id; OperatorError when the repository cannot be opened within ANSWER_SECONDS."""
        answer = self.ask("cat", "config", "--no-lock", doing="Opening the repository", seconds=ANSWER_SECONDS)
        return str(json.loads(answer)["id"])

    def init(self) -> bool:
        """Make the repository unless it exists; returns whether it was made.

        :raises OperatorError: when the password does not open an existing repository, or none can be made.
        """
        if self._settings.is_local and (Path(self._settings.repository) / "config").exists():
            self.identity()
            return False
        # `init` before any other command: it also makes an S3 bucket, and overwrites nothing. In a missing bucket other
        # commands would retry for 15 minutes.
        try:
            self.ask("init", doing="Making the repository", seconds=ANSWER_SECONDS)
        except OperatorError as problem:
            if ALREADY not in str(problem):
                raise
            self.identity()
            return False
        return True

    def unlock(self) -> None:
        """Remove the repository's stale locks, which killed processes have left.

        This process has the host's lock, so each lock in a repository on this host is stale. In a repository elsewhere,
        restic removes only locks that are old enough.
        """
        self.ask("unlock", *(["--remove-all"] if self._settings.is_local else []), doing="Removing old locks")

    def snapshots(self) -> list[Snapshot]:
        """All snapshots of this program, oldest first, verified or not."""
        answer = self.ask("snapshots", "--json", "--no-lock", "--tag", OURS, doing="Listing the backups")
        found = [
            Snapshot(one["id"], one["time"], one.get("hostname", ""), frozenset(one.get("tags") or []))
            for one in json.loads(answer or "[]") or []
        ]
        return sorted(found, key=lambda one: one.time)

    def backups(self) -> list[Snapshot]:
        """The verified snapshots, oldest first."""
        return [one for one in self.snapshots() if one.is_verified]

    def find(self, name: str) -> Snapshot:
        """Find a backup by `latest`, or by four or more first digits of its id.

        :raises OperatorError: when there is none, or more than one; the message lists the newest ones.
        """
        backups = self.backups()
        if not backups:
            raise OperatorError(f"There is no backup in {self._settings.repository}.")
        if name == "latest":
            return backups[-1]
        found = [one for one in backups if len(name) >= 4 and one.id.startswith(name)]
        if len(found) == 1:
            return found[0]
        known = ", ".join(f"{one.short} ({readable(one.time)})" for one in reversed(backups[-12:]))
        raise OperatorError(
            f"{'Several backups begin' if found else 'No backup begins'} with “{name}”. There are: {known}."
        )

    def manifest(self, snapshot: Snapshot) -> dict[str, Any]:
        """Read a backup's manifest; OperatorError when it is damaged, or in another format."""
        text = self.ask("dump", "--no-lock", snapshot.id, f"/{MANIFEST}", doing="Reading the manifest")
        try:
            manifest = dict(json.loads(text))
        except ValueError as problem:
            raise OperatorError(
                f"The manifest of backup {snapshot.short} is damaged; choose another backup."
            ) from problem
        if manifest.get("format") != FORMAT:
            raise OperatorError(
                f"Backup {snapshot.short} is in format {manifest.get('format')}, and this version reads {FORMAT}; "
                "use the checkout that created it."
            )
        return manifest

    def store(self, mounts: Sequence[Mount], tags: Iterable[str], tell: Callable[[float, int], None]) -> dict[str, Any]:
        """Store all mounts below /backup as one snapshot, and return restic's summary.

        :param tell: called with the finished share, from 0 to 1, and the number of bytes read.
        """
        names = sorted({target.removeprefix(f"{FOLDER}/").split("/")[0] for _, target, _ in mounts})
        # In the uploads folder, top-level names with a leading dot are unfinished uploads and the sweep's note.
        line = [
            "backup",
            "--json",
            f"--exclude={FOLDER}/uploads/.*",
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
            raise OperatorError("Restic ended without a snapshot; nothing was backed up. Run backup.yml again.")
        return summary

    def mark_verified(self, snapshot: str) -> str:
        """Tag a snapshot as verified, which makes it a backup; returns its new id."""
        answer = self.ask(
            "tag", "--json", f"--add={VERIFIED}", f"--retry-lock={RETRY_LOCK}", snapshot, doing="Marking the backup"
        )
        for line in answer.splitlines():
            if new := _message(line.encode()).get("new_snapshot_id"):
                return str(new)
        raise OperatorError("The backup was read back, but restic did not mark it; run backup.yml again.")

    def listing(self, snapshot: str) -> dict[str, int]:
        """Size in bytes of each file in a snapshot, by path."""
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
        """Restore a snapshot, or the files that `includes` lists, into a folder that the container's user may write."""
        line = ["restore", "--json", "--no-lock", "--target=/target", snapshot]
        mounts: list[Mount] = [(target, "/target", "rw")]
        if includes:
            line.append("--include-file=/includes")
            mounts.append((includes, "/includes", "ro"))
        with self.reading(*line, doing="Unpacking the backup", mounts=mounts) as output:
            for raw in output:
                message = _message(raw)
                if tell and message.get("message_type") == "status":
                    tell(float(message.get("percent_done", 0)))

    def forget(self, snapshots: Sequence[Snapshot]) -> None:
        """Remove snapshots; their data is removed by the next prune."""
        if snapshots:
            self.ask(
                "forget",
                f"--retry-lock={RETRY_LOCK}",
                *(one.id for one in snapshots),
                doing="Removing unverified snapshots",
            )

    def prune(self) -> str:
        """Remove old backups and their data, by the settings backup_keep_*; returns restic's output."""
        keep = [f"--keep-{name}={count}" for name, count in sorted(self._settings.keep.items())]
        which = [f"--tag={OURS},{VERIFIED}", f"--host={self._settings.host}", "--group-by=host"]
        return self.ask("forget", "--prune", f"--retry-lock={RETRY_LOCK}", *which, *keep, doing="Removing old backups")

    def check(self) -> None:
        """Check the structure of the repository and read `read_percent` of its data; OperatorError for damage."""
        self.ask(
            "check",
            f"--read-data-subset={self._settings.read_percent}%",
            f"--retry-lock={RETRY_LOCK}",
            doing="Checking the repository",
        )

    def _problem(self, status: int, errors: bytes, doing: str) -> OperatorError:
        where = self._settings.repository
        if status == 10:
            mount = (
                "If a disk is to be mounted there, mount it. Otherwise correct"
                if self._settings.is_local
                else "Correct"
            )
            return OperatorError(
                f"There is no repository at {where}. {mount} backup_repository, or run deploy.yml, which creates one."
            )
        if status == 11:
            return OperatorError(f"Another program has locked the repository {where}; try again when it has ended.")
        if status == 12:
            return OperatorError(
                f"The password of this inventory does not open {where}. Write the right one into backup_password, or "
                "into .secrets/backup_password beside the inventory; without it no backup can be restored."
            )
        return OperatorError(f"{doing} failed: {_why(errors)}")


def _listen(errors: IO[bytes], kept: list[bytes]) -> None:
    """Collect restic's error output, and print its retries, because restic retries for 15 minutes."""
    told = 0.0
    for line in errors:
        kept.append(line)
        if b"retrying after" in line and time.monotonic() - told > RETRY_SAY_SECONDS:
            told = time.monotonic()
            say(f"      {line.decode(errors='replace').strip()}")


def _message(raw: bytes) -> dict[str, Any]:
    try:
        content = json.loads(raw)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _why(errors: bytes) -> str:
    """The cause in restic's error output. With --json, the errors come before their summary."""
    messages = [_message(line) for line in errors.splitlines()]
    reasons = [one["error"] for one in messages if isinstance(one.get("error"), dict)]
    fatal = [str(one["message"]) for one in messages if one.get("message_type") == "exit_error" and one.get("message")]
    found = [str(reason["message"]) for reason in reasons if reason.get("message")] or fatal
    return found[0].strip() if found else docker.last_message(errors)
