"""Gives playbooks what migrations do, and who lives with it; plugins/module_utils/schema_revisions.py does the work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ansible.errors import AnsibleFilterError

# Ansible hands its module_utils setting to modules only; a filter finds the same folder by its own place.
sys.path.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

import schema_revisions as revisions_of


def schema_revisions(folder: str) -> dict[str, object]:
    """`'…/migrations/versions' | schema_revisions` → {head, needs, contracts, revisions: [{revision, kind, text}]}."""
    try:
        return revisions_of.read(folder)
    except (revisions_of.SchemaError, OSError, SyntaxError) as problem:
        raise AnsibleFilterError(str(problem)) from problem


def schema_pending(
    schema: Mapping[str, Iterable[Mapping[str, str]]], current: str, contract: bool = False
) -> list[Mapping[str, str]]:
    """`schema | schema_pending('0002')` → those of its revisions that an upgrade would apply, oldest first."""
    try:
        return revisions_of.pending(schema["revisions"], current, contract)
    except revisions_of.SchemaError as problem:
        raise AnsibleFilterError(str(problem)) from problem


def lives_with(release: Mapping[str, object], revision: str, witnesses: Iterable[Mapping[str, object]]) -> bool:
    """`description | lives_with('0004', other_descriptions)` → whether this release can serve with that database."""
    return revisions_of.lives_with(release, revision, witnesses)


def contract_obstacles(kept: Iterable[Mapping[str, object]], contracts: Iterable[str]) -> list[str]:
    """`descriptions | contract_obstacles(['0005'])` → the ids of the releases that need what these would take away."""
    return revisions_of.contract_obstacles(kept, list(contracts))


class FilterModule:
    """What Ansible asks a filter file for."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Name the filters of this file."""
        return {
            "schema_revisions": schema_revisions,
            "schema_pending": schema_pending,
            "lives_with": lives_with,
            "contract_obstacles": contract_obstacles,
        }
