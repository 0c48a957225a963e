"""Fixtures of the scenarios: deployed lab hosts, people who log in, classes in the background, tables.

A scenario tells one story on real hosts. `scripts/test scenarios` brings the lab up and runs them all; with the lab up,
`.venv/bin/pytest tests/scenarios/test_pupil.py` runs one of them. Their helpers are in lab/src/scratch4school_lab.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
from xdist.scheduler import LoadScopeScheduling

from scratch4school_lab.classroom.provider import log_in
from scratch4school_lab.durations import Durations
from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios import distribution, preparation
from scratch4school_lab.scenarios.background_class import BackgroundClass, background_classes
from scratch4school_lab.scenarios.lab_hosts import CA, PASSWORD, host_with_images, http_status, newest_images
from scratch4school_lab.scenarios.playbooks import VERIFIED, play
from scratch4school_lab.scenarios.worker import HOST, WORKERS
from scratch4school_lab.tables import Tables

PROJECTS = Path(__file__).with_name("projects")
TABLES = pytest.StashKey[Tables]()
# Of this process; a worker's reports reach the process that prints them.
DURATIONS = Durations()


class HostScheduling(LoadScopeScheduling):
    """Gives a worker, which has a host of its own, all tests of a group before it gets another group."""

    def _split_scope(self, nodeid: str) -> str:
        return distribution.group_of(nodeid)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options for files with what is printed at the end."""
    parser.addoption("--tables", type=Path, metavar="FILE", help="write the scenarios' tables there too, as JSON")
    parser.addoption("--phase-times", type=Path, metavar="FILE", help="write the seconds of each setup and test there")


def pytest_configure(config: pytest.Config) -> None:
    """Start with empty tables."""
    config.stash[TABLES] = Tables()


def pytest_xdist_setupnodes(specs: Sequence[Any]) -> None:
    """Start a host for each worker, before a test starts further hosts."""
    preparation.bring_up(len(specs))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Distribute the tests by host, in the order of `distribution`, and not by the number of tests in a group."""
    config.option.loadscopereorder = False
    return HostScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest groups first, so that the workers end at about the same time."""
    items.sort(key=lambda item: distribution.order_of(item.nodeid))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Record how long a setup, a test or a teardown took."""
    DURATIONS.add(report.nodeid, report.when or "", report.duration, getattr(report, "worker_id", ""))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send a worker's tables to the process that prints them."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tables"] = session.config.stash[TABLES].rows


def pytest_testnodedown(node: Any) -> None:
    """Receive a worker's tables; a crashed worker sends none."""
    for title, rows in getattr(node, "workeroutput", {}).get("tables", {}).items():
        for row in rows:
            node.config.stash[TABLES].add(title, row)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the tables, and write the files that the options ask for."""
    tables = config.stash[TABLES]
    for title in tables.titles:
        terminalreporter.section(title)
        for line in tables.lines(title):
            terminalreporter.write_line(line)
    if path := config.getoption("--tables"):
        tables.write(path)
    if path := config.getoption("--phase-times"):
        DURATIONS.write(path)


@pytest.fixture(scope="session")
def tables(pytestconfig: pytest.Config) -> Tables:
    """The tables that are printed at the end of the run."""
    return pytestconfig.stash[TABLES]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The images of the first host by their short names.

    The first process that asks deploys the hosts of all workers, where they are not deployed yet; the others wait.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    # Later there may be images of other releases; further hosts get those of this checkout.
    known = folder / "images.json"
    with (folder / "preparation.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not known.exists():
            preparation.prepare(WORKERS)
            known.write_text(json.dumps(newest_images()))
    return json.loads(known.read_text())


@pytest.fixture(scope="session")
def deployed(images: dict[str, str]) -> Host:
    """The deployed host with PostgreSQL that this process works on."""
    return HOST


@pytest.fixture(scope="session")
def sqlite_host(images: dict[str, str]) -> Host:
    """A deployed host with SQLite and Debian 12; deploys it where nothing answers there yet."""
    host = host_with_images(images, system="bookworm", database="sqlite")
    if http_status(host) != 200:
        run = play("deploy.yml", host=host)
        assert run.status == 0, run.output[-4000:]
        assert "SQLite: no pool" in run.one_line
        assert VERIFIED in run.output
    return host


@pytest.fixture(scope="session")
def bare_host(images: dict[str, str]) -> Host:
    """A further host with the images; each test removes the installation of the previous one."""
    return host_with_images(images)


@pytest.fixture
def start_class(tmp_path: Path) -> Iterator[Callable[..., BackgroundClass]]:
    """Start a class on a host; it is killed when the test fails before its end."""
    with background_classes(tmp_path) as start:
        yield start


@pytest.fixture(scope="session")
def login(deployed: Host) -> Callable[..., requests.Session]:
    """Log a person in through the provider; returns a browser with the session, as the front end has it."""

    # A process logs each person in once. Beside a class of a hundred, only people after pupil100 log in.
    @functools.cache
    def as_person(name: str, host: Host = deployed) -> requests.Session:
        browser = requests.Session()
        browser.trust_env = False
        browser.verify = CA
        browser.headers["Authorization"] = f"Bearer {log_in(host.url, name, PASSWORD, CA)}"
        return browser

    return as_person
