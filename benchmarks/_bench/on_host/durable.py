#!/usr/bin/python3
"""Writes files as a save does, and nothing else: temporary name, fsync, rename, fsync; runs on the host.

Takes the sizes in bytes of the files of one save and how long to go on; prints milliseconds and CPU milliseconds of a
save. Standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

FOLDER = Path("/var/lib/scratch4school/benchmark/durable")


def write(content: bytes, number: int) -> None:
    """Write one file; it is durable when this returns."""
    draft, final = FOLDER / "draft", FOLDER / str(number)
    with draft.open("wb", buffering=0) as file:
        file.write(content)
        os.fsync(file.fileno())
    draft.rename(final)
    folder = os.open(FOLDER, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def main() -> None:
    """Write for the given seconds, and print what one save took."""
    seconds, *sizes = map(float, sys.argv[1:])
    contents = [os.urandom(int(size)) for size in sizes]
    FOLDER.mkdir(parents=True, exist_ok=True)
    saves, began, cpu = 0, time.monotonic(), time.process_time()
    while time.monotonic() < began + seconds:
        for number, content in enumerate(contents):
            write(content, saves % 1000 * len(contents) + number)
        saves += 1
    took, used = time.monotonic() - began, time.process_time() - cpu
    shutil.rmtree(FOLDER)
    print(json.dumps({"ms": 1000 * took / saves, "cpu_ms": 1000 * used / saves}))


if __name__ == "__main__":
    main()
