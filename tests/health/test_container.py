"""The containers run without root and capabilities, and only data is writable."""

import json
from typing import Any

import pytest

POSTGRES = pytest.mark.engine("postgres")
SQLITE = pytest.mark.engine("sqlite")
# The uid of each component's container.
USERS = {"database": "10002", "pgbouncer": "10003", "app": "10001", "proxy": "10004"}
ONLY_POSTGRES = {"database", "pgbouncer"}
UPLOADS_AND_SOCKET = {"/var/lib/scratch4school/uploads", "/run/scratch4school"}
WRITABLE = [
    pytest.param("database", {"/var/lib/postgresql/data", "/run/postgresql"}, marks=POSTGRES),
    pytest.param("pgbouncer", set(), marks=POSTGRES),
    pytest.param("app", UPLOADS_AND_SOCKET, marks=POSTGRES),
    pytest.param("app", UPLOADS_AND_SOCKET | {"/var/lib/scratch4school/database"}, marks=SQLITE),
    pytest.param("proxy", {"/var/cache/nginx"}),
]
SECRETS_OF_POSTGRES = {"database_password", "migrator_password", "monitor_password"}
COMPONENTS = [pytest.param(name, marks=POSTGRES if name in ONLY_POSTGRES else ()) for name in USERS]
INNER_COMPONENTS = [one for one in COMPONENTS if one.values != ("proxy",)]


@pytest.mark.parametrize(
    "expected",
    [
        pytest.param(set(USERS), marks=POSTGRES, id="postgres"),
        pytest.param(set(USERS) - ONLY_POSTGRES, marks=SQLITE, id="sqlite"),
    ],
)
def test_containers_are_those_of_the_database_engine(containers: Any, expected: set[str], returning: bool) -> None:
    """All that the engine needs, and none of the other engine."""
    allowed = ONLY_POSTGRES if returning else set()
    assert expected <= set(containers) <= expected | allowed


@pytest.mark.parametrize("component", COMPONENTS)
def test_container_runs_and_is_healthy(containers: Any, component: str) -> None:
    """By its own health check, which may still be starting."""
    state = containers[component]["State"]
    assert state["Running"], state
    assert state["Health"]["Status"] in {"healthy", "starting"}, state["Health"]


@pytest.mark.parametrize("component", COMPONENTS)
def test_process_is_not_root(host: Any, containers: Any, component: str) -> None:
    """The container's first process has the uid of its component, by the host's kernel."""
    pid = containers[component]["State"]["Pid"]
    status = host.check_output("cat /proc/%s/status", str(pid))
    uids = next(line.split()[1:] for line in status.splitlines() if line.startswith("Uid:"))
    assert set(uids) == {USERS[component]}


@pytest.mark.parametrize("component", COMPONENTS)
def test_process_has_no_capabilities(host: Any, containers: Any, component: str) -> None:
    """It has none and can gain none."""
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
    """An intruder cannot write to the image's file system."""
    assert containers[component]["HostConfig"]["ReadonlyRootfs"]


@pytest.mark.parametrize(("component", "expected"), WRITABLE)
def test_only_data_is_writable(containers: Any, component: str, expected: set[str]) -> None:
    """Settings and secrets are mounted read-only."""
    writable = {mount["Destination"] for mount in containers[component]["Mounts"] if mount["RW"]}
    assert writable == expected


@pytest.mark.parametrize("component", COMPONENTS)
def test_memory_is_limited_if_the_kernel_supports_limits(engine: Any, containers: Any, component: str) -> None:
    """A memory leak in one container must not exhaust the host."""
    assert (containers[component]["HostConfig"]["Memory"] > 0) == engine["MemoryLimit"]


@pytest.mark.parametrize("component", COMPONENTS)
def test_docker_restarts_the_container(containers: Any, component: str) -> None:
    """After a crash and after a reboot."""
    assert containers[component]["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


@pytest.mark.parametrize("component", COMPONENTS)
def test_size_of_the_log_is_limited(containers: Any, component: str) -> None:
    """A log must not fill the disk; journald, which a sysadmin may have configured, limits its own size."""
    log = containers[component]["HostConfig"]["LogConfig"]
    assert log["Type"] != "json-file" or "max-size" in log["Config"]


@pytest.mark.parametrize("component", COMPONENTS)
def test_tag_of_the_image_is_a_digest(containers: Any, component: str) -> None:
    """Such a tag never moves, so that a rollback starts the same image."""
    name, _, tag = containers[component]["Config"]["Image"].partition(":")
    assert name.startswith("scratch4school/")
    assert len(tag) == 12
    assert int(tag, 16) >= 0


@pytest.fixture(scope="session")
def returning(host: Any, settings: Any) -> bool:
    """Whether an engine migration is being undone: SQLite is live, and PostgreSQL stays until that is verified."""
    if settings["database_engine"] == "postgres":
        return False
    return bool(host.file("/var/lib/scratch4school/adoption/migration.json").exists)


@pytest.fixture(scope="session")
def secrets(host: Any, settings: Any, returning: bool) -> dict[str, str]:
    """The application's secrets by file name. A test must compare names only, because pytest prints the values."""
    folder = "/etc/scratch4school/app"
    names = host.check_output("ls %s", folder).split()
    found = {name: host.check_output("cat %s", f"{folder}/{name}") for name in names}
    logins = SECRETS_OF_POSTGRES if settings["database_engine"] == "postgres" or returning else set()
    assert set(names) == {"secret_key", "oidc_client_secret"} | logins
    return found


def test_docker_inspect_shows_no_secret(secrets: dict[str, str], containers: Any) -> None:
    """In environment, arguments and labels."""
    shown = json.dumps(containers)
    found = [name for name, secret in secrets.items() if secret in shown]
    assert found == []


def test_no_secret_is_an_argument(host: Any, secrets: dict[str, str]) -> None:
    """Of any process of the host."""
    arguments = host.check_output("ps -e -o args=")
    found = [name for name, secret in secrets.items() if secret in arguments]
    assert found == []


@pytest.mark.parametrize("component", INNER_COMPONENTS)
def test_inner_service_publishes_no_port(containers: Any, component: str) -> None:
    """Database, pooler and application cannot be reached from outside the host."""
    assert not containers[component]["HostConfig"]["PortBindings"]
