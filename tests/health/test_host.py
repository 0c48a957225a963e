"""The host: open and closed ports, and the owners and modes of files."""

import socket
from pathlib import Path
from typing import Any

import pytest

POSTGRES = pytest.mark.engine("postgres")
SQLITE = pytest.mark.engine("sqlite")


@pytest.mark.parametrize("setting", ["proxy_https_port", "proxy_http_port"])
def test_published_port_of_the_proxy_listens(host: Any, settings: Any, setting: str) -> None:
    """On all addresses."""
    assert host.socket(f"tcp://0.0.0.0:{settings[setting]}").is_listening


def test_engine_listens_on_no_port(host: Any) -> None:
    """Its API, which gives root access, is available on the unix socket only."""
    sockets = host.check_output("ss --listening --tcp --numeric --processes --no-header")
    assert "dockerd" not in sockets


@pytest.mark.parametrize("port", [5432, 6432])
def test_internal_port_cannot_be_reached(settings: Any, port: int) -> None:
    """PostgreSQL's and PgBouncer's, by the host's address."""
    with socket.socket() as probe:
        probe.settimeout(2)
        assert probe.connect_ex((settings["address"], port)) != 0


@pytest.mark.parametrize(
    ("path", "user", "group", "mode"),
    [
        ("/var/lib/scratch4school", "root", "root", 0o755),
        pytest.param("/var/lib/scratch4school/postgres", 10002, 10002, 0o700, marks=POSTGRES),
        pytest.param("/var/lib/scratch4school/database", 10001, 10001, 0o700, marks=SQLITE),
        pytest.param("/var/lib/scratch4school/database/main.db", 10001, 10001, 0o600, marks=SQLITE),
        ("/var/lib/scratch4school/uploads", 10001, 10000, 0o2750),
        ("/var/lib/scratch4school/run/app", "root", 10000, 0o750),
        pytest.param("/var/lib/scratch4school/run/postgres", 10002, 10002, 0o750, marks=POSTGRES),
        ("/var/lib/scratch4school/releases", "root", "root", 0o750),
        ("/etc/scratch4school/app", "root", "root", 0o700),
        ("/etc/scratch4school/app/secret_key", 10001, "root", 0o400),
        pytest.param("/etc/scratch4school/app/database_password", 10001, "root", 0o400, marks=POSTGRES),
        ("/etc/scratch4school/app/oidc_client_secret", 10001, "root", 0o400),
        pytest.param("/etc/scratch4school/app/migrator_password", 10001, "root", 0o400, marks=POSTGRES),
        pytest.param("/etc/scratch4school/app/monitor_password", 10001, "root", 0o400, marks=POSTGRES),
        pytest.param("/etc/scratch4school/pgbouncer/userlist.txt", 10003, 10003, 0o400, marks=POSTGRES),
        pytest.param("/etc/scratch4school/postgres/pg_hba.conf", "root", 10002, 0o640, marks=POSTGRES),
        ("/etc/scratch4school/proxy/tls.key", 10004, "root", 0o400),
    ],
)
def test_path_has_its_owner_group_and_mode(host: Any, path: str, user: str | int, group: str | int, mode: int) -> None:
    """As the roles set them."""
    found = host.file(path)
    assert (found.uid if isinstance(user, int) else found.user) == user
    assert (found.gid if isinstance(group, int) else found.group) == group
    assert found.mode == mode


@pytest.mark.parametrize(
    "expected",
    [
        pytest.param({"secret_key", "oidc_client_secret", "database_password"}, marks=POSTGRES, id="postgres"),
        pytest.param({"secret_key", "oidc_client_secret"}, marks=SQLITE, id="sqlite"),
    ],
)
def test_application_container_lacks_the_migrators_password(containers: Any, expected: set[str]) -> None:
    """An intruder in the application must not find a password that can change the schema."""
    mounted = [Path(mount["Destination"]) for mount in containers["app"]["Mounts"]]
    assert {path.name for path in mounted if path.parent == Path("/run/secrets")} == expected


def test_unit_is_enabled_and_running(host: Any) -> None:
    """For `systemctl restart scratch4school`, and for the start after a reboot."""
    unit = host.service("scratch4school")
    assert unit.is_enabled
    assert unit.is_running
