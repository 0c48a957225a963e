"""Rows of an old database into ours, so often as one likes; and both held against each other, row for row.

Both sides are read in the order of their keys, as one merges two sorted lists, so a second transfer writes only what
has changed since the first. All of it is one transaction: cut short, it has not happened.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError

from ..tables import metadata
from .old_rows import TABLES, DoesNotFit, OldRows, Row, key_of, reading, stream

T = TypeVar("T")
Say = Callable[[str], None]

_AT_ONCE = 1000
_SAY_SECONDS = 5.0
# Differences that are named; the rest is counted.
_NAMED = 20


@dataclass
class Moved:
    """What a transfer did to one table."""

    rows: int = 0
    new: int = 0
    changed: int = 0
    gone: int = 0

    def __str__(self) -> str:
        return f"{self.rows:,} rows: {self.new:,} new, {self.changed:,} changed, {self.gone:,} gone"


@dataclass
class Comparison:
    """Rows by table that are the same on both sides, and in words the first that are not."""

    same: dict[str, int] = field(default_factory=dict)
    differences: int = 0
    named: list[str] = field(default_factory=list)


def transfer(old: OldRows, engine: Engine, say: Say) -> dict[str, Moved]:
    """Make our rows those of the old database. DoesNotFit before anything is written; one transaction.

    Rows that are gone there go here, too. Where no order of the changes pleases the tables, as when two groups have
    exchanged their names, all is written anew.
    """
    _refuse_what_does_not_fit(old)
    try:
        return _transfer(old, engine, say, afresh=False)
    except IntegrityError:
        say("Some changes cannot be made one by one; all rows are written anew.")
        return _transfer(old, engine, say, afresh=True)


def compare(old: OldRows, engine: Engine, say: Say) -> Comparison:
    """Hold every row against its old one, and tables that the old database lacks against emptiness."""
    found = Comparison()
    with reading(engine) as ours:
        for table in TABLES:
            if table not in old.tables:
                left = ours.scalar(sa.select(sa.func.count()).select_from(table)) or 0
                if left:
                    _differ(found, f"{table.name}: {left:,} rows that did not come from the old database", left)
                continue
            with _Told(table, say) as told:
                same = 0
                for there, here in told(_pairs(table, old, ours)):
                    if there == here:
                        same += 1
                    else:
                        _differ(found, _difference(table, there, here))
                found.same[table.name] = same
                told.summary = f"{same:,} rows are the same"
    return found


def _transfer(old: OldRows, engine: Engine, say: Say, afresh: bool) -> dict[str, Moved]:
    moved = {table.name: Moved() for table in old.tables}
    # What is there is read beside the transaction that changes it.
    with reading(engine) as ours, engine.begin() as writing:
        if afresh:
            for table in reversed(TABLES):
                writing.execute(sa.delete(table))
        else:
            for table in reversed(old.tables):
                gone = (here for there, here in _pairs(table, old, ours) if there is None and here is not None)
                for rows in _batches(gone):
                    moved[table.name].gone += len(rows)
                    writing.execute(sa.delete(table).where(_is_this(table)), [_bound(table, row) for row in rows])
        for table in old.tables:
            with _Told(table, say) as told:
                pairs = told((row, None) for row in old.rows(table)) if afresh else told(_pairs(table, old, ours))
                _write(writing, table, pairs, moved[table.name])
                told.summary = str(moved[table.name])
        _set_next_ids(writing, old.next_ids())
    return moved


def _write(writing: Connection, table: sa.Table, pairs: Iterator[tuple[Row | None, Row | None]], moved: Moved) -> None:
    for some in _batches(pairs):
        new = [there for there, here in some if there is not None and here is None]
        changed = [there for there, here in some if there is not None and here is not None and there != here]
        moved.rows += sum(there is not None for there, _ in some)
        moved.new += len(new)
        moved.changed += len(changed)
        if new:
            writing.execute(sa.insert(table), new)
        if changed:
            writing.execute(sa.update(table).where(_is_this(table)), [_changed(table, row) for row in changed])


def _pairs(table: sa.Table, old: OldRows, ours: Connection) -> Iterator[tuple[Row | None, Row | None]]:
    """Each key's old row and ours; None on the side that has none."""
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
        return f"{name} is not in the old database"
    columns = [column.name for column in table.columns if there[column.name] != here[column.name]]
    return f"{name} differs in {', '.join(columns)}"


def _differ(found: Comparison, words: str, count: int = 1) -> None:
    found.differences += count
    if len(found.named) < _NAMED:
        found.named.append(words)


def _refuse_what_does_not_fit(old: OldRows) -> None:
    for table in old.tables:
        for _ in old.rows(table):
            pass
    finding = next((one for one in old.findings.as_list() if one["finding"] == "too_long"), None)
    if finding and not old.cuts:
        count = finding["count"]
        what = (
            "1 value is longer than its column, or holds a NUL, namely"
            if count == 1
            else f"{count:,} values are longer than their column, or hold a NUL, such as"
        )
        raise DoesNotFit(
            f"{what} {finding['where'][0]}. Nothing was written. Say -e cut=true, at this step and at those after it "
            "(`scratch4school adopt`: --cut): it cuts to the column's length and takes out the NUL; the old database "
            "keeps the whole value."
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
    """What an UPDATE of the row is given: what it sets, and by which key it finds the row."""
    keys = {column.name for column in table.primary_key}
    return {**{name: value for name, value in row.items() if name not in keys}, **_bound(table, row)}


def _batches(found: Iterable[T], size: int = _AT_ONCE) -> Iterator[list[T]]:
    iterator = iter(found)
    while some := list(islice(iterator, size)):
        yield some


class _Told:
    """Says how far a table is, every few seconds, and what came of it."""

    def __init__(self, table: sa.Table, say: Say) -> None:
        self._table, self._say = table, say
        self.summary = ""

    def __enter__(self) -> "_Told":
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
