"""Moments in UTC: ISO 8601 with a Z in files, `2026-11-24 16:50 UTC` in messages."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone

# `datetime.UTC` came with Python 3.11.
UTC = timezone.utc


def now(timespec: str = "seconds") -> str:
    """The current time for a file: `2026-11-24T16:50:01Z`; `timespec` as for datetime.isoformat."""
    return datetime.now(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def readable(moment: object) -> str:
    """Format a moment for a message: `2026-11-24T16:50:01.000Z` → `2026-11-24 16:50 UTC`.

    A text that is not a moment, or has no time zone, is returned unchanged.
    """
    # Python 3.10 reads neither a Z nor the nine digits of a second that restic writes.
    text = re.sub(r"\.\d+", "", str(moment)).replace("Z", "+00:00")
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return str(moment)
    return f"{parsed.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if parsed.tzinfo else str(moment)


def seconds_since(moment: str) -> float:
    """Seconds since a moment from a file; since 1970 when the text is not a moment."""
    try:
        return time.time() - datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return time.time()
