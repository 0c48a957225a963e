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


def last_change(journal: str) -> str:
    """`journal | last_change` → `deploy by anna@desk at …: done`; '' before the first change."""
    return host_change.last_change(journal)


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


class FilterModule:
    """What Ansible asks a filter file for."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Name the filters of this file."""
        return {
            "run_that_is_gone": run_that_is_gone,
            "half_finished": half_finished,
            "last_change": last_change,
            "cause_of": cause_of,
            "first_line": first_line,
        }
