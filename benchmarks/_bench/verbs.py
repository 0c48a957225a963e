"""How long the verbs take, on one host and on several at once: the median of five, and where the time goes.

A code deploy is one of this checkout with a line added to the application; the rollback after it goes back. All hosts
of a lab share this machine's cores, so what several take here is more than what several servers would.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import variants

from .host import LAB, ROOT, BenchmarkFailed, Host, play
from .results import Results, Row

MOST_HOSTS = 3
TIMES = 5
# The rows that the table has; what is measured twice is the same verb under other circumstances.
VERBS = ("deploy, nothing to do", "deploy, code only", "rollback", "restart", "backup", "drill")
# Ansible's own measurement of its tasks; the names are printed with their role.
PROFILE = {
    "ANSIBLE_CALLBACKS_ENABLED": "last_word,ansible.posix.profile_tasks",
    "PROFILE_TASKS_TASK_OUTPUT_LIMIT": "all",
}
_TASK = re.compile(r"^(\S.*?) -+ ([\d.]+)s$", re.MULTILINE)
SHOWN_TASKS = 4

TIMES_TABLE, PROFILE_TABLE = "verbs: seconds, median of the runs", "verbs: where the time goes on one host"


def measure(results: Results, quick: bool) -> None:
    """Every verb, on one host, on two, on three."""
    times = 1 if quick else TIMES
    taken: dict[tuple[str, int], list[float]] = {}
    profiles: dict[str, list[dict[str, float]]] = {}
    for count in range(1, 2 if quick else MOST_HOSTS + 1):
        hosts = ready(count)
        with tempfile.TemporaryDirectory() as folder:
            for number in range(times):
                for verb, seconds, said in round_of_verbs(hosts, Path(folder), number):
                    taken.setdefault((verb, count), []).append(seconds)
                    if count == 1:
                        profiles.setdefault(verb, []).append(tasks(said))
                    print(f"  {count} hosts, {verb}: {seconds:.1f} s", flush=True)
        results.table(TIMES_TABLE, [times_of(verb, count, taken) for verb in VERBS], f"Of {times} runs each.")
    results.table(
        PROFILE_TABLE, [profile(verb, profiles[verb]) for verb in VERBS], "Median seconds of the slowest tasks."
    )


def times_of(verb: str, count: int, taken: dict[tuple[str, int], list[float]]) -> Row:
    """The row of a verb: its median on one host and on as many more as were measured, and from least to most."""
    row: Row = {"verb": verb}
    for several in range(1, count + 1):
        runs = taken[verb, several]
        row[f"{several} host{'s' if several > 1 else ''}"] = round(statistics.median(runs), 1)
        row[f"least to most, {several}"] = f"{min(runs):.1f} to {max(runs):.1f}"
    return row


def ready(count: int) -> list[str]:
    """So many hosts, deployed as this checkout says."""
    subprocess.run([LAB, "up", "--hosts", str(count)], check=True, stdout=subprocess.DEVNULL)
    names = [Host(number).name for number in range(1, count + 1)]
    play(names, "deploy.yml")
    return names


def round_of_verbs(hosts: list[str], folder: Path, number: int) -> list[tuple[str, float, str]]:
    """Each verb once, in the order in which one makes room for the next; its seconds and what it said."""
    changed = another_release(folder, number)
    rounds = [
        ("deploy, nothing to do", "deploy.yml", ROOT),
        ("deploy, code only", "deploy.yml", changed),
        ("rollback", "rollback.yml", ROOT),
        ("restart", "restart.yml", ROOT),
        ("backup", "backup.yml", ROOT),
        ("drill", "drill.yml", ROOT),
    ]
    done = []
    for verb, playbook, checkout in rounds:
        began = time.monotonic()
        said = play(hosts, playbook, checkout=checkout, env=PROFILE)
        done.append((verb, time.monotonic() - began, said))
        if verb == "deploy, nothing to do" and re.search(r"changed=[1-9]", said):
            raise BenchmarkFailed(f"A deploy with nothing to do changed something:\n{said[-2000:]}")
    return done


def another_release(folder: Path, number: int) -> Path:
    """This checkout with one line more in the application, which no host has seen yet."""

    def edit(copy: Path) -> None:
        file = copy / variants.APP / "clock.py"
        file.write_text(f"{file.read_text()}# A measurement's release, {time.time_ns()}.\n")

    edit.__name__ = f"release-{number}"
    return variants.make(folder, edit)


def tasks(said: str) -> dict[str, float]:
    """Seconds by task, from what Ansible's profile prints; one that ran several times counts in sum."""
    sums: dict[str, float] = {}
    for name, seconds in _TASK.findall(said):
        sums[name] = sums.get(name, 0.0) + float(seconds)
    return sums


def profile(verb: str, runs: list[dict[str, float]]) -> Row:
    """The slowest tasks of a verb, by the median of its runs."""
    medians = {name: statistics.median(run.get(name, 0.0) for run in runs) for name in runs[0]}
    slowest = sorted(medians, key=lambda name: -medians[name])[:SHOWN_TASKS]
    told = {f"{place}": f"{medians[name]:.1f} {name}" for place, name in enumerate(slowest, start=1)}
    return {
        "verb": verb,
        "tasks": len(medians),
        **{f"{place}": told.get(f"{place}", "") for place in range(1, SHOWN_TASKS + 1)},
    }
