"""The revisions of a checkout's migrations, and which releases are compatible with which of them.

A release needs its last expand. It is compatible with every newer revision up to the first contract that it does not
contain.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path

KINDS = ("expand", "contract")

# Descriptions of releases name their revisions since 0003 was the newest. Until then none was a contract.
UNRECORDED: Mapping[str, object] = {"needs": "0002", "head": "0003", "contracts": []}


class SchemaError(ValueError):
    """The migrations cannot be read or applied as they are; the text says what to correct."""


def read(folder: str | os.PathLike[str]) -> dict[str, object]:
    """Read the modules of migrations without running them.

    :returns: `head`, the newest revision; `needs`, the last expand; `contracts`, the numbers of these; `revisions`, all
        of them, oldest first, each with `revision`, `kind` and `text`.
    :raises SchemaError: when there is none, or one does not say what it is.
    """
    modules = sorted(path for path in Path(folder).glob("*.py") if path.name != "__init__.py")
    revisions = sorted((_revision(path) for path in modules), key=lambda one: one["revision"])
    expands = [one["revision"] for one in revisions if one["kind"] == "expand"]
    if not expands:
        raise SchemaError(f"There are no migrations in {folder}.")
    return {
        "head": revisions[-1]["revision"],
        "needs": expands[-1],
        "contracts": [one["revision"] for one in revisions if one["kind"] == "contract"],
        "revisions": revisions,
    }


def pending(revisions: Iterable[Mapping[str, str]], current: str, contract: bool = False) -> list[Mapping[str, str]]:
    """Return the revisions that `scratch4school db upgrade` would apply to a database.

    :param current: the database's revision; `none` or '' for an empty one.
    :raises SchemaError: where it would refuse, because an expand lies behind a contract that was not asked for.
    """
    is_empty = current in ("", "none")
    later = [one for one in revisions if is_empty or one["revision"] > current]
    if contract or is_empty:
        return later
    free = list(takewhile(lambda one: one["kind"] == "expand", later))
    rest = later[len(free) :]
    behind = [one["revision"] for one in rest if one["kind"] == "expand"]
    if behind:
        raise SchemaError(
            f"Revision {behind[0]} (expand) comes after {rest[0]['revision']} (contract), which runs only on "
            "request. When no kept release needs the old schema any more, add -e app_migrate_contract=true."
        )
    return free


def is_in_range(needs: str, head: str, revision: str, contracts: Iterable[str]) -> bool:
    """Whether a release is compatible with the database at `revision`.

    :param needs: the last expand of the release.
    :param head: the newest revision that the release knows.
    :param contracts: the contracts up to `revision`, as the newest release at hand knows them.
    """
    return revision.isdigit() and revision >= needs and not any(head < contract <= revision for contract in contracts)


def is_compatible(release: Mapping[str, object], revision: str, other_releases: Iterable[Mapping[str, object]]) -> bool:
    """Whether the described release is compatible with `revision`; `other_releases` know what lies behind its head.

    False when the revision is newer than all of them know.
    """
    known = [_schema(one) for one in (release, *other_releases)]
    if not any(one["head"] >= revision for one in known):
        return False
    contracts = {contract for one in known for contract in one["contracts"]}
    return is_in_range(known[0]["needs"], known[0]["head"], revision, contracts)


def contract_obstacles(kept: Iterable[Mapping[str, object]], contracts: Iterable[str]) -> list[str]:
    """The ids of the kept releases that need what these contracts would take away: they do not know them."""
    newest = max(contracts, default="")
    return [str(release["id"]) for release in kept if _schema(release)["head"] < newest]


def _schema(release: Mapping[str, object]) -> Mapping[str, object]:
    return release.get("schema") or UNRECORDED


def _revision(path: Path) -> dict[str, str]:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    said = {
        target.id: statement.value.value
        for statement in tree.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    text = " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())
    if not str(said.get("revision", "")).isdigit() or said.get("kind") not in KINDS or not text:
        raise SchemaError(
            f"{path.name} must begin with a description, number its revision, and have expand or contract as kind."
        )
    return {"revision": said["revision"], "kind": said["kind"], "text": text}
