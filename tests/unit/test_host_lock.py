"""A host's lock, failures and drift, as playbooks see them. The lock itself: host/tests/test_locking.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ANNA = {"by": "anna@desk", "node": "desk/boot-1/0", "pid": 4711, "started": 99}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder of lock and audit log; the first change makes it."""
    return tmp_path / "change"


@pytest.mark.parametrize(
    ("result", "task", "cause"),
    [
        ({"msg": "It is full.\nReally."}, "x", "It is full."),
        ({"msg": "non-zero return code", "stderr": "\nNo room.\n"}, "x", "No room."),
        ({"msg": "non-zero return code", "stderr": ""}, "x", "non-zero return code"),
        ({"msg": ""}, "release : _start_new | Start the release", "release : _start_new | Start the release"),
        ({}, "", "Another host failed."),
    ],
)
def test_cause_of_a_failure_is_never_empty(
    filters: dict[str, Callable[..., Any]], result: dict[str, str], task: str, cause: str
) -> None:
    """Ledger and audit log keep its first line, and a run that fails prints all of it."""
    assert filters["first_line"](filters["cause_of"](result, task)) == cause
    assert filters["first_line"](" \n") == "No reason was given."


def test_module_takes_the_lock_notes_phases_and_gives_it_back(
    folder: Path, run_module: Callable[..., dict[str, Any]]
) -> None:
    """In check mode nothing is taken, and but a lock of another change is still refused."""
    taken = run_module("host_lock", path=str(folder), state="begin", run="r1", verb="deploy", owner=ANNA)
    assert not taken["changed"]
    run_module("host_lock", path=str(folder), state="phase", run="r1", phase="switch")
    tried = run_module(
        "host_lock", check_mode=True, path=str(folder), state="begin", run="r2", verb="deploy", owner=ANNA
    )
    assert "anna@desk" in tried["msg"]
    assert run_module("host_lock", path=str(folder))["lock"]["phase"] == "switch"
    run_module("host_lock", path=str(folder), state="end", run="r1", outcome="done")
    assert run_module("host_lock", path=str(folder))["lock"] is None
    assert run_module("host_lock", path=str(folder), state="unlocked", reason="tidy", owner=ANNA)["message"] == ""


# ---- drift: what is not as the last deploy left it


def drift(filters: dict[str, Callable[..., Any]], now: dict[str, str], before: dict[str, str]) -> list[str]:
    """The messages for one role of which these facts were recorded."""
    return filters["state_drift"]({"proxy": now}, {"proxy": {"desired": "d", "observed": before}}, "server")


FACTS = [
    "file /etc/scratch4school/proxy/nginx.conf",
    "unit file scratch4school-backup.service",
    "network scratch4school",
    "container scratch4school-proxy",
    "loaded scratch4school-proxy",
    "unit scratch4school-backup.timer",
    "unwanted unit scratch4school-backup-drill.timer",
    "roles and rights in PostgreSQL",
    "answer of scratch4school-postgres",
]


def test_state_without_drift_has_no_message(filters: dict[str, Callable[..., Any]]) -> None:
    """A fact that is as it was recorded is not mentioned."""
    facts = dict.fromkeys(FACTS, "01")
    assert drift(filters, facts, facts) == []
    assert filters["state_drift"]({}, {"proxy": {"observed": facts}}, "server") == []


@pytest.mark.parametrize(
    ("fact", "missing", "changed", "added"),
    [
        (FACTS[0], "The file {} on server is missing.", "The file {} on server was changed.",
         "The file {} on server was added."),
        (FACTS[1], "The unit file {} on server is missing.", "The unit file {} on server was changed.",
         "The unit file {} on server was added."),
        (FACTS[2], "The network {} on server is missing.", "The network {} on server was changed.",
         "The network {} on server was added."),
        (FACTS[3], "The container {} on server is missing, is not running, or is unhealthy.",
         "The container {} on server is another one.", "The container {} on server is another one."),
        (FACTS[4], *["The container {} on server has not loaded the files that are there."] * 3),
        (FACTS[5], "The unit {} on server is not enabled, is not active, or has no next run.",
         "The unit {} on server was changed.", "The unit {} on server was changed."),
        (FACTS[6], *["The unit {} exists on server, but its timer is turned off."] * 3),
        (FACTS[7], "Roles and rights in PostgreSQL on server are not as they must be.",
         *["Roles and rights in PostgreSQL on server were changed."] * 2),
    ],
    ids=[fact.rpartition(" ")[0] for fact in FACTS[:8]],
)  # fmt: skip
def test_state_drift_is_one_message_for_each_fact(
    filters: dict[str, Callable[..., Any]], fact: str, missing: str, changed: str, added: str
) -> None:
    """Missing now, another one than recorded, or added; each names the thing and the host."""
    name = fact.rpartition(" ")[2]
    assert drift(filters, {fact: ""}, {fact: "01"}) == [missing.format(name)]
    assert drift(filters, {fact: "02"}, {fact: "01"}) == [changed.format(name)]
    assert drift(filters, {fact: "02"}, {}) == [added.format(name)]


def test_recorded_fact_that_no_longer_exists_is_reported_missing(filters: dict[str, Callable[..., Any]]) -> None:
    """A file in a role's folder that is gone is no fact of today; what was recorded of it still is."""
    assert drift(filters, {}, {FACTS[0]: "01"}) == [
        "The file /etc/scratch4school/proxy/nginx.conf on server is missing."
    ]


def test_missing_fact_is_drift_although_it_was_recorded_so(filters: dict[str, Callable[..., Any]]) -> None:
    """An empty digest is never as it should be."""
    assert drift(filters, {FACTS[3]: ""}, {FACTS[3]: ""}) != []


def test_name_with_spaces_is_named_whole(filters: dict[str, Callable[..., Any]]) -> None:
    """A file that was put there by hand may have any name."""
    (said,) = drift(filters, {"file /etc/scratch4school/proxy/my notes.txt": "01"}, {})
    assert said == "The file /etc/scratch4school/proxy/my notes.txt on server was added."


def test_record_of_another_form_counts_as_unfinished_role(filters: dict[str, Callable[..., Any]]) -> None:
    """One digest for all facts cannot be compared with them; the next deploy writes a record that can."""
    recorded = {"proxy": {"desired": "d", "observed": "0a1b"}}
    said = filters["state_drift"]({"proxy": {"network a": "01"}}, recorded, "server")
    assert said == ["The role proxy did not run to its end on server."]


def test_role_without_a_record_has_a_message_of_its_own(filters: dict[str, Callable[..., Any]]) -> None:
    """An interrupted deploy left nothing to compare with; the other roles are still compared."""
    recorded = {"proxy": {"desired": "d", "observed": {"network a": "01"}}}
    said = filters["state_drift"]({"app": {"file /etc/app": "01"}, "proxy": {"network a": "02"}}, recorded, "server")
    assert said == [
        "The role app did not run to its end on server.",
        "The network a on server was changed.",
    ]
