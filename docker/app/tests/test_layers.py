"""The layers of the application: import-linter holds the contracts of pyproject.toml."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

APP = Path(__file__).resolve().parents[1]
SOURCE = APP / "src"
# Modules that know HTTP beside the routes: the package `web`, and what several routes share.
KNOW_HTTP = {
    "app",
    "login.login_services",
    "login.sessions",
    "monitoring.logs",
    "monitoring.request_metrics",
    "projects.project_file",
    "projects.project_responses",
}
# Entry points that gunicorn or Python start.
ENTRY_POINTS = {"__main__", "gunicorn_conf"}


def lint(source: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter with the contracts of this application on the package below `source`."""
    code = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", code, "--config", str(APP / "pyproject.toml"), "--no-cache"]
    return subprocess.run(command, env={"PYTHONPATH": str(source)}, capture_output=True, text=True, check=False)


def test_application_keeps_its_layers() -> None:
    ended = lint(SOURCE)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "0 broken" in ended.stdout


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("storage/file_store.py", "from ..projects import projects", "A package imports only packages below it"),
        ("projects/project_routes.py", "from . import sharing_routes", "Routes do not import each other"),
        ("projects/sharing.py", "from . import project_responses", "Only routes, and what they share, know HTTP"),
        ("people/users.py", "import flask", "Only routes, and what they share, know HTTP"),
        ("new_package/__init__.py", "", "A package imports only packages below it"),
    ],
    ids=["upwards", "route to route", "rule to response", "rule to flask", "package without a layer"],
)
def test_broken_layer_is_found(tmp_path: Path, module: str, line: str, broken: str) -> None:
    """The test above would otherwise show nothing."""
    source = tmp_path / "src"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
    file = source / "scratch4school" / module
    file.parent.mkdir(exist_ok=True)
    file.write_text((file.read_text() if file.exists() else "") + f"\n{line}\n")
    ended = lint(source)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert f"{broken} BROKEN" in ended.stdout


def test_contract_on_http_names_every_module_without_http() -> None:
    """A new module is named in the contract, or it is a route or one of the few modules that routes share."""
    settings = tomllib.loads((APP / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = (one for one in settings["contracts"] if one["name"].startswith("Only routes"))
    package = SOURCE / "scratch4school"
    modules = {
        ".".join(path.relative_to(package).with_suffix("").parts)
        for path in package.rglob("*.py")
        if path.name != "__init__.py"
    }
    named = {name.removeprefix("scratch4school.") for name in contract["source_modules"]}
    without = {name for name in modules if name not in named and not any(name.startswith(f"{one}.") for one in named)}
    expected = {name for name in modules if name.endswith("_routes") or name.startswith("web.")}
    assert without == expected | KNOW_HTTP | ENTRY_POINTS
