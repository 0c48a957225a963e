"""Draws the plots of a run from its results.json; runs in benchmarks/.venv, which has what draws."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

Rows = list[dict[str, Any]]
PARTS = ("proxy", "app", "pooler", "database")


def load(rows: Rows, folder: Path) -> None:
    """Requests a second and p99 of every way to deploy, by users."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.5))
    for way in dict.fromkeys(row["way"] for row in rows):
        some = [row for row in rows if row["way"] == way]
        users = [row["users"] for row in some]
        for axis, name in zip(axes, ("requests/s", "p99_ms", "all_ms"), strict=True):
            axis.plot(users, [row[name] for row in some], marker="o", label=way)
    for axis, title in zip(axes, ("requests a second", "p99, ms", "CPU of the server, ms per request"), strict=True):
        axis.set(title=title, xlabel="users", xscale="log", ylim=(0, None))
        axis.set_xticks(sorted({row["users"] for row in rows}), sorted({row["users"] for row in rows}))
        axis.grid(alpha=0.3)
    axes[0].legend()
    save(figure, folder / "classroom.png")


def parts(rows: Rows, folder: Path) -> None:
    """Which part takes how much of a request's CPU, by way, at a hundred users."""
    users = 100 if any(row["users"] == 100 for row in rows) else rows[0]["users"]
    some = [row for row in rows if row["users"] == users]
    figure, axis = plt.subplots(figsize=(8, 4))
    bottom = [0.0] * len(some)
    for part in PARTS:
        heights = [row[f"{part}_ms"] for row in some]
        axis.bar([row["way"] for row in some], heights, bottom=bottom, label=part)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    axis.axhline(1.7, color="black", linestyle="--", linewidth=1, label="goal")
    axis.set(title=f"CPU per request at {users} users, ms")
    axis.legend()
    save(figure, folder / "cpu.png")


def floors(rows: Rows, folder: Path) -> None:
    """Each operation's CPU over the sum of its floors."""
    figure, axis = plt.subplots(figsize=(9, 4.5))
    names = [row["operation"] for row in rows]
    axis.barh(names, [row["ours_cpu"] for row in rows], label="ours")
    axis.barh(names, [row["floor_cpu"] for row in rows], height=0.4, label="sum of the floors")
    axis.set(title="CPU of an operation, ms", xscale="log")
    axis.invert_yaxis()
    axis.legend()
    save(figure, folder / "floors.png")


def growth(rows: Rows, folder: Path) -> None:
    """Time of an operation over the rows of the school, on both engines."""
    figure, axes = plt.subplots(1, 2, figsize=(13, 5), sharey=True)
    for axis, engine in zip(axes, ("PostgreSQL", "SQLite"), strict=True):
        for row in (row for row in rows if row["engine"] == engine):
            counts = [name for name in row if name.replace(",", "").isdigit()]
            axis.plot(
                [int(name.replace(",", "")) for name in counts], [row[name] for name in counts], label=row["operation"]
            )
        axis.set(title=f"{engine}: p50, ms", xlabel="projects", xscale="log", yscale="log")
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=7)
    save(figure, folder / "growth.png")


def playbooks(tables: dict[str, Rows], folder: Path) -> None:
    """Seconds of each playbook, by the number of hosts at once."""
    figure, axis = plt.subplots(figsize=(9, 4.5))
    width = 0.8 / len(tables)
    for place, (title, rows) in enumerate(sorted(tables.items())):
        at = [number + place * width for number in range(len(rows))]
        axis.bar(at, [row["median_s"] for row in rows], width, label=f"{title.removeprefix(PLAYBOOKS)} at once")
    names = [row["playbook"] for row in next(iter(tables.values()))]
    axis.set_xticks([number + 0.4 - width / 2 for number in range(len(names))], names)
    axis.set(title="seconds of a playbook, by the number of hosts")
    axis.legend()
    save(figure, folder / "playbooks.png")


PLAYBOOKS = "playbooks: seconds, hosts at once: "
# By the title of their table.
DRAWN = {
    "classroom: users and ways to deploy": (load, parts),
    "floors: milliseconds of CPU and of time, one client": (floors,),
    "growth: p50 in ms, projects in the database": (growth,),
}


def save(figure: Any, path: Path) -> None:
    """Write a plot, without the drawing program's version, so that the same figures are the same file."""
    figure.tight_layout()
    figure.savefig(path, dpi=90, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    """Draw what the run has figures of."""
    file = Path(sys.argv[1])
    tables = json.loads(file.read_text())["tables"]
    for title, plots in DRAWN.items():
        for plot in plots if title in tables else ():
            plot(tables[title], file.parent)
    if of_playbooks := {title: rows for title, rows in tables.items() if title.startswith(PLAYBOOKS)}:
        playbooks(of_playbooks, file.parent)


if __name__ == "__main__":
    main()
