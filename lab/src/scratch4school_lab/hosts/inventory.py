"""Writes `inventories/lab/hosts.yml`, so that every playbook runs on the lab with `-i inventories/lab`."""

from __future__ import annotations

import json

from .. import shell
from . import plan
from .plan import Host

# Paths are relative to the inventory's folder, so the file stays valid when the checkout moves.
LAB_FOLDER = "{{ inventory_dir }}/../../.lab"
# The scopes that IServ is asked for too. Canaille has the groups' names under `groups`, and no claim for `uuid`.
SCOPE = "openid profile uuid email groups"


def host_variables(host: Host, database: str) -> dict[str, str]:
    """The variables of one lab host for Ansible and the roles."""
    known_hosts = f"{LAB_FOLDER}/{plan.KNOWN_HOSTS.name}"
    from_containers = f"https://{plan.IDP_ADDRESS}:{plan.IDP_PORT}"
    return {
        "ansible_host": host.address,
        "ansible_user": plan.USER,
        "ansible_ssh_private_key_file": f"{LAB_FOLDER}/{plan.SSH_KEY.name}",
        "ansible_ssh_common_args": f"-o 'UserKnownHostsFile=\"{known_hosts}\"' -o IdentitiesOnly=yes",
        "scratch4school_url": host.url,
        "database_engine": database,
        "proxy_tls_certificate": f"{LAB_FOLDER}/tls/{host.name}.crt",
        "proxy_tls_key": f"{LAB_FOLDER}/tls/{host.name}.key",
        "app_oidc_authorize_url": f"{plan.IDP_ISSUER}/oauth/authorize",
        "app_oidc_token_url": f"{from_containers}/oauth/token",
        "app_oidc_jwks_url": f"{from_containers}/oauth/jwks.json",
        "app_oidc_issuer": plan.IDP_ISSUER,
        "app_oidc_client_id": plan.IDP_CLIENT_ID,
        "app_oidc_scope": SCOPE,
    }


def render(hosts: list[Host], databases: dict[str, str]) -> str:
    """The inventory as YAML, for the hosts and the database engine of each by its name.

    Values are written as JSON strings, which YAML reads as they are.
    """
    lines = [
        "# Written by scripts/lab; the next `scripts/lab up` overwrites it.",
        "---",
        "scratch4school:",
        "  hosts:",
    ]
    for host in hosts:
        variables = host_variables(host, databases[host.name])
        lines.append(f"    {host.name}:")
        lines.extend(f"      {name}: {json.dumps(value)}" for name, value in variables.items())
    return "\n".join(lines) + "\n"


def write(hosts: list[Host], databases: dict[str, str], client_secret: str) -> bool:
    """Write the inventory and the client's secret where they differ; returns whether anything was written."""
    plan.CLIENT_SECRET.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = ((plan.INVENTORY, render(hosts, databases), 0o644), (plan.CLIENT_SECRET, client_secret, 0o600))
    changed = False
    for path, text, mode in files:
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            shell.write(path, text, mode)
            changed = True
    return changed


def remove() -> None:
    """Remove the files that `write` wrote; the hosts in them do not exist any more."""
    plan.INVENTORY.unlink(missing_ok=True)
    plan.CLIENT_SECRET.unlink(missing_ok=True)
