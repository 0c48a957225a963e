"""Transferring the rows of a source database into ours, as often as needed, and comparing both row for row.

Both sides are read in the order of their keys and merged like two sorted lists. So a second transfer writes only the
changes since the first. A transfer is one transaction: if it is interrupted, it has changed nothing.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError

from ..database.tables import metadata
from .old_rows import TABLES, DoesNotFit, OldRows, Row, key_of, reading, stream

T = TypeVar("T")
Say = Callable[[str], None]

_AT_ONCE = 1000
_SAY_SECONDS = 5.0
# Differences that are named; the others are only counted.
_NAMED = 20


@dataclass
class Transferred:
    """The changes that a transfer made to one table."""

    rows: int = 0
    new: int = 0
    changed: int = 0
    gone: int = 0

    def __str__(self) -> str:
        return f"{self.rows:,} rows: {self.new:,} new, {self.changed:,} changed, {self.gone:,} gone"


@dataclass
class Comparison:
    """The number of equal rows by table, the number of differences, and descriptions of the first ones."""

    same: dict[str, int] = field(default_factory=dict)
    differences: int = 0
    named: list[str] = field(default_factory=list)


def transfer(old: OldRows, engine: Engine, say: Say) -> dict[str, Transferred]:
    """Make our rows those of the source database, in one transaction; DoesNotFit before anything is written.

    Rows that are deleted there are deleted here. If the tables accept the changes in no order, as when two groups have
    exchanged their names, all rows are deleted and inserted again.
    """
    _require_fitting(old)
    try:
        return _transfer(old, engine, say, from_empty=False)
    except IntegrityError:
        say("Some changes cannot be made one by one; all rows are deleted and inserted again.")
        return _transfer(old, engine, say, from_empty=True)


def compare(old: OldRows, engine: Engine, say: Say) -> Comparison:
    """Compare every row with its old one; tables that the source database does not have must be empty."""
    found = Comparison()
    with reading(engine) as ours:
        for table in TABLES:
            if table not in old.tables:
                left = ours.scalar(sa.select(sa.func.count()).select_from(table)) or 0
                if left:
                    _differ(found, f"{table.name}: {left:,} rows that did not come from the source database", left)
                continue
            with _Progress(table, say) as progress:
                same = 0
                for there, here in progress(_pairs(table, old, ours)):
                    if there == here:
                        same += 1
                    else:
                        _differ(found, _difference(table, there, here))
                found.same[table.name] = same
                progress.summary = f"{same:,} rows are the same"
    return found


def _transfer(old: OldRows, engine: Engine, say: Say, from_empty: bool) -> dict[str, Transferred]:
    transferred = {table.name: Transferred() for table in old.tables}
    # Reads use a connection of their own beside the transaction that writes.
    with reading(engine) as ours, engine.begin() as writing:
        if from_empty:
            for table in reversed(TABLES):
                writing.execute(sa.delete(table))
        else:
            for table in reversed(old.tables):
                gone = (here for there, here in _pairs(table, old, ours) if there is None and here is not None)
                for rows in _batches(gone):
                    transferred[table.name].gone += len(rows)
                    writing.execute(sa.delete(table).where(_is_this(table)), [_bound(table, row) for row in rows])
        for table in old.tables:
            with _Progress(table, say) as progress:
                pairs = (
                    progress((row, None) for row in old.rows(table))
                    if from_empty
                    else progress(_pairs(table, old, ours))
                )
                _write(writing, table, pairs, transferred[table.name])
                progress.summary = str(transferred[table.name])
        _set_next_ids(writing, old.next_ids())
    return transferred


def _write(
    writing: Connection, table: sa.Table, pairs: Iterator[tuple[Row | None, Row | None]], done: Transferred
) -> None:
    for some in _batches(pairs):
        new = [there for there, here in some if there is not None and here is None]
        changed = [there for there, here in some if there is not None and here is not None and there != here]
        done.rows += sum(there is not None for there, _ in some)
        done.new += len(new)
        done.changed += len(changed)
        if new:
            writing.execute(sa.insert(table), new)
        if changed:
            writing.execute(sa.update(table).where(_is_this(table)), [_changed(table, row) for row in changed])


def _pairs(table: sa.Table, old: OldRows, ours: Connection) -> Iterator[tuple[Row | None, Row | None]]:
    """For each key the old row and ours; None on the side that has no such row."""
    there, here = old.rows(table), stream(ours, table, table.columns)
    left, right = next(there, None), next(here, None)
    while left is not None or right is not None:
        if right is None or (left is not None and key_of(table, left) < key_of(table, right)):
            yield left, None
            left = next(there, None)
        elif left is None or key_of(table, right) < key_of(table, left):
            yield None, right
            right = next(here, None)
        else:
            yield left, right
            left, right = next(there, None), next(here, None)


def _difference(table: sa.Table, there: Row | None, here: Row | None) -> str:
    name = f"{table.name} {'/'.join(map(str, key_of(table, there or here or {})))}"
    if here is None:
        return f"{name} is not here"
    if there is None:
        return f"{name} is not in the source database"
    columns = [column.name for column in table.columns if there[column.name] != here[column.name]]
    return f"{name} differs in {', '.join(columns)}"


def _differ(found: Comparison, words: str, count: int = 1) -> None:
    found.differences += count
    if len(found.named) < _NAMED:
        found.named.append(words)


def _require_fitting(old: OldRows) -> None:
    for table in old.tables:
        for _ in old.rows(table):
            pass
    finding = next((one for one in old.findings.as_list() if one["finding"] == "too_long"), None)
    if finding and not old.cuts:
        count = finding["count"]
        what = (
            "1 value is longer than its column, or contains a NUL, namely"
            if count == 1
            else f"{count:,} values are longer than their column, or contain a NUL, such as"
        )
        raise DoesNotFit(
            f"{what} {finding['where'][0]}. Nothing was written. Type -e cut=true at this step and at those after it "
            "(`scratch4school import`: --cut). It cuts to the column's length and removes the NUL; the source database "
            "keeps the full value."
        )


def _set_next_ids(writing: Connection, next_ids: dict[str, tuple[str, int]]) -> None:
    for name, (column, number) in next_ids.items():
        if writing.dialect.name == "postgresql":
            sequence = sa.func.pg_get_serial_sequence(name, column)
            writing.execute(sa.select(sa.func.setval(sequence, number, False)))
        elif metadata.tables[name].dialect_kwargs.get("sqlite_autoincrement"):
            writing.exec_driver_sql("DELETE FROM sqlite_sequence WHERE name = ?", (name,))
            writing.exec_driver_sql("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, number - 1))


def _bound(table: sa.Table, row: Row) -> Row:
    return {f"old_{column.name}": row[column.name] for column in table.primary_key}


def _is_this(table: sa.Table) -> sa.ColumnElement[bool]:
    return sa.and_(*(column == sa.bindparam(f"old_{column.name}") for column in table.primary_key))


def _changed(table: sa.Table, row: Row) -> Row:
    """The parameters of the row's UPDATE: the new values, and the key."""
    keys = {column.name for column in table.primary_key}
    return {**{name: value for name, value in row.items() if name not in keys}, **_bound(table, row)}


def _batches(found: Iterable[T], size: int = _AT_ONCE) -> Iterator[list[T]]:
    iterator = iter(found)
    while some := list(islice(iterator, size)):
        yield some


class _Progress:
    """Reports the progress of one table every few seconds, and its summary at the end."""

    def __init__(self, table: sa.Table, say: Say) -> None:
        self._table, self._say = table, say
        self.summary = ""

    def __enter__(self) -> "_Progress":
        self._began = self._said = time.monotonic()
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        if failed is None:
            self._say(f"{self._table.name}: {self.summary} ({time.monotonic() - self._began:.1f} s)")

    def __call__(self, rows: Iterator[Any]) -> Iterator[Any]:
        for number, row in enumerate(rows, start=1):
            if time.monotonic() - self._said > _SAY_SECONDS:
                self._said = time.monotonic()
                self._say(f"{self._table.name}: {number:,} rows so far")
            yield row
