"""The commands in scripts/: each can be run, begins with a description, and answers --help anywhere."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file() and not path.suffix)


def each() -> pytest.MarkDecorator:
    """Run the test once per script."""
    return pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)


def test_scripts_that_readme_and_ci_call_exist() -> None:
    """Each of them."""
    assert {"classroom", "demo", "lab", "pgbouncer-config", "setup", "test"} <= {script.name for script in SCRIPTS}


@each()
def test_script_is_executable_without_its_interpreter(script: Path) -> None:
    """With an executable bit and a shebang."""
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/usr/bin/env ")


@each()
def test_second_line_of_a_script_describes_its_purpose(script: Path) -> None:
    """In a comment or docstring of at least five words."""
    second = script.read_text().splitlines()[1]
    assert second.startswith(("# ", '"""')), second
    assert len(second.split()) >= 5, second


@each()
def test_script_prints_its_usage_without_a_setup(script: Path) -> None:
    """--help works in any folder and before scripts/setup, and changes nothing."""
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:" + environment["PATH"]
    answer = subprocess.run(
        [script, "--help"],
        cwd="/",
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert "usage" in answer.stdout.lower()


@each()
def test_script_is_an_entry_point_only(script: Path) -> None:
    """Logic in a script cannot be imported, and so not be tested; scripts/README.md says where it belongs."""
    assert len(script.read_text().splitlines()) <= 15


def test_continuous_integration_calls_the_test_script() -> None:
    """.ci/run must not have a list of tests of its own."""
    run = ROOT / ".ci" / "run"
    assert os.access(run, os.X_OK)
    assert "scripts/test" in run.read_text()
