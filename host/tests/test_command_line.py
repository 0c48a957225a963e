"""The command line as a sysadmin and systemd use it: one file, whose help and exit statuses can be relied on."""

from __future__ import annotations

import argparse
import ast
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import build_program
import pytest
from conftest import run_command, script, slots_settings, write_settings

from scratch4school_host import cli, locking
from scratch4school_host.errors import LockHeldError

PACKAGE = Path(cli.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


def pythons() -> list[str]:
    """The Pythons of this machine that a server may have; a name alone may be a stand-in that fails."""
    named = [shutil.which(f"python3.{minor}") for minor in range(10, 16)]
    found = [*filter(None, named), sys.executable]
    return [
        path for path in found if subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0
    ]


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Every command, the groups left out."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield parser
    for group in groups:
        for one in dict.fromkeys(group.choices.values()):
            yield from commands(one)


COMMANDS = list(commands(cli.parser()))


def words(command: argparse.ArgumentParser) -> list[str]:
    """`backup create` as the words that are typed."""
    return command.prog.split()[1:]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scratch4schoolctl as it is installed."""
    path = tmp_path_factory.mktemp("installed") / "scratch4schoolctl"
    build_program.write(path)
    return path


def run(program: Path, *arguments: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    """Run the installed program, with nothing of this process's environment but its path."""
    command = [python, "-I", str(program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]})


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(words(command)))
def test_every_command_has_a_function_help_and_a_valid_example(command: argparse.ArgumentParser) -> None:
    """A command whose module lacks its function would fail only when it is typed."""
    module, function = command.get_default("module"), command.get_default("function")
    source = ast.parse((PACKAGE / "commands" / f"{module}.py").read_text())
    assert function in {node.name for node in source.body if isinstance(node, ast.FunctionDef)}
    assert command.description
    assert (command.epilog or "").startswith("example:\n  scratch4schoolctl ")
    example = shlex.split((command.epilog or "").splitlines()[1])
    options = cli.parser().parse_args(example[1:])
    assert (options.module, options.function) == (module, function)


def groups() -> dict[str, argparse.ArgumentParser]:
    """Every group by its name, such as `backup`."""
    (top,) = (action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction))
    return {name: one for name, one in top.choices.items() if not one.get_default("function")}


@pytest.mark.parametrize("name", groups())
def test_help_of_every_group_has_an_example_of_its_commands(name: str) -> None:
    """The words of the example are a valid command line of that group."""
    example = shlex.split((groups()[name].epilog or "").splitlines()[1])
    assert example[:2] == ["scratch4schoolctl", name]
    assert cli.parser().parse_args(example[1:]).function


def test_every_function_of_a_command_module_is_a_command() -> None:
    """One that no command names was forgotten."""
    named = {(command.get_default("module"), command.get_default("function")) for command in COMMANDS}
    for path in (PACKAGE / "commands").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and [each.arg for each in node.args.args] == ["options"]:
                helper = node.name.startswith(("_", "is_")) or node.name.endswith("_of")
                assert helper or (path.stem, node.name) in named, f"{path.name}: {node.name}"


def test_help_lists_groups_and_exit_statuses(program: Path) -> None:
    """The page that one reads first."""
    ended = run(program, "--help")
    assert ended.returncode == 0
    for text in ("status", "maintenance", "migrate-engine", "Exit status:", "3    another change has the host's lock"):
        assert text in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["backup"], 2, "the following arguments are required: COMMAND"),
        (["slots", "activate", "red", "--run", "r"], 2, "invalid choice: 'red'"),
        (["status"], 1, "There are no settings for the application's slots on this host; run deploy.yml."),
        (["backup", "list"], 1, "There are no settings for backups on this host; run deploy.yml."),
        (["import", "inspect"], 1, "There are no settings for a transfer on this host; run adopt.yml."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_refusal_is_one_message_and_a_status(
    program: Path, tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    """On standard error; standard output stays empty, for programs that read it."""
    ended = run(program, "--settings", str(tmp_path), *arguments)
    assert (ended.returncode, ended.stdout) == (status, "")
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_import_status_answers_where_none_was_begun(program: Path, tmp_path: Path) -> None:
    """As on most hosts."""
    ended = run(program, "--settings", str(tmp_path), "import", "status", "--json")
    assert (ended.returncode, ended.stdout) == (0, '{"migration": {}}\n')


def test_lock_is_shown_and_released(tmp_path: Path) -> None:
    """A command that needs the lock of another change fails with a status of its own."""
    settings, change = tmp_path / "settings", tmp_path / "change"
    write_settings(settings, "slots", slots_settings(tmp_path, engine="sqlite", dependencies=[]))
    assert run_command(settings, "lock", "show").stdout == "The host is not locked.\n"
    assert run_command(settings, "lock", "show", "--json").stdout == "null\n"
    locking.begin(change, run="r1", verb="deploy", owner=locking.owner("anna@desk"))
    assert "deploy by anna@desk since" in run_command(settings, "lock", "show").stdout
    assert '"run": "r1"' in run_command(settings, "lock", "show", "--json").stdout
    refused = run_command(settings, "maintenance", "on", "--reason", "a disk is replaced")
    assert (refused.returncode, "deploy by anna@desk" in refused.stderr) == (LockHeldError.status, True)
    released = run_command(settings, "lock", "release", "--reason", "the notebook was stolen")
    assert released.stdout.startswith("Unlocked: deploy by anna@desk since ")
    assert locking.read_lock(change) is None


def test_maintenance_mode_of_a_sysadmin_takes_the_lock_and_gives_it_back(tmp_path: Path, tools: Path) -> None:
    """Without a playbook; and the audit log has both."""
    settings, change = tmp_path / "settings", tmp_path / "change"
    script(tools / "docker", "#!/bin/sh\necho '[]'\n")
    script(tools / "systemctl", "#!/bin/sh\n")
    write_settings(settings, "slots", slots_settings(tmp_path, engine="sqlite", dependencies=[]))
    assert run_command(settings, "maintenance", "on", "--reason", "a disk is replaced").returncode == 0
    assert (locking.maintenance_reason(change), locking.read_lock(change)) == ("a disk is replaced", None)
    assert run_command(settings, "maintenance", "off").returncode == 0
    assert locking.maintenance_reason(change) == ""


# ---- the file


def test_same_sources_give_the_same_bytes(program: Path) -> None:
    """So its digest says whether a host has the program of this checkout."""
    assert program.read_bytes() == build_program.build()
    assert program.read_bytes().startswith(b"#!/usr/bin/python3 -I\n")


@pytest.mark.parametrize("python", pythons(), ids=lambda path: Path(path).name)
def test_program_runs_on_every_python_of_this_machine(program: Path, tmp_path: Path, python: str) -> None:
    """A server has another one than the control node."""
    ended = run(program, "--settings", str(tmp_path), "backup", "create", "--help", python=python)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_is_python_3_10_with_the_standard_library_alone(path: Path) -> None:
    """Ubuntu 22.04 has Python 3.10. Imports within the package are relative, because Ansible copies it."""
    tree = ast.parse(path.read_text(), feature_version=(3, 10))
    for node in ast.walk(tree):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names.append(str(node.module))
        assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names | {"__future__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_nothing_of_the_package_late(path: Path) -> None:
    """A deploy may replace the file while a backup waits for the lock: by then all of its code must be in memory."""
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    late = [node for one in functions for node in ast.walk(one) if isinstance(node, ast.ImportFrom) and node.level]
    assert late == []
    assert path.name == "cli.py" or "importlib" not in path.read_text()
