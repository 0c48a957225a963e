"""Whole runs of a class against a school with a fault: each column of the report counts its fault, and only that.

A save record that always reports "nothing lost" proves nothing until it has reported a loss.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_school import FakeSchool

from scratch4school_lab.classroom import class_run, devices, pupil, readback, report
from scratch4school_lab.classroom.class_run import ClassRun, Plan

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
    "a download is truncated": "torn",
    "a download mixes two saves": "torn",
    "row and file are of different saves": "torn",
    "a download is of another project": "torn",
    "a download is of an old version": "lost",
    "a copy is of an old version": "lost",
    "a thumbnail is truncated": "torn",
    "an asset is not stored": "lost",
    "an asset is truncated": "torn",
    "an asset gets a second id": "duplicates",
    "an answer is another user's": "torn",
    "a revision holds something else": "lost",
}
# A lost save is not noticed when its project is deleted afterwards; several are.
FAULTS = 5
# A school may do these to a save that it does not acknowledge.
DOUBTFUL = [
    "a save is refused without a word",
    "a stored save is answered 500",
    "a stored save is not answered",
    "a save arrives late",
    "a stored create is answered 500",
]


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses that are meant for people and for a server that is starting again."""
    monkeypatch.setattr(devices, "ROUND_SECONDS", 0.02)
    monkeypatch.setattr(devices, "MERGE_PAUSE", 0.005)
    monkeypatch.setattr(pupil, "PAUSE_AFTER_FAILURE", 0.01)
    monkeypatch.setattr(readback, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(class_run, "PREPARE_PAUSE", 0.01)
    monkeypatch.setattr(class_run, "PULSE_SECONDS", 0.05)


def run_class(fault: str, allow_failures: bool = False, **plan: Any) -> tuple[dict[str, Any], FakeSchool, list[str]]:
    """Run a class of eight pupils at a school with a fault; returns the report, the school and the output."""
    printed: list[str] = []

    async def run() -> tuple[dict[str, Any], FakeSchool]:
        async with FakeSchool(fault) as school:
            options = {
                "seconds": 600,
                "max_requests": 600,
                "devices": 3,
                "large_share": 0,
                "large_megabytes": 1,
                **plan,
            }
            sessions = {f"pupil{number}": f"pupil{number}" for number in range(8)}
            outcome = await ClassRun(Plan(url=school.url, ca=None, **options), sessions, printed.append).run()
            return report.as_json(outcome, allow_failures), school

    summary, school = asyncio.run(run())
    return summary, school, printed


async def until(condition: Callable[[], bool], running: asyncio.Task[Any]) -> None:
    """Wait until the condition is true, while the class runs."""
    while not condition():
        assert not running.done(), "the class ended before"
        await asyncio.sleep(0.01)


def test_faultless_school_breaks_no_promise() -> None:
    """Merging and hasty devices, shares, copies and deletions agree with the record, and are deleted at the end."""
    summary, school, printed = run_class("", large_share=0.05)
    assert summary["kept"]
    assert summary["promises"] == dict.fromkeys(COLUMNS, 0)
    assert summary["failed"] == 0
    assert summary["conflicts"] > 0
    assert summary["save_record"]["in_doubt"] == 0
    assert {"create", "copy", "update", "delete", "device save", "hasty save", "download"} <= set(summary["operations"])
    assert school.projects == {}
    assert any(line.startswith("load ") and "requests" in line for line in printed)
    assert "All promises kept." in report.as_text(summary)


@pytest.mark.parametrize(("fault", "column"), BROKEN.items())
def test_fault_is_counted_in_its_column(fault: str, column: str) -> None:
    """The report counts the broken promise and describes it."""
    summary, school, _ = run_class(fault)
    assert not summary["kept"]
    assert summary["promises"][column] > 0, summary["breaches"]
    assert any(breach["promise"] == column for breach in summary["breaches"])
    assert school.projects, "projects that broke a promise stay"
    assert "A promise was broken." in report.as_text(summary)


@pytest.mark.parametrize("fault", DOUBTFUL)
def test_save_without_acknowledgement_breaks_no_promise(fault: str) -> None:
    """Errors are failed requests with their times, and no loss."""
    summary, _, _ = run_class(fault, allow_failures=True)
    assert summary["promises"] == dict.fromkeys(COLUMNS, 0), summary["breaches"]
    assert summary["kept"]
    assert summary["failed"] == len(summary["failures"]) > 0
    for failure in summary["failures"]:
        assert summary["phases_seconds"]["load"] > failure["end"] - failure["start"] >= 0
        assert failure["operation"] in ("update", "create", "device save", "hasty save")
        assert failure["status"] in (500, 503, 504, None)


def test_failed_requests_without_allow_failures_break_promise() -> None:
    """During a deploy no request may fail; after a kill some may."""
    strict, _, _ = run_class("a save is refused without a word")
    assert strict["promises"] == dict.fromkeys(COLUMNS, 0)
    assert not strict["kept"]
    assert strict["failed_by_kind"] == {"503": strict["failed"]}


def test_load_ends_after_max_requests() -> None:
    """Only the operations that are under way at that moment are added.

    An operation of a pupil is at most two requests, one of a hasty device is one. A merging device saves until its save
    is accepted: it loses at most against each other device, once more against an earlier save, and reads in between.
    """
    summary, _, _ = run_class("", max_requests=150)
    assert "150 requests" in summary["stopped"]
    pupils, hasty, merging = 8 * 2, 3 * 1, 3 + 5 + 7
    assert 150 <= summary["requests"] <= 150 + pupils + hasty + merging


def test_stopped_load_is_read_back() -> None:
    """As after a signal to a class in the background."""

    async def run() -> dict[str, Any]:
        async with FakeSchool("a save is acknowledged and not stored") as school:
            plan = Plan(url=school.url, ca=None, seconds=600, devices=2, large_share=0, large_megabytes=1)
            background = ClassRun(plan, {"ada": "ada", "bob": "bob"}, lambda line: None)
            running = asyncio.create_task(background.run())
            await until(lambda: school.faults >= FAULTS, running)
            background.stop("by SIGTERM")
            return report.as_json(await running, False)

    summary = asyncio.run(run())
    assert summary["stopped"] == "by SIGTERM"
    assert summary["phases_seconds"]["load"] < 600
    assert summary["promises"]["lost"] > 0


@pytest.mark.parametrize(("fault", "kept"), [("", True), ("a save is acknowledged and not stored", False)])
def test_check_during_load_finds_lost_save(fault: str, kept: bool) -> None:
    """Saves and deletions meanwhile are no loss; a lost save is known before the end."""
    pulses: list[dict[str, Any]] = []

    async def run() -> None:
        async with FakeSchool(fault) as school:
            plan = Plan(school.url, None, seconds=600, devices=2, large_share=0, large_megabytes=1)
            sessions = {f"pupil{number}": f"pupil{number}" for number in range(4)}
            background = ClassRun(
                plan, sessions, lambda line: None, None, lambda now: pulses.append(report.as_pulse(now, 0))
            )
            running = asyncio.create_task(background.run())
            await until(lambda: bool(pulses) and pulses[-1]["acknowledged_saves"] > 0, running)
            await until(lambda: kept or school.faults >= FAULTS, running)
            background.check()
            await until(lambda: pulses[-1]["checks"] > 0, running)
            background.stop("by the test")
            await running

    asyncio.run(run())
    assert [pulse["requests"] for pulse in pulses] == sorted(pulse["requests"] for pulse in pulses)
    assert pulses[-1]["acknowledged_saves"] > 0
    assert pulses[-1]["unread"] == []
    assert any(pulses[-1]["promises"].values()) is not kept, pulses[-1]["breaches"]


def test_record_has_line_for_every_acknowledged_save(tmp_path: Path) -> None:
    """One JSON line each: project, version and hash, so that others can look for them."""

    async def run() -> dict[str, Any]:
        async with FakeSchool() as school:
            plan = Plan(school.url, None, seconds=600, max_requests=100, large_share=0, large_megabytes=1)
            with (tmp_path / "save_record").open("w") as record:
                return report.as_json(await ClassRun(plan, {"ada": "ada"}, lambda line: None, record).run(), False)

    summary = asyncio.run(run())
    lines = [json.loads(line) for line in (tmp_path / "save_record").read_text().splitlines()]
    saved = [line for line in lines if line["event"] == "acknowledged"]
    assert len(saved) == summary["save_record"]["acknowledged_saves"] > 0
    assert all(len(line["sha256"]) == 64 and line["version"] > 0 and line["project"] > 0 for line in saved)
