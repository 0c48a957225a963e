"""What the health tests share. They read a deployed host and change nothing, so they run against production too.

`verify.yml` runs them and hands over what it knows of the host. By hand, for all hosts of an inventory:
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
    """`host_health_settings` of every host, as Ansible itself resolves it, templates and vault included."""
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
    """Settings by host name, from the play that runs us or from the inventory named on the command line."""
    handed_over = os.environ.get("SCRATCH4SCHOOL_HEALTH")
    if handed_over:
        return json.loads(handed_over)
    inventory = config.getoption("ansible_inventory")
    if not inventory:
        raise pytest.UsageError("say which hosts: --ansible-inventory=inventories/<yours>")
    return _ask_ansible(inventory)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "engine(name): the promise holds for hosts with this database_engine alone")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test runs once per host."""
    if "settings" in metafunc.fixturenames:
        hosts = _hosts(metafunc.config)
        metafunc.parametrize("settings", list(hosts.values()), ids=list(hosts), indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A host is asked what its engine promises. What it has is no criterion, or a missing piece would excuse itself."""
    of_other_engines = [item for item in items if not _is_promised(item)]
    config.hook.pytest_deselected(items=of_other_engines)
    items[:] = [item for item in items if item not in of_other_engines]


def _is_promised(item: pytest.Item) -> bool:
    """Whether every marker on the test names the engine that the inventory asks for on its host."""
    names = {mark.args[0] for mark in item.iter_markers("engine")}
    return names <= {item.callspec.params["settings"]["database_engine"]} if names else True


@pytest.fixture(scope="session")
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the inventory says of this host, on top of the roles' own defaults: no value is repeated in a test."""
    values: dict[str, Any] = {}
    for defaults in sorted(ROOT.glob("roles/*/defaults/main.yml")):
        values.update(yaml.safe_load(defaults.read_text()) or {})
    given = {name: value for name, value in request.param.items() if value != ""}
    # `-e name=16` arrives as a text.
    values.update({name: int(value) if isinstance(values.get(name), int) else value for name, value in given.items()})
    return values


def _way_in(settings: dict[str, Any]) -> list[str]:
    """The command that starts a program on the host, reached as Ansible reaches it, as root."""
    user = settings.get("user")
    if settings["connection"] == "local":
        return ["sudo", "-n"] if os.geteuid() != 0 else []
    return [
        "ssh",
        # The connection that preflight opened when it tried this way, if it is still there.
        *("-o", "ControlMaster=auto", "-o", "ControlPersist=60s", "-o", "ControlPath=/tmp/scratch4school-health-%C"),
        *("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-p", str(settings["port"])),
        *shlex.split(settings.get("ssh_arguments", "")),
        *(("-i", settings["key"]) if settings.get("key") else ()),
        f"{user}@{settings['address']}" if user else settings["address"],
        *(() if user == "root" else ("sudo", "-n")),
    ]


@pytest.fixture(scope="session")
def host(settings: dict[str, Any]) -> Iterator[Any]:
    """The host, reached as Ansible reaches it, as root."""
    shell = ShellBackend([*_way_in(settings), "sh"])
    yield testinfra.host.Host(shell)
    shell.close()


def ask_container(host: Any, command: str, *arguments: str) -> Any:
    """Run a `docker exec` that asks something; asked again, twice at most, where the engine did not even start it.

    runc sometimes loses the race with its own child: nothing was asked.
    """
    for _ in range(3):
        answer = host.run(command, *arguments)
        if LOST_RACE not in answer.stdout + answer.stderr:
            break
    return answer


@pytest.fixture(scope="session")
def containers(host: Any) -> dict[str, dict[str, Any]]:
    """Every container of ours as the engine describes it, by its `scratch4school.component` label.

    Of the two slots it is the one that serves; the other holds a spare, or the former release for some seconds.
    """
    names = host.check_output("docker ps --all --quiet --filter label=scratch4school").split()
    assert names, "there is no container of Scratch4School on this host: run deploy.yml"
    described = json.loads(host.check_output("docker inspect " + " ".join(names)))
    serving = Path(host.run("readlink /var/lib/scratch4school/run/app/current").stdout.strip()).name
    return {
        entry["Config"]["Labels"]["scratch4school.component"]: entry
        for entry in described
        if not serving or entry["Config"]["Labels"].get("scratch4school.slot", serving) == serving
    }


@pytest.fixture(scope="session")
def engine(host: Any) -> dict[str, Any]:
    """The engine as it describes itself."""
    return json.loads(host.check_output("docker info --format '{{json .}}'"))


@pytest.fixture(scope="session")
def sql(settings: dict[str, Any]) -> Iterator[Any]:
    """A function that runs one SQL script as the server's administrator and returns psql's result object."""
    # In one shell of the container: the engine takes ten times as long to enter one as psql takes to ask.
    for tries_left in (2, 1, 0):
        shell = ShellBackend([*_way_in(settings), "docker", "exec", "--interactive", "scratch4school-postgres", "sh"])
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
    """Put the last lines of a container's log under a failed test about it: the cause, not the symptom."""
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
