"""A time in a message has its zone: host, control node and containers may be in different ones."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import change_windows
from ansible.module_utils.scratch4school_host import audit_log, locking, times

from scratch4school_lab.classroom import report

ROOT = Path(__file__).resolve().parents[2]

# A time of day, with its zone if there is one.
CLOCK = re.compile(
    r"(?<![\d:])\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?P<zone> ?(?:UTC|Z|[+-]\d\d:?\d\d|Europe/Berlin|local time)\b)?"
)
LOCK = {
    "run": "r1",
    "verb": "deploy",
    "by": "anna@desk",
    "phase": "switch",
    "since": "2026-11-28T16:50:01.123Z",
    "heartbeat": "2026-11-28T16:51:02.456Z",
}
AUDIT_LOG = json.dumps({**LOCK, "at": "2026-11-28T16:50:01.123Z", "release": "aaa"})
FAILURES = [
    {"start": 1795870201.25, "end": 1795870261.5, "operation": "save", "status": 502, "message": "Bad Gateway"},
]

# Our programs and plugins; a command has no suffix.
SOURCES = sorted(
    file
    for folder in ("host/src", "lab/src", "plugins", "roles", "scripts")
    for file in (ROOT / folder).rglob("*")
    if file.is_file() and (file.suffix == ".py" or (not file.suffix and re.match(rb"#!.*python", file.read_bytes())))
)
TEMPLATES = sorted(
    file for folder in ("deploy", "roles") for ending in ("*.yml", "*.j2") for file in (ROOT / folder).rglob(ending)
)
# Formats that are not shown as a time, each with its use.
NOT_READ = {
    ("host/src/scratch4school_host/locking.py", "%Y%m%dT%H%M%S"): "the name of a run",
    ("host/src/scratch4school_host/certificates.py", "%Y%m%d%H%M%SZ"): "a field of a certificate",
    ("plugins/module_utils/host_survey.py", "%Y-%m-%dT%H:%M:%S"): "a field of the survey",
}
# A zone in a format, or behind it in the same text.
ZONE = re.compile(r"UTC|Z\b|%[zZ]|\{zone\b")


def bare_times(text: str) -> list[str]:
    """The times of day in a text without a zone."""
    return [found[0] for found in CLOCK.finditer(text) if not found["zone"]]


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("since 2026-11-28 16:50 UTC, last heard of at 2026-11-28T16:51:02.456Z", []),
        ("since 2026-11-28 16:50, last heard of at 16:51:02", ["16:50", "16:51:02"]),
        ("2026-11-28T16:50:01+01:00 and 16:50 Europe/Berlin there", []),
        ("port 6432, revision 0003, 3:2 servers", []),
    ],
)
def test_bare_times_finds_times_without_a_zone(text: str, bare: list[str]) -> None:
    """The other tests here depend on it."""
    assert bare_times(text) == bare


@pytest.mark.parametrize(
    ("moment", "readable"),
    [
        ("2026-11-28T16:50:01.123Z", "2026-11-28 16:50 UTC"),
        ("2026-11-28T16:50:59Z", "2026-11-28 16:50 UTC"),
        ("2026-11-28T16:50:01.123456789Z", "2026-11-28 16:50 UTC"),
        ("2026-11-28T00:50:01+01:00", "2026-11-27 23:50 UTC"),
        ("2026-11-28T16:50:01.5-05:00", "2026-11-28 21:50 UTC"),
        ("2026-11-28T16:50:01", "2026-11-28T16:50:01"),
        ("2026", "2026"),
        ("", ""),
        (None, "None"),
    ],
)
def test_moment_of_a_file_becomes_readable(
    moment: str | None, readable: str, filters: dict[str, Callable[..., Any]]
) -> None:
    """In UTC, as restic, the audit log and the ledger write it; a time without a zone stays unchanged."""
    assert times.readable(moment) == readable
    assert filters["readable_moment"](moment) == readable


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (locking.describe(LOCK), "deploy by anna@desk since 2026-11-28 16:50 UTC"),
        (locking.refusal(LOCK), "since 2026-11-28 16:50 UTC is changing this host now"),
        (locking.refusal(LOCK), "last heartbeat at 2026-11-28 16:51 UTC"),
        (
            audit_log.interrupted_refusal(AUDIT_LOG, "bbb"),
            "by anna@desk, begun at 2026-11-28 16:50 UTC, stopped in its phase",
        ),
        (
            audit_log.last_change(AUDIT_LOG),
            "deploy by anna@desk at 2026-11-28 16:50 UTC: stopped in its phase “switch”",
        ),
        (report._span({"failures": FAILURES}, "502"), ", 2026-11-28 12:50:01.250 UTC to 2026-11-28 12:51:01.500 UTC, "),
    ],
    ids=["describe", "refusal", "heartbeat", "interrupted change", "last change", "classroom"],
)
def test_message_for_the_sysadmin_has_the_zone(text: str, part: str) -> None:
    """About locks, about the audit log, and about failed requests of a class."""
    assert part in text
    assert bare_times(text) == []


@pytest.mark.parametrize(("zone", "part"), [("Europe/Berlin", "16:50 Europe/Berlin"), ("", "16:50 local time")])
def test_change_window_refusal_names_the_hosts_zone(zone: str, part: str) -> None:
    """The windows are in the host's zone, which may differ from the sysadmin's."""
    refusal = change_windows.problem(["Sat,Sun 00:00-24:00"], datetime(2026, 11, 27, 16, 50), zone)
    assert refusal.startswith(f"It is Fri {part} there, and change_windows allows changes only at ")
    assert bare_times(refusal.partition(", and ")[0]) == []


def formats(path: Path) -> Iterator[tuple[str, str]]:
    """Every format of a time of day in a file, and the format with the text behind it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            for number, part in enumerate(node.values):
                if "%H" in _spec(part):
                    yield _spec(part), _spec(part) + "".join(map(_as_text, node.values[number + 1 :]))
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "strftime":
            for argument in node.args:
                if isinstance(argument, ast.Constant) and "%H" in str(argument.value):
                    yield str(argument.value), str(argument.value)


def _spec(part: ast.expr) -> str:
    """The format of a value in an f-string; in Python's syntax tree it is an f-string itself."""
    spec = part.format_spec if isinstance(part, ast.FormattedValue) else None
    return "".join(map(_as_text, spec.values)) if isinstance(spec, ast.JoinedStr) else ""


def _as_text(part: ast.expr) -> str:
    """A part of an f-string: text unchanged, and a value as `{its expression}` with its format behind it."""
    if isinstance(part, ast.FormattedValue):
        return f"{{{ast.unparse(part.value)}}}{_spec(part)}"
    return str(part.value) if isinstance(part, ast.Constant) else ""


def test_sources_with_formats_of_times_are_found() -> None:
    """A search that finds none would pass every file."""
    found = {str(path.relative_to(ROOT)) for path in SOURCES for _ in formats(path)}
    assert {"host/src/scratch4school_host/times.py", "plugins/module_utils/change_windows.py"} <= found
    lab = "lab/src/scratch4school_lab"
    assert {f"{lab}/classroom/report.py", f"{lab}/commands/pgbouncer_config.py"} <= found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_format_of_a_time_has_a_zone(path: Path) -> None:
    """In the format or behind it."""
    for written, around in formats(path):
        assert ZONE.search(around) or (str(path.relative_to(ROOT)), written) in NOT_READ, around


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT)))
def test_message_of_a_role_has_no_raw_moment(path: Path) -> None:
    """A time from a file, such as `lock.since`, must pass the filter `readable_moment`."""
    moments = (
        r"~\s*[\w.\[\]()-]+\.(?:at|since|begun|time|done|compared|heartbeat|not_after)\b(?!\s*\|\s*readable_moment)"
    )
    assert re.findall(moments, path.read_text()) == []
