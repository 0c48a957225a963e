"""The clock of the application; every row holds the same kind of time."""

from datetime import UTC, datetime

EPOCH = datetime(1970, 1, 1)


def utcnow() -> datetime:
    """The current moment as the database stores it: UTC, without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def isoformat(moment: datetime | None) -> str | None:
    """A stored moment as the front end expects it: ISO 8601 without a zone."""
    return moment.isoformat() if moment is not None else None


def isoformat_utc(moment: datetime | None) -> str | None:
    """A stored moment for monitoring, which compares it with its own clock: whole seconds, with the Z of UTC."""
    return f"{moment.isoformat(timespec='seconds')}Z" if moment is not None else None
