"""Commands on lab hosts, further hosts beside the worker's own, and what runs on a host."""

from __future__ import annotations

import fcntl
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import requests

from ..checkout import ROOT, SCRIPTS, STATE
from ..hosts import containers, plan, snapshots
from ..hosts.plan import Host
from .worker import HOST, WORKERS

LAB = SCRIPTS / "lab"
CA = str(STATE / "ca.crt")
# The password of all accounts at the lab's identity provider.
PASSWORD = (ROOT / "docker" / "lab-idp" / "password.txt").read_text().strip()
# All images that a deploy builds; the others are the lab's own.
IMAGES = sorted(
    file.parent.name for file in ROOT.glob("docker/*/Dockerfile") if not file.parent.name.startswith("lab-")
)
# Images that a host with SQLite does not need.
POSTGRES_IMAGES = ("postgres", "pgbouncer")
# Since Debian 13 the client is a package of its own.
INSTALL_ENGINE = (
    "sudo apt-get update -q && for names in 'docker.io docker-cli' docker.io; do"
    " sudo apt-get install -qy --no-install-recommends $names && break; done"
)
NEWEST_IMAGE = "sudo docker image ls --format '{{.Repository}}:{{.Tag}}' scratch4school/%s | head -1; "
# Removes everything that a deploy made, except the engine and its images.
REMOVE_INSTALLATION = """
sudo systemctl stop scratch4school 2>/dev/null
command -v docker >/dev/null && sudo docker ps --all --quiet --filter label=scratch4school | xargs -r sudo docker rm -f
sudo systemctl stop 'scratch4school-*.timer' 2>/dev/null
sudo rm -rf /etc/systemd/system/scratch4school* /usr/local/sbin/scratch4schoolctl
sudo rm -rf /etc/scratch4school /var/lib/scratch4school
sudo systemctl daemon-reload
"""
REMOVE_IMAGES = "command -v docker >/dev/null && sudo docker image prune --all --force >/dev/null || true"
# How long `wait_for` waits where a test gives no bound. Far above any need: a machine may be slow.
PATIENCE_SECONDS = 600


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS, pause: float = 1) -> None:
    """Call the condition until it is true; fail when it is not within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"the condition was not met within {seconds} seconds"
        time.sleep(pause)


def lab(*arguments: str) -> str:
    """The output of scripts/lab; it has to succeed."""
    ended = subprocess.run([str(LAB), *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{arguments}: {ended.stdout}{ended.stderr}"
    return ended.stdout


def on_host(command: str, host: Host = HOST) -> str:
    """The output of a command on a lab host; it has to succeed."""
    return lab("ssh", host.name, command)


def listens(port: int, address: str = "127.0.0.1") -> bool:
    """Whether a program takes connections there."""
    with socket.socket() as door:
        door.settimeout(1)
        return door.connect_ex((address, port)) == 0


def http_status(host: Host = HOST) -> int:
    """The HTTP status of the host's public status address; 0 without an answer."""
    try:
        return requests.get(f"{host.url}/backend/api/status", verify=CA, timeout=60).status_code
    except (requests.ConnectionError, requests.Timeout):
        return 0


def live_slot(host: Host = HOST) -> str:
    """The name of the application's container that the proxy points at."""
    return on_host("echo scratch4school-app-$(sudo readlink /var/lib/scratch4school/run/app/current)", host).strip()


def running_containers(host: Host = HOST) -> dict[str, str]:
    """Every container of the installation that runs: its name and when it was started."""
    lines = on_host(
        "sudo docker ps --quiet --filter label=scratch4school | xargs --no-run-if-empty sudo docker inspect "
        "--format '{{.Name}} {{.State.StartedAt}}'",
        host,
    ).splitlines()
    return dict(line.removeprefix("/").split() for line in lines)


def newest_images() -> dict[str, str]:
    """The images of the first host, which others get copies of: name and tag by their short name."""
    known = on_host("".join(NEWEST_IMAGE % name for name in IMAGES), Host(1)).split()
    return dict(zip(IMAGES, known, strict=True))


@contextmanager
def choosing_hosts() -> Iterator[None]:
    """One process at a time chooses or makes a further host, so that no two take the same number."""
    with (STATE / "further-hosts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def existing_hosts() -> list[Host]:
    """All hosts of the lab."""
    known = containers.describe_all()
    return [host for host in plan.hosts(plan.MOST_HOSTS) if host.name in known]


def further_hosts(system: str = "trixie", database: str = "postgres") -> list[Host]:
    """The hosts of that kind, without the workers' own."""
    known = containers.describe_all()
    return [
        host
        for host in plan.hosts(plan.MOST_HOSTS)[WORKERS:]
        if host.name in known and (known[host.name]["system"], known[host.name]["database"]) == (system, database)
    ]


def new_host(system: str = "trixie", database: str = "postgres") -> Host:
    """One more host of that kind; nothing is installed on it."""
    host = Host(len(existing_hosts()) + 1)
    lab("up", "--hosts", str(host.number), "--os", system, "--database", database)
    return host


def bookworm_host() -> Host:
    """The host with Debian 12; a new one where there is none."""
    with choosing_hosts():
        return next(iter(further_hosts(system="bookworm")), None) or new_host(system="bookworm")


def host_with_images(images: dict[str, str], system: str = "trixie", database: str = "postgres") -> Host:
    """The further host of that kind, with Docker and the images; a caller that needs it empty empties it.

    One of the snapshot's kind comes from it in seconds; the images of another one come from the first host.
    """
    with choosing_hosts():
        host = next(iter(further_hosts(system, database)), None)
        of_snapshot = (system, database) == (plan.SYSTEMS[0], plan.DATABASES[0])
        if host is None and of_snapshot and snapshots.exists(snapshots.DEPLOYED):
            host = restored_host()
        host = host or new_host(system, database)
    needed = [name for name in images if database == "postgres" or name not in POSTGRES_IMAGES]
    if on_host("command -v docker >/dev/null && echo yes || true", host):
        present = on_host("sudo docker image ls --format '{{.Repository}}:{{.Tag}}'", host).split()
        needed = [name for name in needed if images[name] not in present]
    if needed:
        copy_images(host, [images[name] for name in needed])
    return host


def restored_host() -> Host:
    """One more host from the snapshot, without its installation."""
    host = Host(len(existing_hosts()) + 1)
    lab("restore", str(host.number))
    remove_installation(host)
    return host


def remove_installation(host: Host, images: bool = False) -> None:
    """Remove everything that a deploy made on the host, and its images only with `images`."""
    on_host(REMOVE_INSTALLATION, host)
    if images:
        on_host(REMOVE_IMAGES, host)


def copy_images(host: Host, images: list[str]) -> None:
    """Copy images of the first host to another one; to build them there takes minutes."""
    on_host(INSTALL_ENGINE, host)
    save = f"sudo docker save {' '.join(images)}"
    with subprocess.Popen([str(LAB), "ssh", Host(1).name, save], stdout=subprocess.PIPE) as saving:
        subprocess.run([str(LAB), "ssh", host.name, "sudo docker load"], stdin=saving.stdout, check=True)
    assert saving.returncode == 0
