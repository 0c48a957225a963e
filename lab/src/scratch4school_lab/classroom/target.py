"""Which installation the class uses, and whether it is a lab: a class as load must not disturb a school."""

from __future__ import annotations

import csv
import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..checkout import ROOT, STATE
from ..hosts import plan as lab

CA_CERTIFICATE = STATE / "ca.crt"
PASSWORD_FILE = ROOT / "docker" / "lab-idp" / "password.txt"
# The pupils of the lab's provider (docker/lab-idp/directory.py).
LAB_PUPILS = 120


class TargetError(Exception):
    """The command line names no installation that may be used; the message says what to type instead."""


@dataclass(frozen=True)
class Target:
    """An installation's address, the file of authorities to trust (None: this machine's), and whether it is a lab."""

    url: str
    ca: str | None
    is_lab: bool


def choose(inventory: Path, host: str | None, url: str | None, ca: Path | None) -> Target:
    """The installation at `url`, or else that of the inventory's `host`, or of its first host.

    :raises TargetError: when there is none.
    """
    is_lab_inventory = inventory.resolve() == lab.INVENTORY.resolve()
    url = (url or _url_of(inventory, host)).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path:
        raise TargetError(f"{url} is not the address of an installation; write it like https://scratch.example.de.")
    if ca is not None and not ca.is_file():
        raise TargetError(f"There is no file {ca}; give --ca the PEM file of the certificate authority to trust.")
    is_lab = is_in_lab(parts.hostname)
    if ca is None and is_lab and is_lab_inventory and CA_CERTIFICATE.is_file():
        ca = CA_CERTIFICATE
    return Target(url, str(ca) if ca else None, is_lab)


def is_in_lab(hostname: str) -> bool:
    """Whether every address of a name is on this machine's loopback or in the lab's network.

    :raises TargetError: when the name has no address.
    """
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(hostname, None)}
    except OSError:
        raise TargetError(f"The name {hostname} has no address here; correct --url or the inventory.") from None
    network = ipaddress.ip_network(lab.SUBNET)
    addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in found]
    return all(address.is_loopback or address in network for address in addresses)


def accounts(file: Path | None, is_lab: bool, count: int) -> dict[str, str]:
    """The first `count` users with a password or session each: from a CSV of `user,password` or `user,session`, or
    the lab's own.

    :raises TargetError: when there are fewer, or none are known.
    """
    if file is not None:
        known = _read_accounts(file)
    elif is_lab:
        password = PASSWORD_FILE.read_text().strip()
        known = {f"pupil{number:02}": password for number in range(1, LAB_PUPILS + 1)}
    else:
        raise TargetError("Only a lab has known accounts; give a CSV file of user,password with --accounts.")
    if len(known) < count:
        raise TargetError(f"There are {len(known)} accounts; use --users {len(known)} or fewer.")
    return dict(list(known.items())[:count])


def _read_accounts(file: Path) -> dict[str, str]:
    try:
        rows = list(csv.reader(file.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError):
        raise TargetError(f"{file} cannot be read; give a CSV file of user,password or user,session.") from None
    for number, row in enumerate(rows, start=1):
        if row and (len(row) != 2 or not all(row)):
            raise TargetError(f"Line {number} of {file} is not user,password or user,session.")
    return {row[0]: row[1] for row in rows if row}


def _url_of(inventory: Path, host: str | None) -> str:
    hosts = _hosts(inventory)
    if not hosts:
        raise TargetError(f"{inventory} names no host in the group scratch4school.")
    found = lab.find_host(host) if host else None
    name = found.name if found and found.name in hosts else host or next(iter(hosts))
    if name not in hosts:
        raise TargetError(f"{inventory} has no host {name}; it has {', '.join(hosts)}.")
    url = (hosts[name] or {}).get("scratch4school_url")
    if not isinstance(url, str):
        raise TargetError(f"{inventory} has no scratch4school_url for {name}; give the address with --url.")
    return url


def _hosts(inventory: Path) -> dict[str, Any]:
    # Imported here, so that --help answers before scripts/setup has run.
    import yaml

    if not inventory.is_file():
        raise TargetError(f"There is no {inventory}; bring a lab up with scripts/demo, or give an address with --url.")
    try:
        content = yaml.safe_load(inventory.read_text())
        return content["scratch4school"]["hosts"] or {}
    except (yaml.YAMLError, KeyError, TypeError):
        raise TargetError(f"{inventory} is not an inventory with the group scratch4school.") from None
