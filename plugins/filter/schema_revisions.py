"""Filters for migrations and the releases that are compatible with them; plugins/module_utils/schema_revisions.py."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ansible.errors import AnsibleFilterError

# Ansible uses its module_utils setting for modules only; a filter finds the folder relative to itself.
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
    """`schema | schema_pending('0002')` → the revisions that an upgrade would apply, oldest first."""
    try:
        return revisions_of.pending(schema["revisions"], current, contract)
    except revisions_of.SchemaError as problem:
        raise AnsibleFilterError(str(problem)) from problem


def migration_lines(pending: Iterable[Mapping[str, str]], verb: str) -> list[str]:
    """`pending | migration_lines('Pending')` → a line for each revision that an upgrade would apply."""
    return [f"{verb}: revision {one['revision']} ({one['kind']}): {one['text']}" for one in pending]


class FilterModule:
    """The class that Ansible loads from a filter plugin."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters of this file by name."""
        return {
            "schema_revisions": schema_revisions,
            "schema_pending": schema_pending,
            "migration_lines": migration_lines,
        }
