"""The lock of a host, which lets one change at a time run there, and maintenance mode, in which no slot is live.

Both are files in one folder of the host. `lock.json` exists during a change; it has the change's owner, verb, reason,
time and phase. `maintenance.json` exists while no slot may be started; it has the reason.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import audit_log
from .errors import LockHeldError, OperatorError
from .files import read_json, sync_folder, write_json
from .times import now, readable, seconds_since

LOCK = "lock.json"
MAINTENANCE = "maintenance.json"

# Of a change of this program, whose heartbeat is renewed each minute; a playbook passes `lock_stale_minutes`.
STALE_SECONDS = 30 * 60
HEARTBEAT_SECONDS = 60.0
RETRY_SECONDS = 15.0

# done: all phases succeeded. failed: a phase failed, and the previous state is live. broken: a sysadmin took the lock.
OUTCOMES = ("done", "failed", "broken")
REASON_LENGTH = 300

Folder = str | os.PathLike[str]


# ---- owner


def owner(by: str | None = None) -> dict[str, Any]:
    """Describe this process as the owner of a lock, so that others on its machine see whether it still runs."""
    pid = os.getpid()
    return {"by": by or account(), "node": node(), "pid": pid, "started": started(pid)}


def account() -> str:
    """The account that runs this process, also through sudo, as `user@machine`."""
    return f"{os.environ.get('SUDO_USER') or os.environ.get('USER') or 'root'}@{socket.gethostname()}"


def node() -> str:
    """An id of this machine that changes at each boot, and differs in each container, which shares the kernel's id."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()}/{boot}/{started(1) or 0}"


def started(pid: int) -> int | None:
    """When a process was started, in clock ticks since the boot; None when there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def new_run() -> str:
    """A name for one change, made of the time and the process id: `20261124T165001-4711`."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}"


# ---- the lock


def read_lock(folder: Folder) -> dict[str, Any] | None:
    """The content of the lock; None when the host is not locked, or a power failure tore the file."""
    lock = read_json(Path(folder) / LOCK)
    return lock if "run" in lock else None


def begin(
    folder: Folder,
    *,
    run: str,
    verb: str,
    owner: Mapping[str, Any],
    reason: str = "",
    release: str | None = None,
    dead_run: str | None = None,
    stale_seconds: float = STALE_SECONDS,
) -> str:
    """Take the lock and write the first line of the audit log.

    :param owner: the result of the function `owner` in the process that makes the change.
    :param dead_run: a run whose process has ended, as the caller found on the machine where it ran.
    :param stale_seconds: how old the heartbeat of this lock may become before another change takes the lock over.
    :returns: a message when a stale lock was taken over, else ''.
    :raises LockHeldError: when another change has the lock; the message says which one, since when, and what to do.
    """
    folder = Path(folder)
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    with _one_at_a_time(folder):
        lock = read_lock(folder)
        message = ""
        if lock and lock["run"] != run:
            why = why_stale(lock, dead_run)
            if not why:
                raise LockHeldError(refusal(lock))
            message = f"{describe(lock)} left its lock behind: {why}. It was taken over."
            lost = {"run": lock["run"], "verb": lock["verb"], "phase": "lost", "reason": why, "by": owner["by"]}
            audit_log.append(folder, lost)
        moment = now("milliseconds")
        about = {"run": run, "verb": verb, "phase": "begin", "release": release, "by": owner["by"], "reason": reason}
        times = {"since": moment, "heartbeat": moment, "stale_seconds": stale_seconds}
        write_json(folder / LOCK, {**about, **owner, "host": node(), **times})
        audit_log.append(folder, about)
        return message


def phase(folder: Folder, *, run: str, name: str, release: str | None = None) -> None:
    """Write the run's phase into the lock and the audit log, and renew the heartbeat.

    :raises OperatorError: when the run has lost the lock, as after `unlock.yml`; the run must stop.
    """
    folder = Path(folder)
    with _one_at_a_time(folder):
        lock = _own_lock(folder, run)
        lock.update(heartbeat=now("milliseconds"), phase=name, release=release or lock.get("release"))
        write_json(folder / LOCK, lock)
        entry = {"run": run, "verb": lock["verb"], "phase": name, "release": lock["release"], "by": lock["by"]}
        audit_log.append(folder, entry)


def heartbeat(folder: Folder, *, run: str) -> None:
    """Renew the lock's heartbeat in the middle of a phase, without a line in the audit log.

    :raises OperatorError: when the run has lost the lock.
    """
    folder = Path(folder)
    with _one_at_a_time(folder):
        lock = _own_lock(folder, run)
        lock["heartbeat"] = now("milliseconds")
        write_json(folder / LOCK, lock)


def end(folder: Folder, *, run: str, outcome: str, reason: str = "") -> None:
    """Write the last line of the audit log and release the lock; does nothing when the run has lost the lock."""
    folder = Path(folder)
    if outcome not in OUTCOMES:
        raise OperatorError(f"The outcome “{outcome}” is none of {', '.join(OUTCOMES)}.")
    with _one_at_a_time(folder):
        lock = read_lock(folder)
        if lock and lock["run"] == run:
            _remove(folder, lock, outcome, lock["by"], reason)


def unlock(folder: Folder, *, by: str, reason: str) -> str:
    """Take the lock from the change that has it.

    :returns: a description of that change; '' when the host was not locked.
    :raises OperatorError: without a reason.
    """
    folder = Path(folder)
    if not reason.strip():
        raise OperatorError("The lock is removed only with a reason; add -e reason='…'.")
    if not folder.is_dir():
        return ""
    with _one_at_a_time(folder):
        lock = read_lock(folder)
        if not lock:
            return ""
        _remove(folder, lock, "broken", by, reason)
        return describe(lock)


def _remove(folder: Path, lock: Mapping[str, Any], outcome: str, by: str, reason: str) -> None:
    ended = {"run": lock["run"], "verb": lock["verb"], "phase": "end", "outcome": outcome}
    audit_log.append(folder, {**ended, "release": lock.get("release"), "by": by, "reason": reason})
    (folder / LOCK).unlink()
    sync_folder(folder)


def is_owner_dead(lock: Mapping[str, Any] | None) -> bool:
    """Whether the owner of a lock ran on this machine and has ended; False for an owner on another machine."""
    if not lock or lock.get("node") != node():
        return False
    return started(int(lock["pid"])) != lock["started"]


def why_stale(lock: Mapping[str, Any], dead_run: str | None) -> str:
    """The reason why the lock may be taken over, as a clause; '' when it may not."""
    if lock.get("host") != node():
        return "the server was restarted since"
    if lock["run"] == dead_run or is_owner_dead(lock):
        return f"process {lock['pid']} on {str(lock['node']).partition('/')[0]} no longer exists"
    silent = seconds_since(str(lock.get("heartbeat", "")))
    if silent > lock["stale_seconds"]:
        return f"it had no heartbeat for {int(silent // 60)} minutes"
    return ""


def refusal(lock: Mapping[str, Any]) -> str:
    """The refusal of a second change: which change has the lock, and what to do."""
    return (
        f"{describe(lock)} is changing this host now (phase {lock.get('phase')}, last heartbeat at "
        f"{readable(lock.get('heartbeat'))}). "
        "Wait until it has ended. If you know that it no longer runs, type unlock.yml -e reason='…'."
    )


def describe(lock: Mapping[str, Any]) -> str:
    """Describe the change that has a lock: `deploy by anna@desk since 2026-11-24 16:50 UTC`."""
    return f"{lock['verb']} by {lock['by']} since {readable(lock.get('since'))}"


def _own_lock(folder: Path, run: str) -> dict[str, Any]:
    lock = read_lock(folder)
    if lock is None or lock["run"] != run:
        state = f"{describe(lock)} has it now" if lock else "the host is not locked now"
        raise OperatorError(f"This run has lost the lock of the host, and {state}; nothing more is changed.")
    return lock


def _one_at_a_time(folder: Path) -> Any:
    """Keep other processes from reading or writing the lock."""
    return exclusive(folder / ".mutex")


# ---- for a whole change


@contextmanager
def exclusive(path: Path, deadline: float = float("inf"), refusal: str = "") -> Iterator[None]:
    """Run a block in one process at a time; the kernel lets the next one in when the process ends or is killed.

    :param deadline: until when to wait, as a time of `time.monotonic`; without it, for ever.
    :param refusal: the message of the OperatorError that is raised at the deadline.
    """
    with path.open("w") as mutex:
        while not _try_lock(mutex, wait=deadline == float("inf")):
            if time.monotonic() >= deadline:
                raise OperatorError(refusal)
            time.sleep(RETRY_SECONDS)
        yield


def _try_lock(mutex: Any, wait: bool) -> bool:
    try:
        fcntl.flock(mutex, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


@contextmanager
def change(
    folder: Folder, *, run: str, verb: str, by: str = "", reason: str = "", dead_run: str = "", deadline: float = 0.0
) -> Iterator[None]:
    """Run a block under the lock; the audit log gets its outcome.

    :param dead_run: a run whose process has ended, as the caller knows.
    :param deadline: until when to wait for the lock, as a time of `time.monotonic`; 0 for not at all.
    :raises LockHeldError: when another change still has the lock at the deadline.
    """
    while True:
        try:
            begin(folder, run=run, verb=verb, owner=owner(by or None), reason=reason, dead_run=dead_run or None)
            break
        except LockHeldError:
            if time.monotonic() > deadline:
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
        end(folder, run=run, outcome=outcome, reason=why[:REASON_LENGTH])


@contextmanager
def change_of(folder: Folder, *, run: str, verb: str) -> Iterator[str]:
    """Run a block under the lock that `run` has, or under a new lock when `run` is ''; yields the run's name."""
    if run:
        yield run
        return
    run = new_run()
    with change(folder, run=run, verb=verb):
        yield run


class Heartbeat:
    """Renews the lock's heartbeat while work runs, and ends this process with SIGTERM when the lock is lost."""

    # Why the lock was lost; the handler of SIGTERM reads it.
    lost = ""

    def __init__(self, folder: Folder, run: str) -> None:
        self._folder, self._run = folder, run
        self._ended = threading.Event()

    def __enter__(self) -> None:
        threading.Thread(target=self._beat, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            try:
                heartbeat(self._folder, run=self._run)
            except OperatorError as problem:
                Heartbeat.lost = str(problem)
                os.kill(os.getpid(), signal.SIGTERM)
                return
            except OSError:
                continue


# ---- maintenance mode


def maintenance_reason(folder: Folder) -> str:
    """The reason for maintenance mode, as a clause that follows “because”; '' when maintenance mode is off."""
    try:
        return str(json.loads((Path(folder) / MAINTENANCE).read_text())["reason"])
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError):
        # A power failure tore the file. While it exists, maintenance mode is on.
        return "maintenance mode is on"


def start_maintenance(folder: Folder, *, run: str, reason: str) -> None:
    """Let no slot be started until `end_maintenance`, also after a boot."""
    write_json(Path(folder) / MAINTENANCE, {"run": run, "reason": reason, "since": now("milliseconds")})


def end_maintenance(folder: Folder) -> None:
    """Let slots be started again; does nothing when maintenance mode is off."""
    (Path(folder) / MAINTENANCE).unlink(missing_ok=True)
    sync_folder(folder)
