"""Makes filters of the refusals that need what a host answered; plugins/module_utils/preflight judges.

The value before the bar is the function's first argument: `backup_facts | confirmation_refusal(confirmed, host)`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

# Ansible hands its module_utils setting to modules only; a filter finds the same folder by its own place.
sys.path.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

import ssh_advice
from preflight import adoption, backup, host, release

FILTERS: tuple[Callable[..., object], ...] = (
    adoption.import_refusals,
    adoption.migration_refusals,
    backup.confirmation_refusal,
    backup.interrupted_restore,
    backup.interrupted_restore_refusal,
    backup.password_refusal,
    backup.restore_prospect,
    backup.restore_refusal,
    backup.restore_request_refusal,
    host.unchanged_roles,
    release.compatibility_refusal,
    release.compatible_release,
    release.component_refusal,
    release.contract_refusal,
    release.is_up_to_date,
    release.schema_refusal,
    ssh_advice.ssh_problem,
)


class FilterModule:
    """The class that Ansible loads from a filter file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Name the filters of this file."""
        return {function.__name__: function for function in FILTERS}
