"""The command scripts/test: runs the parts of the tests, and prints how each ended and where the time went.

Standard library only: it starts in a fresh clone, runs scripts/setup, and then the tests with the installed tools.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..checkout import LAB_INVENTORY, ROOT, STATE, TOOLS
from ..durations import Durations
from ..tables import Tables

APP = ROOT / "docker" / "app"
EXAMPLE_INVENTORY = ROOT / "inventories" / "example"
SOURCE = ROOT / "lab" / "src"
PREPARATION_LOG = STATE / "preparation.log"

# Two processes leave time for the lab, which starts meanwhile.
TWO_AT_A_TIME = ("-n", "2", "--dist", "worksteal")
# The application's tests wait for timers and sockets half of their time.
THREE_AT_A_TIME = ("-n", "3", "--dist", "worksteal")
# Each worker has a lab host of its own; tests/scenarios/conftest.py distributes the files.
HOSTS = 2

# Each part fits into 90 minutes. A file with tests that are marked long is in exactly one of them.
LONG_PARTS: dict[int, tuple[str, ...]] = {
    1: ("test_import_faults.py", "test_drift.py", "test_backups.py"),
    2: ("test_import.py", "test_sqlite.py", "test_fault_matrix.py"),
    3: ("test_move_to_postgres.py", "test_remote_backups.py", "test_host_faults.py", "test_backup_faults.py"),
    4: ("test_corrected_settings.py", "test_bookworm.py", "test_change_under_load.py", "test_benchmarks.py"),
}

# A developer's own settings must not change what the tests find, nor how long they take.
IGNORED_SETTINGS = (
    "ANSIBLE_CONFIG",
    "ANSIBLE_INVENTORY",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONPATH",
    "PYTEST_ADDOPTS",
    "VIRTUAL_ENV",
)
SLOWEST_FILES, SLOWEST = 30, 15

DESCRIPTION = "Runs the tests, all or one part, and ends with tables of the parts and of where the time went."
EPILOG = """\
parts:
  lint       ruff, ansible-lint, and every playbook's syntax from the root and from deploy/
  unit       host/, lab/, plugins, contracts and house rules; a few minutes, no host
  app        the application on PostgreSQL and SQLite; needs PostgreSQL's server programs, installed by apt when root
  health     reads the lab's hosts and changes nothing; the lab must be up
  scenarios  playbooks on lab hosts; starts the lab, and removes it again if it was not there before
  long       the longer scenarios, such as the rest of the fault matrix; in parts of less than 90 minutes each, with a
             lab for each part
  all        lint, unit, app, scenarios, health; they have to pass before a change is taken in

examples:
  scripts/test               all
  scripts/test unit          one part
  scripts/test long 2        the second part of the longer scenarios"""


class PartFailed(Exception):
    """A part failed; the text says why, or is empty when the output of the tests says it."""


@dataclass
class Result:
    """How one part ended.

    :param seconds: how long it took.
    :param passed: tests that passed, 0 for parts without tests.
    :param failed: tests that failed, errors included.
    :param ok: whether the part succeeded.
    :param note: why not, where the tests do not say it.
    :param durations: of its tests, where they were recorded.
    """

    name: str
    seconds: float = 0.0
    passed: int = 0
    failed: int = 0
    ok: bool = True
    note: str = ""
    durations: Durations = field(default_factory=Durations)


@dataclass(frozen=True)
class Part:
    """A part of the tests: its name, what runs it, whether it needs the lab, and what installs packages for it."""

    name: str
    run: Callable[[Result], None]
    on_lab: bool = False
    install: Callable[[], None] | None = None


def environment() -> dict[str, str]:
    """The environment of the tests: our tools first on the path, without the developer's own settings."""
    variables = {**os.environ, "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"}
    return {name: value for name, value in variables.items() if name not in IGNORED_SETTINGS}


def run(*command: str | Path, folder: Path = ROOT) -> int:
    """Run a command, whose output is shown; returns its exit status."""
    print(f"$ {' '.join(str(part) for part in command)}", flush=True)
    process = subprocess.Popen([*map(str, command)], cwd=folder, env=environment(), stdin=subprocess.DEVNULL)
    try:
        return process.wait()
    except BaseException:
        # This process is being ended: end the command too, and give it time to clean up.
        process.terminate()
        process.wait(timeout=600)
        raise


def require(*command: str | Path, folder: Path = ROOT, error: str = "") -> None:
    """Run a command that has to succeed.

    :raises PartFailed: when it does not.
    """
    status = run(*command, folder=folder)
    if status:
        raise PartFailed(error or f"{Path(command[0]).name} ended with {status}.")


def run_pytest(
    result: Result, python: Path, *arguments: str | Path, folder: Path = ROOT, may_be_empty: bool = False
) -> None:
    """Run pytest, and add to the result the counts of its report.

    :param may_be_empty: whether it is no failure when no test matches the arguments.
    :raises PartFailed: when a test failed, or when pytest could not run any.
    """
    with tempfile.TemporaryDirectory() as workspace:
        report = Path(workspace) / "report.xml"
        status = run(python, "-m", "pytest", f"--junitxml={report}", *arguments, folder=folder)
        # The report is pytest's own, so it needs no safe parser.
        suites = ElementTree.parse(report).getroot().iter("testsuite") if report.is_file() else ()
        for suite in suites:
            counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
            result.failed += counts["failures"] + counts["errors"]
            result.passed += max(0, counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"])
    if status == 5 and may_be_empty:
        return
    if status == 5:
        raise PartFailed("pytest found no tests.")
    if status:
        raise PartFailed("" if result.failed else f"pytest ended with {status}.")


def lint(result: Result) -> None:
    """Run every linter, also after one has failed, so that one round of corrections is enough."""
    playbooks = sorted(path.name for path in (ROOT / "deploy").glob("*.yml"))
    syntax_check = (TOOLS / "ansible-playbook", "--syntax-check", "--inventory", EXAMPLE_INVENTORY)
    steps: list[tuple[str, tuple[str | Path, ...], Path]] = [
        ("ruff check", (TOOLS / "ruff", "check", "."), ROOT),
        ("ruff format", (TOOLS / "ruff", "format", "--check", "."), ROOT),
        ("ansible-lint", (TOOLS / "ansible-lint", "--nocolor"), ROOT),
        # ansible-lint finds roles and plugins by itself, ansible-playbook only by ansible.cfg, and that is per folder.
        ("syntax from the root", (*syntax_check, *(f"deploy/{name}" for name in playbooks)), ROOT),
        ("syntax from deploy/", (*syntax_check, *playbooks), ROOT / "deploy"),
    ]
    failed = [name for name, command, folder in steps if run(*command, folder=folder)]
    if failed:
        raise PartFailed(f"not clean: {', '.join(failed)}.")


def unit(result: Result) -> None:
    """Run the tests that need no host, all of them also after one has failed."""
    problems = []
    # host/ is a project with settings and a conftest.py of its own, so it needs a pytest of its own.
    for folders in (("host/tests",), ("tests/unit", "lab/tests")):
        try:
            run_pytest(result, TOOLS / "python", "-q", *TWO_AT_A_TIME, *folders)
        except PartFailed as problem:
            problems.append(str(problem))
    if problems:
        raise PartFailed(" ".join(filter(None, problems)))


def app(result: Result) -> None:
    """Run the application's own tests, in its own environment."""
    provide_postgresql()
    require("scripts/setup", "--app", error="The application's test tools could not be installed.")
    run_pytest(result, APP / ".venv" / "bin" / "python", "-q", *THREE_AT_A_TIME, folder=APP)


def provide_postgresql() -> None:
    """Have PostgreSQL's server programs, without a server: the tests start their own in a temporary folder.

    :raises PartFailed: when they are missing and this process may not install them.
    """
    if shutil.which("initdb") or any(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise PartFailed(
            "PostgreSQL's server programs are missing; install them (Debian, Ubuntu: sudo apt-get install postgresql)."
        )
    # The package creates and starts a cluster unless this file, in a folder of its first part, says otherwise.
    settings = Path("/etc/postgresql-common/createcluster.d/scratch4school-test.conf")
    apt_get = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet", "--yes", "--no-install-recommends")
    error = "PostgreSQL's server programs could not be installed; see the errors of apt-get above."
    require(*apt_get, "update", error=error)
    require(*apt_get, "install", "postgresql-common", error=error)
    settings.parent.mkdir(exist_ok=True)
    settings.write_text("create_main_cluster = false\n")
    try:
        require(*apt_get, "install", "postgresql", error=error)
    finally:
        settings.unlink()


def health(result: Result) -> None:
    """Run the health tests against the lab's hosts, as they run against a school's."""
    if not (LAB_INVENTORY / "hosts.yml").is_file():
        raise PartFailed("There is no lab; run scripts/demo first, or scripts/lab up and a deploy.")
    run_pytest(result, TOOLS / "python", "-q", f"--ansible-inventory={LAB_INVENTORY}", "tests/health")


def run_scenarios(result: Result, marks: str, files: tuple[str, ...] = ()) -> None:
    """Run scenarios with these marks: on several hosts at once, and then those that need the machine alone.

    :param files: of tests/scenarios; all where none is given.
    """
    paths = [f"tests/scenarios/{name}" for name in files] or ["tests/scenarios"]
    problems = []
    for alone, workers in (("not alone", ("-n", str(HOSTS))), ("alone", ())):
        with tempfile.TemporaryDirectory() as workspace:
            times = Path(workspace) / "times.json"
            arguments = ("-v", *workers, f"--phase-times={times}", "-m", f"{marks} and {alone}", *paths)
            try:
                run_pytest(result, TOOLS / "python", *arguments, may_be_empty=bool(files))
            except PartFailed as problem:
                problems.append(str(problem))
            result.durations.recorded += Durations.read(times).recorded
    if problems:
        raise PartFailed(" ".join(filter(None, problems)))


def scenarios(result: Result) -> None:
    """Run the scenarios that are not marked long."""
    run_scenarios(result, "not long")


def long(number: int, result: Result) -> None:
    """Run one part of the long scenarios."""
    run_scenarios(result, "long", LONG_PARTS[number])


PARTS = (
    Part("lint", lint),
    Part("unit", unit),
    Part("app", app, install=provide_postgresql),
    Part("scenarios", scenarios, on_lab=True),
    Part("health", health, on_lab=True),
)
LONG = tuple(Part(f"long {number}", functools.partial(long, number), on_lab=True) for number in LONG_PARTS)


def start_preparation() -> subprocess.Popen[bytes]:
    """Start the lab and deploy its hosts in the background, at low priority, with the output in a log."""
    STATE.mkdir(mode=0o700, exist_ok=True)
    print(f"The lab starts meanwhile; see {PREPARATION_LOG.relative_to(ROOT)}.", flush=True)
    command = ["nice", "-n", "5", str(TOOLS / "python"), "-m", "scratch4school_lab.scenarios.preparation", str(HOSTS)]
    with PREPARATION_LOG.open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environment(), "PYTHONPATH": str(SOURCE)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


@contextmanager
def lab(preparation: subprocess.Popen[bytes] | None, was_there: bool) -> Iterator[None]:
    """Have the lab up; one that was there before stays, another one is removed at the end."""
    try:
        if preparation is None:
            require("scripts/lab", "up", error="The lab did not start.")
        elif preparation.wait():
            print("".join(PREPARATION_LOG.read_text(errors="replace").splitlines(keepends=True)[-60:]), flush=True)
            raise PartFailed(f"The hosts could not be deployed; see {PREPARATION_LOG.relative_to(ROOT)}.")
        yield
    finally:
        if preparation is not None:
            with contextlib.suppress(ProcessLookupError):
                preparation.terminate()
            preparation.wait()
        if not was_there:
            run("scripts/lab", "down")


def run_part(part: Part) -> Result:
    """Run one part, and record how it ended."""
    print(f"\n== {part.name} ==", flush=True)
    result = Result(part.name)
    start = time.monotonic()
    try:
        part.run(result)
    except (PartFailed, OSError, subprocess.SubprocessError) as problem:
        result.ok = False
        result.note = str(problem)
    result.seconds = time.monotonic() - start
    # A part that fails without a failed test must not count as 0 failed.
    if not result.ok and not result.failed:
        result.failed = 1
    return result


def run_in_labs(parts: list[Part], results: list[Result]) -> None:
    """Run each part in a lab of its own: gigabytes, releases and damaged files of one would mislead the next one."""
    for part in parts:
        run_parts([part], results, prepare=False)


def run_parts(parts: list[Part], results: list[Result], prepare: bool) -> None:
    """Run the parts in order; those on the lab share one lab, and none of them runs when it does not start.

    :param prepare: whether the lab starts during the parts that do not need it.
    """
    # The health tests alone read a lab that is there.
    needs_lab = any(part.on_lab and part.name != "health" for part in parts)
    on_lab = [part for part in parts if needs_lab and part.on_lab]
    was_there = (LAB_INVENTORY / "hosts.yml").is_file()
    preparation = None
    if prepare and on_lab and len(on_lab) < len(parts):
        # The lab may install packages too, and apt-get refuses to run twice at once.
        for part in parts:
            with contextlib.suppress(PartFailed):
                if part.install:
                    part.install()
        preparation = start_preparation()
    try:
        results += map(run_part, (part for part in parts if part not in on_lab))
    except BaseException:
        if preparation is not None:
            with contextlib.suppress(PartFailed), lab(preparation, was_there):
                pass
        raise
    if on_lab:
        print("\n== lab ==", flush=True)
        start = time.monotonic()
        try:
            with lab(preparation, was_there):
                results.append(Result("lab", time.monotonic() - start))
                results += map(run_part, on_lab)
        except PartFailed as problem:
            results.append(Result("lab", time.monotonic() - start, failed=1, ok=False, note=str(problem)))


def report(results: list[Result]) -> bool:
    """Print the parts, and where the time went; returns whether all succeeded."""
    print("\npart         seconds   passed   failed")
    for result in results:
        verdict = "ok" if result.ok else f"FAILED  {result.note}".rstrip()
        print(f"{result.name:<11}{result.seconds:>9.1f}{result.passed:>9}{result.failed:>9}   {verdict}")
    print(f"{'all':<11}{sum(result.seconds for result in results):>9.1f}")
    for result in results:
        if result.durations.recorded:
            print("\n".join(["", *where_time_went(result)]))
    print(f"\n{sum(result.passed for result in results)} passed, {sum(result.failed for result in results)} failed")
    return bool(results) and all(result.ok for result in results)


def where_time_went(result: Result) -> list[str]:
    """The lines of the tables of one part: its slowest files, setups and tests, and its workers."""
    files, workers = (f"{result.name}: {what}" for what in ("slowest files", "workers"))
    tables = Tables()
    for name, seconds in list(result.durations.by_file().items())[:SLOWEST_FILES]:
        phases = {f"{phase}_s": seconds.get(phase, 0.0) for phase in ("setup", "call", "teardown")}
        tables.add(files, {"file": name, "seconds": seconds["all"], **phases, "tests": int(seconds["tests"])})
    for title, column, phase in (("slowest setups", "setup_of", "setup"), ("slowest tests", "test", "call")):
        for each in result.durations.slowest(phase, SLOWEST):
            row = {column: each.test.removeprefix("tests/scenarios/"), "seconds": each.seconds}
            tables.add(f"{result.name}: {title}", row)
    for worker, busy in result.durations.by_worker().items():
        tables.add(workers, {"worker": worker or "alone", "busy_s": busy})
    return [line for title in tables.titles for line in (title, *tables.lines(title), "")]


def stop(number: int, _frame: object) -> None:
    """Turn SIGTERM into an exception, so that everything that was started is ended on the way out."""
    raise SystemExit(128 + number)


def main() -> int:
    """Run the parts that the command line asks for; returns 0 when all passed."""
    parser = argparse.ArgumentParser(
        prog="scripts/test",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ["all", *(part.name for part in PARTS), "long"]
    parser.add_argument("part", nargs="?", choices=names, default="all", metavar="PART", help="default: all")
    parser.add_argument("number", nargs="?", type=int, choices=LONG_PARTS, metavar="N", help="one part of long")
    parser.add_argument(
        "--in-order", action="store_true", help="start the lab after the parts that do not need it, not during them"
    )
    options = parser.parse_args()
    if options.number and options.part != "long":
        parser.error(f"only long has parts with a number; leave {options.number} out")
    parts = [part for part in PARTS if options.part in ("all", part.name)]
    if options.part == "long":
        parts = [part for part in LONG if not options.number or part.name == f"long {options.number}"]
    signal.signal(signal.SIGTERM, stop)
    if run("scripts/setup"):
        return 1
    results: list[Result] = []
    try:
        if options.part == "long":
            run_in_labs(parts, results)
        else:
            run_parts(parts, results, prepare=not options.in_order)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    return 0 if report(results) else 1
