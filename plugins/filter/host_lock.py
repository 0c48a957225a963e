"""Lets playbooks judge a lock, an audit log and a failure; host/src/scratch4school_host does most of the work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Ansible hands its module_utils setting to modules only; a filter finds the same folder by its own place.
sys.path.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from scratch4school_host import audit_log, locking, times


def dead_run(lock: Mapping[str, Any] | None) -> str:
    """`lock | dead_run` → the name of its run when its owner ran on this machine and has ended, else ''."""
    return str(lock["run"]) if lock and locking.is_owner_dead(lock) else ""


def interrupted_refusal(log: str, target: str | None = None) -> str:
    """`audit_log | interrupted_refusal('3f2a…')` → the refusal of another release over an unfinished one, or ''."""
    return audit_log.interrupted_refusal(log, target)


def never_live(log: str, host: str) -> str:
    """`audit_log | never_live('server')` → why no release is live there yet, and what to type."""
    return audit_log.never_live(log, host)


def readable_moment(moment: str) -> str:
    """`lock.since | readable_moment` → `2026-11-24 16:50 UTC`; what is no moment comes back as it is."""
    return times.readable(moment)


def cause_of(result: Mapping[str, Any], task: str = "") -> str:
    """`ansible_failed_result | cause_of(ansible_failed_task.name)` → why a task failed, in its own words; never ''.

    :param task: its name, which is the cause where it printed nothing. Under any_errors_fatal a host is also stopped
        because another one failed; then it has no failed task.
    """
    message = str(result.get("msg") or "").strip()
    if message in ("", "non-zero return code"):
        message = str(result.get("stderr") or "").strip() or message
    return message or task or "Another host failed."


def first_line(text: str) -> str:
    """`cause | first_line` → what ledger and audit log keep of it, 300 characters at most."""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "No reason was given.")
    return first[: locking.REASON_LENGTH]


# The prefixes of the facts of host_survey's Observer; of two with the same beginning, the longer one is first.
_KINDS = ("unwanted unit", "unit file", "unit", "container", "loaded", "file", "network")


def state_drift(observed: Mapping[str, Mapping[str, str]], recorded: Mapping[str, Any], host: str) -> list[str]:
    """`host_survey.observed | state_drift(host_survey.recorded, 'server')` → what is not as the last deploy left it.

    A message for each fact of which the digest is another one, that is gone, or that came in addition.
    """
    found = []
    for role, facts in observed.items():
        before = (recorded.get(role) or {}).get("observed")
        if not isinstance(before, Mapping):
            found.append(f"The role {role} did not run to its end on {host}.")
            continue
        for fact in sorted({*facts, *before}):
            now, then = facts.get(fact), before.get(fact)
            if now == then and now:
                continue
            # From the beginning, because a file's name may have spaces.
            kind = next((kind for kind in _KINDS if fact.startswith(f"{kind} ")), "")
            name = fact.removeprefix(f"{kind} ")
            if kind == "unwanted unit":
                found.append(f"The unit {name} exists on {host}, but its timer is turned off.")
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
    """The class that Ansible loads from a filter file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Name the filters of this file."""
        return {
            "dead_run": dead_run,
            "interrupted_refusal": interrupted_refusal,
            "never_live": never_live,
            "readable_moment": readable_moment,
            "cause_of": cause_of,
            "first_line": first_line,
            "state_drift": state_drift,
        }
