"""The results of a run in one folder: tables for people, the same as JSON, and plots."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from scratch4school_lab.tables import Tables

from .host import FOLDER, ROOT, Host, lab_hosts

Row = dict[str, object]
RESULTS = ROOT / "benchmarks" / "results"
DRAWER = Path(__file__).with_name("draw.py")


class Results:
    """The figures of one run. Each table is printed and everything is written as soon as it is complete."""

    def __init__(self, folder: Path, machine: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._file = folder / "results.json"
        # A part that is measured again replaces its previous figures; the others stay.
        kept: dict[str, Any] = json.loads(self._file.read_text()) if self._file.exists() else {}
        self._tables: dict[str, list[Row]] = kept.get("tables", {})
        self._notes: dict[str, str] = kept.get("notes", {})
        self._machine = machine

    def table(self, title: str, rows: list[Row], note: str = "") -> None:
        """Add a table; the note below it says how to read it."""
        # A part may be measured again by itself, at another moment and with other code.
        measured = (
            f"Measured {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, {self._machine['commit']}, "
            f"lab hosts up: {lab_hosts()}."
        )
        self._tables[title], self._notes[title] = rows, f"{note} {measured}".strip()
        print(f"\n{self._as_text(title)}\n", flush=True)
        self.write()

    def write(self) -> None:
        """Write the tables so far."""
        everything = {"machine": self._machine, "tables": self._tables, "notes": self._notes}
        self._file.write_text(json.dumps(everything, indent=1) + "\n")
        machine = "\n".join(f"{name}: {value}" for name, value in self._machine.items())
        text = "\n\n".join([machine, *(self._as_text(title) for title in self._tables)])
        (self.folder / "tables.txt").write_text(text + "\n")

    def draw(self) -> None:
        """Draw the plots, in an environment of its own: a deployment does not need the drawing tools."""
        subprocess.run([ROOT / "scripts" / "setup", "--benchmarks"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([ROOT / "benchmarks" / ".venv" / "bin" / "python", DRAWER, self._file], check=True)

    def _as_text(self, title: str) -> str:
        table = Tables()
        for row in self._tables[title]:
            table.add(title, row)
        note = self._notes.get(title, "")
        return "\n".join([title, "", *table.lines(title), *(["", note] if note else [])])


def machine(host: Host) -> dict[str, str]:
    """Return the machine on which the figures were measured."""
    processor = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = int(re.findall(r"\d+", Path("/proc/meminfo").read_text())[0]) // 1024
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return {
        "processor": f"{os.cpu_count()} × {processor[1] if processor else platform.machine()}",
        "memory": f"{memory} MB",
        "kernel": platform.release(),
        "file system": host.run(f"stat --file-system --format %T {FOLDER}").strip(),
        "driver": "on the same cores as the server",
        "commit": commit.stdout.strip(),
        "PostgreSQL": host.sql("SHOW server_version"),
        "PgBouncer": host.console("SHOW VERSION").strip().rpartition("\n")[2],
        "Python of the application": host.run(
            "sh -c 'docker exec $(docker ps --quiet --filter label=scratch4school.component=app | head -1)"
            " /opt/scratch4school/bin/python -V'"
        ).strip(),
    }
