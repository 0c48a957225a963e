"""Runs a command under the Python of .venv, which has the tools that scripts/setup installs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .checkout import TOOLS


def switch() -> None:
    """Start this command again under .venv's Python; return where it already runs there, or where there is no .venv."""
    python = TOOLS / "python"
    if Path(sys.prefix) != TOOLS.parent and python.exists():
        os.execv(python, [str(python), *sys.argv])
