"""Fixtures of the health tests, which are read-only and may run against production.

`verify.yml` runs them with the settings of its host. By hand, for all hosts of an inventory:
    .venv/bin/pytest tests/health --ansible-inventory=inventories/<yours>
"""

import functools
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml
from kept_shell import ShellBackend

ROOT = Path(__file__).resolve().parents[2]
LOST_RACE = "read init-p: connection reset by peer"


@functools.cache
def _ask_ansible(inventory: str) -> dict[str, dict[str, Any]]:
    """`host_health_settings` of every host, with templates and vault as Ansible resolves them."""
    answer = subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible"),
            "scratch4school",
            f"--inventory={inventory}",
            f"--playbook-dir={ROOT / 'deploy'}",
            "--module-name=ansible.builtin.debug",
            "--args=var=host_health_settings",
        ],
        env=os.environ | {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise pytest.UsageError(f"{inventory} cannot be read: {answer.stdout}{answer.stderr}")
    hosts = json.loads(answer.stdout)["plays"][0]["tasks"][0]["hosts"]
    return {name: result["host_health_settings"] for name, result in hosts.items()}


def _hosts(config: pytest.Config) -> dict[str, dict[str, Any]]:
    """Settings by host name, from the play that runs the tests or from the inventory on the command line."""
    handed_over = os.environ.get("SCRATCH4SCHOOL_HEALTH")
    if handed_over:
        return json.loads(handed_over)
    inventory = config.getoption("ansible_inventory")
    if not inventory:
        raise pytest.UsageError("no inventory; add --ansible-inventory=inventories/<yours>")
    return _ask_ansible(inventory)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "engine(name): run only for hosts with this database_engine")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test once per host."""
    if "settings" in metafunc.fixturenames:
        hosts = _hosts(metafunc.config)
        metafunc.parametrize("settings", list(hosts.values()), ids=list(hosts), indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests of other engines, by the inventory's engine and not by what the host has."""
    of_other_engines = [item for item in items if not _is_for_this_engine(item)]
    config.hook.pytest_deselected(items=of_other_engines)
    items[:] = [item for item in items if item not in of_other_engines]


def _is_for_this_engine(item: pytest.Item) -> bool:
    """Whether every marker of the test names the engine that the inventory sets for the host."""
    names = {mark.args[0] for mark in item.iter_markers("engine")}
    return names <= {item.callspec.params["settings"]["database_engine"]} if names else True


@pytest.fixture(scope="session")
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The host's settings: the roles' defaults and, above them, the inventory's values."""
    values: dict[str, Any] = {}
    for defaults in sorted(ROOT.glob("roles/*/defaults/main.yml")):
        values.update(yaml.safe_load(defaults.read_text()) or {})
    given = {name: value for name, value in request.param.items() if value != ""}
    # `-e name=16` passes a text.
    values.update({name: int(value) if isinstance(values.get(name), int) else value for name, value in given.items()})
    return values


def _command_prefix(settings: dict[str, Any]) -> list[str]:
    """The command that starts a program on the host as root, over Ansible's connection."""
    user = settings.get("user")
    if settings["connection"] == "local":
        return ["sudo", "-n"] if os.geteuid() != 0 else []
    return [
        "ssh",
        # The connection that preflight opened, if it is still open.
        *("-o", "ControlMaster=auto", "-o", "ControlPersist=60s", "-o", "ControlPath=/tmp/scratch4school-health-%C"),
        *("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-p", str(settings["port"])),
        *shlex.split(settings.get("ssh_arguments", "")),
        *(("-i", settings["key"]) if settings.get("key") else ()),
        f"{user}@{settings['address']}" if user else settings["address"],
        *(() if user == "root" else ("sudo", "-n")),
    ]


@pytest.fixture(scope="session")
def host(settings: dict[str, Any]) -> Iterator[Any]:
    """The host as root, over Ansible's connection."""
    shell = ShellBackend([*_command_prefix(settings), "sh"])
    yield testinfra.host.Host(shell)
    shell.close()


def ask_container(host: Any, command: str, *arguments: str) -> Any:
    """Run a read-only `docker exec`, and repeat it at most twice when the engine did not start the command.

    runc sometimes loses a race with its own child process.
    """
    for _ in range(3):
        answer = host.run(command, *arguments)
        if LOST_RACE not in answer.stdout + answer.stderr:
            break
    return answer


@pytest.fixture(scope="session")
def containers(host: Any) -> dict[str, dict[str, Any]]:
    """The output of `docker inspect` for every container of Scratch4School, by its component.

    Of the two slots, only the live one.
    """
    names = host.check_output("docker ps --all --quiet --filter label=scratch4school").split()
    assert names, "this host has no container of Scratch4School: run deploy.yml"
    described = json.loads(host.check_output("docker inspect " + " ".join(names)))
    live = Path(host.run("readlink /var/lib/scratch4school/run/app/current").stdout.strip()).name
    return {
        entry["Config"]["Labels"]["scratch4school.component"]: entry
        for entry in described
        if not live or entry["Config"]["Labels"].get("scratch4school.slot", live) == live
    }


@pytest.fixture(scope="session")
def engine(host: Any) -> dict[str, Any]:
    """The output of `docker info`."""
    return json.loads(host.check_output("docker info --format '{{json .}}'"))


@pytest.fixture(scope="session")
def sql(settings: dict[str, Any]) -> Iterator[Any]:
    """A function that runs an SQL script as PostgreSQL's administrator and returns psql's result."""
    # In one shell of the container, because `docker exec` takes ten times as long as a query of psql.
    command = ["docker", "exec", "--interactive", "scratch4school-postgres", "sh"]
    for tries_left in (2, 1, 0):
        shell = ShellBackend([*_command_prefix(settings), *command])
        try:
            shell.run("true")
            break
        except RuntimeError as problem:
            if LOST_RACE not in str(problem) or not tries_left:
                raise

    def run(script: str) -> Any:
        return shell.run(
            "psql --no-psqlrc --quiet --tuples-only --no-align "
            "--set ON_ERROR_STOP=1 --username postgres --dbname scratch4school --command %s",
            script,
        )

    yield run
    shell.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Add the last lines of a container's log to the report of a failed test about it."""
    outcome = yield
    report = outcome.get_result()
    component = getattr(item, "callspec", None) and item.callspec.params.get("component")
    host = getattr(item, "funcargs", {}).get("host")
    if report.when == "call" and report.failed and component and host is not None:
        log = host.run(
            "docker ps --all --quiet --filter label=scratch4school.component=%s | "
            "xargs --no-run-if-empty docker logs --tail 25",
            component,
        )
        report.sections.append((f"last lines of {component}", log.stdout + log.stderr))
