"""The columns that name files of the uploads folder: tables.py declares them by `info={"file": KIND}`.

The sweep and the import read the declaration here. The backup is another program; tests/unit/test_file_columns.py, at
the root of the repository, compares its list with the declaration.
"""

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .tables import metadata

_NO_PATH = (sa.Boolean, sa.Date, sa.DateTime, sa.Integer, sa.Numeric, sa.Time)


def of_table(table: sa.Table) -> dict[str, str]:
    """By name the columns of a table that name files, each with the kind of its files: project, thumbnail, asset."""
    return {column.name: column.info["file"] for column in table.columns if "file" in column.info}


def declared() -> list[sa.Column[str]]:
    """All columns that are declared to name files."""
    return [table.columns[name] for table in metadata.sorted_tables for name in of_table(table)]


def undeclared(connection: Connection) -> list[sa.ColumnElement[str]]:
    """All other columns of the database, as it is now, that can contain a path; each is cast to text.

    They may name files as well: a column whose declaration was forgotten, or one from a newer release than this, after
    a rollback.
    """
    known = {(column.table.name, column.name) for column in declared()}
    found: list[sa.ColumnElement[str]] = []
    for (_, name), columns in sa.inspect(connection).get_multi_columns().items():
        table = sa.table(name, *(sa.column(column["name"]) for column in columns))
        found += [
            sa.cast(table.columns[column["name"]], sa.Text)
            for column in columns
            if (name, column["name"]) not in known and not isinstance(column["type"], _NO_PATH)
        ]
    return found
