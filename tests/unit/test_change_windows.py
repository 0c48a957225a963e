"""When a host may be changed: how windows are written, which moments they hold, and how a misspelt one is answered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from ansible.module_utils.change_windows import ChangeWindowError, parse, problem

# 2026-11-23 is a Monday.
MONDAY = 23


def moment(day: int, time: str) -> datetime:
    """A moment of that week."""
    return datetime.fromisoformat(f"2026-11-{day}T{time}:00")


@pytest.mark.parametrize(
    ("window", "inside", "outside"),
    [
        ("Mon-Fri 16:00-22:00", (MONDAY, "16:00"), (MONDAY, "15:59")),
        ("Mon-Fri 16:00-22:00", (MONDAY + 4, "21:59"), (MONDAY + 4, "22:00")),
        ("Mon-Fri 16:00-22:00", (MONDAY + 2, "18:00"), (MONDAY + 5, "18:00")),
        ("Sat,Sun 00:00-24:00", (MONDAY + 6, "23:59"), (MONDAY, "00:00")),
        ("Sat-Mon 08:00-09:00", (MONDAY + 6, "08:30"), (MONDAY + 1, "08:30")),
        ("Fri 22:00-04:00", (MONDAY + 5, "03:59"), (MONDAY + 4, "03:59")),
        ("Sun 22:00-04:00", (MONDAY, "03:59"), (MONDAY + 1, "03:59")),
        ("  wed , fri  7:30 - 8:15 ", (MONDAY + 2, "07:30"), (MONDAY + 3, "07:30")),
    ],
)
def test_window_holds_what_it_says(window: str, inside: tuple[int, str], outside: tuple[int, str]) -> None:
    """Days, ranges of them over the week's end, the whole day, and nights."""
    assert parse(window).holds(moment(*inside))
    assert not parse(window).holds(moment(*outside))


@pytest.mark.parametrize(
    "window",
    ["", "16:00-22:00", "Mon-Fri", "Mo-Fr 16:00-22:00", "Mon-Fri 16-22", "Mon 25:00-26:00", "Mon 16:60-17:00",
     "Mon 16:00-16:00", "Mon 24:00-02:00", "Mon,, 16:00-17:00"],
)  # fmt: skip
def test_misspelt_window_is_answered_with_how_to_write_it(window: str) -> None:
    """The sentence names the text and shows one that works."""
    with pytest.raises(ChangeWindowError, match=r"write it such as “Mon-Fri 16:00-22:00”"):
        parse(window)


def test_without_windows_every_moment_is_good() -> None:
    """The setting is off by default."""
    assert problem([], moment(MONDAY, "10:00")) == ""


def test_refusal_says_when_and_how_to_force_it() -> None:
    """One sentence with the time there, the windows, and the way out."""
    said = problem(["Mon-Fri 16:00-22:00", "Sat,Sun 00:00-24:00"], moment(MONDAY, "10:05"), "CET")
    assert said == (
        "It is Mon 10:05 CET there, and change_windows allows changes only at Mon-Fri 16:00-22:00 and Sat,Sun "
        "00:00-24:00. Wait, or say -e change_forced=true."
    )
    assert problem(["Mon-Fri 16:00-22:00", "Sat,Sun 00:00-24:00"], moment(MONDAY, "16:05")) == ""


def test_misspelt_window_is_found_although_another_one_holds() -> None:
    """On the day that it is written, and not in the first lesson that it should have protected."""
    with pytest.raises(ChangeWindowError):
        problem(["Mon 00:00-24:00", "sometimes"], moment(MONDAY, "10:00"))


@pytest.mark.parametrize("windows", ["Mon-Fri 16:00-22:00", 5])
def test_one_that_is_no_list_is_refused(windows: Any, filters: dict[str, Callable[..., Any]]) -> None:
    """A text would be read letter by letter."""
    assert "it must be a list" in filters["change_window_problem"](windows, "2026-11-23T10:00:00")
