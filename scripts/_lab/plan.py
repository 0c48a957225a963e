"""What a lab consists of: names, addresses, ports and files. Everything else in this package is told by this module."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".lab"
INVENTORY = ROOT / "inventories" / "lab" / "hosts.yml"
CLIENT_SECRET = ROOT / "inventories" / "lab" / ".secrets" / "app_oidc_client_secret"
LOG = STATE / "lab.log"

NETWORK = "scratch4school-lab"
# Away from Docker's own pools (172.17.0.0/12, 192.168.0.0/16), which the nested engines hand out again.
SUBNET = "10.83.86.0/24"
LABEL = "scratch4school.lab"

# What a host can be, the default first: its Debian, and the engine that the inventory asks for on it.
SYSTEMS = ("trixie", "bookworm")
DATABASES = ("postgres", "sqlite")
# The redirect addresses of the identity provider's client are fixed for this many hosts (docker/lab-idp/directory.py).
MOST_HOSTS = 4

USER = "sysadmin"
SSH_KEY = STATE / "ssh_key"
KNOWN_HOSTS = STATE / "known_hosts"

IDP_NAME = "scratch4school-lab-idp"
IDP_ADDRESS = "10.83.86.5"
IDP_PORT = 9443
IDP_ISSUER = f"https://localhost:{IDP_PORT}"
IDP_CLIENT_ID = "scratch4school"


@dataclass(frozen=True)
class Host:
    """One lab host; `number` counts from 1 and decides all the rest."""

    number: int

    @property
    def name(self) -> str:
        return f"scratch4school-lab-{self.number}"

    @property
    def address(self) -> str:
        return f"10.83.86.{10 + self.number}"

    @property
    def https_port(self) -> int:
        """The port of this machine's loopback on which the host's 443 is published."""
        return 8442 + self.number

    @property
    def volume(self) -> str:
        return f"{self.name}-docker"


def hosts(count: int) -> list[Host]:
    """The first `count` hosts of a lab."""
    return [Host(number) for number in range(1, count + 1)]


def find_host(wanted: str) -> Host | None:
    """The host that a person means by its number, its name or its address; None where there is no such host."""
    for host in hosts(MOST_HOSTS):
        if wanted in (str(host.number), host.name, host.address):
            return host
    return None
