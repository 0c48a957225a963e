"""The ledger of releases as playbooks see it: module and filters. The ledger itself: host/tests/test_ledger.py."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible.module_utils.scratch4school_host.ledger import make_entry, read

ENTRIES = [make_entry(release=release, by="me", verb="deploy", outcome="activated") for release in ("a", "b")]


def test_release_id_follows_from_the_content(filters: dict[str, Callable[..., Any]]) -> None:
    """The order of keys does not matter; values, their types and their nesting do."""
    content = {"image": "sha256:1", "schema": "0002", "settings": {"workers": 3, "names": ["a", "b"]}}
    shuffled = {"settings": {"names": ["a", "b"], "workers": 3}, "schema": "0002", "image": "sha256:1"}
    release_id = filters["release_id"]
    assert release_id(content) == release_id(shuffled)
    others = [{**content, "schema": "0003"}, {**content, "schema": 2}, {**content, "settings": {"workers": "3"}}]
    assert len({release_id(one) for one in [content, *others]}) == 4
    assert len(release_id(content)) == 12


@pytest.mark.parametrize("content", [{}, [], {"a": {1: 2}}, {"a": object()}, {"a": math.nan}])
def test_release_id_of_ambiguous_content_is_refused(
    content: Any,
    filters: dict[str, Callable[..., Any]],
) -> None:
    """Two contents that differ only in something lost would get the same id."""
    with pytest.raises(AnsibleFilterError):
        filters["release_id"](content)


def test_filter_resolves_a_target_by_entries(filters: dict[str, Callable[..., Any]]) -> None:
    """The result of the module can be passed on; a target without a release is a message."""
    assert filters["resolve_release"](ENTRIES, "previous") == "a"
    with pytest.raises(AnsibleFilterError, match="there are b"):
        filters["resolve_release"](ENTRIES, "z")
    assert "“z”" in filters["target_refusal"](ENTRIES, "z", ["a", "b"])
    assert filters["target_refusal"](ENTRIES, "previous", ["a", "b"]) == ""


def test_module_appends_and_reads(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> None:
    """Appending is a change, also in check mode, where nothing is written; reading never is."""
    arguments = {
        "path": str(tmp_path / "ledger.jsonl"),
        "state": "append",
        "release": "a",
        "by": "me",
        "verb": "deploy",
        "outcome": "activated",
        "duration_seconds": 2.5,
    }
    foretold = run_module("release_ledger", check_mode=True, **arguments)
    assert foretold["changed"]
    assert not (tmp_path / "ledger.jsonl").exists()
    written = run_module("release_ledger", **arguments)
    assert (written["changed"], written["current"]) == (True, "a")
    answer = run_module("release_ledger", path=arguments["path"])
    assert not answer["changed"]
    assert answer["entries"] == [json.loads((tmp_path / "ledger.jsonl").read_text())]
    assert answer["entries"][0]["duration_seconds"] == 2.5


def test_module_refuses_an_incomplete_entry(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> None:
    """An append without saying who did it."""
    answer = run_module("release_ledger", path=str(tmp_path / "l"), state="append", release="a", verb="deploy")
    assert answer["failed"]
    assert "by" in answer["msg"]


def test_module_says_when_it_cannot_write(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> None:
    """A missing folder is a message, not a traceback."""
    entry = {"release": "a", "by": "me", "verb": "deploy", "outcome": "activated"}
    answer = run_module("release_ledger", path=str(tmp_path / "none" / "l"), state="append", **entry)
    assert answer["failed"]
    assert "No such file" in answer["msg"]


def test_module_keeps_the_digest_of_the_login(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> None:
    """The activation has it, and an entry without it is one, too."""
    entry = {"release": "a", "by": "me", "verb": "deploy", "outcome": "activated"}
    ledger = tmp_path / "ledger.jsonl"
    run_module("release_ledger", path=str(ledger), state="append", **entry, login="0a1b")
    run_module("release_ledger", path=str(ledger), state="append", **entry)
    assert [one.get("login") for one in read(ledger).entries] == ["0a1b", None]


def test_module_returns_descriptions_of_kept_releases(
    tmp_path: Path, run_module: Callable[..., dict[str, Any]]
) -> None:
    """Of the releases that can be started, from the folder of the ledger, which need not exist yet."""
    (tmp_path / "a.json").write_text('{"id": "a", "image": "1"}')
    answer = run_module("release_ledger", path=str(tmp_path / "ledger.jsonl"))
    assert answer["descriptions"] == {"a": {"id": "a", "image": "1"}}


@pytest.mark.parametrize(("last_login", "proved"), [("2099-11-24T12:00:00Z", True), ("", False)])
def test_filter_says_whether_a_login_is_proved(
    filters: dict[str, Callable[..., Any]], last_login: str, proved: bool
) -> None:
    """From the text of a ledger, as the survey returns it."""
    text = "".join(json.dumps({**entry, "login": "L1"}) + "\n" for entry in ENTRIES)
    assert filters["login_is_proved"](text, "L1", last_login) is proved
    assert filters["release_history"](text) == {"current": "b", "previous": "a", "releases": ["b", "a"]}
