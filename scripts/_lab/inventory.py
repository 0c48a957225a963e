"""Writes `inventories/lab/hosts.yml`, so that every playbook can be run on the lab with `-i inventories/lab`."""

from __future__ import annotations

import json

from . import plan, shell
from .plan import Host

# Paths are told from the inventory's own folder: the file stays true when the checkout moves.
LAB_FOLDER = "{{ inventory_dir }}/../../.lab"
# What is asked of IServ too. Canaille puts the groups' names under `groups`, and has no claim to put under `uuid`.
SCOPE = "openid profile uuid email groups"


def host_variables(host: Host, database: str) -> dict[str, str]:
    """What Ansible and the roles must know of one lab host."""
    known_hosts = f"{LAB_FOLDER}/{plan.KNOWN_HOSTS.name}"
    from_containers = f"https://{plan.IDP_ADDRESS}:{plan.IDP_PORT}"
    return {
        "ansible_host": host.address,
        "ansible_user": plan.USER,
        "ansible_ssh_private_key_file": f"{LAB_FOLDER}/{plan.SSH_KEY.name}",
        "ansible_ssh_common_args": f"-o 'UserKnownHostsFile=\"{known_hosts}\"' -o IdentitiesOnly=yes",
        "scratch4school_url": f"https://localhost:{host.https_port}",
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
    """The inventory as YAML, from the hosts and the engine of each by its name.

    Values are written as JSON strings, which YAML reads as they are.
    """
    lines = [
        "# Written by scripts/lab; the next `scripts/lab up` writes it again.",
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
    """Write the inventory and the client's secret where they differ; whether anything was written."""
    plan.CLIENT_SECRET.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    wanted = ((plan.INVENTORY, render(hosts, databases), 0o644), (plan.CLIENT_SECRET, client_secret, 0o600))
    changed = False
    for path, text, mode in wanted:
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            shell.write(path, text, mode)
            changed = True
    return changed


def remove() -> None:
    """Remove what `write` wrote: an inventory of hosts that are gone only misleads."""
    plan.INVENTORY.unlink(missing_ok=True)
    plan.CLIENT_SECRET.unlink(missing_ok=True)
