"""Measures the duration of playbooks on one host and on several: the median of five, and the slowest tasks.

A code deploy is one of this checkout with a line added to the application; the rollback after it goes back. All hosts
of a lab share this machine's cores, so several hosts take longer here than several servers would.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from scratch4school_lab.scenarios import variants

from .host import LAB, ROOT, BenchmarkFailed, Host, lab_hosts, play
from .results import Results, Row

HOSTS = (1, 2, 3)
TIMES = 5
# The rows that the table has; what is measured twice is the same playbook under other circumstances.
PLAYBOOKS = ("deploy, nothing to do", "deploy, code only", "rollback", "restart", "backup", "drill")
# Ansible's own measurement of its tasks; the names are printed with their role.
PROFILE = {
    "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks",
    "PROFILE_TASKS_TASK_OUTPUT_LIMIT": "all",
}
_TASK = re.compile(r"^(\S.*?) -+ ([\d.]+)s$", re.MULTILINE)
SHOWN_TASKS = 4

TIMES_TABLES, PROFILE_TABLE = "playbooks: seconds, hosts at once: ", "playbooks: where the time goes on one host"


def measure(results: Results, counts: list[int], times: int) -> None:
    """Every playbook so many times, on each of these numbers of hosts at once."""
    for count in counts:
        hosts = ready(count)
        taken: dict[str, list[float]] = defaultdict(list)
        profiles: dict[str, list[dict[str, float]]] = defaultdict(list)
        with tempfile.TemporaryDirectory() as folder:
            for number in range(times):
                for playbook, seconds, printed in round_of_playbooks(hosts, Path(folder), number):
                    taken[playbook].append(seconds)
                    profiles[playbook].append(tasks(printed))
                    print(f"  {count} hosts, {playbook}: {seconds:.1f} s", flush=True)
        results.table(title(count), [times_of(playbook, taken[playbook]) for playbook in PLAYBOOKS])
        if count == 1:
            slowest = [profile(playbook, profiles[playbook]) for playbook in PLAYBOOKS]
            results.table(PROFILE_TABLE, slowest, "Median seconds of the slowest tasks.")


def title(count: int) -> str:
    """Return the title of the table of so many hosts."""
    return f"{TIMES_TABLES}{count}"


def times_of(playbook: str, runs: list[float]) -> Row:
    """The row of a playbook."""
    spread = {"median_s": statistics.median(runs), "least": min(runs), "most": max(runs)}
    return {"playbook": playbook, **{name: round(seconds, 1) for name, seconds in spread.items()}, "runs": len(runs)}


def ready(count: int) -> list[str]:
    """So many hosts, deployed as this checkout says."""
    if lab_hosts() < count:
        subprocess.run([LAB, "up", "--hosts", str(count)], check=True, stdout=subprocess.DEVNULL)
    names = [Host(number).name for number in range(1, count + 1)]
    play(names, "deploy.yml")
    return names


def round_of_playbooks(hosts: list[str], folder: Path, number: int) -> list[tuple[str, float, str]]:
    """Each playbook once, in the order in which one makes room for the next; its seconds and its output."""
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
    for name, playbook, checkout in rounds:
        began = time.monotonic()
        printed = play(hosts, playbook, checkout=checkout, env=PROFILE)
        done.append((name, time.monotonic() - began, printed))
        if name == "deploy, nothing to do" and re.search(r"changed=[1-9]", printed):
            raise BenchmarkFailed(f"A deploy with nothing to do changed something:\n{printed[-2000:]}")
    return done


def another_release(folder: Path, number: int) -> Path:
    """This checkout with one more line in the application, which no host has yet."""

    def edit(copy: Path) -> None:
        file = copy / variants.APP / "clock.py"
        file.write_text(f"{file.read_text()}# A measurement's release, {time.time_ns()}.\n")

    edit.__name__ = f"release-{number}"
    return variants.make(folder, edit)


def tasks(printed: str) -> dict[str, float]:
    """Seconds by task, from what Ansible's profile prints; one that ran several times counts in sum."""
    sums: dict[str, float] = {}
    for name, seconds in _TASK.findall(printed):
        sums[name] = sums.get(name, 0.0) + float(seconds)
    return sums


def profile(playbook: str, runs: list[dict[str, float]]) -> Row:
    """The slowest tasks of a playbook, by the median of its runs."""
    medians = {name: statistics.median(run.get(name, 0.0) for run in runs) for name in runs[0]}
    slowest = sorted(medians, key=lambda name: -medians[name])[:SHOWN_TASKS]
    columns = {f"{place}": f"{medians[name]:.1f} {name}" for place, name in enumerate(slowest, start=1)}
    return {
        "playbook": playbook,
        "tasks": len(medians),
        **{f"{place}": columns.get(f"{place}", "") for place in range(1, SHOWN_TASKS + 1)},
    }
