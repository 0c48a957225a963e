"""Migrations, read without running them, and the releases that are compatible with a revision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible.module_utils.schema_revisions import (
    SchemaError,
    contract_obstacles,
    is_compatible,
    is_in_range,
    pending,
    read,
)

APP = Path(__file__).resolve().parents[2] / "docker" / "app"
VERSIONS = APP / "src" / "scratch4school" / "database" / "migrations" / "versions"


def migrations(folder: Path, *kinds: str) -> Path:
    """Write a folder of migrations of these kinds, numbered from 0001."""
    for number, kind in enumerate(kinds, start=1):
        text = f'"""Does {kind}\nnumber {number}.\n\nIn detail."""\nrevision = "{number:04}"\nkind = "{kind}"\n'
        (folder / f"{number:04}_{kind}.py").write_text(text)
    return folder


def release(needs: str, head: str, *contracts: str, name: str = "a") -> dict[str, Any]:
    """A description as far as this is about it."""
    return {"id": name, "schema": {"needs": needs, "head": head, "contracts": list(contracts)}}


def test_migrations_of_this_checkout_end_at_the_head() -> None:
    """Our own migrations, as they lie here."""
    schema = read(VERSIONS)
    assert schema["revisions"][0] == {
        "revision": "0001",
        "kind": "expand",
        "text": "The original's tables as they were before its fix.",
    }
    assert [one["revision"] for one in schema["revisions"]][-1] == schema["head"]


@pytest.mark.parametrize(
    ("kinds", "head", "needs", "contracts"),
    [
        (["expand"], "0001", "0001", []),
        (["expand", "contract"], "0002", "0001", ["0002"]),
        (["expand", "contract", "expand", "contract", "contract"], "0005", "0003", ["0002", "0004", "0005"]),
    ],
)
def test_release_needs_its_last_expand(
    tmp_path: Path, kinds: list[str], head: str, needs: str, contracts: list[str]
) -> None:
    """A contract is not needed."""
    schema = read(migrations(tmp_path, *kinds))
    assert (schema["head"], schema["needs"], schema["contracts"]) == (head, needs, contracts)
    assert schema["revisions"][0]["text"] == "Does expand number 1."


@pytest.mark.parametrize(
    "text",
    [
        'revision = "0002"\nkind = "expand"\n',
        '"""Text."""\nkind = "expand"\n',
        '"""Text."""\nrevision = "0002"\nkind = "x"\n',
    ],
)
def test_migration_without_description_number_or_kind_is_refused(tmp_path: Path, text: str) -> None:
    """The error names the file."""
    (migrations(tmp_path, "expand") / "0002_odd.py").write_text(text)
    with pytest.raises(SchemaError, match=r"0002_odd\.py must begin"):
        read(tmp_path)


def test_folder_without_migrations_is_refused(tmp_path: Path, filters: dict[str, Callable[..., Any]]) -> None:
    """An empty answer would read as: nothing is pending."""
    with pytest.raises(AnsibleFilterError, match="There are no migrations in"):
        filters["schema_revisions"](str(tmp_path))


@pytest.mark.parametrize(
    ("current", "contract", "expected"),
    [
        ("none", False, ["0001", "0002", "0003", "0004"]),
        ("", False, ["0001", "0002", "0003", "0004"]),
        ("0001", False, ["0002", "0003"]),
        ("0001", True, ["0002", "0003", "0004"]),
        ("0003", False, []),
        ("0003", True, ["0004"]),
        ("0004", True, []),
        ("0009", False, []),
    ],
)
def test_pending_revisions_are_those_of_an_upgrade(
    tmp_path: Path, filters: dict[str, Callable[..., Any]], current: str, contract: bool, expected: list[str]
) -> None:
    """As the application's own `db upgrade` decides it."""
    schema = filters["schema_revisions"](str(migrations(tmp_path, "expand", "expand", "expand", "contract")))
    assert [one["revision"] for one in filters["schema_pending"](schema, current, contract)] == expected


def test_expand_after_a_pending_contract_is_refused(tmp_path: Path) -> None:
    """With the words that make it possible."""
    revisions = read(migrations(tmp_path, "expand", "contract", "expand"))["revisions"]
    with pytest.raises(SchemaError, match=r"0003 \(expand\) comes after 0002 \(contract\).*app_migrate_contract=true"):
        pending(revisions, "0001")
    assert [one["revision"] for one in pending(revisions, "0001", contract=True)] == ["0002", "0003"]
    assert [one["revision"] for one in pending(revisions, "0002")] == ["0003"]


@pytest.mark.parametrize(
    ("needs", "head", "revision", "contracts", "can"),
    [
        ("0003", "0003", "0003", [], True),
        ("0003", "0003", "0002", [], False),
        ("0003", "0003", "0005", [], True),
        ("0003", "0003", "0005", ["0004"], False),
        ("0003", "0003", "0004", ["0005"], True),
        ("0003", "0004", "0005", ["0004"], True),
        ("0003", "0004", "0003", ["0004"], True),
        ("0003", "0003", "none", [], False),
    ],
)
def test_release_is_compatible_with_a_revision(
    needs: str, head: str, revision: str, contracts: list[str], can: bool
) -> None:
    """With all that it needs there, and nothing that it does not know taken away."""
    assert is_in_range(needs, head, revision, contracts) is can


@pytest.mark.parametrize(
    ("candidate", "revision", "other_releases", "can"),
    [
        (release("0003", "0003"), "0003", [], True),
        (release("0003", "0003"), "0004", [release("0004", "0004")], True),
        (release("0003", "0003"), "0005", [release("0004", "0005", "0005")], False),
        # The contract waits: the one that knows it did not have it applied.
        (release("0003", "0003"), "0004", [release("0004", "0005", "0005")], True),
        # No release at hand knows that revision.
        (release("0003", "0003"), "0009", [release("0004", "0004")], False),
        # Described before descriptions named revisions.
        ({"id": "old"}, "0003", [], True),
        ({"id": "old"}, "0004", [release("0004", "0004")], True),
        ({"id": "old"}, "0004", [release("0003", "0004", "0004")], False),
    ],
)
def test_contracts_that_other_releases_know_decide_compatibility(
    candidate: dict[str, Any], revision: str, other_releases: list[dict[str, Any]], can: bool
) -> None:
    """Later revisions are in other fields."""
    assert is_compatible(candidate, revision, other_releases) is can


def test_contract_is_refused_for_releases_that_need_it() -> None:
    """Every kept release that does not know the contract's revision; none without a contract."""
    kept = [release("0003", "0003", name="b"), release("0003", "0004", "0004", name="c"), {"id": "old"}]
    assert contract_obstacles(kept, ["0004"]) == ["b", "old"]
    assert contract_obstacles(kept, []) == []
