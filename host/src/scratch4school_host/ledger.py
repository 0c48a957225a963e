"""The ledger of releases: the time, author and outcome of each activation and verification.

One JSON object per line, only ever appended to. The current and the previous release follow from the entries.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from .errors import OperatorError
from .files import append_json_line

# activated: the release became live. verified: the live release passed its verification. failed: the release did not
# become live. reverted: the release was live and failed its verification, and the previous one is live again.
OUTCOMES = ("activated", "verified", "failed", "reverted")
REQUIRED = ("release", "by", "verb", "outcome")


@dataclass(frozen=True)
class History:
    """The content of a ledger.

    :param entries: the entries, oldest first.
    :param current: the live release; None before the first one.
    :param previous: the release that was live before the current one, or None.
    :param releases: every release that was live and not reverted, newest first, each once.
    :param damaged: numbers of damaged lines, counted from 1, such as a line that a power failure tore.
    """

    entries: list[dict[str, object]]
    current: str | None = None
    previous: str | None = None
    releases: list[str] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)


def parse(text: str) -> History:
    """Read the text of a ledger. Damaged lines are only reported in the result, so that they do not stop a rollback."""
    entries: list[dict[str, object]] = []
    damaged = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line:
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            damaged.append(number)
            continue
        if isinstance(entry, dict) and isinstance(entry.get("release"), str) and entry.get("outcome") in OUTCOMES:
            entries.append(entry)
        else:
            damaged.append(number)
    return history_of(entries, damaged)


def history_of(entries: Iterable[Mapping[str, object]], damaged: Iterable[int] = ()) -> History:
    """Find the current and the previous release in the entries."""
    entries = [dict(entry.items()) for entry in entries]
    live: list[str] = []
    for entry in entries:
        release = str(entry["release"])
        if entry["outcome"] == "activated":
            live.append(release)
        elif entry["outcome"] == "reverted" and release in live:
            # Remove only its last activation: after a force restart that was reverted, the same release is live.
            del live[len(live) - 1 - live[::-1].index(release)]
    current = live[-1] if live else None
    releases = list(dict.fromkeys(reversed(live)))
    return History(
        entries=entries,
        current=current,
        previous=releases[1] if len(releases) > 1 else None,
        releases=releases,
        damaged=list(damaged),
    )


def is_login_proved(entries: Iterable[Mapping[str, object]], login: str, last_login: str) -> bool:
    """Whether a person has logged in since releases with these login settings became live.

    :param login: digest of the settings that a login depends on, as in the entries of activations.
    :param last_login: time of the last login, ISO 8601 with its zone; '' for never.
    """
    since = ""
    activated: list[Mapping[str, object]] = []
    for entry in entries:
        if entry.get("outcome") == "activated":
            activated.append(entry)
        elif entry.get("outcome") == "reverted":
            # Remove only its last activation, as in `history_of`.
            turns = [number for number, one in enumerate(activated) if one.get("release") == entry.get("release")]
            activated = activated[: turns[-1]] + activated[turns[-1] + 1 :] if turns else activated
    for entry in reversed(activated):
        if entry.get("login") != login:
            break
        since = str(entry["at"])
    return bool(since and last_login) and _moment(last_login) >= _moment(since)


def _moment(text: str) -> datetime:
    # Python before 3.11 does not accept the Z.
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def read(path: str | os.PathLike[str]) -> History:
    """Read the ledger of a host; without a file, as before the first release, the history is empty."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return parse(file.read())
    except FileNotFoundError:
        return History(entries=[])


def read_descriptions(folder: str | os.PathLike[str]) -> dict[str, dict[str, object]]:
    """The descriptions of the releases that can be started on this host, by their ids.

    A description is a file `<id>.json` in the ledger's folder. A damaged one is left out; its release cannot start.
    """
    descriptions = {}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        release, kind = os.path.splitext(name)
        if kind != ".json":
            continue
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                description = json.load(file)
        except (OSError, ValueError):
            continue
        if isinstance(description, dict) and description.get("id") == release:
            descriptions[release] = description
    return descriptions


def make_entry(**fields: object) -> dict[str, object]:
    """Make an entry with the current time, UTC to the second; fields that are None are left out.

    :raises OperatorError: when a field of REQUIRED is missing, or the outcome is not one of OUTCOMES.
    """
    for name in REQUIRED:
        if not fields.get(name):
            raise OperatorError(f"An entry of the ledger needs “{name}”.")
    if fields["outcome"] not in OUTCOMES:
        raise OperatorError(f"The outcome “{fields['outcome']}” is none of {', '.join(OUTCOMES)}.")
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"at": moment, **{name: value for name, value in fields.items() if value is not None}}


def append(path: str | os.PathLike[str], entry: Mapping[str, object]) -> None:
    """Append one entry, and sync it to the disk; OSError when that fails."""
    append_json_line(path, entry)


def resolve(history: History, target: str, kept: Iterable[str] | None = None) -> str:
    """Turn a target into one release id.

    :param target: `current`, `previous` or an id.
    :param kept: the releases that can be started on the host; None for all releases of the ledger.
    :raises OperatorError: when there is no such release; the message lists the available ones.
    """
    available = list(history.releases if kept is None else kept)
    if target == "current":
        resolved, missing = history.current, "No release is live yet, so there is no current one; run deploy.yml first."
    elif target == "previous":
        only = f"; only {history.current} was ever live" if history.current else "; none was live yet"
        resolved, missing = history.previous, f"There is no previous release to roll back to{only}."
    else:
        resolved = target if target in available else None
        missing = f"There is no release “{target}” on this host; {_listing(history, available)}"
    if not resolved:
        raise OperatorError(missing)
    if resolved not in available:
        listing = _listing(history, available)
        raise OperatorError(f"The {target} release, {resolved}, is no longer on this host; {listing}")
    return resolved


def _listing(history: History, available: Iterable[str]) -> str:
    remarks = {history.previous: " (previous)", history.current: " (current)"}
    listed = ", ".join(release + remarks.get(release, "") for release in available)
    return f"there are {listed}." if listed else "there are none."
