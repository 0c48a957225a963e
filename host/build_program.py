"""Packs host/src into one file that Python runs: scratch4schoolctl. The same sources give the same bytes.

`python3 host/build_program.py FILE` writes it; playbooks get it by the lookup `host_program`.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "src"
PACKAGE = "scratch4school_host"

# -I: neither variables of the environment nor the user's own packages decide what root runs.
INTERPRETER = b"#!/usr/bin/python3 -I\n"
MAIN = f"""\
import sys

from {PACKAGE}.cli import main

sys.exit(main())
"""
# The earliest time that a zip archive can have.
TIME = (1980, 1, 1, 0, 0, 0)


def sources() -> list[Path]:
    """The modules of the program, in the order in which they are packed."""
    return sorted((SOURCES / PACKAGE).rglob("*.py"))


def build() -> bytes:
    """The program: a zip archive behind a line that names the interpreter (PEP 441)."""
    buffer = io.BytesIO(INTERPRETER)
    buffer.seek(0, io.SEEK_END)
    # Stored, not compressed: what a compressor makes differs from one version of zlib to the next.
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        _add(archive, "__main__.py", MAIN.encode())
        for path in sources():
            _add(archive, path.relative_to(SOURCES).as_posix(), path.read_bytes())
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, TIME)
    # A file of a Unix, readable for all; by default a zip notes on which system it was made.
    entry.create_system, entry.external_attr = 3, 0o644 << 16
    archive.writestr(entry, content)


def write(target: Path) -> None:
    """Write the program to a file, executable."""
    target.write_bytes(build())
    target.chmod(0o755)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
