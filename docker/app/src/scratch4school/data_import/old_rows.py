"""The source database: which one it is, its rows as they will be in ours, and what is wrong with them.

Nothing is lost. An owner of projects who is no user becomes a user, so that a login with that id finds the projects
again. Values that our tables cannot store are found before anything is written, and reported by their key. The report
may be mailed, so it repeats no titles and no names of people.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from ..clock import utcnow
from ..database import file_columns, legacy_schema, schema
from ..database.legacy_schema import SchemaRefused
from ..database.tables import metadata
from ..storage.file_store import FileStore

Row = dict[str, Any]
Key = tuple[Any, ...]

# In this order a row comes after the rows that it refers to.
TABLES: tuple[sa.Table, ...] = tuple(metadata.sorted_tables)
_LEGACY_TABLES = tuple(table for table in TABLES if table.name in legacy_schema.TABLES)
_AT_ONCE = 1000
# How many rows of each finding are named; the others are only counted.
_NAMED = 20

# The import's action for each finding. The keys are also the order of the report.
RULES = {
    "no_file": "projects that name no file; they are imported unchanged and cannot be opened",
    "outside": "paths that do not lead into uploads/; they are imported unchanged, and there is no file",
    "unknown_owner": "missing users whom projects, assets or backpacks name; each becomes a user without a role, and a "
    "login under that id finds the projects again",
    "left_out": "rows that refer to missing rows; they are left out",
    "duplicate": "assets that exist twice with the same content and type; the one with the lowest number is imported",
    "as_text": "users whose data is text that holds JSON, as the original's copy program left it; it becomes JSON",
    "broken_json": "users whose data is invalid JSON; it is left out, and their next login stores it again",
    "too_long": "values that are longer than their column, or contain a NUL; imported only with -e cut=true, which "
    "cuts them to the column's length; the source database keeps the full values",
    "shared_with_no_group": "projects that are marked as shared but name no group; they are imported unchanged",
    "missing_asset": "backpack items whose asset is missing; they are imported unchanged",
}


class DoesNotFit(SchemaRefused):
    """Values that our tables cannot store; the message names them and says what to type."""


@dataclass
class Findings:
    """The faults of the old rows: for each finding its rows, by table and key."""

    # A dictionary instead of a list, because rows are read more than once and each finding counts once.
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
    """A connection that only reads; on SQLite it lets other connections write meanwhile."""
    return engine.execution_options(without_begin=True).connect()


def key_of(table: sa.Table, row: Row) -> Key:
    """The primary key of a row; it sorts as `stream` does."""
    return tuple(row[column.name] for column in table.primary_key)


def stream(connection: Connection, table: sa.Table, columns: Iterable[sa.ColumnElement[Any]]) -> Iterator[Row]:
    """All rows of a table in the order of their keys, which is the same on both engines: that of their UTF-8 bytes."""
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
    """Rows of our own database on the other engine; they are imported unchanged."""

    tables: tuple[sa.Table, ...] = TABLES

    def __init__(self, connection: Connection, cuts: bool) -> None:
        self.connection = connection
        # Whether a value that is longer than its column is cut.
        self.cuts = cuts
        self.findings = Findings()
        self.shape = f"ours, at revision {schema.current_revision(connection)}"

    def rows(self, table: sa.Table) -> Iterator[Row]:
        """The rows as they will be in our table, in the order of their keys."""
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
        """For each table with numbers: its column, and the next number above all that the source database has used."""
        found = {}
        for table in self.tables:
            column = table.autoincrement_column
            if column is None:
                continue
            highest = sa.select(sa.func.max(sa.column(column.name))).select_from(sa.table(table.name))
            used = max(self.connection.scalar(highest) or 0, self._used(table.name, column.name))
            found[table.name] = (column.name, used + 1)
        return found

    def _ours(self, table: sa.Table) -> Iterator[Row]:
        """The rows as ours, before the lengths of their values are checked."""
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

    def _used(self, table: str, column: str) -> int:
        """The highest number that the source database's own counter has used."""
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


class LegacyRows(OldRows):
    """Rows of the original, translated: paths cut at uploads/, a version where there is none, JSON as JSON."""

    tables = _LEGACY_TABLES

    def __init__(self, connection: Connection, cuts: bool) -> None:
        super().__init__(connection, cuts)
        self.shape = legacy_schema.shape(connection)
        inspector = sa.inspect(connection)
        self._columns = {
            table.name: {column["name"] for column in inspector.get_columns(table.name)} for table in self.tables
        }
        self._defaults = {table.name: self._defaults_of(table) for table in self.tables}
        self._users, self._groups, self._projects = (self._ids(name) for name in ("users", "groups", "projects"))
        self._missing_owners = self._find_missing_owners()
        self._users.update(self._missing_owners)
        self._duplicates = self._find_duplicate_assets()

    def _ours(self, table: sa.Table) -> Iterator[Row]:
        defaults = self._defaults[table.name]
        found = stream(self.connection, table, self._read(table))
        old = (self._translated(table, {**defaults, **row}) for row in found)
        kept = (row for row in old if row is not None)
        if table.name == "users":
            owners = (self._missing_user(name) for name in self._missing_owners)
            kept = merge(kept, owners, key=lambda row: key_of(table, row))
        return kept

    def _read(self, table: sa.Table) -> list[sa.ColumnElement[Any]]:
        """The old columns, under our names and types; JSON as text."""
        text = sa.Text()
        return [
            sa.cast(column, text).label(column.name) if isinstance(column.type, sa.JSON) else column
            for column in table.columns
            if column.name in self._columns[table.name]
        ]

    def _defaults_of(self, table: sa.Table) -> Row:
        """The values of our columns that the old table does not have: their server default, or None."""
        new = [column for column in table.columns if column.name not in self._columns[table.name]]
        defaults = {
            column.name: sa.cast(column.server_default.arg, column.type)
            for column in new
            if isinstance(column.server_default, sa.DefaultClause)
        }
        row: Row = dict.fromkeys(column.name for column in new)
        if defaults:
            values = (value.label(name) for name, value in defaults.items())
            row.update(self.connection.execute(sa.select(*values)).one()._mapping)
        return row

    def _ids(self, name: str) -> set[Any]:
        return set(self.connection.scalars(sa.select(metadata.tables[name].c.id)))

    def _find_missing_owners(self) -> list[str]:
        found: set[str] = set()
        for name in ("projects", "assets", "backpack_items"):
            found |= set(self.connection.scalars(sa.select(metadata.tables[name].c.owner_id).distinct()))
        missing = sorted(found - self._users)
        for user_id in missing:
            self.findings.note("unknown_owner", "users", [user_id])
        return missing

    def _find_duplicate_assets(self) -> set[int]:
        assets = metadata.tables["assets"]
        lowest = sa.select(sa.func.min(assets.c.id)).group_by(assets.c.md5, assets.c.asset_type)
        found = set(self.connection.scalars(sa.select(assets.c.id).where(assets.c.id.not_in(lowest))))
        for number in sorted(found):
            self.findings.note("duplicate", "assets", [number])
        return found

    def _missing_user(self, user_id: str) -> Row:
        row: Row = dict.fromkeys(column.name for column in metadata.tables["users"].columns)
        return {**row, **self._defaults["users"], "id": user_id, "username": user_id}

    def _translated(self, table: sa.Table, row: Row) -> Row | None:
        """A row as ours; None if our table cannot store it."""
        key = key_of(table, row)
        if missing := self._missing(table.name, row):
            self.findings.note("left_out", table.name, key, missing)
            return None
        if table.name == "users":
            row["user_data"] = self._json(key, row["user_data"])
        elif table.name == "projects":
            # The original's fix added the column; before it, each project has one version, as its default says.
            row["version"] = row["version"] or 1
            if not row["sb3_file_path"]:
                self.findings.note("no_file", table.name, key)
        elif table.name == "assets" and row["id"] in self._duplicates:
            return None
        for column in file_columns.of_table(table):
            if row.get(column):
                row[column] = self._cut(table, key, row[column])
        return row

    def _missing(self, table: str, row: Row) -> str:
        """The missing row that an association or a session refers to, or ''. Missing owners do not count; see above."""
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
    """The rows of a database of the original, or of ours at this revision; SchemaRefused for any other."""
    revision = schema.current_revision(connection)
    if revision is None:
        if legacy_schema.recognise(connection) is None:
            raise SchemaRefused("The source database is empty; there is no table in it.")
        return LegacyRows(connection, cuts)
    if revision != schema.head():
        raise SchemaRefused(
            f"The source database is one of ours at revision {revision}, and this release is at {schema.head()}; "
            "deploy this release there first."
        )
    return OldRows(connection, cuts)


def inspect(old: OldRows) -> dict[str, Any]:
    """Content and faults of the source database, and the files that its rows name; read-only.

    `files` is by path: the rows that name the file, its kind, and its size and hash where a row has them.
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
            _name_files(files, table, key, row)
            if name == "projects" and row["is_published"] and row["id"] not in shared:
                old.findings.note("shared_with_no_group", name, key)
            elif name == "oauth_sessions":
                live += row["expires_at"] > now
            elif name == "backpack_items" and {row["body"].partition(".")[0], row["thumbnail"]} - assets:
                old.findings.note("missing_asset", name, key)
    return {
        "shape": old.shape,
        "rows": old.counts(),
        "become": become,
        "sessions": {"live": live, "expired": become["oauth_sessions"] - live},
        "findings": old.findings.as_list(),
        "files": files,
    }


def _name_files(files: dict[str, dict[str, Any]], table: sa.Table, key: Key, row: Row) -> None:
    for column, kind in file_columns.of_table(table).items():
        path = FileStore.relative(row[column])
        if path is not None:
            named = files.setdefault(path, {"kind": kind, "by": []})
            named["by"].append(f"{table.name} {'/'.join(map(str, key))}")
            named.update({name: row[name] for name in ("size", "md5", "sha256") if row.get(name) is not None})
