"""Faults during a change: a release stays live, no save is lost, and the same command run again succeeds.

One class works during all tests; after each fault everything that it has saved is read back. The table at the end of
the run is the matrix. One row of each kind runs with all other scenarios; the rows marked `long` complete the matrix.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scratch4school_lab.checkout import ROOT
from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.background_class import BackgroundClass, background_classes
from scratch4school_lab.scenarios.faults import (
    AUDIT_LOG,
    audit_log,
    cut_power,
    finish_and_time_failure,
    full_disk,
    held_lock,
    kill_control_node,
    live_release,
    restore_power,
    ssh_cut,
    started,
    switched_at,
)
from scratch4school_lab.scenarios.lab_hosts import http_status, on_host, wait_for
from scratch4school_lab.scenarios.playbooks import Run, finish, play, start
from scratch4school_lab.scenarios.variants import (
    breaks_migration,
    does_not_start,
    fails_verification,
    make,
    never_built,
    never_ready,
    slow_lock,
)
from scratch4school_lab.tables import Tables

# Busier than a real class, and yet it leaves a machine of two cores time for the playbooks.
CLASS = ["--users", "20", "--think", "3", "--devices", "10", "--large-share", "0.02", "--large-megabytes", "10"]
BACKGROUND_CLASS = [*CLASS, "--allow-failures"]
IMPATIENT = ["--extra-vars", "release_ready_seconds=15"]
# An interrupted change to another release blocks this one until the sysadmin abandons it.
ABANDON = ["--extra-vars", "release_abandon=true"]
IMAGES = "/var/lib/scratch4school/images"
LEDGER = "/var/lib/scratch4school/releases/ledger.jsonl"


@dataclass
class Fault:
    """One row of the matrix while it is filled."""

    name: str
    began: float
    previous: str
    revert_seconds: float | None = None
    second: Run | None = None
    row: dict[str, Any] = field(default_factory=dict)


@dataclass
class Bench:
    """The host of the faults, the class on it, and the release to deploy."""

    host: Host
    background_class: BackgroundClass
    tables: Tables
    kept: int = 10
    # Times in which requests may fail: from and to, in seconds since the epoch.
    down: list[tuple[float, float]] = field(default_factory=list)

    @property
    def arguments(self) -> list[str]:
        """The settings that make the next release; no source differs, so no image is built.

        The verification is short and its six checks are the quick ones, because it runs thirty times here. The other
        scenarios run it at full scale and for its full time.
        """
        return ["--extra-vars", f"app_keep_revisions={self.kept} release_observe_seconds=5 app_verify_quick=true"]

    def deploy(self, *arguments: str, folder: Path = ROOT) -> Run:
        """Deploy to the end."""
        return play("deploy.yml", *self.arguments, *arguments, folder=folder, host=self.host)

    def another_release(self) -> None:
        """Let the next deploys bring a release that is new to the host."""
        self.kept += 1

    @contextmanager
    def under_way(self, phase: str, *arguments: str, folder: Path = ROOT) -> Iterator[subprocess.Popen[str]]:
        """A deploy that has just reached a phase; it is killed if it still runs at the end, after a failed test."""
        deploy = ("deploy.yml", *self.arguments, *arguments)
        with audit_log(self.host) as lines, started(*deploy, folder=folder, host=self.host) as process:
            lines.wait_for(phase, process)
            yield process

    @contextmanager
    def fault(self, name: str, again: list[str], folder: Path = ROOT, down: bool = False) -> Iterator[Fault]:
        """The fault happens in the context. Then the deploy runs twice, and everything that was saved is read back.

        :param again: arguments of the second run beside `arguments`.
        :param down: whether the installation was down, so that requests may fail. A lost save is an error even then.
        """
        fault = Fault(name, time.time(), live_release(self.host))
        row = fault.row = {
            "fault": name,
            "live": None,
            "lost": None,
            "failed": None,
            "requests": None,
            "revert_s": None,
            "second_run_s": None,
            "third_run_s": None,
            "changed": None,
        }
        self.tables.add("Fault matrix", row)
        yield fault
        row["revert_s"] = fault.revert_seconds
        # Also without its database the proxy points at a release, although no request succeeds.
        live = live_release(self.host)
        assert down or http_status(self.host) == 200
        began = time.monotonic()
        second = fault.second = self.deploy(*again, folder=folder)
        row["second_run_s"] = time.monotonic() - began
        row["live"] = "previous" if live == fault.previous else "new" if live == live_release(self.host) else "?"
        assert second.status == 0, second.output[-6000:]
        checks = self.background_class.start_check()
        began = time.monotonic()
        third = self.deploy(folder=folder)
        row["third_run_s"] = time.monotonic() - began
        row["changed"] = third.recap(self.host)["changed"] if third.status == 0 else "failed"
        self.background_class.wait_for_check(checks)
        interval = self.background_class.since(fault.began)
        row.update(lost=interval.lost, failed=interval.failed, requests=interval.requests)
        if down:
            self.down.append((fault.began, time.time()))
        assert row["live"] in ("previous", "new")
        assert third.status == 0, third.output[-6000:]
        assert row["changed"] == 0, third.output[-6000:]
        assert (interval.lost, interval.unread) == (0, []), interval.explain()
        assert down or interval.failed == 0, interval.explain()


@pytest.fixture(scope="module")
def bench(deployed: Host, tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Deploy this checkout, and let a class work until the last fault; then its ledger has to be complete."""
    with background_classes(tmp_path_factory.mktemp("class")) as start_class:
        run = play("deploy.yml", "--extra-vars", "app_keep_revisions=10", host=deployed)
        assert run.status == 0, run.output[-6000:]
        bench = Bench(deployed, start_class(deployed, *BACKGROUND_CLASS), tables)
        yield bench
        report = bench.background_class.end()
        assert report["promises"] == {"lost": 0, "torn": 0, "duplicates": 0, "orphans": 0}
        assert report["unread"] == []
        unexplained = [
            failure
            for failure in report["failures"]
            if not any(began <= failure["start"] <= ended for began, ended in bench.down)
        ]
        assert unexplained == []


@pytest.fixture(scope="module")
def checkouts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[Path], None]], Path]:
    """Make each variant of this checkout once."""
    folder = tmp_path_factory.mktemp("variants")

    def checkout(edit: Callable[[Path], None]) -> Path:
        return folder / edit.__name__ if (folder / edit.__name__).exists() else make(folder, edit)

    return checkout


Checkouts = Callable[[Callable[[Path], None]], Path]


@pytest.mark.long
def test_image_that_does_not_start_leaves_current_release_live(bench: Bench, checkouts: Checkouts) -> None:
    """The deploy fails with the last line of the container's log."""
    with bench.fault("image does not start", again=[]):
        run = bench.deploy(*IMPATIENT, folder=checkouts(does_not_start))
        assert run.status != 0
        assert "No module named 'scratch4school.forgotten'" in run.output
        assert "stays live" in run.one_line


@pytest.mark.long
def test_release_that_is_never_ready_leaves_current_one_live(bench: Bench, checkouts: Checkouts) -> None:
    """The deploy fails with the reason that the release reports."""
    with bench.fault("never ready", again=[]):
        run = bench.deploy(*IMPATIENT, folder=checkouts(never_ready))
        assert run.status != 0
        assert "rehearsal: never ready" in run.one_line
        assert "stays live" in run.one_line


def test_release_that_fails_verification_is_reverted(bench: Bench, checkouts: Checkouts) -> None:
    """The proxy is switched back; `benchmarks/run revert` measures how soon."""
    with bench.fault("fails verification", again=[]) as fault:
        process = start("deploy.yml", *bench.arguments, folder=checkouts(fails_verification), host=bench.host)
        run, failed_at = finish_and_time_failure(process)
        fault.revert_seconds = switched_at(bench.host) - failed_at
        assert run.status != 0
        assert "not 409, version 2" in run.one_line
        assert "stays live" in run.one_line


@pytest.mark.long
def test_migration_that_breaks_is_rolled_back(bench: Bench, checkouts: Checkouts) -> None:
    """No part of it stays, and the current release stays live."""
    with bench.fault("migration breaks half-way", again=[]):
        run = bench.deploy(folder=checkouts(breaks_migration))
        assert run.status != 0
        assert "already exists" in run.one_line


@pytest.mark.long
def test_migration_without_lock_leaves_current_release_live(bench: Bench, checkouts: Checkouts) -> None:
    """A transaction holds the table for longer than the migration waits; no pupil waits behind the migration."""
    with bench.fault("migration gets no lock", again=[]), held_lock(bench.host, "projects"):
        run = bench.deploy("--extra-vars", "app_migrate_patience_seconds=10", folder=checkouts(slow_lock))
        assert run.status != 0
        assert "in use" in run.one_line
        # The backup from before the migration is kept, although the migration changed nothing.
        assert "(migration)" in play("status.yml", host=bench.host).one_line


@pytest.mark.parametrize(
    "phases",
    [
        pytest.param(("begin", "activate", "start"), marks=pytest.mark.long),
        ("switch", "verify"),
        pytest.param(("drain", "stop", "standby"), marks=pytest.mark.long),
    ],
    ids="-".join,
)
def test_deploy_after_killed_control_node_succeeds(bench: Bench, phases: tuple[str, ...]) -> None:
    """SIGKILL to the control node's processes; the same command starts at once, and is killed in the next phase."""
    bench.another_release()
    with bench.fault(f"control node killed at {', then '.join(phases)}", again=[]) as fault:
        for phase in phases:
            with bench.under_way(phase) as process:
                kill_control_node(process)
            assert http_status(bench.host) == 200
    assert fault.second
    assert "was taken over" in fault.second.one_line


@pytest.mark.long
def test_release_without_confirmation_is_reverted(bench: Bench) -> None:
    """The control node is killed during verification: the host reverts by itself and records it in the audit log."""
    bench.another_release()
    confirm = ["--extra-vars", "release_confirm_seconds=120"]
    with bench.fault("control node killed at verify, no confirmation", again=[]) as fault:
        with bench.under_way("verify", *confirm) as process:
            kill_control_node(process)
        wait_for(lambda: "was not confirmed in time" in on_host(f"sudo tail -n1 {AUDIT_LOG}", bench.host))
        assert live_release(bench.host) == fault.previous
        # The host records a revert only where the new release was live until then.
        reverted = json.loads(on_host(f"sudo tail -n1 {LEDGER}", bench.host))
        assert (reverted["verb"], reverted["outcome"]) == ("confirm", "reverted")
        assert reverted["release"] != fault.previous


@pytest.mark.long
def test_pause_of_killed_program_ends_by_itself(bench: Bench) -> None:
    """Pupils wait between two transactions when the program is killed; no request fails."""
    restart = ["--extra-vars", "component=postgres"]
    with bench.fault("program killed during PAUSE", again=[]), audit_log(bench.host) as lines:
        process = start("restart.yml", *restart, host=bench.host)
        lines.wait_for("restart postgres", process)
        on_host("sudo pkill --signal KILL --full '[s]cratch4schoolctl component'", bench.host)
        assert finish(process).status != 0
        armed = "systemctl is-active scratch4school-resume.timer || true"
        assert on_host(armed, bench.host).strip() == "active"
        wait_for(lambda: on_host(armed, bench.host).strip() != "active")


@pytest.mark.long
@pytest.mark.parametrize(("phase", "variant"), [("migrate", breaks_migration), ("revert", fails_verification)])
def test_release_of_killed_control_node_is_abandoned(
    bench: Bench, checkouts: Checkouts, phase: str, variant: Callable[[Path], None]
) -> None:
    """The interrupted change is to another release, so a deploy of this checkout needs release_abandon."""
    with (
        bench.fault(f"control node killed at {phase}", again=ABANDON),
        bench.under_way(phase, folder=checkouts(variant)) as process,
    ):
        kill_control_node(process)


@pytest.mark.parametrize(
    "phase", [*(pytest.param(name, marks=pytest.mark.long) for name in ("activate", "start")), "switch"]
)
def test_host_after_power_cut_serves_and_deploys(bench: Bench, phase: str) -> None:
    """The host boots, and its installation answers without a command."""
    bench.another_release()
    with bench.fault(f"power cut at {phase}", again=[], down=True), bench.under_way(phase) as process:
        cut_power(bench.host)
        kill_control_node(process)
        restore_power(bench.host)


def test_full_disk_during_build_leaves_current_release_live(bench: Bench, checkouts: Checkouts) -> None:
    """No image and no new release; with space again the same deploy succeeds."""
    folder = checkouts(never_built)
    with bench.fault("disk full during build", again=[], folder=folder):
        # From before the run, so that each file of the build meets the same disk. Preflight checks another disk.
        with full_disk(bench.host, IMAGES):
            run = play("deploy.yml", *bench.arguments, folder=folder, host=bench.host)
        assert run.status != 0
        assert "No space left on device" in run.output


@pytest.mark.long
@pytest.mark.parametrize("component", ["pgbouncer", "postgres"])
def test_deploy_without_database_fails_and_next_one_starts_it(bench: Bench, component: str) -> None:
    """No save succeeds meanwhile; the second run starts the stopped container."""
    bench.another_release()
    with (
        bench.fault(f"{component} down", again=[], down=True),
        bench.under_way("activate", *IMPATIENT) as process,
    ):
        on_host(f"sudo docker stop --time 5 scratch4school-{component}", bench.host)
        run = finish(process)
        assert run.status != 0
        assert "stays live" in run.one_line


@pytest.mark.long
def test_deploy_after_ssh_cut_succeeds(bench: Bench) -> None:
    """The host finishes its step; the control node fails, and is started again when SSH works."""
    bench.another_release()
    with bench.fault("SSH cut at start", again=[]), bench.under_way("start") as process:
        with ssh_cut(bench.host):
            run = finish(process)
        assert run.status != 0
