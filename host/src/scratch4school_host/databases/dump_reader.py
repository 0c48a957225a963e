"""Counts the rows of a PostgreSQL dump, and lists the files that they name, from the output of pg_restore.

The rows are in the text format of COPY: https://www.postgresql.org/docs/17/sql-copy.html, "Text Format".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

# By table: columns with the path of a file, each with the columns of its size and SHA-256, None where there is none.
FILE_COLUMNS: dict[str, list[tuple[str, str | None, str | None]]] = {
    "projects": [("sb3_file_path", None, None), ("thumbnail_path", None, None)],
    "project_revisions": [("file_path", "size", "sha256")],
    "assets": [("file_path", "size", None)],
}

_COPY = re.compile(rb"^COPY (?:public\.)?\"?(\w+)\"? \((.*)\) FROM stdin;\n$")
_ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


@dataclass
class Contents:
    """Rows and files of a database.

    :param rows: number of rows by table.
    :param named: files that rows name, with size in bytes and SHA-256, each None where no row has it.
    :param schema: the schema revision.
    """

    rows: dict[str, int] = field(default_factory=dict)
    named: dict[str, tuple[int | None, str | None]] = field(default_factory=dict)
    schema: str = ""

    def name(self, stored: str | None, size: str | None, sha: str | None) -> None:
        """Add a file that a row names; a path that `relative` rejects is ignored."""
        path = relative(stored)
        if path:
            known_size, known_sha = self.named.get(path, (None, None))
            self.named[path] = (int(size) if size else known_size, sha or known_sha)


def relative(stored: str | None) -> str | None:
    """The path of a row, relative to the uploads folder; None when it is not below that folder.

    The original application stores absolute paths; the part after `/uploads/` counts.
    """
    if not stored or "\0" in stored:
        return None
    if stored.startswith("/"):
        _, found, stored = stored.rpartition("/uploads/")
        if not found:
            return None
    path = PurePosixPath(stored)
    if path.is_absolute() or not path.parts or ".." in path.parts or path.parts[0].startswith("."):
        return None
    return str(path)


def read_dump(lines: Iterable[bytes]) -> Contents:
    """Read the output of `pg_restore --data-only --file=-`, line by line."""
    contents = Contents()
    table, columns = "", []
    positions: list[Sequence[int | None]] = []
    for line in lines:
        if not table:
            if found := _COPY.match(line):
                table = found[1].decode()
                columns = [name.strip(' "') for name in found[2].decode().split(",")]
                contents.rows[table] = 0
                positions = [
                    [columns.index(name) if name in columns else None for name in named]
                    for named in FILE_COLUMNS.get(table, [])
                ]
        elif line == b"\\.\n":
            table = ""
        else:
            contents.rows[table] += 1
            if positions:
                fields = line[:-1].split(b"\t")
                for places in positions:
                    contents.name(*(None if at is None else _value(fields[at]) for at in places))
            elif table == "alembic_version":
                contents.schema = _value(line[:-1].split(b"\t")[0]) or ""
    return contents


def _value(raw: bytes) -> str | None:
    if raw == b"\\N":
        return None
    if b"\\" in raw:
        raw = re.sub(rb"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), raw, flags=re.DOTALL)
    return raw.decode("utf-8", "surrogateescape")
