"""Gives playbooks the capacity check; plugins/module_utils/pgbouncer_config does the work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from ansible.errors import AnsibleFilterError

# Ansible hands its module_utils setting to modules only; a filter finds the same folder by its own place.
sys.path.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from pgbouncer_config import PgbouncerConfigError, capacity


def capacity_problems(numbers: Mapping[str, int]) -> list[str]:
    """`numbers | capacity_problems` → one sentence for each limit that is too small; an empty list when all fits."""
    try:
        return capacity(numbers).problems
    except PgbouncerConfigError as problem:
        raise AnsibleFilterError(str(problem)) from problem


class FilterModule:
    """What Ansible asks a filter file for."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Name the filters of this file."""
        return {"capacity_problems": capacity_problems}
