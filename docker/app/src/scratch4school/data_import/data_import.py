"""The three steps of an import: inspect the source database, transfer its rows, and compare both databases.

The source database is only read. One module, old_rows.py, translates each row. So the transfer, a repeated
transfer and the comparison cannot disagree.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..config import DatabaseSettings
from ..database import schema
from ..database.engine import make_engine
from . import old_rows
from . import transfer as transfers
from .old_rows import OldRows, reading
from .transfer import Comparison, Transferred

Say = Callable[[str], None]


def inspect(old: DatabaseSettings) -> dict[str, Any]:
    """Content and faults of the source database, and the files that it names; SchemaRefused if it is unknown."""
    with _opened(old, cuts=False) as rows:
        return old_rows.inspect(rows)


def transfer(old: DatabaseSettings, new: DatabaseSettings, cuts: bool, say: Say) -> dict[str, Transferred]:
    """Make the database `new` equal to `old`; SchemaRefused or DoesNotFit before anything is written."""
    with _opened(old, cuts) as rows, schema.owner_engine(new) as engine:
        _require_newest_schema(new)
        return transfers.transfer(rows, engine, say)


def compare(old: DatabaseSettings, new: DatabaseSettings, cuts: bool, say: Say) -> Comparison:
    """Compare `new` with `old`, row for row."""
    with _opened(old, cuts) as rows, schema.owner_engine(new) as engine:
        _require_newest_schema(new)
        return transfers.compare(rows, engine, say)


@contextmanager
def _opened(old: DatabaseSettings, cuts: bool) -> Iterator[OldRows]:
    engine = make_engine(old, connections=None)
    try:
        with reading(engine) as connection:
            yield old_rows.open_old(connection, cuts)
    finally:
        engine.dispose()


def _require_newest_schema(new: DatabaseSettings) -> None:
    current, newest, _ = schema.check(new)
    if current != newest:
        raise schema.SchemaRefused(
            f"The database that the rows go to is at revision {current or 'none'}, and they need {newest}; run "
            "`scratch4school db upgrade` first."
        )
