"""Lets playbooks judge a lock, a journal and a failure; plugins/module_utils/host_change.py does most of the work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Ansible hands its module_utils setting to modules only; a filter finds the same folder by its own place.
sys.path.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

import host_change


def run_that_is_gone(lock: Mapping[str, Any] | None) -> str:
    """`lock | run_that_is_gone` → the name of its run when its holder ran on this machine and is no more, else ''."""
    return str(lock["run"]) if lock and host_change.is_gone(lock) else ""


def half_finished(journal: str, wanted: str | None = None) -> str:
    """`journal | half_finished('3f2a…')` → the refusal of another release over a half-finished one, or ''."""
    return host_change.half_finished(journal, wanted)


def never_live(journal: str, host: str) -> str:
    """`journal | never_live('server')` → why no release is live there yet, and what to type."""
    return host_change.never_live(journal, host)


def last_change(journal: str) -> str:
    """`journal | last_change` → `deploy by anna@desk at 2026-11-24 16:50 UTC: done`; '' before the first change."""
    return host_change.last_change(journal)


def readable_moment(moment: str) -> str:
    """`lock.since | readable_moment` → `2026-11-24 16:50 UTC`; what is no moment comes back as it is."""
    return host_change.readable(moment)


def cause_of(result: Mapping[str, Any], task: str = "") -> str:
    """`ansible_failed_result | cause_of(ansible_failed_task.name)` → why a task failed, in its own words; never ''.

    :param task: its name, which is the cause where it said nothing. Under any_errors_fatal a host is also stopped
        because another one failed; then it has no failed task.
    """
    said = str(result.get("msg") or "").strip()
    if said in ("", "non-zero return code"):
        said = str(result.get("stderr") or "").strip() or said
    return said or task or "Another host failed."


def first_line(text: str) -> str:
    """`cause | first_line` → what ledger and journal keep of it, 300 characters at most."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "It was not said why.")[:300]


# What host_survey's Observer names its facts by; of two that begin alike the longer one is first.
_KINDS = ("unwanted unit", "unit file", "unit", "container", "loaded", "file", "network")


def state_drift(observed: Mapping[str, Mapping[str, str]], recorded: Mapping[str, Any], host: str) -> list[str]:
    """`host_survey.observed | state_drift(host_survey.settled, 'server')` → what is not as the last deploy left it.

    A sentence for each fact of which the digest is another one, that is gone, or that came in addition.
    """
    found = []
    for role, facts in observed.items():
        before = (recorded.get(role) or {}).get("observed")
        # A former version recorded one digest for all facts.
        if not isinstance(before, Mapping):
            found.append(f"The role {role} was not brought to its end on {host}.")
            continue
        for fact in sorted({*facts, *before}):
            now, then = facts.get(fact), before.get(fact)
            if now == then and now:
                continue
            # From the beginning, because a file's name may have spaces.
            kind = next((kind for kind in _KINDS if fact.startswith(f"{kind} ")), "")
            name = fact.removeprefix(f"{kind} ")
            if kind == "unwanted unit":
                found.append(f"The unit {name} is there on {host}, and is not wanted.")
            elif kind == "unit":
                what = "is not enabled, is not active, or has no next run" if not now else "was changed"
                found.append(f"The unit {name} on {host} {what}.")
            elif kind == "container":
                what = "is missing, is not running, or is unhealthy" if not now else "is another one"
                found.append(f"The container {name} on {host} {what}.")
            elif kind == "loaded":
                found.append(f"The container {name} on {host} has not loaded the files that are there.")
            elif kind in ("file", "unit file", "network"):
                what = "is missing" if not now else "was changed" if then else "was added"
                found.append(f"The {kind} {name} on {host} {what}.")
            else:
                what = "are not as they must be" if not now else "were changed"
                found.append(f"{fact[:1].upper()}{fact[1:]} on {host} {what}.")
    return found


class FilterModule:
    """What Ansible asks a filter file for."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Name the filters of this file."""
        return {
            "run_that_is_gone": run_that_is_gone,
            "half_finished": half_finished,
            "last_change": last_change,
            "never_live": never_live,
            "readable_moment": readable_moment,
            "cause_of": cause_of,
            "first_line": first_line,
            "state_drift": state_drift,
        }
