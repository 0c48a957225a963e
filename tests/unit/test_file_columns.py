"""The columns that name files: the backup's list equals the application's declaration.

The application declares them in its tables. The backup is another program, without SQLAlchemy, so it has its own list.
"""

from __future__ import annotations

import ast
from pathlib import Path

from scratch4school_host.databases.dump_reader import FILE_COLUMNS

ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT / "docker" / "app" / "src" / "scratch4school" / "database" / "tables.py"


def declarations() -> dict[str, dict[str, bool]]:
    """By table and column whether the application declares that the column names files."""
    found: dict[str, dict[str, bool]] = {}
    for table in (node for node in ast.walk(ast.parse(TABLES.read_text())) if is_call(node, "Table")):
        columns = [argument for argument in table.args if is_call(argument, "Column")]
        found[ast.literal_eval(table.args[0])] = {
            ast.literal_eval(column.args[0]): any(
                keyword.arg == "info" and "file" in ast.literal_eval(keyword.value) for keyword in column.keywords
            )
            for column in columns
        }
    return found


def is_call(node: ast.AST, name: str) -> bool:
    """Whether a node is a call of `sa.<name>`."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == name


def test_backup_reads_every_column_that_names_files() -> None:
    """Else a backup would not notice that the file of a row is missing."""
    declared = {
        table: {name for name, names_file in columns.items() if names_file} for table, columns in declarations().items()
    }
    read = {table: {path for path, _, _ in columns} for table, columns in FILE_COLUMNS.items()}
    assert read == {table: names for table, names in declared.items() if names}


def test_backup_compares_files_with_columns_that_exist() -> None:
    """A size or hash under a wrong name would be compared with nothing."""
    tables = declarations()
    beside = {
        (table, name) for table, columns in FILE_COLUMNS.items() for _, *names in columns for name in names if name
    }
    assert beside
    assert [name for table, name in beside if name not in tables[table]] == []
