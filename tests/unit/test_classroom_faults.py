"""Whole lessons against a school that misbehaves: every column of scripts/classroom catches its fault, and only that.

A load driver that always says "nothing was lost" is worth nothing until it has been seen to say otherwise.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_school import FakeSchool

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from _classroom import devices, lesson, pupil, readback, report
from _classroom.lesson import Lesson, Plan

COLUMNS = ("lost", "torn", "duplicates", "orphans")

BROKEN = {
    "a save is acknowledged and not stored": "lost",
    "versions are ignored": "lost",
    "a create is not stored": "orphans",
    "a create is stored twice": "duplicates",
    "a project appears": "orphans",
    "a project is missing in the list": "orphans",
    "a project is twice in the list": "duplicates",
    "a deletion is forgotten": "orphans",
    "a save is carried out twice": "duplicates",
    "a download is cut short": "torn",
    "a download mixes two saves": "torn",
    "row and file are of different saves": "torn",
    "a download is of another project": "torn",
    "a download is of an old version": "lost",
    "a copy is of an old version": "lost",
    "a thumbnail is cut short": "torn",
    "an asset is not stored": "lost",
    "an asset is cut short": "torn",
    "an asset gets a second id": "duplicates",
    "an answer is somebody else's": "torn",
    "a revision holds something else": "lost",
}
# What a school may do to a save that it does not acknowledge.
DOUBTFUL = [
    "a save is refused without a word",
    "a stored save is answered 500",
    "a stored save is not answered",
    "a save arrives late",
    "a stored create is answered 500",
]


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is paced for people, and for a stack that has to come up again, takes no time here."""
    monkeypatch.setattr(devices, "ROUND_SECONDS", 0.02)
    monkeypatch.setattr(devices, "MERGE_PAUSE", 0.005)
    monkeypatch.setattr(pupil, "PAUSE_AFTER_FAILURE", 0.01)
    monkeypatch.setattr(readback, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(lesson, "PREPARE_PAUSE", 0.01)
    monkeypatch.setattr(lesson, "PULSE_SECONDS", 0.05)


def hold(fault: str, allow_failures: bool = False, **plan: Any) -> tuple[dict[str, Any], FakeSchool, list[str]]:
    """A lesson of eight users at a school with a fault: the report, the school afterwards, and what was said."""
    said: list[str] = []

    async def run() -> tuple[dict[str, Any], FakeSchool]:
        async with FakeSchool(fault) as school:
            wishes = {"seconds": 20, "max_requests": 600, "devices": 3, "large_share": 0, "large_megabytes": 1, **plan}
            sessions = {f"pupil{number}": f"pupil{number}" for number in range(8)}
            outcome = await Lesson(Plan(url=school.url, ca=None, **wishes), sessions, said.append).hold()
            return report.as_json(outcome, allow_failures), school

    summary, school = asyncio.run(run())
    return summary, school, said


def test_a_school_that_keeps_its_promises_is_said_to_keep_them() -> None:
    """Devices that merge and hasty ones, shares, copies and deletions: all of it adds up, and is taken away."""
    summary, school, said = hold("", large_share=0.05)
    assert summary["kept"]
    assert summary["promises"] == dict.fromkeys(COLUMNS, 0)
    assert summary["failed"] == 0
    assert summary["conflicts"] > 0
    assert summary["ledger"]["in_doubt"] == 0
    assert {"create", "copy", "update", "delete", "device save", "hasty save", "download"} <= set(summary["operations"])
    assert school.projects == {}
    assert any(line.startswith("load ") and "requests" in line for line in said)
    assert "All promises kept." in report.as_text(summary)


@pytest.mark.parametrize(("fault", "column"), BROKEN.items())
def test_each_fault_is_caught_in_its_column(fault: str, column: str) -> None:
    """The promise that the fault breaks is counted as broken, with a sentence, and the exit status would be 1."""
    summary, school, _ = hold(fault)
    assert not summary["kept"]
    assert summary["promises"][column] > 0, summary["breaches"]
    assert any(breach["promise"] == column for breach in summary["breaches"])
    assert school.projects, "what broke a promise is left for whoever looks into it"
    assert "A promise was broken." in report.as_text(summary)


@pytest.mark.parametrize("fault", DOUBTFUL)
def test_what_was_not_acknowledged_may_be_there_or_not(fault: str) -> None:
    """Errors are failed requests with their times, and no loss: whoever was told "no" was not told "saved"."""
    summary, _, _ = hold(fault, allow_failures=True)
    assert summary["promises"] == dict.fromkeys(COLUMNS, 0), summary["breaches"]
    assert summary["kept"]
    assert summary["failed"] == len(summary["failures"]) > 0
    for failure in summary["failures"]:
        assert summary["phases_seconds"]["load"] > failure["end"] - failure["start"] >= 0
        assert failure["operation"] in ("update", "create", "device save", "hasty save")
        assert failure["status"] in (500, 503, 504, None)


def test_failed_requests_break_a_promise_unless_they_are_allowed() -> None:
    """A deploy has to fail nobody; a killed server may."""
    strict, _, _ = hold("a save is refused without a word")
    assert strict["promises"] == dict.fromkeys(COLUMNS, 0)
    assert not strict["kept"]
    assert strict["failed_by_kind"] == {"503": strict["failed"]}


def test_the_load_ends_after_so_many_requests() -> None:
    """Those under way at that moment are the only ones more."""
    summary, _, _ = hold("", max_requests=150)
    assert "150 requests" in summary["stopped"]
    assert 150 <= summary["requests"] < 150 + 30


def test_whoever_stops_the_load_gets_everything_read_back() -> None:
    """As a signal does it, in the background, beside a deploy."""

    async def run() -> dict[str, Any]:
        async with FakeSchool("a save is acknowledged and not stored") as school:
            plan = Plan(url=school.url, ca=None, seconds=600, devices=2, large_share=0, large_megabytes=1)
            begun = Lesson(plan, {"ada": "ada", "bob": "bob"}, lambda line: None)
            asyncio.get_running_loop().call_later(0.5, begun.stop, "by SIGTERM")
            return report.as_json(await begun.hold(), False)

    summary = asyncio.run(run())
    assert summary["stopped"] == "by SIGTERM"
    assert summary["phases_seconds"]["load"] < 60
    assert summary["promises"]["lost"] > 0


@pytest.mark.parametrize(("fault", "kept"), [("", True), ("a save is acknowledged and not stored", False)])
def test_everything_can_be_read_back_while_the_load_goes_on(fault: str, kept: bool) -> None:
    """Pupils save and delete meanwhile, which passes for no loss; what was lost is known before the end."""
    pulses: list[dict[str, Any]] = []

    async def run() -> None:
        async with FakeSchool(fault) as school:
            plan = Plan(school.url, None, seconds=600, devices=2, large_share=0, large_megabytes=1)
            sessions = {f"pupil{number}": f"pupil{number}" for number in range(4)}
            begun = Lesson(plan, sessions, lambda line: None, None, lambda now: pulses.append(report.as_pulse(now, 0)))
            asyncio.get_running_loop().call_later(0.5, begun.check)
            holding = asyncio.create_task(begun.hold())
            while not (pulses and pulses[-1]["checks"]):
                await asyncio.sleep(0.05)
            begun.stop("by the test")
            await holding

    asyncio.run(run())
    assert [pulse["requests"] for pulse in pulses] == sorted(pulse["requests"] for pulse in pulses)
    assert pulses[-1]["acknowledged_saves"] > 0
    assert pulses[-1]["unread"] == []
    assert any(pulses[-1]["promises"].values()) is not kept, pulses[-1]["breaches"]


def test_the_journal_names_every_acknowledged_save(tmp_path: Path) -> None:
    """One JSON line each: project, version and hash, so that others can look for them."""

    async def run() -> dict[str, Any]:
        async with FakeSchool() as school:
            plan = Plan(school.url, None, seconds=20, max_requests=100, large_share=0, large_megabytes=1)
            with (tmp_path / "ledger").open("w") as journal:
                return report.as_json(await Lesson(plan, {"ada": "ada"}, lambda line: None, journal).hold(), False)

    summary = asyncio.run(run())
    lines = [json.loads(line) for line in (tmp_path / "ledger").read_text().splitlines()]
    saved = [line for line in lines if line["event"] == "acknowledged"]
    assert len(saved) == summary["ledger"]["acknowledged_saves"] > 0
    assert all(len(line["sha256"]) == 64 and line["version"] > 0 and line["project"] > 0 for line in saved)
