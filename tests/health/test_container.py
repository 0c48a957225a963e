"""The containers run as described: no root, no capabilities, nothing writable that need not be."""

import json
from typing import Any

import pytest

POSTGRES = pytest.mark.engine("postgres")
SQLITE = pytest.mark.engine("sqlite")
COMPONENTS = [
    pytest.param("database", marks=POSTGRES),
    pytest.param("pgbouncer", marks=POSTGRES),
    "app",
    "proxy",
]
UPLOADS_AND_SOCKET = {"/var/lib/scratch4school/uploads", "/run/scratch4school"}
WRITABLE = [
    pytest.param("database", {"/var/lib/postgresql/data", "/run/postgresql"}, marks=POSTGRES),
    pytest.param("pgbouncer", set(), marks=POSTGRES),
    pytest.param("app", UPLOADS_AND_SOCKET, marks=POSTGRES),
    pytest.param("app", UPLOADS_AND_SOCKET | {"/var/lib/scratch4school/database"}, marks=SQLITE),
    pytest.param("proxy", {"/var/cache/nginx"}),
]
SECRETS_OF_POSTGRES = {"database_password", "migrator_password", "monitor_password"}
USERS = {"database": "10002", "pgbouncer": "10003", "app": "10001", "proxy": "10004"}


@pytest.mark.parametrize(
    "expected",
    [
        pytest.param({"database", "pgbouncer", "app", "proxy"}, marks=POSTGRES, id="postgres"),
        pytest.param({"app", "proxy"}, marks=SQLITE, id="sqlite"),
    ],
)
def test_there_is_no_container_more_or_less(containers: Any, expected: set[str], on_its_way_back: bool) -> None:
    """What the engine needs is there, and nothing of another engine's."""
    still = {"database", "pgbouncer"} if on_its_way_back else set()
    assert expected <= set(containers) <= expected | still


@pytest.mark.parametrize("component", COMPONENTS)
def test_runs_and_is_healthy(containers: Any, component: str) -> None:
    """The container runs, and its own health check does not say otherwise."""
    state = containers[component]["State"]
    assert state["Running"], state
    assert state["Health"]["Status"] in {"healthy", "starting"}, state["Health"]


@pytest.mark.parametrize("component", COMPONENTS)
def test_process_is_not_root(host: Any, containers: Any, component: str) -> None:
    """The first process of the container has the uid made for it, as the host's own kernel says."""
    pid = containers[component]["State"]["Pid"]
    status = host.check_output("cat /proc/%s/status", str(pid))
    uids = next(line.split()[1:] for line in status.splitlines() if line.startswith("Uid:"))
    assert set(uids) == {USERS[component]}


@pytest.mark.parametrize("component", COMPONENTS)
def test_process_has_no_capabilities(host: Any, containers: Any, component: str) -> None:
    """No capability is held and none can be gained."""
    pid = containers[component]["State"]["Pid"]
    status = dict(
        line.split(":\t", 1)
        for line in host.check_output("cat /proc/%s/status", str(pid)).splitlines()
        if ":\t" in line
    )
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}
    assert status["NoNewPrivs"] == "1"


@pytest.mark.parametrize("component", COMPONENTS)
def test_root_file_system_is_read_only(containers: Any, component: str) -> None:
    """An intruder cannot leave anything behind in the image's file system."""
    assert containers[component]["HostConfig"]["ReadonlyRootfs"]


@pytest.mark.parametrize(("component", "expected"), WRITABLE)
def test_only_data_is_writable(containers: Any, component: str, expected: set[str]) -> None:
    """Settings and secrets are mounted read-only; what is writable is data, and nothing else."""
    writable = {mount["Destination"] for mount in containers[component]["Mounts"] if mount["RW"]}
    assert writable == expected


@pytest.mark.parametrize("component", COMPONENTS)
def test_memory_is_limited(engine: Any, containers: Any, component: str) -> None:
    """A leak in one container cannot take the host down, wherever the kernel offers limits at all."""
    assert (containers[component]["HostConfig"]["Memory"] > 0) == engine["MemoryLimit"]


@pytest.mark.parametrize("component", COMPONENTS)
def test_comes_back_by_itself(containers: Any, component: str) -> None:
    """Docker starts the container again after a crash and after a reboot."""
    assert containers[component]["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


@pytest.mark.parametrize("component", COMPONENTS)
def test_log_is_bounded(containers: Any, component: str) -> None:
    """A chatty container cannot fill the disk; the journal, where a sysadmin chose that, bounds itself."""
    log = containers[component]["HostConfig"]["LogConfig"]
    assert log["Type"] != "json-file" or "max-size" in log["Config"]


@pytest.mark.parametrize("component", COMPONENTS)
def test_image_is_named_by_content(containers: Any, component: str) -> None:
    """The image has a tag that never moves, so "the former release" is what it was."""
    name, _, tag = containers[component]["Config"]["Image"].partition(":")
    assert name.startswith("scratch4school/")
    assert len(tag) == 12
    assert int(tag, 16) >= 0


@pytest.fixture(scope="session")
def on_its_way_back(host: Any, settings: Any) -> bool:
    """A school that moved to PostgreSQL serves from SQLite again, and PostgreSQL stays until that is verified."""
    if settings["database_engine"] == "postgres":
        return False
    return bool(host.file("/var/lib/scratch4school/adoption/move.json").exists)


@pytest.fixture(scope="session")
def secrets(host: Any, settings: Any, on_its_way_back: bool) -> dict[str, str]:
    """The application's secrets by file name. A test says names only, because what it says is shown."""
    folder = "/etc/scratch4school/app"
    names = host.check_output("ls %s", folder).split()
    found = {name: host.check_output("cat %s", f"{folder}/{name}") for name in names}
    logins = SECRETS_OF_POSTGRES if settings["database_engine"] == "postgres" or on_its_way_back else set()
    assert set(names) == {"secret_key", "oidc_client_secret"} | logins
    return found


def test_no_secret_can_be_inspected(secrets: dict[str, str], containers: Any) -> None:
    """No secret of the installation appears in what `docker inspect` shows: environment, arguments, labels."""
    shown = json.dumps(containers)
    found = [name for name, secret in secrets.items() if secret in shown]
    assert found == []


def test_no_secret_is_an_argument(host: Any, secrets: dict[str, str]) -> None:
    """No secret of the installation appears in the argument list of any process of the host."""
    arguments = host.check_output("ps -e -o args=")
    found = [name for name, secret in secrets.items() if secret in arguments]
    assert found == []


@pytest.mark.parametrize("component", COMPONENTS[:-1])
def test_inner_service_publishes_no_port(containers: Any, component: str) -> None:
    """Database, pooler and application cannot be reached from outside the host."""
    assert not containers[component]["HostConfig"]["PortBindings"]
