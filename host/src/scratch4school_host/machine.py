"""Reads the host's memory from /proc/meminfo."""

from __future__ import annotations

import re


def memory(text: str) -> dict[str, int]:
    """Total memory, and memory available to a new process, in MiB, from the text of /proc/meminfo."""
    kilobytes = dict(re.findall(r"^(\w+):\s+(\d+) kB$", text, flags=re.MULTILINE))
    return {
        name: int(kilobytes.get(key, 0)) // 1024
        for name, key in (("total_mb", "MemTotal"), ("available_mb", "MemAvailable"))
    }
