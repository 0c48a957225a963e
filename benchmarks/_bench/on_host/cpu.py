#!/usr/bin/python3
"""Prints several times a second how much CPU each container has used so far; runs on the host, as root.

One line of JSON each: `at` in seconds since the epoch, and seconds of CPU by the container's name. The kernel adds
them up by control group, processes that have ended included. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

EVERY_SECONDS = 0.2
FORMAT = "{{.Name}} {{.State.Pid}}"


def counters() -> dict[str, Path]:
    """The file with the kernel's counters, by the name of each running container."""
    listed = subprocess.run(["docker", "ps", "--quiet"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    command = ["docker", "inspect", "--format", FORMAT, *listed]
    found = {}
    for line in subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True).stdout.splitlines():
        name, process = line.removeprefix("/").split()
        with contextlib.suppress(OSError):
            group = Path("/proc", process, "cgroup").read_text().strip().rpartition("\n")[2].rpartition(":")[2]
            found[name] = Path(f"/sys/fs/cgroup{group}/cpu.stat")
    return found


def main() -> None:
    """Print until the reader closes the pipe."""
    known = counters()
    while True:
        line: dict[str, float] = {"at": time.time()}
        for name, file in known.items():
            # A container may end meanwhile; its counter is not needed any more.
            with contextlib.suppress(OSError):
                line[name] = int(file.read_text().split(maxsplit=2)[1]) / 1e6
        try:
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            return
        time.sleep(EVERY_SECONDS)


if __name__ == "__main__":
    main()
