"""The one lock for everything that changes a host, and the journal of what each change did, phase by phase.

Both are files in one folder on the host: `lock.json` is there while something changes, `journal.jsonl` only grows.
Ansible's module, the program that switches slots and the backups use this file, hence the standard library alone and
any Python since 3.10.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

LOCK = "lock.json"
JOURNAL = "journal.jsonl"
# There while pupils must not be let in: rows and files are changing places.
HOLD = "hold.json"

# Longer than the longest phase: an image built over a slow line. Each phase is a heartbeat.
STALE_SECONDS = 30 * 60

# done: all of it. failed: given up, and the former state serves. broken: the lock was taken from it.
OUTCOMES = ("done", "failed", "broken")


class ChangeError(ValueError):
    """A change may not begin or go on; the text is a sentence for the operator."""


@dataclass
class Run:
    """One change as the journal tells it: who did what, its phases in order, and how it ended, if it has."""

    run: str
    verb: str
    by: str
    at: str
    release: str | None = None
    phases: list[str] = field(default_factory=list)
    outcome: str | None = None
    reason: str | None = None


def whoami(by: str | None = None) -> dict[str, Any]:
    """Describe the process that changes something, so that others on its machine can tell whether it lives."""
    pid = os.getpid()
    return {"by": by or account(), "node": node(), "pid": pid, "started": started(pid)}


def account() -> str:
    """Who asks, as `user@machine`."""
    return f"{os.environ.get('SUDO_USER') or os.environ.get('USER') or 'root'}@{socket.gethostname()}"


def node() -> str:
    """This machine since its last start; containers share the kernel's boot id, so their first process counts too."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()}/{boot}/{started(1) or 0}"


def started(pid: int) -> int | None:
    """When a process was started, in clock ticks since the boot; None when there is none of that number."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def is_gone(lock: Mapping[str, Any] | None) -> bool:
    """Whether the holder of a lock ran on this machine and is no more; False when that cannot be told from here."""
    if not lock or lock.get("node") != node():
        return False
    return started(int(lock["pid"])) != lock["started"]


def read_lock(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The lock as it lies there; None when nothing changes. One that a power cut tore is nobody's."""
    try:
        lock = json.loads((Path(folder) / LOCK).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return lock if isinstance(lock, dict) and "run" in lock else None


def begin(
    folder: str | os.PathLike[str],
    *,
    run: str,
    verb: str,
    owner: Mapping[str, Any],
    reason: str = "",
    release: str | None = None,
    gone: str | None = None,
    stale_seconds: float = STALE_SECONDS,
) -> str:
    """Take the lock and write the first line of the journal; returns a sentence when the lock was taken over, else ''.

    :param owner: what `whoami` says of the process that asks.
    :param gone: the run whose holder the caller knows to be dead, because it looked on the machine where it ran.
    :raises ChangeError: when somebody else holds it, with who, since when and what to do.
    """
    folder = Path(folder)
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    with _alone(folder):
        lock = read_lock(folder)
        said = ""
        if lock and lock["run"] != run:
            why = why_stale(lock, gone, stale_seconds)
            if not why:
                raise ChangeError(refusal(lock))
            said = f"{describe(lock)} left its lock behind: {why}. It was taken over."
            _append(
                folder, {"run": lock["run"], "verb": lock["verb"], "phase": "lost", "reason": why, "by": owner["by"]}
            )
        now = _now()
        _write_lock(
            folder,
            {
                "run": run,
                "verb": verb,
                "reason": reason,
                "release": release,
                **owner,
                "host": node(),
                "since": now,
                "heartbeat": now,
                "phase": "begin",
            },
        )
        _append(
            folder,
            {"run": run, "verb": verb, "phase": "begin", "release": release, "by": owner["by"], "reason": reason},
        )
        return said


def phase(folder: str | os.PathLike[str], *, run: str, name: str, release: str | None = None) -> None:
    """Note that the run has come to a phase, which is also the lock's heartbeat.

    :raises ChangeError: when the lock is no longer this run's, as after `unlock.yml`: it must not go on.
    """
    folder = Path(folder)
    with _alone(folder):
        lock = _held(folder, run)
        lock.update(heartbeat=_now(), phase=name, release=release or lock.get("release"))
        _write_lock(folder, lock)
        _append(folder, {"run": run, "verb": lock["verb"], "phase": name, "release": lock["release"], "by": lock["by"]})


def beat(folder: str | os.PathLike[str], *, run: str) -> None:
    """Say that the run lives, in the middle of a phase that may take hours; the journal needs no line for it.

    :raises ChangeError: when the lock is no longer this run's.
    """
    folder = Path(folder)
    with _alone(folder):
        lock = _held(folder, run)
        lock["heartbeat"] = _now()
        _write_lock(folder, lock)


def end(folder: str | os.PathLike[str], *, run: str, outcome: str, reason: str = "") -> None:
    """Write the last line of the journal and give the lock back; one that was taken away meanwhile is left alone."""
    folder = Path(folder)
    if outcome not in OUTCOMES:
        raise ChangeError(f"The outcome “{outcome}” is none of {', '.join(OUTCOMES)}.")
    with _alone(folder):
        lock = read_lock(folder)
        if lock and lock["run"] == run:
            _append(
                folder,
                {
                    "run": run,
                    "verb": lock["verb"],
                    "phase": "end",
                    "outcome": outcome,
                    "release": lock["release"],
                    "by": lock["by"],
                    "reason": reason,
                },
            )
            (folder / LOCK).unlink()
            _sync(folder)


def unlock(folder: str | os.PathLike[str], *, by: str, reason: str) -> str:
    """Take the lock away from whoever holds it; returns what was held as a sentence, '' when nothing was.

    :raises ChangeError: without a reason.
    """
    folder = Path(folder)
    if not reason.strip():
        raise ChangeError("Say why the lock may be broken: -e reason='…'.")
    if not folder.is_dir():
        return ""
    with _alone(folder):
        lock = read_lock(folder)
        if not lock:
            return ""
        _append(
            folder,
            {
                "run": lock["run"],
                "verb": lock["verb"],
                "phase": "end",
                "outcome": "broken",
                "release": lock.get("release"),
                "by": by,
                "reason": reason,
            },
        )
        (folder / LOCK).unlink()
        _sync(folder)
        return describe(lock)


def why_stale(lock: Mapping[str, Any], gone: str | None, stale_seconds: float) -> str:
    """The rule by which a lock may be taken over, as the half of a sentence; '' when it may not."""
    if lock.get("host") != node():
        return "the server was started anew since"
    if lock["run"] == gone or is_gone(lock):
        return f"process {lock['pid']} on {str(lock['node']).partition('/')[0]} is no more"
    silent = time.time() - _parse(str(lock.get("heartbeat", ""))).timestamp()
    if silent > stale_seconds:
        return f"it has not been heard of for {int(silent // 60)} minutes"
    return ""


def refusal(lock: Mapping[str, Any]) -> str:
    """Say who holds the lock and what one can do."""
    return (
        f"{describe(lock)} is changing this host now (phase {lock.get('phase')}, last heard of at "
        f"{readable(lock.get('heartbeat'))}). "
        "Wait until it has ended; if you know that it never will, run unlock.yml with -e reason='…'."
    )


def describe(lock: Mapping[str, Any]) -> str:
    """`deploy by anna@desk since 2026-11-24 16:50 UTC`."""
    return f"{lock['verb']} by {lock['by']} since {readable(lock.get('since'))}"


def readable(moment: object) -> str:
    """A moment of a file as a person reads it: `2026-11-24T16:50:01.000Z` → `2026-11-24 16:50 UTC`.

    A text that is no moment, or that does not say its zone, comes back as it is.
    """
    # Python 3.10 reads neither a Z nor the nine digits of a second that restic writes.
    text = re.sub(r"\.\d+", "", str(moment)).replace("Z", "+00:00")
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return str(moment)
    return f"{parsed.astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC" if parsed.tzinfo else str(moment)  # noqa: UP017


def runs(text: str) -> list[Run]:
    """The changes that a journal tells of, oldest first; lines that a power cut tore are passed over."""
    found: dict[str, Run] = {}
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if not isinstance(entry, dict) or not entry.get("run"):
            continue
        run = found.setdefault(
            entry["run"], Run(entry["run"], str(entry.get("verb")), str(entry.get("by")), str(entry.get("at")))
        )
        run.release = entry.get("release") or run.release
        run.phases.append(str(entry.get("phase")))
        if entry.get("phase") == "end":
            run.outcome, run.reason = entry.get("outcome"), entry.get("reason")
    return list(found.values())


def half_finished(text: str, wanted: str | None) -> str:
    """Refuse to begin another release over one that stopped in the middle; '' when there is nothing to refuse.

    :param text: the journal.
    :param wanted: the release that is to be activated now; None for a verb that brings none.
    """
    last = next((run for run in reversed(runs(text)) if run.release), None)
    if last is None or last.outcome in ("done", "failed") or last.release == wanted or wanted is None:
        return ""
    # Of a text that was cut off its last line may be all that is left.
    phase = next((name for name in reversed(last.phases) if name not in ("lost", "end")), "begin")
    return (
        f"An earlier {last.verb} of release {last.release} by {last.by}, begun at {readable(last.at)}, stopped in its "
        f"phase “{phase}”, and this would be release {wanted}. "
        "Run that one again from its own checkout, go back with rollback.yml, or give it up with "
        "-e release_abandon=true."
    )


def never_live(text: str, host: str) -> str:
    """Why no release is live on a host whose ledger is empty, and what to type.

    :param text: the journal.
    """
    last = next((run for run in reversed(runs(text)) if run.verb not in ("status", "verify", "unlock")), None)
    if last is None:
        return f"Nothing is deployed on {host}; run deploy.yml first."
    began = f"No release is live on {host} yet: the {last.verb} by {last.by}, begun at {readable(last.at)},"
    if last.outcome == "failed":
        reason = (last.reason or "").rstrip(".")
        return f"{began} failed{f': {reason}' if reason else ''}. Correct that, and run deploy.yml."
    if last.outcome == "done":
        return f"{began} ended well, and activates no release. Run deploy.yml."
    phase = next((name for name in reversed(last.phases) if name not in ("lost", "end")), "begin")
    return (
        f"{began} stopped in its phase “{phase}”, or is still under way. If it is not, run deploy.yml again; "
        "it goes on from there."
    )


def last_change(text: str) -> str:
    """The newest change in one line; '' before the first."""
    found = runs(text)
    if not found:
        return ""
    last = found[-1]
    ending = last.outcome or f"stopped in its phase “{last.phases[-1]}”"
    return f"{last.verb} by {last.by} at {readable(last.at)}: {ending}{f' ({last.reason})' if last.reason else ''}"


def read_hold(folder: str | os.PathLike[str]) -> str:
    """Why nobody may be let in now; '' when everybody may."""
    try:
        return str(json.loads((Path(folder) / HOLD).read_text())["reason"])
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError):
        return "somebody said so"


def hold(folder: str | os.PathLike[str], *, run: str, reason: str) -> None:
    """Let nobody in until `release_hold`, whatever starts meanwhile."""
    _write(Path(folder), HOLD, {"run": run, "reason": reason, "since": _now()})


def release_hold(folder: str | os.PathLike[str]) -> None:
    """Everybody may be let in again."""
    (Path(folder) / HOLD).unlink(missing_ok=True)
    _sync(Path(folder))


def read_journal(folder: str | os.PathLike[str]) -> str:
    """The journal's text; '' before the first change."""
    try:
        return (Path(folder) / JOURNAL).read_text(errors="replace")
    except FileNotFoundError:
        return ""


@contextmanager
def held(folder: str | os.PathLike[str], *, run: str, verb: str, reason: str = "") -> Iterator[Callable[[str], None]]:
    """Hold the lock for a change that this process makes by itself; yields the way to note a phase."""
    begin(folder, run=run, verb=verb, owner=whoami(), reason=reason)
    outcome = "failed"
    try:
        yield lambda name: phase(folder, run=run, name=name)
        outcome = "done"
    finally:
        end(folder, run=run, outcome=outcome)


def new_run() -> str:
    """A name for one change: when it began, and the process."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}"


def _held(folder: Path, run: str) -> dict[str, Any]:
    lock = read_lock(folder)
    if lock is None or lock["run"] != run:
        holder = f"{describe(lock)} holds it now" if lock else "nobody holds it now"
        raise ChangeError(f"This run has lost the lock of the host, and {holder}; nothing more is changed.")
    return lock


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time look at the lock and write it; the kernel lets go of this when the process dies."""
    with (folder / ".mutex").open("w") as mutex:
        fcntl.flock(mutex, fcntl.LOCK_EX)
        yield


def _write_lock(folder: Path, lock: Mapping[str, Any]) -> None:
    _write(folder, LOCK, lock)


def _write(folder: Path, name: str, content: Mapping[str, Any]) -> None:
    new = folder / f"{name}.new"
    with new.open("w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / name)
    _sync(folder)


def _append(folder: Path, entry: Mapping[str, Any]) -> None:
    """Add one line for good; a torn last line stays as it is, and this one begins on a line of its own."""
    line = (
        json.dumps({"at": _now(), **{name: value for name, value in entry.items() if value}}, ensure_ascii=False) + "\n"
    )
    descriptor = os.open(folder / JOURNAL, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = "\n" + line
        data = line.encode()
        if os.write(descriptor, data) != len(data):
            raise OSError(f"only a part of the line fitted into {folder / JOURNAL}; is the disk full?")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")  # noqa: UP017


def _parse(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return datetime.fromtimestamp(0, timezone.utc)  # noqa: UP017
