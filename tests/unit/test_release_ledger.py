"""The ledger of releases: append-only, whole or not at all, and the only word on what “previous” means."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible.module_utils.release_ledger import (
    History,
    ReleaseError,
    append,
    choose,
    is_login_proved,
    make_entry,
    parse,
    read,
    read_descriptions,
    recount,
    release_id,
)


def history_of(*events: str) -> History:
    """Build a history from events such as `a` (activated), `b failed` and `b reverted`."""
    entries = []
    for event in events:
        release, _, outcome = event.partition(" ")
        entries.append(make_entry(release=release, by="me", verb="deploy", outcome=outcome or "activated"))
    return recount(entries)


@pytest.mark.parametrize(
    ("events", "current", "previous"),
    [
        ((), None, None),
        (("a failed",), None, None),
        (("a",), "a", None),
        (("a", "a"), "a", None),
        (("a", "b"), "b", "a"),
        (("a", "b failed"), "a", None),
        (("a", "a verified", "b", "b verified"), "b", "a"),
        (("a", "b", "b reverted"), "a", None),
        (("a", "b", "c", "c reverted"), "b", "a"),
        (("a", "b", "a"), "a", "b"),
        (("a", "b", "b"), "b", "a"),
        (("a", "b", "b", "b reverted"), "b", "a"),
        (("a", "b", "c reverted"), "b", "a"),
        (("a", "b", "b reverted", "c"), "c", "a"),
    ],
)
def test_current_and_previous(events: tuple[str, ...], current: str | None, previous: str | None) -> None:
    """What serves, and what a rollback goes back to: never the same release, never one that was found wanting."""
    history = history_of(*events)
    assert (history.current, history.previous) == (current, previous)


def test_entries_survive_the_round_trip(tmp_path: Path) -> None:
    """Written durably with mode 0640, one line each, in order, with umlauts and line breaks in the reason."""
    ledger = tmp_path / "ledger.jsonl"
    assert read(ledger) == History(entries=[])
    first = make_entry(release="a", by="Jürgen", verb="deploy", outcome="activated", reason="two\nlines", slot=None)
    second = make_entry(release="b", by="me", verb="rollback", outcome="failed", duration_seconds=1.5)
    append(ledger, first)
    append(ledger, second)
    assert ledger.read_bytes().count(b"\n") == 2
    assert read(ledger).entries == [first, second]
    assert "slot" not in first
    assert stat.S_IMODE(ledger.stat().st_mode) & 0o137 == 0


@pytest.mark.parametrize("torn", ['{"at": "2026', "x", '{"release": 5, "outcome": "activated"}', '{"at": "\\ud8'])
def test_a_torn_line_is_reported_and_outlived(tmp_path: Path, torn: str) -> None:
    """After a power cut the history before it is read, and the next entry stands on a line of its own."""
    ledger = tmp_path / "ledger.jsonl"
    append(ledger, make_entry(release="a", by="me", verb="deploy", outcome="activated"))
    with ledger.open("a") as file:
        file.write(torn)
    assert read(ledger).damaged == [2]
    assert read(ledger).current == "a"
    append(ledger, make_entry(release="b", by="me", verb="deploy", outcome="activated"))
    assert (read(ledger).current, read(ledger).previous, read(ledger).damaged) == ("b", "a", [2])


def test_bytes_that_are_no_text_are_a_damaged_line(tmp_path: Path) -> None:
    """A block of a disk that lost power may hold anything."""
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_bytes(b"\x00\xff\xfe\n")
    assert read(ledger).damaged == [1]


@pytest.mark.parametrize("fields", [{"outcome": "great"}, {"by": ""}, {"release": None}])
def test_an_entry_must_be_one(fields: dict[str, Any]) -> None:
    """An entry that later cannot be read must not be written."""
    with pytest.raises(ReleaseError):
        make_entry(**{"release": "a", "by": "me", "verb": "deploy", "outcome": "activated", **fields})


def test_wishes_become_one_id() -> None:
    """current, previous and a name."""
    history = history_of("a", "b", "c")
    assert choose(history, "current") == "c"
    assert choose(history, "previous") == "b"
    assert choose(history, "a") == "a"


@pytest.mark.parametrize(
    ("events", "wanted", "options", "sentence"),
    [
        ((), "current", {}, "No release serves yet"),
        ((), "previous", {}, "There is no previous release to go back to; none has served yet."),
        (("a",), "previous", {}, "There is no previous release to go back to; only a ever served."),
        (("a", "b"), "z", {}, "There is no release “z” on this host; there are b (current), a (previous)."),
        ((), "z", {}, "there are none"),
        (("a", "b"), "previous", {"kept": ["b"]}, "The previous release, a, is no longer on this host"),
    ],
)
def test_wishes_that_cannot_be_granted(
    events: tuple[str, ...], wanted: str, options: dict[str, Any], sentence: str
) -> None:
    """The refusal lists what there is, so that the operator's next command can be the right one."""
    with pytest.raises(ReleaseError) as refused:
        choose(history_of(*events), wanted, **options)
    assert sentence in str(refused.value)


def test_the_id_follows_from_the_content_alone() -> None:
    """The order of keys does not matter; values, their types and their nesting do."""
    content = {"image": "sha256:1", "schema": "0002", "settings": {"workers": 3, "names": ["a", "b"]}}
    shuffled = {"settings": {"names": ["a", "b"], "workers": 3}, "schema": "0002", "image": "sha256:1"}
    assert release_id(content) == release_id(shuffled)
    others = [{**content, "schema": "0003"}, {**content, "schema": 2}, {**content, "settings": {"workers": "3"}}]
    assert len({release_id(one) for one in [content, *others]}) == 4
    assert len(release_id(content)) == 12


@pytest.mark.parametrize("content", [{}, [], {"a": {1: 2}}, {"a": object()}, {"a": math.nan}])
def test_the_id_refuses_what_it_would_have_to_guess(
    content: Any,
    filters: dict[str, Callable[..., Any]],
) -> None:
    """Two contents that differ only in something lost would be taken for the same release."""
    with pytest.raises(AnsibleFilterError):
        filters["release_id"](content)


def test_the_filter_takes_a_ledgers_entries(filters: dict[str, Callable[..., Any]]) -> None:
    """What the module returned can be handed on, and a wish that cannot be granted is a sentence."""
    history = history_of("a", "b")
    assert filters["choose_release"](history.entries, "previous") == "a"
    with pytest.raises(AnsibleFilterError, match="there are b"):
        filters["choose_release"](history.entries, "z")
    assert "“z”" in filters["wish_refusal"](history.entries, "z", ["a", "b"])
    assert filters["wish_refusal"](history.entries, "previous", ["a", "b"]) == ""


def test_the_module_appends_and_reads(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> None:
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


def test_the_module_needs_a_whole_entry(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> None:
    """An append without saying who did it is refused."""
    answer = run_module("release_ledger", path=str(tmp_path / "l"), state="append", release="a", verb="deploy")
    assert answer["failed"]
    assert "by" in answer["msg"]


def test_the_module_says_when_it_cannot_write(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> None:
    """A missing folder is a sentence, not a traceback."""
    entry = {"release": "a", "by": "me", "verb": "deploy", "outcome": "activated"}
    answer = run_module("release_ledger", path=str(tmp_path / "none" / "l"), state="append", **entry)
    assert answer["failed"]
    assert "No such file" in answer["msg"]


def test_empty_lines_are_nothing() -> None:
    """They carry no information and are no damage."""
    assert parse("\n\n") == History(entries=[])


def test_descriptions_of_what_can_be_started(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> None:
    """Only whole ones that are about the release they are named after; no ledger and no folder are no problem."""
    (tmp_path / "a.json").write_text('{"id": "a", "image": "1"}')
    (tmp_path / "b.json").write_text('{"id": "b", "ima')
    (tmp_path / "c.json").write_text('{"id": "a"}')
    (tmp_path / "d.txt").write_text('{"id": "d"}')
    assert read_descriptions(tmp_path) == {"a": {"id": "a", "image": "1"}}
    assert read_descriptions(tmp_path / "none") == {}
    assert run_module("release_ledger", path=str(tmp_path / "ledger.jsonl"))["descriptions"] == {
        "a": {"id": "a", "image": "1"}
    }


def activations(*events: str) -> list[dict[str, Any]]:
    """Entries from events such as `10 L1` (activated at ten o'clock with that login) and `11 L1 verified`."""
    entries = []
    for event in events:
        hour, login, *outcome = event.split()
        entry = {"at": f"2026-11-24T{hour}:00:00Z", "release": "a", "outcome": outcome[0] if outcome else "activated"}
        entries.append({**entry, **({"login": login} if login != "-" else {})})
    return entries


@pytest.mark.parametrize(
    ("events", "last_login", "proved"),
    [
        ((), "2026-11-24T12:00:00Z", False),
        (("10 L1",), "", False),
        (("10 L1",), "2026-11-24T12:00:00Z", True),
        (("10 L1",), "2026-11-24T10:00:00Z", True),
        (("10 L1",), "2026-11-24T09:59:59Z", False),
        (("10 L1",), "2026-11-24T12:30:00+02:00", True),
        (("10 L1",), "2026-11-24T11:30:00+02:00", False),
        (("10 L1",), "2026-11-24T12:00:00.123456+00:00", True),
        (("10 L1", "14 L1"), "2026-11-24T12:00:00Z", True),
        (("10 L1", "14 L2"), "2026-11-24T15:00:00Z", False),
        (("10 L2", "14 L1"), "2026-11-24T12:00:00Z", False),
        (("10 L2", "14 L1"), "2026-11-24T15:00:00Z", True),
        (("08 L1", "10 L2", "14 L1"), "2026-11-24T09:00:00Z", False),
        (("10 -", "14 L1"), "2026-11-24T12:00:00Z", False),
        (("10 L1", "14 -"), "2026-11-24T15:00:00Z", False),
        (("10 L1", "11 - verified", "12 L9 failed"), "2026-11-24T12:00:00Z", True),
    ],
    ids=str,
)
def test_login_is_proved_by_a_person_since_the_settings_serve(
    filters: dict[str, Callable[..., Any]], events: tuple[str, ...], last_login: str, proved: bool
) -> None:
    """Since the first of the activations in a row with these settings; a login with other ones proves nothing."""
    entries = activations(*events)
    assert is_login_proved(entries, "L1", last_login) is proved
    assert is_login_proved(iter(entries), "L1", last_login) is proved
    ledger = "".join(json.dumps(entry) + "\n" for entry in entries)
    assert filters["login_is_proved"](ledger, "L1", last_login) is proved


def test_login_without_a_digest_is_never_proved() -> None:
    """A release of a former version does not say what its login depended on."""
    assert is_login_proved(activations("10 L1"), "", "2026-11-24T12:00:00Z") is False


def test_the_module_keeps_the_digest_of_the_login(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> None:
    """The activation's entry holds it, and one without it is an entry too."""
    entry = {"release": "a", "by": "me", "verb": "deploy", "outcome": "activated"}
    ledger = tmp_path / "ledger.jsonl"
    run_module("release_ledger", path=str(ledger), state="append", **entry, login="0a1b")
    run_module("release_ledger", path=str(ledger), state="append", **entry)
    assert [one.get("login") for one in read(ledger).entries] == ["0a1b", None]


def test_login_stays_proved_when_a_release_with_other_settings_was_reverted() -> None:
    """What was activated and taken back again says nothing of the release that serves."""
    entries = [
        {"release": "a", "outcome": "activated", "login": "1", "at": "2026-11-20T10:00:00Z"},
        {"release": "b", "outcome": "activated", "login": "2", "at": "2026-11-21T10:00:00Z"},
        {"release": "b", "outcome": "reverted", "login": "2", "at": "2026-11-21T10:01:00Z"},
    ]
    assert is_login_proved(entries, "1", "2026-11-20T11:00:00Z")
    assert not is_login_proved(entries, "2", "2026-11-22T11:00:00Z")
