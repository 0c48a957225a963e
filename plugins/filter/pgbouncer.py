"""Gives playbooks PgBouncer's files and the capacity check; plugins/module_utils/pgbouncer_config.py does the work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from ansible.errors import AnsibleFilterError

# Ansible hands its module_utils setting to modules only; a filter finds the same folder by its own place.
sys.path.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from pgbouncer_config import PgbouncerConfigError, capacity, render_ini, render_userlist


def pgbouncer_ini(intent: Mapping[str, object]) -> str:
    """`pgbouncer_intent | pgbouncer_ini` → the text of pgbouncer.ini."""
    try:
        return render_ini(intent)
    except PgbouncerConfigError as problem:
        raise AnsibleFilterError(str(problem)) from problem


def pgbouncer_userlist(users: Mapping[str, str]) -> str:
    """`pgbouncer_users | pgbouncer_userlist` → the text of userlist.txt; the result is secret."""
    try:
        return render_userlist(users)
    except PgbouncerConfigError as problem:
        # Without the cause: a chained exception might carry the secret into a traceback.
        raise AnsibleFilterError(str(problem)) from None


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
        return {
            "pgbouncer_ini": pgbouncer_ini,
            "pgbouncer_userlist": pgbouncer_userlist,
            "capacity_problems": capacity_problems,
        }
