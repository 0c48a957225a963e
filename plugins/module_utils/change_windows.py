"""When a host may be changed: `Mon-Fri 16:00-22:00` in the host's own time, so that no lesson is disturbed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MINUTES_A_DAY = 24 * 60

_WINDOW = re.compile(r"(?P<days>[A-Za-z,\- ]+?)\s+(?P<begin>\d{1,2}:\d{2})\s*-\s*(?P<end>\d{1,2}:\d{2})")


class ChangeWindowError(ValueError):
    """A window is not written as it must be; the text says how to write it."""


@dataclass(frozen=True)
class Window:
    """Days of the week (Monday is 0) and minutes of the day; an end before its begin lies on the next day."""

    days: frozenset[int]
    begin: int
    end: int

    def holds(self, moment: datetime) -> bool:
        """Whether the moment lies in it; the end's minute does not."""
        today, minute = moment.weekday(), moment.hour * 60 + moment.minute
        if self.begin < self.end:
            return today in self.days and self.begin <= minute < self.end
        return (today in self.days and minute >= self.begin) or ((today - 1) % 7 in self.days and minute < self.end)


def parse(text: str) -> Window:
    """Read `Mon-Fri 16:00-22:00`, `Sat,Sun 00:00-24:00` or `Fri 22:00-04:00`.

    :raises ChangeWindowError: with the text, and how it should be written.
    """
    found = _WINDOW.fullmatch(str(text).strip())
    try:
        if not found:
            raise ValueError
        window = Window(_days(found["days"]), _minute(found["begin"]), _minute(found["end"]))
        if window.begin == window.end or window.begin == MINUTES_A_DAY:
            raise ValueError
    except ValueError:
        raise ChangeWindowError(
            f"change_windows has “{text}”, which is no window; write it such as “Mon-Fri 16:00-22:00” or "
            "“Sat,Sun 00:00-24:00”."
        ) from None
    return window


def problem(windows: object, moment: datetime, zone: str = "") -> str:
    """Why a change at this moment is refused; '' when it may go on, as always without windows.

    :param moment: the time of day on the host, by its own clock.
    :param zone: what the host calls the zone of that clock; the message names it.
    :raises ChangeWindowError: when one of them cannot be read, whatever the moment.
    """
    if isinstance(windows, str) or not isinstance(windows, Iterable):
        raise ChangeWindowError(
            f'change_windows is {windows!r}; it must be a list, such as ["Mon-Fri 16:00-22:00", "Sat,Sun 00:00-24:00"].'
        )
    texts = [str(text) for text in windows]
    # All of them are read, because a misspelt one is to be found on the day it is written.
    holding = [parse(text).holds(moment) for text in texts]
    if not texts or any(holding):
        return ""
    return (
        f"It is {DAYS[moment.weekday()]} {moment:%H:%M} {zone or 'local time'} there, and change_windows allows "
        f"changes only at {' and '.join(texts)}. Wait, or add -e change_forced=true."
    )


def _days(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = (piece.strip().title() for piece in part.partition("-"))
        begin, end = DAYS.index(first), DAYS.index(last if dash else first)
        # Sat-Mon goes over the end of the week.
        days.update((begin + offset) % 7 for offset in range((end - begin) % 7 + 1))
    return frozenset(days)


def _minute(text: str) -> int:
    hours, minutes = map(int, text.split(":"))
    if minutes > 59 or hours * 60 + minutes > MINUTES_A_DAY:
        raise ValueError
    return hours * 60 + minutes
