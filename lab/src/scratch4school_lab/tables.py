"""Tables of figures: filled while something runs, printed at its end, and written as JSON where asked."""

from __future__ import annotations

import json
from pathlib import Path


class Tables:
    """Rows by the title of their table; a row is a dictionary of columns, the same for all rows of a table."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, object]]] = {}

    def add(self, title: str, row: dict[str, object]) -> None:
        """Add a row; its values may be set later. None is a missing value; `_` in a name is printed as a space."""
        self.rows.setdefault(title, []).append(row)

    @property
    def titles(self) -> list[str]:
        """The titles of the tables that have rows."""
        return list(self.rows)

    def lines(self, title: str) -> list[str]:
        """The table as text: each column as wide as its widest value, numbers to the right."""
        rows = self.rows[title]
        names = list(rows[0])
        cells = [[_cell(row[name]) for name in names] for row in rows]
        heads = [name.replace("_", " ") for name in names]
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        right = [all(isinstance(row[name], int | float | None) for row in rows) for name in names]
        return [
            "  ".join(
                cell.rjust(width) if to_right else cell.ljust(width)
                for cell, width, to_right in zip(line, widths, right, strict=True)
            ).rstrip()
            for line in [heads, *cells]
        ]

    def write(self, path: Path) -> None:
        """Write all tables as one JSON object."""
        path.write_text(json.dumps(self.rows, indent=1) + "\n")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
