"""Whatever goes wrong in the middle of a change: a release serves, no save is lost, and to run it again mends it.

One lesson goes on all the time; after each fault everything that it has saved is read back. The table at the end of the
run is the matrix. A row of each kind is run with all other scenarios; those marked `long` are its neighbours, and
make the matrix whole (`scripts/test long`).
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Place, Run, finish, on_host, play, start, status, wait_for
from faults import (
    JOURNAL,
    begun,
    cut_power,
    full_disk,
    held_lock,
    journal,
    kill_controller,
    network_cut,
    restore_power,
    serving_release,
    switched_at,
)
from lesson import Lesson, lessons
from tables import Tables
from variants import (
    breaks_migration,
    does_not_start,
    fails_verification,
    make,
    never_built,
    never_ready,
    slow_lock,
)

pytestmark = pytest.mark.alone

# Busier than any class, and yet a machine of two cores has time left for what goes wrong.
CLASS = ["--users", "20", "--think", "3", "--devices", "10", "--large-share", "0.02", "--large-megabytes", "10"]
LESSON = [*CLASS, "--seconds", "7200", "--allow-failures"]
IMPATIENT = ["--extra-vars", "release_ready_seconds=15"]
# One that broke off may be another release's; whoever goes on with this one says so.
ABANDON = ["--extra-vars", "release_abandon=true"]
IMAGES = "/var/lib/scratch4school/images"


@dataclass
class Fault:
    """One row of the matrix while it is filled."""

    name: str
    began: float
    former: str
    flip_back: float | None = None
    second: Run | None = None
    row: dict[str, Any] = field(default_factory=dict)


@dataclass
class Bench:
    """The host on which everything goes wrong, the lesson there, and the releases that are deployed."""

    place: Place
    lesson: Lesson
    tables: Tables
    kept: int = 10
    # When requests that were sent may have failed: from when to when, in seconds since the epoch.
    down: list[tuple[float, float]] = field(default_factory=list)

    @property
    def arguments(self) -> list[str]:
        """What makes the release that is to serve; a setting and no other source, so that no image is built.

        The window is short and its six checks are the small ones: how long a release is looked at is not what fails
        here, thirty times. At full scale, and for as long as a school would, the other scenarios look.
        """
        return ["--extra-vars", f"app_keep_revisions={self.kept} release_observe_seconds=5 app_verify_quick=true"]

    def deploy(self, *arguments: str, folder: Path = ROOT) -> Run:
        """Deploy to the end."""
        return play("deploy.yml", *self.arguments, *arguments, folder=folder, limit=f"{self.place.name},localhost")

    def another_release(self) -> None:
        """From now on deploys bring a release that the host has not seen."""
        self.kept += 1

    @contextmanager
    def under_way(self, phase: str, *arguments: str, folder: Path = ROOT) -> Iterator[subprocess.Popen[str]]:
        """A deploy that has just come to a phase; one that a failed test leaves is killed."""
        limit = f"{self.place.name},localhost"
        deploy = ("deploy.yml", *self.arguments, *arguments)
        with journal(self.place) as lines, begun(*deploy, folder=folder, limit=limit) as process:
            lines.wait_for(phase, process)
            yield process

    @contextmanager
    def fault(self, name: str, again: list[str], folder: Path = ROOT, down: bool = False) -> Iterator[Fault]:
        """What happens within goes wrong; afterwards it is run again, and once more, and everything is read back.

        :param again: arguments of the second run beside `arguments`.
        :param down: whether the host itself was down, so that requests had to fail. No save is lost all the same.
        """
        fault = Fault(name, time.time(), serving_release(self.place))
        row = fault.row = {
            "fault": name,
            "serves": None,
            "lost": None,
            "failed": None,
            "requests": None,
            "flip_back_s": None,
            "second_run_s": None,
            "third_run_s": None,
            "changed": None,
        }
        self.tables.add("Fault matrix", row)
        yield fault
        row["flip_back_s"] = fault.flip_back
        # With its database away a host serves nobody, and yet the proxy points at a release.
        served = serving_release(self.place)
        assert down or status(self.place.url) == 200
        began = time.monotonic()
        second = fault.second = self.deploy(*again, folder=folder)
        row["second_run_s"] = time.monotonic() - began
        row["serves"] = "former" if served == fault.former else "new" if served == serving_release(self.place) else "?"
        assert second.status == 0, second.output[-6000:]
        checks = self.lesson.start_check()
        began = time.monotonic()
        third = self.deploy(folder=folder)
        row["third_run_s"] = time.monotonic() - began
        row["changed"] = third.recap(self.place.name)["changed"] if third.status == 0 else "failed"
        self.lesson.wait_for_check(checks)
        stretch = self.lesson.since(fault.began)
        row.update(lost=stretch.lost, failed=stretch.failed, requests=stretch.requests)
        if down:
            self.down.append((fault.began, time.time()))
        assert row["serves"] in ("former", "new")
        assert third.status == 0, third.output[-6000:]
        assert row["changed"] == 0, third.output[-6000:]
        assert (stretch.lost, stretch.unread) == (0, []), stretch.explain()
        assert down or stretch.failed == 0, stretch.explain()


@pytest.fixture(scope="module")
def bench(large: Place, tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """This checkout, deployed, and a class that works on it until the last fault; then its ledger has to be whole."""
    with lessons(tmp_path_factory.mktemp("lesson")) as begin:
        run = play("deploy.yml", "--extra-vars", "app_keep_revisions=10", limit=f"{large.name},localhost")
        assert run.status == 0, run.output[-6000:]
        bench = Bench(large, begin(large, *LESSON), tables)
        yield bench
        report = bench.lesson.end()
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
    """Give a variant of this checkout, made once."""
    folder = tmp_path_factory.mktemp("variants")

    def checkout(edit: Callable[[Path], None]) -> Path:
        return folder / edit.__name__ if (folder / edit.__name__).exists() else make(folder, edit)

    return checkout


Checkouts = Callable[[Callable[[Path], None]], Path]


@pytest.mark.long
def test_image_that_does_not_start(bench: Bench, checkouts: Checkouts) -> None:
    """The deploy fails with the log's own words."""
    with bench.fault("image does not start", again=[]):
        run = bench.deploy(*IMPATIENT, folder=checkouts(does_not_start))
        assert run.status != 0
        assert "No module named 'scratch4school.forgotten'" in run.output
        assert "serves on" in run.sentence


@pytest.mark.long
def test_release_that_is_never_ready(bench: Bench, checkouts: Checkouts) -> None:
    """The deploy fails with what the release says of itself."""
    with bench.fault("never ready", again=[]):
        run = bench.deploy(*IMPATIENT, folder=checkouts(never_ready))
        assert run.status != 0
        assert "rehearsal: never ready" in run.sentence
        assert "serves on" in run.sentence


def test_release_that_fails_verification(bench: Bench, checkouts: Checkouts) -> None:
    """It served for a while; two seconds after the verdict the former one does."""
    with bench.fault("fails verification", again=[]) as fault:
        limit = f"{bench.place.name},localhost"
        process = start("deploy.yml", *bench.arguments, folder=checkouts(fails_verification), limit=limit)
        run, failed_at = finish_and_time_failure(process)
        fault.flip_back = switched_at(bench.place) - failed_at
        assert run.status != 0
        assert "not 409, version 2" in run.sentence
        assert "serves on" in run.sentence
    assert fault.flip_back is not None
    assert fault.flip_back <= 2


@pytest.mark.long
def test_migration_that_breaks_half_way(bench: Bench, checkouts: Checkouts) -> None:
    """Nothing of it stays, and the running release serves on."""
    with bench.fault("migration breaks half-way", again=[]):
        run = bench.deploy(folder=checkouts(breaks_migration))
        assert run.status != 0
        assert "already exists" in run.sentence


@pytest.mark.long
def test_migration_that_gets_no_lock(bench: Bench, checkouts: Checkouts) -> None:
    """Somebody's transaction outlasts its patience; no pupil waits behind it."""
    with bench.fault("migration gets no lock", again=[]), held_lock(bench.place, "projects"):
        run = bench.deploy("--extra-vars", "app_migrate_patience_seconds=10", folder=checkouts(slow_lock))
        assert run.status != 0
        assert "in use" in run.sentence
        # What was there before the tables change is kept; here nothing came of the change.
        assert "(migration)" in play("status.yml", limit=f"{bench.place.name},localhost").sentence


@pytest.mark.parametrize(
    "phases",
    [
        pytest.param(("begin", "activate", "start"), marks=pytest.mark.long),
        ("switch", "verify"),
        pytest.param(("drain", "stop", "spare"), marks=pytest.mark.long),
    ],
    ids="-".join,
)
def test_controller_is_killed(bench: Bench, phases: tuple[str, ...]) -> None:
    """SIGKILL to all of the control node; the same verb is typed again at once, and killed where it comes to next."""
    bench.another_release()
    with bench.fault(f"controller killed at {', then '.join(phases)}", again=[]) as fault:
        for phase in phases:
            with bench.under_way(phase) as process:
                kill_controller(process)
            assert status(bench.place.url) == 200
    assert fault.second
    assert "was taken over" in fault.second.sentence


@pytest.mark.long
def test_nobody_is_left_to_confirm(bench: Bench) -> None:
    """The controller dies inside the window and nobody comes: the host goes back by itself, and says so."""
    bench.another_release()
    confirm = ["--extra-vars", "release_confirm_seconds=70"]
    with bench.fault("controller killed at verify, and nobody comes", again=[]) as fault:
        with bench.under_way("verify", *confirm) as process:
            kill_controller(process)
        assert serving_release(bench.place) != fault.former
        wait_for(lambda: serving_release(bench.place) == fault.former, seconds=120)
        wait_for(lambda: "nobody confirmed" in on_host(f"sudo tail -n1 {JOURNAL}", bench.place.name), seconds=90)


@pytest.mark.long
def test_program_on_the_host_is_killed_in_a_pause(bench: Bench) -> None:
    """Pupils wait between two transactions and whoever made them wait is dead: the pause ends by itself, none fails."""
    restart = ["--extra-vars", "component=postgres"]
    with bench.fault("killed in the middle of PAUSE", again=[]), journal(bench.place) as lines:
        process = start("restart.yml", *restart, limit=f"{bench.place.name},localhost")
        lines.wait_for("restart postgres", process)
        on_host("sudo pkill --signal KILL --full '[s]lots component'", bench.place.name)
        assert finish(process).status != 0
        armed = "systemctl is-active scratch4school-resume.timer || true"
        assert on_host(armed, bench.place.name).strip() == "active"
        wait_for(lambda: on_host(armed, bench.place.name).strip() != "active", seconds=20)


@pytest.mark.long
@pytest.mark.parametrize(("phase", "variant"), [("migrate", breaks_migration), ("back", fails_verification)])
def test_controller_is_killed_with_a_release_that_cannot_stay(
    bench: Bench, checkouts: Checkouts, phase: str, variant: Callable[[Path], None]
) -> None:
    """What it had begun is another release's, so whoever goes back to the former checkout has to say so."""
    with (
        bench.fault(f"controller killed at {phase}", again=ABANDON),
        bench.under_way(phase, folder=checkouts(variant)) as process,
    ):
        kill_controller(process)


@pytest.mark.parametrize(
    "phase", [*(pytest.param(name, marks=pytest.mark.long) for name in ("activate", "start")), "switch"]
)
def test_power_is_cut(bench: Bench, phase: str) -> None:
    """The host boots and serves by itself, and goes on from where it was."""
    bench.another_release()
    with bench.fault(f"power cut at {phase}", again=[], down=True), bench.under_way(phase) as process:
        cut_power(bench.place)
        kill_controller(process)
        restore_power(bench.place)


def test_disk_is_full_during_build(bench: Bench, checkouts: Checkouts) -> None:
    """No image, no new release; with space again the same deploy goes through."""
    folder = checkouts(never_built)
    # Past the preflight, which would refuse it.
    with (
        bench.fault("disk full during build", again=[], folder=folder),
        bench.under_way("begin", folder=folder) as process,
    ):
        with full_disk(bench.place, IMAGES):
            run = finish(process)
        assert run.status != 0
        assert "No space left on device" in run.output


@pytest.mark.long
@pytest.mark.parametrize("component", ["pgbouncer", "postgres"])
def test_database_is_away(bench: Bench, component: str) -> None:
    """Nobody can save meanwhile; the second run starts what was stopped by hand."""
    bench.another_release()
    with (
        bench.fault(f"{component} down", again=IMPATIENT, down=True),
        bench.under_way("activate", *IMPATIENT) as process,
    ):
        on_host(f"sudo docker stop --time 5 scratch4school-{component}", bench.place.name)
        run = finish(process)
        assert run.status != 0
        assert "serves on" in run.sentence


@pytest.mark.long
def test_network_is_cut_in_the_middle_of_the_activation(bench: Bench) -> None:
    """The host goes on by itself; the controller gives up, and is started again when the network is back."""
    bench.another_release()
    with bench.fault("network cut at start", again=[]), bench.under_way("start") as process:
        with network_cut(bench.place):
            run = finish(process)
        assert run.status != 0


def finish_and_time_failure(process: subprocess.Popen[str]) -> tuple[Run, float]:
    """Let a playbook come to its end; returns also when its first task failed, in seconds since the epoch."""
    assert process.stdout
    failed_at, said = 0.0, []
    with process.stdout as output:
        for line in output:
            failed_at = failed_at or (time.time() if re.match(r" *\d+:\d\d +failed: ", line) else 0.0)
            said.append(line)
    return Run(process.wait(), "".join(said)), failed_at
