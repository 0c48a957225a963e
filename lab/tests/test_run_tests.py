"""The command scripts/test: which parts run, when the lab starts, and the tables at the end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest

from scratch4school_lab.checkout import ROOT
from scratch4school_lab.commands import run_tests
from scratch4school_lab.commands.run_tests import Part, PartFailed, Result
from scratch4school_lab.durations import Durations

SCENARIOS = ROOT / "tests" / "scenarios"


def test_every_long_file_is_in_exactly_one_part() -> None:
    """Otherwise `scripts/test long` would leave it out, or run it twice."""
    long = sorted(path.name for path in SCENARIOS.glob("test_*.py") if "pytest.mark.long" in path.read_text())
    listed = sorted(name for files in run_tests.LONG_PARTS.values() for name in files)
    assert listed == long


class TestDurations:
    """The durations that pytest's process records and scripts/test reads."""

    @pytest.fixture
    def recorded(self) -> Durations:
        durations = Durations()
        durations.add("tests/scenarios/test_a.py::test_one[x::y]", "setup", 100.0, "gw0")
        durations.add("tests/scenarios/test_a.py::test_one[x::y]", "call", 10.0, "gw0")
        durations.add("tests/scenarios/test_b.py::test_two", "setup", 1.0, "gw1")
        durations.add("tests/scenarios/test_b.py::test_two", "call", 300.0, "gw1")
        durations.add("tests/scenarios/test_b.py::test_three", "setup", 0.5, "gw1")
        return durations

    def test_written_durations_are_read(self, recorded: Durations, tmp_path: Path) -> None:
        recorded.write(tmp_path / "times.json")
        assert Durations.read(tmp_path / "times.json").recorded == recorded.recorded

    def test_missing_file_has_no_durations(self, tmp_path: Path) -> None:
        """A pytest that was killed writes none."""
        assert Durations.read(tmp_path / "times.json").recorded == []

    def test_files_are_sorted_by_their_sum(self, recorded: Durations) -> None:
        assert {name: (seconds["all"], seconds["tests"]) for name, seconds in recorded.by_file().items()} == {
            "test_b.py": (301.5, 2),
            "test_a.py": (110.0, 1),
        }
        assert list(recorded.by_file()) == ["test_b.py", "test_a.py"]

    def test_slowest_setups_are_first(self, recorded: Durations) -> None:
        assert [each.seconds for each in recorded.slowest("setup", 2)] == [100.0, 1.0]

    def test_workers_have_their_busy_time(self, recorded: Durations) -> None:
        assert recorded.by_worker() == {"gw0": 110.0, "gw1": 301.5}

    def test_report_shows_parts_files_setups_and_workers(
        self, recorded: Durations, capsys: pytest.CaptureFixture[str]
    ) -> None:
        parts = [Result("unit", 60.0, passed=3), Result("scenarios", 412.0, passed=3, durations=recorded)]
        assert run_tests.report(parts)
        lines = capsys.readouterr().out.splitlines()
        assert "scenarios      412.0        3        0   ok" in lines
        assert "all            472.0" in lines
        assert "test_b.py    301.5      1.5   300.0         0.0      2" in lines
        assert "test_a.py::test_one[x::y]    100.0" in lines
        assert "gw1      301.5" in lines
        assert lines[-1] == "6 passed, 0 failed"


class TestParts:
    """Which parts run, and beside which the lab starts."""

    @pytest.fixture
    def events(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The steps in order; the lab is only recorded."""
        seen: list[str] = []

        @contextmanager
        def lab(preparation: object, _was_there: bool) -> object:
            seen.append("lab prepared" if preparation else "lab started")
            yield
            seen.append("lab ended")

        monkeypatch.setattr(run_tests, "lab", lab)
        monkeypatch.setattr(run_tests, "start_preparation", lambda: seen.append("preparation") or object())
        return seen

    def part(self, events: list[str], name: str, on_lab: bool = False, error: str | None = None) -> Part:
        """A part that notes that it ran, and may fail."""

        def run(_result: Result) -> None:
            events.append(name)
            if error is not None:
                raise PartFailed(error)

        return Part(name, run, on_lab)

    def test_lab_starts_during_parts_without_lab(self, events: list[str]) -> None:
        parts = [self.part(events, "unit"), self.part(events, "scenarios", True), self.part(events, "health", True)]
        results: list[Result] = []
        run_tests.run_parts(parts, results, prepare=True)
        assert events == ["preparation", "unit", "lab prepared", "scenarios", "health", "lab ended"]
        assert [result.name for result in results] == ["unit", "lab", "scenarios", "health"]

    def test_packages_are_installed_before_lab_starts(self, events: list[str]) -> None:
        """A failure is reported by the part itself."""

        def install() -> None:
            events.append("packages")
            raise PartFailed("apt-get failed.")

        app = self.part(events, "app")
        parts = [Part(app.name, app.run, install=install), self.part(events, "scenarios", True)]
        run_tests.run_parts(parts, [], prepare=True)
        assert events == ["packages", "preparation", "app", "lab prepared", "scenarios", "lab ended"]

    def test_lab_starts_after_parts_without_lab_in_order(self, events: list[str]) -> None:
        parts = [self.part(events, "unit"), self.part(events, "scenarios", True)]
        run_tests.run_parts(parts, [], prepare=False)
        assert events == ["unit", "lab started", "scenarios", "lab ended"]

    def test_scenarios_alone_need_no_preparation(self, events: list[str]) -> None:
        """The tests themselves prepare the hosts; nothing runs beside it."""
        run_tests.run_parts([self.part(events, "scenarios", True)], [], prepare=True)
        assert events == ["lab started", "scenarios", "lab ended"]

    def test_long_parts_have_a_lab_each(self, events: list[str]) -> None:
        results: list[Result] = []
        run_tests.run_in_labs([self.part(events, "long 1", True), self.part(events, "long 2", True)], results)
        assert events == ["lab started", "long 1", "lab ended", "lab started", "long 2", "lab ended"]
        assert [result.name for result in results] == ["lab", "long 1", "lab", "long 2"]

    def test_health_alone_reads_existing_lab(self, events: list[str]) -> None:
        run_tests.run_parts([self.part(events, "health", True)], [], prepare=True)
        assert events == ["health"]

    def test_failed_part_does_not_stop_next_one(self, events: list[str]) -> None:
        results: list[Result] = []
        parts = [self.part(events, "lint", error="not clean: ruff."), self.part(events, "unit")]
        run_tests.run_parts(parts, results, prepare=True)
        assert events == ["lint", "unit"]
        assert [(result.ok, result.failed, result.note) for result in results] == [
            (False, 1, "not clean: ruff."),
            (True, 0, ""),
        ]

    def test_lab_that_does_not_start_fails_run(
        self, events: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        @contextmanager
        def broken(_preparation: object, _was_there: bool) -> object:
            raise PartFailed("The lab did not start.")
            yield

        monkeypatch.setattr(run_tests, "lab", broken)
        results: list[Result] = []
        run_tests.run_parts([self.part(events, "scenarios", True)], results, prepare=True)
        assert events == []
        assert not run_tests.report(results)
        assert "FAILED  The lab did not start." in capsys.readouterr().out

    def test_interrupt_ends_the_preparation_too(self, events: list[str]) -> None:
        """Otherwise the deploy would go on without the command that started it."""

        def interrupt(_result: Result) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_tests.run_parts([Part("unit", interrupt), self.part(events, "scenarios", True)], [], prepare=True)
        assert events == ["preparation", "lab prepared", "lab ended"]


class TestLab:
    """The lab around its parts."""

    @pytest.fixture
    def commands(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The commands that were run; all succeed."""
        seen: list[str] = []
        monkeypatch.setattr(run_tests, "run", lambda *command, **_: seen.append(" ".join(map(str, command))) or 0)
        return seen

    def ended(self, status: int) -> Callable[[], subprocess.Popen[bytes]]:
        return lambda: subprocess.Popen([sys.executable, "-c", f"raise SystemExit({status})"])

    def test_new_lab_is_removed(self, commands: list[str]) -> None:
        with run_tests.lab(None, was_there=False):
            pass
        assert commands == ["scripts/lab up", "scripts/lab down"]

    def test_existing_lab_is_not_removed(self, commands: list[str]) -> None:
        with run_tests.lab(None, was_there=True):
            pass
        assert commands == ["scripts/lab up"]

    def test_prepared_lab_is_not_started_again(self, commands: list[str]) -> None:
        with run_tests.lab(self.ended(0)(), was_there=False):
            pass
        assert commands == ["scripts/lab down"]

    def test_failed_preparation_shows_end_of_its_log(
        self,
        commands: list[str],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        log = tmp_path / "preparation.log"
        log.write_text("AssertionError: the deploy failed\n")
        monkeypatch.setattr(run_tests, "PREPARATION_LOG", log)
        monkeypatch.setattr(run_tests, "ROOT", tmp_path)
        with pytest.raises(PartFailed, match=r"see preparation\.log"), run_tests.lab(self.ended(1)(), was_there=False):
            pass
        assert "the deploy failed" in capsys.readouterr().out
        assert commands == ["scripts/lab down"]


def test_part_without_its_own_tests_is_no_failure_where_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of `long` may have no test that has to run alone."""
    monkeypatch.setattr(run_tests, "run", lambda *_, **__: 5)
    run_tests.run_pytest(Result("long 1"), Path("python"), may_be_empty=True)
    with pytest.raises(PartFailed, match="found no tests"):
        run_tests.run_pytest(Result("unit"), Path("python"))
