"""The ledger of releases: which release was activated when, by whom and how it ended; “previous” is read from it.

One JSON object per line, only ever appended to. Runs on the hosts too, hence for any Python since 3.10.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

# activated: it serves from now on. verified: it was found good while it served. failed: it never served, the former one
# still does. reverted: it served, was found wanting, and the former one serves again.
OUTCOMES = ("activated", "verified", "failed", "reverted")


class ReleaseError(ValueError):
    """A wish cannot be granted, or an entry is not one; the text is a sentence for the operator."""


@dataclass(frozen=True)
class History:
    """What a ledger says.

    :param entries: the entries, oldest first.
    :param current: the release that serves by this account, or None before the first one.
    :param previous: the release that served before it, or None.
    :param releases: every release that served without being reverted, newest first, each once.
    :param damaged: numbers of the lines that are not whole, as a power cut in the middle of a write leaves them.
    """

    entries: list[dict[str, object]]
    current: str | None = None
    previous: str | None = None
    releases: list[str] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)


def parse(text: str) -> History:
    """Read the text of a ledger; damaged lines are left out and reported, because history must not stop a rollback."""
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
    return recount(entries, damaged)


def recount(entries: Iterable[Mapping[str, object]], damaged: Iterable[int] = ()) -> History:
    """Work out from the entries which release serves, and which served before it."""
    entries = [dict(entry.items()) for entry in entries]
    served: list[str] = []
    for entry in entries:
        release = str(entry["release"])
        if entry["outcome"] == "activated":
            served.append(release)
        elif entry["outcome"] == "reverted" and release in served:
            # Only its newest turn is undone: a restart that was reverted leaves the same release serving.
            del served[len(served) - 1 - served[::-1].index(release)]
    current = served[-1] if served else None
    releases = list(dict.fromkeys(reversed(served)))
    return History(
        entries=entries,
        current=current,
        previous=releases[1] if len(releases) > 1 else None,
        releases=releases,
        damaged=list(damaged),
    )


def is_login_proved(entries: Iterable[Mapping[str, object]], login: str, last_login: str) -> bool:
    """Whether a person has logged in since releases with these login settings serve.

    :param login: digest of the settings that a login depends on, as the entries of activations hold it.
    :param last_login: when a person last logged in, ISO with its zone; '' is never.
    """
    since = ""
    activated: list[Mapping[str, object]] = []
    for entry in entries:
        if entry.get("outcome") == "activated":
            activated.append(entry)
        elif entry.get("outcome") == "reverted":
            # It served for a moment, and what served before it serves again.
            turns = [number for number, one in enumerate(activated) if one.get("release") == entry.get("release")]
            activated = activated[: turns[-1]] + activated[turns[-1] + 1 :] if turns else activated
    for entry in reversed(activated):
        if entry.get("login") != login:
            break
        since = str(entry["at"])
    return bool(since and last_login) and _moment(last_login) >= _moment(since)


def _moment(text: str) -> datetime:
    # Python before 3.11 does not read the letter.
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def read(path: str | os.PathLike[str]) -> History:
    """Read the ledger of a host; before the first release there is no file, and no history."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return parse(file.read())
    except FileNotFoundError:
        return History(entries=[])


def read_descriptions(folder: str | os.PathLike[str]) -> dict[str, dict[str, object]]:
    """Read what the releases that can still be started say of themselves, by their ids.

    A description is a file `<id>.json` beside the ledger; one that is not whole is no release that could be started.
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
    """Stamp the fields of an entry with the time, UTC to the second; fields that are None are left out.

    :raises ReleaseError: when release, by, verb or outcome is missing, or the outcome is none of OUTCOMES.
    """
    for needed in ("release", "by", "verb", "outcome"):
        if not fields.get(needed):
            raise ReleaseError(f"An entry of the ledger needs “{needed}”.")
    if fields["outcome"] not in OUTCOMES:
        raise ReleaseError(f"The outcome “{fields['outcome']}” is none of {', '.join(OUTCOMES)}.")
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"at": stamp, **{name: value for name, value in fields.items() if value is not None}}


def append(path: str | os.PathLike[str], entry: Mapping[str, object]) -> None:
    """Add one entry for good: a single write to the end, synchronised to disk before this returns.

    A torn last line stays as it is, and the entry starts on a line of its own.
    """
    line = json.dumps(entry, ensure_ascii=False) + "\n"
    created = not os.path.exists(path)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = "\n" + line
        data = line.encode()
        if os.write(descriptor, data) != len(data):
            raise OSError(f"only part of the entry fitted into {path}; is the disk full?")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if created:
        _fsync_folder(os.path.dirname(os.path.abspath(path)))


def _fsync_folder(path: str) -> None:
    """Make the file's name as durable as its content."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def release_id(content: Mapping[str, object]) -> str:
    """Return 12 hexadecimal digits that follow from the content alone, whatever the order of its keys.

    :raises ReleaseError: for content that JSON cannot hold without losing something.
    """
    if not isinstance(content, Mapping) or not content:
        raise ReleaseError("A release id needs a mapping of what the release consists of.")
    canonical = json.dumps(_plain(content), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _plain(value: object) -> object:
    """Copy into built-in types: Ansible's containers template themselves only when they are walked through."""
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise ReleaseError("The content of a release may only have text as keys.")
        return {str(name): _plain(value[name]) for name in value}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)
    raise ReleaseError(f"The content of a release holds {value!r}, which is neither text, number, list nor mapping.")


def choose(history: History, wanted: str, kept: Iterable[str] | None = None) -> str:
    """Turn a wish into one release id.

    :param wanted: `current`, `previous` or an id.
    :param kept: the releases that can still be started on the host; None means those that the ledger knows.
    :raises ReleaseError: with a sentence that lists what there is.
    """
    available = list(history.releases if kept is None else kept)
    if wanted == "current":
        chosen, missing = history.current, "No release serves yet, so there is no current one; run deploy.yml first."
    elif wanted == "previous":
        only = f"; only {history.current} ever served" if history.current else "; none has served yet"
        chosen, missing = history.previous, f"There is no previous release to go back to{only}."
    else:
        chosen = wanted if wanted in available else None
        missing = f"There is no release “{wanted}” on this host; {_listing(history, available)}"
    if not chosen:
        raise ReleaseError(missing)
    if chosen not in available:
        raise ReleaseError(f"The {wanted} release, {chosen}, is no longer on this host; {_listing(history, available)}")
    return chosen


def _listing(history: History, available: Iterable[str]) -> str:
    remarks = {history.previous: " (previous)", history.current: " (current)"}
    listed = ", ".join(release + remarks.get(release, "") for release in available)
    return f"there are {listed}." if listed else "there are none."
