"""Refusals for the role `release`, the release after a restore, and a host that is up to date."""

from __future__ import annotations

import json
from typing import Any

import pytest
from preflight import release


@pytest.mark.parametrize(
    ("confirm", "observe", "least"), [(0, 20, 0), (80, 20, 0), (79, 20, 80), (1, 20, 80), (600, 541, 601), (-1, 20, 0)]
)
def test_short_confirmation_is_refused_with_the_minimum(confirm: int, observe: int, least: int) -> None:
    """0 is never; a negative number is refused by its bound."""
    said = list(release.confirm_seconds({"release_confirm_seconds": confirm, "release_observe_seconds": observe}))
    assert bool(said) is bool(least)
    assert not least or f"write 0 (never) or at least {least}, a minute more than release_observe_seconds" in said[0]


def test_unknown_component_is_refused_with_the_known_ones() -> None:
    """Empty is the application."""
    known = ["postgres", "pgbouncer", "proxy"]
    assert [release.component_refusal(name, known, "server") for name in ("", *known)] == [""] * 4
    assert release.component_refusal("nginx", known, "server") == (
        "There is no component “nginx” on server; type -e component= with one of postgres, pgbouncer, proxy, or omit "
        "it to restart the application."
    )


def described(name: str, head: str, *contracts: str) -> dict[str, Any]:
    """A release that needs revision 0003."""
    return {"id": name, "schema": {"needs": "0003", "head": head, "contracts": list(contracts)}}


HERE = described("here", "0004")


@pytest.mark.parametrize(("revision", "others", "refused"), [
    ("0004", [], False),
    ("0005", [], True),
    ("0005", [described("newer", "0005")], False),
    ("0005", [described("newer", "0005", "0005")], True),
])  # fmt: skip
def test_release_that_is_incompatible_with_the_schema_is_refused(
    revision: str, others: list[dict[str, Any]], refused: bool
) -> None:
    """Only a release that knows a revision tells what it removed."""
    said = release.schema_refusal(HERE, revision, others, "server")
    assert bool(said) is refused
    assert not said or said.startswith(
        f"Release here is incompatible with the database of server, which is at revision {revision}. Run deploy.yml"
    )


LEDGER: dict[str, Any] = {
    "releases": ["b", "a"],
    "descriptions": {"b": described("b", "0005"), "never-live": described("never-live", "0004")},
}


@pytest.mark.parametrize(
    ("backup", "ledger", "compatible"),
    [
        ({"release": "b", "schema": "0005"}, LEDGER, "b"),
        # Its description was removed, or it was never live.
        ({"release": "a", "schema": "0003"}, LEDGER, "new"),
        ({"release": "never-live", "schema": "0004"}, LEDGER, "new"),
        ({"release": "x", "schema": "0004"}, LEDGER, "new"),
        ({"release": "x", "schema": "0005"}, LEDGER, "new"),
        ({"release": "x", "schema": "0006"}, LEDGER, ""),
        ({"release": "x", "schema": "0005"}, {"releases": [], "descriptions": {}}, ""),
        ({}, LEDGER, "current"),
        ({}, {"releases": [], "descriptions": {}}, ""),
    ],
)
def test_release_after_a_restore_is_compatible_with_the_backup(
    backup: dict[str, str], ledger: dict[str, Any], compatible: str
) -> None:
    """Its own, else this checkout's, which migrates an older schema; without a backup the current one."""
    assert release.compatible_release(backup, HERE, ledger) == compatible


def test_backup_without_a_compatible_release_is_refused() -> None:
    """An undo has no backup."""
    backup = {"id": "3f2a", "release": "x", "schema": "0006"}
    assert release.compatibility_refusal(backup, "new", "server") == ""
    assert release.compatibility_refusal({}, "", "server") == ""
    assert release.compatibility_refusal(backup, "", "server") == (
        "Backup 3f2a has schema revision 0006, with which neither this checkout nor a release on server is compatible. "
        "Run restore.yml from a checkout that is at least as new as release x."
    )


def test_contract_that_breaks_a_kept_release_is_refused() -> None:
    """Until each release on the host contains it."""
    pending = [{"revision": "0005", "kind": "expand"}, {"revision": "0006", "kind": "contract"}]
    old, new = described("old", "0005"), described("new", "0006", "0006")
    assert release.contract_refusal(pending, [new], 5) == ""
    assert release.contract_refusal(pending[:1], [old, new], 5) == ""
    assert release.contract_refusal(pending, [old, new], 5) == (
        "A rollback to old would be impossible: the revisions 0006 remove what they need. Deploy until they are no "
        "longer kept (release_keep is 5), or omit app_migrate_contract."
    )


def change(outcome: str) -> str:
    """An audit log with one change."""
    begun = {"run": "1", "at": "2026-11-28T16:50:00Z", "phase": "begin", "verb": "deploy", "by": "anna@desk"}
    ended = {"run": "1", "at": "2026-11-28T16:51:00Z", "phase": "end", "outcome": outcome}
    return f"{json.dumps(begun)}\n{json.dumps(ended)}\n"


def activated(name: str) -> str:
    """A ledger with one release."""
    return json.dumps({"release": name, "outcome": "activated", "at": "2026-11-28T16:50:00Z", "by": "a", "verb": "d"})


def standby(state: str, name: str) -> dict[str, Any]:
    """The container of the slot that is not live."""
    return {"scratch4school-app-green": {"state": state, "labels": {"scratch4school.release": name}}}


QUIET: dict[str, Any] = {
    "slot": "blue",
    "containers": standby("created", "here"),
    "audit_log": change("done"),
    "ledger": activated("here"),
    "ready": {"ok": True, "release": "here"},
    "lock": None,
}
UNCHANGED = {"host": True, "app": True}


@pytest.mark.parametrize("survey", [{}, {"containers": standby("exited", "here")}], ids=["created", "exited"])
def test_host_with_nothing_to_do_is_up_to_date(survey: dict[str, Any]) -> None:
    """The standby may have been live before."""
    assert release.is_up_to_date({**QUIET, **survey}, "here", UNCHANGED, []) is True


@pytest.mark.parametrize(
    "survey",
    [
        {"slot": "green"},
        {"containers": {}},
        {"containers": standby("running", "here")},
        {"containers": standby("created", "other")},
        {"audit_log": ""},
        {"audit_log": change("failed")},
        {"audit_log": change("done").splitlines()[0]},
        {"ledger": ""},
        {"ledger": activated("other")},
        {"ready": {"ok": False, "release": "here"}},
        {"ready": {"ok": True, "release": "other"}},
        {"lock": {"run": "2"}},
    ],
    ids=str,
)
def test_host_with_a_difference_is_not_up_to_date(survey: dict[str, Any]) -> None:
    """One difference is enough for a deploy."""
    assert release.is_up_to_date({**QUIET, **survey}, "here", UNCHANGED, []) is False


def test_host_with_another_release_a_changed_role_or_a_missing_image_is_not_up_to_date() -> None:
    """The checkout differs from the host."""
    assert release.is_up_to_date(QUIET, "newer", UNCHANGED, []) is False
    assert release.is_up_to_date(QUIET, "here", {**UNCHANGED, "app": False}, []) is False
    assert release.is_up_to_date(QUIET, "here", UNCHANGED, ["proxy"]) is False
