"""The layers of the program: import-linter checks the contracts in host/pyproject.toml."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HOST = Path(__file__).resolve().parents[1]
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")
LAYERS = "A layer uses only the layers below it"


def lint(project: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of a project, whose source is in its folder src/."""
    return subprocess.run(
        [LINT_IMPORTS, "--no-cache"],
        cwd=project,
        env={"PYTHONPATH": "src", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_modules_import_from_lower_layers_only() -> None:
    """A new module needs a layer, too; the message names the import that breaks a contract."""
    ended = lint(HOST)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2 kept, 0 broken" in ended.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("docker.py", "from . import settings", LAYERS),
        ("slots/state.py", "from ..backup import restore", LAYERS),
        ("new_module.py", "", LAYERS),
        ("ledger.py", "from . import docker", "Ansible's modules get no more than files, lock, ledger and questions"),
    ],
    ids=["upwards", "package to a higher package", "module without a layer", "ledger to docker"],
)
def test_broken_contract_is_reported(tmp_path: Path, module: str, line: str, contract: str) -> None:
    """Otherwise the test above would show nothing."""
    shutil.copy(HOST / "pyproject.toml", tmp_path)
    package = tmp_path / "src" / "scratch4school_host"
    shutil.copytree(HOST / "src" / "scratch4school_host", package, ignore=shutil.ignore_patterns("__pycache__"))
    file = package / module
    file.write_text((file.read_text() if file.exists() else "") + f"\n{line}\n")
    ended = lint(tmp_path)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert f"{contract} BROKEN" in ended.stdout
