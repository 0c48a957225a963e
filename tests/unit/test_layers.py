"""The layers of our packages: import-linter checks the contracts in a project's .importlinter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")
PROJECTS = ("lab",)


def lint(project: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of a project, whose source is in its folder src/."""
    return subprocess.run(
        [LINT_IMPORTS, "--no-logo", "--no-cache", ".importlinter"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("project", PROJECTS)
def test_modules_import_from_lower_layers_only(project: str) -> None:
    """Otherwise a change in one layer reaches all others."""
    ended = lint(ROOT / project)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_import_from_higher_layer_is_reported(tmp_path: Path) -> None:
    """A contract that never fails would hold nothing."""
    copy = tmp_path / "lab"
    shutil.copytree(ROOT / "lab", copy, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    plan = copy / "src" / "scratch4school_lab" / "hosts" / "plan.py"
    plan.write_text(f"{plan.read_text()}\nfrom ..scenarios import worker\n")
    ended = lint(copy)
    assert ended.returncode == 1
    assert "scratch4school_lab.hosts.plan -> scratch4school_lab.scenarios.worker" in ended.stdout
