"""Judges what a host knows of its backups: whether one can rely on them, and how that reads on a screen."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

Known = Mapping[str, Any]


def hours_ago(moment: str) -> float:
    """Hours since a moment such as 2026-11-25T01:02:03Z."""
    return (time.time() - datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()) / 3600


def backup_complaint(known: Known, max_age: int, host: str) -> str:
    """`known | backup_complaint(30, 'server')` → why nobody may rely on the host's backups, or ''.

    :param max_age: hours that the newest one may be old. A host without any has as long from the making of its
        repository.
    """
    newest, made, drill = known.get("backup"), known.get("made"), known.get("drill")
    failed = known.get("backup_failed")
    why = f" The last try failed: {failed['why']}" if failed and (not newest or failed["at"] > newest["at"]) else ""
    since = newest or made
    if not since:
        return f"{host} has no backups; run deploy.yml, then backup.yml."
    if hours_ago(since["at"]) > max_age:
        age = f"is {hours_ago(since['at']):.0f} hours old" if newest else "has never been made"
        return f"The newest backup of {host} {age}; backup_max_age is {max_age}. Run backup.yml.{why}"
    if drill and not drill["ok"]:
        return f"The last rehearsal of a restore failed on {host}: {drill['why']} Mend that, then run drill.yml."
    for what, words in (("check", "look for damage in"), ("prune", "removal of old backups from")):
        trouble = known.get(f"{what}_failed")
        if trouble and trouble["at"] > (known.get(what) or {"at": ""})["at"]:
            return f"The last {words} the repository of {host} failed: {trouble['why']}"
    return ""


def backup_lines(known: Known) -> list[str]:
    """`known | backup_lines` → lines for the status screen: newest backup, last drill, a restore that was cut short."""
    newest, drill, restoring = known.get("backup"), known.get("drill"), known.get("restoring")
    lines = []
    if newest:
        lacking = f", {newest['lacking']} files lacking" if newest.get("lacking") else ""
        lines.append(
            f"backup       {newest['id']} ({newest['kind']}) {hours_ago(newest['at']):.1f} hours ago, "
            f"took {newest['seconds']:.0f} s{lacking}"
        )
    else:
        lines.append("backup       none yet")
    failed = known.get("backup_failed")
    if failed and (not newest or failed["at"] > newest["at"]):
        lines.append(f"             the last try failed {hours_ago(failed['at']):.1f} hours ago: {failed['why']}")
    if drill:
        verdict = (
            f"restored {drill['backup']} in {drill['seconds']:.0f} s" if drill["ok"] else f"FAILED: {drill['why']}"
        )
        lines.append(f"drill        {hours_ago(drill['at']):.1f} hours ago, {verdict}")
    else:
        lines.append("drill        none yet")
    if restoring:
        lines.append(f"restore      of {restoring['snapshot']} was cut short at “{restoring['step']}”")
    return lines


class FilterModule:
    """What Ansible asks a filter file for."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Name the filters of this file."""
        return {"backup_complaint": backup_complaint, "backup_lines": backup_lines}
