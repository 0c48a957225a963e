"""Browsers on a deployed lab host. `scripts/test browser` starts the lab, deploys, and runs these tests.

With the lab up and deployed, `.venv/bin/pytest tests/browser` runs them. A test that fails leaves its pictures, console
and requests in `.lab/browser/`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from scratch4school_lab.browser import chromium
from scratch4school_lab.browser.visitor import Visitor
from scratch4school_lab.checkout import STATE
from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios import preparation
from scratch4school_lab.scenarios.worker import HOST

PICTURES = STATE / "browser"


@pytest.fixture(scope="session")
def deployed() -> Host:
    """The deployed lab host."""
    preparation.prepare(1)
    return HOST


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium; a wait of a test has the bound of a page."""
    shutil.rmtree(PICTURES, ignore_errors=True)
    expect.set_options(timeout=90_000)
    with sync_playwright() as playwright:
        started = chromium.start(playwright)
        yield started
        started.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Tell the fixture below how the test ended."""
    report = yield
    if call.when == "call":
        item.stash[FAILED] = report.failed
    return report


FAILED = pytest.StashKey[bool]()


@pytest.fixture
def visitor(browser: Browser, deployed: Host, request: pytest.FixtureRequest) -> Iterator[Callable[..., Visitor]]:
    """Make a person with a browser of their own, who is logged in unless `log_in` is false.

    The test fails on a request to a foreign host, a violation of the policy, or an uncaught error.
    """
    made: list[Visitor] = []
    with ExitStack() as contexts:

        def make(name: str, log_in: bool = True, **options: object) -> Visitor:
            context, watch = contexts.enter_context(chromium.context_of(browser, deployed.url, **options))
            person = Visitor(context, watch, name)
            made.append(person)
            if log_in:
                person.log_in()
            return person

        yield make
        problems = [problem for person in made for problem in person.watch.unexpected()]
        if request.node.stash.get(FAILED, True) or problems:
            folder = PICTURES / re.sub(r"\W+", "-", request.node.name)
            for number, person in enumerate(made, start=1):
                for page_number, page in enumerate(person.context.pages, start=1):
                    person.watch.write(folder / f"{number}-{person.name}-{page_number}", page)
        assert problems == []
