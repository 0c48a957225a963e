"""Scripts are the menu: each can be run, says what it does when asked, and opens by saying why it exists."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file() and not path.name.startswith("_"))


def each() -> pytest.MarkDecorator:
    """Run the test once per script."""
    return pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)


def test_the_menu_is_complete() -> None:
    """What README and CI call is there."""
    assert {"classroom", "demo", "lab", "pgbouncer-config", "setup", "test"} <= {script.name for script in SCRIPTS}


@each()
def test_it_can_be_run(script: Path) -> None:
    """A script that has to be called through its interpreter is a file, not a command."""
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/usr/bin/env ")


@each()
def test_it_opens_by_saying_why(script: Path) -> None:
    """The second line is a comment, or a docstring, of at least a few words."""
    second = script.read_text().splitlines()[1]
    assert second.startswith(("# ", '"""')), second
    assert len(second.split()) >= 5, second


@each()
def test_it_answers_when_asked(script: Path) -> None:
    """--help works anywhere and at once, also where nothing has been set up yet, and changes nothing."""
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:" + environment["PATH"]
    answer = subprocess.run(
        [script, "--help"],
        cwd="/",
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert "usage" in answer.stdout.lower()


def test_continuous_integration_runs_what_people_run() -> None:
    """.ci/run holds nothing of its own."""
    run = ROOT / ".ci" / "run"
    assert os.access(run, os.X_OK)
    assert "scripts/test" in run.read_text()
