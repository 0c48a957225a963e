"""Judges from the recorded results whether a sysadmin can rely on the backups, and formats them for the screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..times import seconds_since

# The result of `state.known`.
Known = Mapping[str, Any]


def hours_since(moment: str) -> float:
    """Hours since a moment, such as 2026-11-25T01:02:03Z."""
    return seconds_since(moment) / 3600


def complaint(known: Known, max_age: float, host: str) -> str:
    """The reason why a sysadmin cannot rely on the host's backups, and what to do; '' when there is none.

    :param max_age: hours since the newest backup, or, if there is none, since the repository was initialized.
    """
    newest, initialized, drill = known.get("backup"), known.get("initialized"), known.get("drill")
    failed = known.get("backup_failed")
    why = f" The last try failed: {failed['why']}" if failed and (not newest or failed["at"] > newest["at"]) else ""
    since = newest or initialized
    if not since:
        return f"{host} has no backups; run deploy.yml, then backup.yml."
    if hours_since(since["at"]) > max_age:
        age = f"is {hours_since(since['at']):.0f} hours old" if newest else "has never been made"
        return f"The newest backup of {host} {age}; backup_max_age is {max_age:g}. Run backup.yml.{why}"
    if drill and not drill["ok"]:
        return f"The last drill failed on {host}: {drill['why']} Correct that, then run drill.yml."
    for what, work in (("check", "check for damage in"), ("prune", "removal of old backups from")):
        failure = known.get(f"{what}_failed")
        if failure and failure["at"] > (known.get(what) or {"at": ""})["at"]:
            return f"The last {work} the repository of {host} failed: {failure['why']}"
    return ""


def lines(known: Known) -> list[str]:
    """Lines for the status screen: newest backup, last drill, and an interrupted restore."""
    newest, drill, restoring = known.get("backup"), known.get("drill"), known.get("restoring")
    text = []
    if newest:
        lacking = f", {newest['lacking']} files lacking" if newest.get("lacking") else ""
        text.append(
            f"backup       {newest['id']} ({newest['kind']}) {hours_since(newest['at']):.1f} hours ago, "
            f"took {newest['seconds']:.0f} s{lacking}"
        )
    else:
        text.append("backup       none yet")
    failed = known.get("backup_failed")
    if failed and (not newest or failed["at"] > newest["at"]):
        text.append(f"             the last try failed {hours_since(failed['at']):.1f} hours ago: {failed['why']}")
    if drill:
        verdict = (
            f"restored {drill['backup']} in {drill['seconds']:.0f} s" if drill["ok"] else f"FAILED: {drill['why']}"
        )
        text.append(f"drill        {hours_since(drill['at']):.1f} hours ago, {verdict}")
    else:
        text.append("drill        none yet")
    if restoring:
        text.append(f"restore      of {restoring['snapshot']} was interrupted at “{restoring['step']}”")
    return text
