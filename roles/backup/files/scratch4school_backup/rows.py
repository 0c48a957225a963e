"""Reads what a dump holds, from the text that pg_restore makes of it: how many rows, and the files that they name.

The format is that of COPY: https://www.postgresql.org/docs/17/sql-copy.html, "Text Format".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

# Which columns name a file, and which beside them say what it must be.
NAMING: dict[str, list[tuple[str, str | None, str | None]]] = {
    "projects": [("sb3_file_path", None, None), ("thumbnail_path", None, None)],
    "project_revisions": [("file_path", "size", "sha256")],
    "assets": [("file_path", "size", None)],
}

_COPY = re.compile(rb"^COPY (?:public\.)?\"?(\w+)\"? \((.*)\) FROM stdin;\n$")
_ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


@dataclass
class Contents:
    """What the rows are: their number by table, the files that they name with size and hash where a row has them, the
    schema's revision."""

    rows: dict[str, int] = field(default_factory=dict)
    named: dict[str, tuple[int | None, str | None]] = field(default_factory=dict)
    schema: str = ""

    def name(self, stored: str | None, size: str | None, sha: str | None) -> None:
        """Note that a row names a file."""
        path = relative(stored)
        if path:
            known_size, known_sha = self.named.get(path, (None, None))
            self.named[path] = (int(size) if size else known_size, sha or known_sha)


def relative(stored: str | None) -> str | None:
    """A row's path below the uploads folder; the original's rows hold absolute ones, which are cut at `uploads/`."""
    if not stored or "\0" in stored:
        return None
    if stored.startswith("/"):
        _, found, stored = stored.rpartition("/uploads/")
        if not found:
            return None
    path = PurePosixPath(stored)
    return (
        None
        if path.is_absolute() or not path.parts or ".." in path.parts or path.parts[0].startswith(".")
        else str(path)
    )


def read_dump(lines: Iterable[bytes]) -> Contents:
    """What `pg_restore --data-only --file=-` prints, taken in line by line."""
    contents = Contents()
    table, columns = "", []
    wanted: list[Sequence[int | None]] = []
    for line in lines:
        if not table:
            if found := _COPY.match(line):
                table = found[1].decode()
                columns = [name.strip(' "') for name in found[2].decode().split(",")]
                contents.rows[table] = 0
                wanted = [
                    [columns.index(name) if name in columns else None for name in naming]
                    for naming in NAMING.get(table, [])
                ]
        elif line == b"\\.\n":
            table = ""
        else:
            contents.rows[table] += 1
            if wanted:
                fields = line[:-1].split(b"\t")
                for positions in wanted:
                    contents.name(*(None if at is None else _value(fields[at]) for at in positions))
            elif table == "alembic_version":
                contents.schema = _value(line[:-1].split(b"\t")[0]) or ""
    return contents


def _value(raw: bytes) -> str | None:
    if raw == b"\\N":
        return None
    if b"\\" in raw:
        raw = re.sub(rb"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), raw, flags=re.DOTALL)
    return raw.decode("utf-8", "surrogateescape")
