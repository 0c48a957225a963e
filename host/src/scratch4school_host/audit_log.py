"""Appends to the audit log of a host and reads it: one line for each phase of each change.

A line is a JSON object with `at`, `run`, `verb`, `phase` and `by`, and if they apply `release` and `reason`. The last
line of a change also has `outcome`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .files import append_json_line
from .times import now, readable

FILE = "audit.jsonl"

# Phases of a change that another change may have written.
FOREIGN_PHASES = ("lost", "end")


@dataclass
class Run:
    """One change in the log, with its phases in order; `outcome` is None until the change has ended."""

    run: str
    verb: str
    by: str
    at: str
    release: str | None = None
    phases: list[str] = field(default_factory=list)
    outcome: str | None = None
    reason: str | None = None

    @property
    def last_phase(self) -> str:
        """The last phase that the change itself wrote; “begin” when the text of the log begins after it."""
        return next((name for name in reversed(self.phases) if name not in FOREIGN_PHASES), "begin")


def append(folder: str | os.PathLike[str], entry: Mapping[str, Any]) -> None:
    """Append a line with the current time; fields without a value are left out."""
    fields = {name: value for name, value in entry.items() if value}
    append_json_line(Path(folder) / FILE, {"at": now("milliseconds"), **fields})


def read(folder: str | os.PathLike[str]) -> str:
    """The log's text; '' before the first change."""
    try:
        return (Path(folder) / FILE).read_text(errors="replace")
    except FileNotFoundError:
        return ""


def runs(text: str) -> list[Run]:
    """The changes in the text of a log, oldest first; torn lines are left out."""
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


def interrupted_refusal(text: str, target: str | None) -> str:
    """The refusal of a release while a change to another release is unfinished; '' when there is none.

    :param text: the text of the log.
    :param target: the release that this run would activate; None for a verb that activates none.
    """
    last = next((run for run in reversed(runs(text)) if run.release), None)
    if last is None or last.outcome in ("done", "failed") or last.release == target or target is None:
        return ""
    return (
        f"An earlier {last.verb} of release {last.release} by {last.by}, begun at {readable(last.at)}, stopped in its "
        f"phase “{last.last_phase}”, and this would be release {target}. "
        "Run that one again from its own checkout, activate the previous release with rollback.yml, or abandon the "
        "earlier change with -e release_abandon=true."
    )


def never_live(text: str, host: str) -> str:
    """The refusal on a host where no release was ever live: the reason, and the command to type.

    :param text: the text of the log.
    """
    found = runs(text)
    if not found:
        return f"Nothing is deployed on {host}; run deploy.yml first."
    last = found[-1]
    begun = f"No release is live on {host} yet: the {last.verb} by {last.by}, begun at {readable(last.at)},"
    if last.outcome == "failed":
        reason = (last.reason or "").rstrip(".")
        return f"{begun} failed{f': {reason}' if reason else ''}. Correct that, and run deploy.yml."
    if last.outcome == "done":
        return f"{begun} succeeded, but activates no release. Run deploy.yml."
    return (
        f"{begun} stopped in its phase “{last.last_phase}”, or is still under way. If it is not, run deploy.yml again; "
        "it continues from there."
    )


def last_change(text: str) -> str:
    """The newest change in one line: `deploy by anna@desk at 2026-11-24 16:50 UTC: done`; '' before the first."""
    found = runs(text)
    if not found:
        return ""
    last = found[-1]
    ending = last.outcome or f"stopped in its phase “{last.phases[-1]}”"
    return f"{last.verb} by {last.by} at {readable(last.at)}: {ending}{f' ({last.reason})' if last.reason else ''}"
