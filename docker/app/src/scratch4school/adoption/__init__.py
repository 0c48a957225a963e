"""Rows that come from elsewhere: a database of the original, or one of ours on the other engine.

The old database is only read. What its rows become here is said in one place (`old_rows`), so that bringing them over
(`transfer`), doing that again, and holding both against each other (`compare`) cannot disagree.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .. import schema
from ..config import DatabaseSettings
from ..database import make_engine
from . import old_rows
from . import transfer as moving
from .old_rows import OldRows, reading
from .transfer import Comparison, Moved

Say = Callable[[str], None]


def look(old: DatabaseSettings) -> dict[str, Any]:
    """What there is, what is wrong with it, and which files its rows name; SchemaRefused when it is not known."""
    with _opened(old, cuts=False) as rows:
        return old_rows.look(rows)


def transfer(old: DatabaseSettings, new: DatabaseSettings, cuts: bool, say: Say) -> dict[str, Moved]:
    """Make the rows of `new` those of `old`; SchemaRefused or DoesNotFit before anything is written."""
    with _opened(old, cuts) as rows, schema.owner_engine(new) as engine:
        _refuse_another_schema(new)
        return moving.transfer(rows, engine, say)


def compare(old: DatabaseSettings, new: DatabaseSettings, cuts: bool, say: Say) -> Comparison:
    """Hold `new` against `old`, row for row."""
    with _opened(old, cuts) as rows, schema.owner_engine(new) as engine:
        _refuse_another_schema(new)
        return moving.compare(rows, engine, say)


@contextmanager
def _opened(old: DatabaseSettings, cuts: bool) -> Iterator[OldRows]:
    engine = make_engine(old, connections=None)
    try:
        with reading(engine) as connection:
            yield old_rows.open_old(connection, cuts)
    finally:
        engine.dispose()


def _refuse_another_schema(new: DatabaseSettings) -> None:
    current, newest, _ = schema.check(new)
    if current != newest:
        raise schema.SchemaRefused(
            f"The database that the rows go to is at revision {current or 'none'}, and they need {newest}; run "
            "`scratch4school db upgrade` first."
        )
