"""The helpers of the scenarios that need no lab: hosts of workers, distribution, variants, logins, playbooks."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scratch4school_lab.checkout import ROOT
from scratch4school_lab.classroom import provider
from scratch4school_lab.hosts import containers, plan
from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios import background_class, distribution, preparation, variants
from scratch4school_lab.scenarios.playbooks import Run
from scratch4school_lab.scenarios.worker import host_of

SCENARIOS = ROOT / "tests" / "scenarios"
FILES = sorted(path.name for path in SCENARIOS.glob("test_*.py"))
VARIANTS = [
    variants.another_pooler,
    variants.breaks_migration,
    variants.does_not_start,
    variants.fails_verification,
    variants.good,
    variants.never_built,
    variants.never_ready,
    variants.slow_lock,
]


@pytest.mark.parametrize(
    ("worker", "count", "number"), [("", 1, 1), ("gw0", 2, 1), ("gw1", 2, 2), ("gw2", 2, 1), ("gw3", 2, 2)]
)
def test_worker_has_host_of_its_number(worker: str, count: int, number: int) -> None:
    """A worker that replaces a crashed one gets a higher number, and there is no further host for it."""
    assert host_of(worker, count) == plan.Host(number)


class TestDistribution:
    """Files that change the same further host are one group."""

    @pytest.mark.parametrize("file", FILES)
    def test_every_file_is_in_one_group_or_separate_or_alone(self, file: str) -> None:
        """A new file would otherwise run last, where it makes the whole run longer."""
        listed = [name for group in distribution.GROUPS for name in group] + list(distribution.SEPARATE)
        is_alone = bool(
            re.search(r"^pytestmark = .*\bpytest\.mark\.alone\b", (SCENARIOS / file).read_text(), re.MULTILINE)
        )
        assert listed.count(file) == (0 if is_alone else 1)

    def test_every_listed_file_exists(self) -> None:
        listed = {name for group in distribution.GROUPS for name in group} | set(distribution.SEPARATE)
        assert listed <= set(FILES)

    @pytest.mark.parametrize("fixture", ["sqlite_host", "bare_host", "bookworm"])
    def test_files_with_same_further_host_are_one_group(self, fixture: str) -> None:
        """Two workers would otherwise change that host at once. A file that runs alone has no second worker."""
        users = [
            file
            for file in FILES
            if re.search(rf"\b{fixture}\b.*: Host", (SCENARIOS / file).read_text())
            and "pytestmark = pytest.mark.alone" not in (SCENARIOS / file).read_text()
        ]
        assert users
        assert len({distribution.group_of(f"tests/scenarios/{file}::test") for file in users}) == 1

    def test_tests_of_group_stay_together_in_order(self) -> None:
        files = [file for file in reversed(FILES) if file not in distribution.SEPARATE]
        nodes = [f"tests/scenarios/{file}::test_{number}" for number in (1, 2) for file in files]
        groups = [distribution.group_of(node) for node in sorted(nodes, key=distribution.order_of)]
        together = [group for group, after in zip(groups, [*groups[1:], ""], strict=True) if group != after]
        assert sorted(together) == sorted(set(groups))

    def test_separate_test_is_group_of_its_own_at_end(self) -> None:
        node = "tests/scenarios/test_refusals.py::test_wrong_setting_is_refused[app_url=a::b]"
        assert distribution.group_of(node) == node
        assert distribution.order_of(node) > distribution.order_of("tests/scenarios/test_sweep.py::test")


CONFTEST = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("scenarios", "{SCENARIOS}/conftest.py")
scenarios = importlib.util.module_from_spec(spec)
spec.loader.exec_module(scenarios)
pytest_xdist_make_scheduler = scenarios.pytest_xdist_make_scheduler
pytest_collection_modifyitems = scenarios.pytest_collection_modifyitems
"""
TEST = """
import os, pathlib, pytest
@pytest.mark.parametrize("number", range(4))
def test(number):
    pathlib.Path(__file__).with_suffix("." + os.environ["PYTEST_XDIST_WORKER"]).touch()
"""


def test_worker_runs_all_tests_of_group(tmp_path: Path) -> None:
    """pytest-xdist's own groups have no effect with pytest 9.2, and did not say so."""
    files = ("test_import.py", "test_sqlite.py", "test_fault_matrix.py", "test_drift.py")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT / 'lab' / 'src'}\n")
    for file in files:
        (tmp_path / file).write_text(TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "."]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    workers = {file: [path.suffix for path in tmp_path.glob(f"{file[:-3]}.gw*")] for file in files}
    assert all(len(found) == 1 for found in workers.values()), workers
    assert workers["test_import.py"] == workers["test_sqlite.py"]
    assert len({suffix for found in workers.values() for suffix in found}) == 2


class TestPreparation:
    """Which hosts are deployed, and how."""

    @pytest.fixture
    def steps(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The steps that were made, on hosts of the usual kind of which none is deployed."""
        made: list[str] = []
        kind = {"system": "trixie", "database": "postgres"}
        monkeypatch.setattr(containers, "describe_all", lambda: {host.name: kind for host in plan.hosts(3)})
        monkeypatch.setattr(preparation, "is_deployed", lambda _host: False)
        monkeypatch.setattr(preparation, "http_status", lambda _host: 200)
        monkeypatch.setattr(preparation, "deploy", lambda host, *_: made.append(f"deploy {host.number}"))
        monkeypatch.setattr(preparation, "lab", lambda *arguments: made.append(" ".join(arguments)))
        return made

    def test_single_host_is_deployed_without_snapshot(self, steps: list[str]) -> None:
        preparation.prepare(1)
        assert steps == ["deploy 1"]

    def test_second_host_comes_from_snapshot_of_first(self, steps: list[str]) -> None:
        preparation.prepare(2)
        assert steps == ["deploy 1", "snapshot 1", "restore 2", "deploy 2"]

    def test_deployed_hosts_are_left_as_they_are(self, steps: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(preparation, "is_deployed", lambda _host: True)
        preparation.prepare(2)
        assert steps == []

    def test_host_of_other_kind_is_refused(self, steps: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """A worker would otherwise run the scenarios of PostgreSQL on SQLite."""
        kinds = {"scratch4school-lab-1": "postgres", "scratch4school-lab-2": "sqlite"}
        known = {name: {"system": "trixie", "database": database} for name, database in kinds.items()}
        monkeypatch.setattr(containers, "describe_all", lambda: known)
        with pytest.raises(AssertionError, match="scratch4school-lab-2 is trixie, sqlite"):
            preparation.prepare(2)
        assert steps == []


@pytest.mark.parametrize("edit", VARIANTS, ids=lambda edit: edit.__name__)
def test_variant_fits_this_checkout(edit: object, tmp_path: Path) -> None:
    """A scenario would notice a moved file of the application only after half an hour."""
    copy = variants.make(tmp_path, edit)
    assert (copy / "deploy" / "deploy.yml").is_file()
    assert not (copy / ".git").exists()


def test_second_login_of_person_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lab's provider refuses two logins of one person within a second; another person does not wait."""
    monkeypatch.setattr(provider, "LOGIN_PAUSE_SECONDS", 0.3)
    moments = []
    for name in ("pupil01", "pupil02", "pupil01"):
        with provider.a_second_apart(name, tmp_path / "logins"):
            moments.append(time.monotonic())
    assert moments[2] - moments[0] >= 0.29


def test_login_without_lab_makes_no_folder(tmp_path: Path) -> None:
    with provider.a_second_apart("pupil01", tmp_path / "nothing" / "logins"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_interval_waits_for_request_that_is_still_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its failure belongs to the interval, however late it is."""
    monkeypatch.setattr(background_class.subprocess, "Popen", lambda *_arguments, **_options: None)
    monkeypatch.setattr(background_class.time, "time", lambda: 100.0)
    load = background_class.BackgroundClass(plan.Host(1), tmp_path)
    quiet = {"promises": {"lost": 0}, "breaches": [], "unread": [], "failures": []}
    late = {"start": 60.0, "end": 150.0, "operation": "update", "status": 502, "message": ""}
    newest = [
        {**quiet, "at": 99.0, "requests": 10, "oldest_open": None},
        {**quiet, "at": 149.0, "requests": 20, "oldest_open": 60.0},
        {**quiet, "at": 151.0, "requests": 21, "oldest_open": 150.5, "failures": [late]},
    ]
    pulses: list[dict[str, object]] = []
    monkeypatch.setattr(load, "_pulses", lambda: pulses)

    def wait_for(condition: Callable[[], bool]) -> None:
        while newest:
            pulses.append(newest.pop(0))
            assert condition() is not bool(newest)

    monkeypatch.setattr(background_class, "wait_for", wait_for)
    assert load.since(50.0).failures == [late]


def test_recap_is_that_of_host() -> None:
    output = "scratch4school-lab-1 : ok=3 changed=0 failed=0\nscratch4school-lab-2 : ok=9 changed=2 failed=1\n"
    assert Run(0, output).recap(plan.Host(2)) == {"ok": 9, "changed": 2, "failed": 1}


def test_output_on_one_line_has_no_line_breaks() -> None:
    assert Run(0, "a message\n  of Ansible\n").one_line == "a message of Ansible"


def test_hosts_are_brought_up_where_no_engine_runs_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only after the first `scripts/lab up` is there an engine to ask for the hosts."""
    commands: list[tuple[str, ...]] = []

    def existing_hosts() -> list[Host]:
        assert commands, "asked before there is an engine"
        return [Host(1)]

    monkeypatch.setattr(preparation, "existing_hosts", existing_hosts)
    monkeypatch.setattr(preparation, "lab", lambda *arguments: commands.append(arguments))
    preparation.bring_up(2)
    assert commands == [("up",), ("up", "--hosts", "2")]
