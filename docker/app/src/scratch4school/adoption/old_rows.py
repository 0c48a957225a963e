"""The old database: which one it is, its rows as they will stand in ours, and what is wrong with them.

Nothing is lost on the way. Who is named by projects and is no user becomes one, so that a login with that name finds
them again. What our tables could not hold is found before anything is written, and named by its key; titles and names
of people are not repeated, because the report is meant to be mailed.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from .. import originals, schema
from ..clock import utcnow
from ..files import FileStore
from ..originals import SchemaRefused
from ..tables import metadata

Row = dict[str, Any]
Key = tuple[Any, ...]

# Read in this order a row comes after those it refers to.
TABLES: tuple[sa.Table, ...] = tuple(metadata.sorted_tables)
_ORIGINAL = tuple(table for table in TABLES if table.name in originals.TABLES)
_AT_ONCE = 1000
# How many of each finding are named; the rest is counted.
_NAMED = 20

# Which columns name a file, and what kind of file that is.
_NAMING = {
    "projects": {"sb3_file_path": "project", "thumbnail_path": "picture"},
    "project_revisions": {"file_path": "project"},
    "assets": {"file_path": "asset"},
}

# What becomes of what is found. The keys are also the order of the report.
RULES = {
    "no_file": "projects that name no file; they come over so and cannot be opened",
    "outside": "paths that do not lead into uploads/; they come over as they are, and nothing is there",
    "unknown_owner": "users whom projects, assets or backpacks name and who are not there; each becomes a user without "
    "a role, and whoever logs in under that id has them again",
    "left_out": "rows that refer to rows that are not there; they are left out",
    "doubled": "assets of one content and type that are there twice; the one with the lowest number comes over",
    "as_text": "users whose data is a text that holds JSON, as the original's copier left it; it becomes JSON",
    "broken_json": "users whose data is no JSON; it is left out and comes again with their next login",
    "too_long": "values that are longer than their column, or hold a NUL; they come over only with -e cut=true, which "
    "cuts them to the column's length, while the old database keeps them whole",
    "shared_with_nobody": "projects that are called shared, and no group is named; they come over so",
    "lacking_asset": "things in backpacks whose asset is not there; they come over so",
}


class DoesNotFit(SchemaRefused):
    """Values that our tables could not hold; the message names them and says what to do."""


@dataclass
class Findings:
    """What is wrong with the old rows: by finding how often, and the first few by table and key."""

    # Not a list: rows are read more than once, and what is wrong with them is wrong once.
    where: dict[str, dict[str, None]] = field(default_factory=dict)

    def note(self, finding: str, table: str, key: Iterable[Any], what: str = "") -> None:
        named = f"{table} {'/'.join(map(str, key))}{f' ({what})' if what else ''}"
        self.where.setdefault(finding, {})[named] = None

    def as_list(self) -> list[dict[str, Any]]:
        """For the report, in the order of the rules."""
        return [
            {"finding": name, "rule": rule, "count": len(self.where[name]), "where": list(self.where[name])[:_NAMED]}
            for name, rule in RULES.items()
            if name in self.where
        ]


def reading(engine: Engine) -> Connection:
    """A connection that only reads: on SQLite it lets somebody else write meanwhile."""
    return engine.execution_options(without_begin=True).connect()


def key_of(table: sa.Table, row: Row) -> Key:
    """What tells a row from all others of its table, and sorts as `stream` does."""
    return tuple(row[column.name] for column in table.primary_key)


def stream(connection: Connection, table: sa.Table, columns: Iterable[sa.ColumnElement[Any]]) -> Iterator[Row]:
    """All rows of a table in the order of their keys, which is the same on both engines: that of UTF-8's bytes."""
    is_postgres = connection.dialect.name == "postgresql"
    order = [
        column.collate("C") if is_postgres and isinstance(column.type, sa.String) else column
        for column in table.primary_key
    ]
    found = connection.execution_options(stream_results=True, yield_per=_AT_ONCE).execute(
        sa.select(*columns).order_by(*order)
    )
    yield from (dict(row._mapping) for row in found)


class OldRows:
    """Rows of our own, from the other engine: they come over as they are."""

    tables: tuple[sa.Table, ...] = TABLES

    def __init__(self, connection: Connection, cuts: bool) -> None:
        self.connection = connection
        # Whether what is longer than its column is cut.
        self.cuts = cuts
        self.findings = Findings()
        self.shape = f"ours, at revision {schema.stamped_revision(connection)}"

    def rows(self, table: sa.Table) -> Iterator[Row]:
        """The rows as they will stand in our table, in the order of their keys."""
        for row in self._ours(table):
            yield self._fitting(table, row)

    def counts(self) -> dict[str, int]:
        """How many rows each old table has."""
        count = sa.func.count()
        return {
            table.name: self.connection.scalar(sa.select(count).select_from(sa.table(table.name))) or 0
            for table in self.tables
        }

    def next_ids(self) -> dict[str, tuple[str, int]]:
        """By table its numbered column and the number to come, above all that the old database knows to have given."""
        found = {}
        for table in self.tables:
            column = table.autoincrement_column
            if column is None:
                continue
            highest = sa.select(sa.func.max(sa.column(column.name))).select_from(sa.table(table.name))
            given = max(self.connection.scalar(highest) or 0, self._given(table.name, column.name))
            found[table.name] = (column.name, given + 1)
        return found

    def _ours(self, table: sa.Table) -> Iterator[Row]:
        """The rows as ours, whether they fit or not."""
        return stream(self.connection, table, table.columns)

    def _fitting(self, table: sa.Table, row: Row) -> Row:
        for column in table.columns:
            value = row.get(column.name)
            if not isinstance(value, str) or not isinstance(column.type, sa.String):
                continue
            length = column.type.length or len(value)
            if len(value) <= length and "\0" not in value:
                continue
            what = (
                f"{column.name}: {len(value)} characters, {length} fit"
                if len(value) > length
                else f"{column.name}: a NUL"
            )
            self.findings.note("too_long", table.name, key_of(table, row), what)
            if self.cuts:
                row[column.name] = value.replace("\0", "")[:length]
        return row

    def _given(self, table: str, column: str) -> int:
        """The highest number that the old database remembers having given."""
        if self.connection.dialect.name == "postgresql":
            sequence = self.connection.scalar(sa.select(sa.func.pg_get_serial_sequence(table, column)))
            if sequence is None:
                return 0
            # The name comes quoted from the server itself.
            return int(self.connection.exec_driver_sql(f"SELECT last_value FROM {sequence}").scalar() or 0)  # noqa: S608
        if not sa.inspect(self.connection).has_table("sqlite_sequence"):
            return 0
        remembered = (
            sa.select(sa.column("seq")).select_from(sa.table("sqlite_sequence")).where(sa.column("name") == table)
        )
        return int(self.connection.scalar(remembered) or 0)


class OriginalRows(OldRows):
    """Rows of the original, translated: paths cut at uploads/, a version where there is none, JSON as JSON."""

    tables = _ORIGINAL

    def __init__(self, connection: Connection, cuts: bool) -> None:
        super().__init__(connection, cuts)
        self.shape = originals.shape(connection)
        inspector = sa.inspect(connection)
        # The revision's number came with the fix; without it there is one version of each.
        self._columns = {
            table.name: {column["name"] for column in inspector.get_columns(table.name)} for table in self.tables
        }
        self._users, self._groups, self._projects = (self._ids(name) for name in ("users", "groups", "projects"))
        self._strangers = self._unknown_owners()
        self._users.update(self._strangers)
        self._doubled = self._doubled_assets()

    def _ours(self, table: sa.Table) -> Iterator[Row]:
        old = (self._translated(table, row) for row in stream(self.connection, table, self._read(table)))
        there = (row for row in old if row is not None)
        if table.name == "users":
            strangers = (self._stranger(name) for name in self._strangers)
            there = merge(there, strangers, key=lambda row: key_of(table, row))
        return there

    def _read(self, table: sa.Table) -> list[sa.ColumnElement[Any]]:
        """The old columns, under our names and types; JSON as the text that it is."""
        text = sa.Text()
        return [
            sa.cast(column, text).label(column.name) if isinstance(column.type, sa.JSON) else column
            for column in table.columns
            if column.name in self._columns[table.name]
        ]

    def _ids(self, name: str) -> set[Any]:
        return set(self.connection.scalars(sa.select(metadata.tables[name].c.id)))

    def _unknown_owners(self) -> list[str]:
        found: set[str] = set()
        for name in ("projects", "assets", "backpack_items"):
            found |= set(self.connection.scalars(sa.select(metadata.tables[name].c.owner_id).distinct()))
        strangers = sorted(found - self._users)
        for stranger in strangers:
            self.findings.note("unknown_owner", "users", [stranger])
        return strangers

    def _doubled_assets(self) -> set[int]:
        assets = metadata.tables["assets"]
        lowest = sa.select(sa.func.min(assets.c.id)).group_by(assets.c.md5, assets.c.asset_type)
        found = set(self.connection.scalars(sa.select(assets.c.id).where(assets.c.id.not_in(lowest))))
        for number in sorted(found):
            self.findings.note("doubled", "assets", [number])
        return found

    @staticmethod
    def _stranger(name: str) -> Row:
        row: Row = dict.fromkeys(column.name for column in metadata.tables["users"].columns)
        return {**row, "id": name, "username": name}

    def _translated(self, table: sa.Table, row: Row) -> Row | None:
        """A row as ours; None where it cannot stand in our table."""
        key = key_of(table, row)
        if lacking := self._lacking(table.name, row):
            self.findings.note("left_out", table.name, key, lacking)
            return None
        if table.name == "users":
            row["user_data"] = self._json(key, row["user_data"])
        elif table.name == "projects":
            row["version"] = row.get("version") or 1
            if not row["sb3_file_path"]:
                self.findings.note("no_file", table.name, key)
        elif table.name == "assets" and row["id"] in self._doubled:
            return None
        for column in ("sb3_file_path", "thumbnail_path", "file_path"):
            if row.get(column):
                row[column] = self._cut(table, key, row[column])
        return row

    def _lacking(self, table: str, row: Row) -> str:
        """Which row an association or a login lacks; '' when none. Owners become users, so nothing lacks them."""
        if table in ("user_groups", "oauth_sessions") and row["user_id"] not in self._users:
            return f"user {row['user_id']}"
        if table in ("user_groups", "project_groups") and row["group_id"] not in self._groups:
            return f"group {row['group_id']}"
        if table == "project_groups" and row["project_id"] not in self._projects:
            return f"project {row['project_id']}"
        return ""

    def _json(self, key: Key, text: str | None) -> Any:
        try:
            data = json.loads(text) if text else None
            if isinstance(data, str):
                data = json.loads(data)
                self.findings.note("as_text", "users", key)
        except ValueError:
            self.findings.note("broken_json", "users", key)
            return None
        return data

    def _cut(self, table: sa.Table, key: Key, stored: str) -> str:
        relative = FileStore.relative(stored)
        if relative is None:
            self.findings.note("outside", table.name, key)
        return relative or stored


def open_old(connection: Connection, cuts: bool = False) -> OldRows:
    """The rows of a database of the original, or of ours at this revision; SchemaRefused when it is neither."""
    revision = schema.stamped_revision(connection)
    if revision is None:
        if originals.recognise(connection) is None:
            raise SchemaRefused("The old database is empty; there is no table in it.")
        return OriginalRows(connection, cuts)
    if revision != schema.head():
        raise SchemaRefused(
            f"The old database is one of ours at revision {revision}, and this release is at {schema.head()}; deploy "
            "this release there first."
        )
    return OldRows(connection, cuts)


def look(old: OldRows) -> dict[str, Any]:
    """What there is, what is wrong with it, and which files its rows name; nothing is changed.

    Files are by path, each with the rows that name it and what it should be: a project, a picture, or an asset of a
    certain size and MD5.
    """
    tables = {table.name: table for table in old.tables}
    shared = {row["project_id"] for row in old.rows(tables["project_groups"])}
    assets = {row["asset_id"] for row in old.rows(tables["assets"])}
    files: dict[str, dict[str, Any]] = {}
    become: dict[str, int] = dict.fromkeys(tables, 0)
    now, live = utcnow(), 0
    for name, table in tables.items():
        for row in old.rows(table):
            become[name] += 1
            key = key_of(table, row)
            _name_files(files, name, key, row)
            if name == "projects" and row["is_published"] and row["id"] not in shared:
                old.findings.note("shared_with_nobody", name, key)
            elif name == "oauth_sessions":
                live += row["expires_at"] > now
            elif name == "backpack_items" and {row["body"].partition(".")[0], row["thumbnail"]} - assets:
                old.findings.note("lacking_asset", name, key)
    return {
        "shape": old.shape,
        "rows": old.counts(),
        "become": become,
        "sessions": {"live": live, "expired": become["oauth_sessions"] - live},
        "findings": old.findings.as_list(),
        "files": files,
    }


def _name_files(files: dict[str, dict[str, Any]], table: str, key: Key, row: Row) -> None:
    for column, kind in _NAMING.get(table, {}).items():
        path = FileStore.relative(row[column])
        if path is not None:
            named = files.setdefault(path, {"kind": kind, "by": []})
            named["by"].append(f"{table} {'/'.join(map(str, key))}")
            named.update({name: row[name] for name in ("size", "md5", "sha256") if row.get(name) is not None})
