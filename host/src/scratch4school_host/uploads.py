"""Lists the pupils' files in the uploads folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path


def walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield relative path and `lstat` of each regular file; top-level names with a leading dot are left out."""
    for top in sorted(os.scandir(root), key=lambda entry: entry.name):
        if top.name.startswith("."):
            continue
        if top.is_file(follow_symlinks=False):
            yield top.name, top.stat(follow_symlinks=False)
        for folder, _, names in os.walk(top.path):
            for name in names:
                path = os.path.join(folder, name)
                try:
                    found = os.lstat(path)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(found.st_mode):
                    yield os.path.relpath(path, root), found
