"""The ledger of releases: only appended to, whole or not at all; “current” and “previous” follow from it."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from scratch4school_host import ledger as ledgers
from scratch4school_host.errors import OperatorError
from scratch4school_host.ledger import (
    History,
    append,
    is_login_proved,
    make_entry,
    parse,
    read,
    read_descriptions,
    resolve,
)


def history_of(*events: str) -> History:
    """Build a history from events such as `a` (activated), `b failed` and `b reverted`."""
    entries = []
    for event in events:
        release, _, outcome = event.partition(" ")
        entries.append(make_entry(release=release, by="me", verb="deploy", outcome=outcome or "activated"))
    return ledgers.history_of(entries)


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
def test_current_and_previous_follow_from_the_entries(
    events: tuple[str, ...], current: str | None, previous: str | None
) -> None:
    """The live release, and the one that a rollback activates: never the same one, never a reverted one."""
    history = history_of(*events)
    assert (history.current, history.previous) == (current, previous)


def test_entries_are_read_as_they_were_appended(tmp_path: Path) -> None:
    """Durably, with mode 0640, a line each, in order, with umlauts and line breaks in the reason."""
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
def test_torn_line_is_reported_and_left_out(tmp_path: Path, torn: str) -> None:
    """After a power failure the entries before it are read, and the next one is on a line of its own."""
    ledger = tmp_path / "ledger.jsonl"
    append(ledger, make_entry(release="a", by="me", verb="deploy", outcome="activated"))
    with ledger.open("a") as file:
        file.write(torn)
    assert read(ledger).damaged == [2]
    assert read(ledger).current == "a"
    append(ledger, make_entry(release="b", by="me", verb="deploy", outcome="activated"))
    assert (read(ledger).current, read(ledger).previous, read(ledger).damaged) == ("b", "a", [2])


def test_bytes_that_are_no_text_are_a_damaged_line(tmp_path: Path) -> None:
    """A block of a disk that lost power may contain anything."""
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_bytes(b"\x00\xff\xfe\n")
    assert read(ledger).damaged == [1]


@pytest.mark.parametrize("fields", [{"outcome": "great"}, {"by": ""}, {"release": None}])
def test_incomplete_entry_is_refused(fields: dict[str, Any]) -> None:
    """An entry that could not be read must not be written."""
    with pytest.raises(OperatorError):
        make_entry(**{"release": "a", "by": "me", "verb": "deploy", "outcome": "activated", **fields})


def test_target_is_resolved_to_one_id() -> None:
    """current, previous, and an id."""
    history = history_of("a", "b", "c")
    assert resolve(history, "current") == "c"
    assert resolve(history, "previous") == "b"
    assert resolve(history, "a") == "a"


@pytest.mark.parametrize(
    ("events", "target", "options", "message"),
    [
        ((), "current", {}, "No release is live yet"),
        ((), "previous", {}, "There is no previous release to roll back to; none was live yet."),
        (("a",), "previous", {}, "There is no previous release to roll back to; only a was ever live."),
        (("a", "b"), "z", {}, "There is no release “z” on this host; there are b (current), a (previous)."),
        ((), "z", {}, "there are none"),
        (("a", "b"), "previous", {"kept": ["b"]}, "The previous release, a, is no longer on this host"),
    ],
)
def test_target_without_a_release_is_refused_with_a_list(
    events: tuple[str, ...], target: str, options: dict[str, Any], message: str
) -> None:
    """The list lets the sysadmin type the right command next."""
    with pytest.raises(OperatorError) as refused:
        resolve(history_of(*events), target, **options)
    assert message in str(refused.value)


def test_empty_lines_are_left_out() -> None:
    """They contain no information and are no damage."""
    assert parse("\n\n") == History(entries=[])


def test_descriptions_are_those_of_releases_that_can_be_started(tmp_path: Path) -> None:
    """Only whole ones, named after their release; without a folder there are none."""
    (tmp_path / "a.json").write_text('{"id": "a", "image": "1"}')
    (tmp_path / "b.json").write_text('{"id": "b", "ima')
    (tmp_path / "c.json").write_text('{"id": "a"}')
    (tmp_path / "d.txt").write_text('{"id": "d"}')
    assert read_descriptions(tmp_path) == {"a": {"id": "a", "image": "1"}}
    assert read_descriptions(tmp_path / "none") == {}


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
def test_login_is_proved_by_a_person_since_the_settings_are_live(
    events: tuple[str, ...], last_login: str, proved: bool
) -> None:
    """Since the first of the activations in a row with these settings; a login with other ones proves nothing."""
    entries = activations(*events)
    assert is_login_proved(entries, "L1", last_login) is proved
    assert is_login_proved(iter(entries), "L1", last_login) is proved


def test_login_without_a_digest_is_never_proved() -> None:
    """The entry of the activation does not say what a login depended on."""
    assert is_login_proved(activations("10 L1"), "", "2026-11-24T12:00:00Z") is False


def test_login_stays_proved_when_a_release_with_other_settings_was_reverted() -> None:
    """A reverted activation says nothing of the live release."""
    entries = [
        {"release": "a", "outcome": "activated", "login": "1", "at": "2026-11-20T10:00:00Z"},
        {"release": "b", "outcome": "activated", "login": "2", "at": "2026-11-21T10:00:00Z"},
        {"release": "b", "outcome": "reverted", "login": "2", "at": "2026-11-21T10:01:00Z"},
    ]
    assert is_login_proved(entries, "1", "2026-11-20T11:00:00Z")
    assert not is_login_proved(entries, "2", "2026-11-22T11:00:00Z")
