"""When a host may be changed: how windows are written, which moments they hold, and how a misspelt one is answered."""

from __future__ import annotations

from datetime import datetime

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
def test_window_includes_moments_inside_and_excludes_those_outside(
    window: str, inside: tuple[int, str], outside: tuple[int, str]
) -> None:
    """Days, ranges of them over the week's end, the whole day, and nights."""
    assert parse(window).holds(moment(*inside))
    assert not parse(window).holds(moment(*outside))


@pytest.mark.parametrize(
    "window",
    ["", "16:00-22:00", "Mon-Fri", "Mo-Fr 16:00-22:00", "Mon-Fri 16-22", "Mon 25:00-26:00", "Mon 16:60-17:00",
     "Mon 16:00-16:00", "Mon 24:00-02:00", "Mon,, 16:00-17:00"],
)  # fmt: skip
def test_misspelt_window_is_answered_with_how_to_write_it(window: str) -> None:
    """The message names the text and shows one that works."""
    with pytest.raises(ChangeWindowError, match=r"write it such as “Mon-Fri 16:00-22:00”"):
        parse(window)


def test_every_moment_is_allowed_without_windows() -> None:
    """The setting is off by default."""
    assert problem([], moment(MONDAY, "10:00")) == ""


def test_refusal_says_when_and_how_to_force_it() -> None:
    """One message with the time there, the windows, and the way out."""
    said = problem(["Mon-Fri 16:00-22:00", "Sat,Sun 00:00-24:00"], moment(MONDAY, "10:05"), "CET")
    assert said == (
        "It is Mon 10:05 CET there, and change_windows allows changes only at Mon-Fri 16:00-22:00 and Sat,Sun "
        "00:00-24:00. Wait, or add -e change_forced=true."
    )
    assert problem(["Mon-Fri 16:00-22:00", "Sat,Sun 00:00-24:00"], moment(MONDAY, "16:05")) == ""


def test_misspelt_window_is_refused_although_another_window_is_open() -> None:
    """The refusal comes on the day on which the window is written, at any hour."""
    with pytest.raises(ChangeWindowError):
        problem(["Mon 00:00-24:00", "sometimes"], moment(MONDAY, "10:00"))


@pytest.mark.parametrize("windows", ["Mon-Fri 16:00-22:00", 5])
def test_windows_that_are_no_list_are_refused(windows: object) -> None:
    """A text would be read letter by letter."""
    with pytest.raises(ChangeWindowError, match="it must be a list"):
        problem(windows, moment(MONDAY, "10:00"))
