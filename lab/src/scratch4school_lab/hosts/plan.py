"""The members of a lab: names, addresses, ports and files. No other module decides one of these."""

from __future__ import annotations

from dataclasses import dataclass

from ..checkout import LAB_INVENTORY, STATE

INVENTORY = LAB_INVENTORY / "hosts.yml"
CLIENT_SECRET = LAB_INVENTORY / ".secrets" / "app_oidc_client_secret"

NETWORK = "scratch4school-lab"
# Outside of Docker's own pools (172.17.0.0/12, 192.168.0.0/16), which the nested engines use.
SUBNET = "10.83.86.0/24"
LABEL = "scratch4school.lab"

# The traits of a host, the default first: its Debian, and the database engine that the inventory sets for it.
SYSTEMS = ("trixie", "bookworm")
DATABASES = ("postgres", "sqlite")
# The redirect addresses of the identity provider's client are fixed for this many hosts (docker/lab-idp/directory.py).
MOST_HOSTS = 6

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
    """One lab host; its name, address and ports follow from `number`, which counts from 1."""

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
    def url(self) -> str:
        """The address of the installation on this host, as a browser on this machine uses it."""
        return f"https://localhost:{self.https_port}"

    @property
    def volume(self) -> str:
        return f"{self.name}-docker"


def hosts(count: int) -> list[Host]:
    """The first `count` hosts of a lab."""
    return [Host(number) for number in range(1, count + 1)]


def find_host(text: str) -> Host | None:
    """The host with that number, name or address; None where there is none."""
    for host in hosts(MOST_HOSTS):
        if text in (str(host.number), host.name, host.address):
            return host
    return None
