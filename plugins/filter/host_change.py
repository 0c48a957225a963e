"""Lets playbooks judge a lock and a journal; plugins/module_utils/host_change.py does the work."""

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


class FilterModule:
    """What Ansible asks a filter file for."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Name the filters of this file."""
        return {"run_that_is_gone": run_that_is_gone, "half_finished": half_finished, "last_change": last_change}
