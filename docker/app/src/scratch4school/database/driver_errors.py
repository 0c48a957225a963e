"""The meaning of an error of PostgreSQL or SQLite: try again, unavailable now, or a fault of the caller."""

import sqlite3

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

# After each of these the transaction was rolled back and may be tried again.
_CONTENTION_CODES = {"40001": "serialization", "40P01": "deadlock", "55P03": "lock_timeout"}
_SQLITE_OUT_OF_SERVICE = (
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
)


def retry_reason(error: DBAPIError) -> str | None:
    """Why another try may succeed, as a label for the metrics; None when it would fail again."""
    if is_disconnect(error):
        return "disconnect"
    code = getattr(error.orig, "pgcode", None)
    if code in _CONTENTION_CODES:
        return _CONTENTION_CODES[code]
    if isinstance(error.orig, sqlite3.OperationalError) and "locked" in str(error.orig):
        return "sqlite_busy"
    return None


def is_out_of_service(error: DBAPIError) -> bool:
    """Whether the database answers but cannot do this now: time limit, read-only, out of disk or memory."""
    if isinstance(error.orig, sqlite3.Error):
        return sqlite_code(error) in _SQLITE_OUT_OF_SERVICE
    code = getattr(error.orig, "pgcode", None) or ""
    return code in ("57014", "25006") or code.startswith("53")


def is_disconnect(error: DBAPIError) -> bool:
    """Whether the connection to PostgreSQL is lost."""
    if isinstance(error.orig, sqlite3.Error):
        return False
    if error.connection_invalidated:
        return True
    code = getattr(error.orig, "pgcode", None)
    # Class 08: connection lost. 57P0x: the server stops or starts. 53300: the server has no connection left.
    # An error without a code does not come from PostgreSQL, but from the network, libpq or PgBouncer.
    if code is None:
        return isinstance(error, OperationalError | InterfaceError)
    return code.startswith(("08", "57P0")) or code == "53300"


def sqlite_code(error: DBAPIError) -> int:
    """SQLite's primary result code; its extended codes add details in the higher bits."""
    return int(getattr(error.orig, "sqlite_errorcode", 0)) & 0xFF
