"""The containers of a lab and their network: hosts and identity provider."""

from __future__ import annotations

import json
import os
import ssl
import urllib.request
from pathlib import Path

from ..checkout import ROOT, STATE
from ..shell import LabError, docker, find, run, wait_until, write
from . import certificates, plan
from .plan import Host

# systemd-resolved listens on the loopback itself and names its upstream servers in the second file.
NAME_SERVER_FILES = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
# The number of CAP_SYS_RESOURCE in linux/capability.h.
SYS_RESOURCE = 24
# systemd's words for the end of a boot; "degraded" means that some unit failed, and the host can still be used.
BOOTED = ("running", "degraded")
# A boot takes seconds, with an installation on the host half a minute; a machine may be many times slower.
BOOT_SECONDS = 600
RESOLV_CONF = STATE / "resolv.conf"
IDP_SECRET = STATE / "oidc_client_secret"

# The rights that systemd and a nested Docker Engine need. --privileged would fail where a capability is missing.
HOST_RIGHTS = (
    *("--cap-add=ALL", "--cgroupns=private"),
    *("--security-opt", "seccomp=unconfined"),
    *("--security-opt", "apparmor=unconfined"),
    *("--security-opt", "systempaths=unconfined"),
    *("--tmpfs", "/run:exec", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec", "--env", "container=docker"),
)


def describe_all() -> dict[str, dict]:
    """Every container of any lab, by name: `state`, its traits, `image` and the `checkout` that started it."""
    listed = docker("ps", "--all", "--quiet", "--filter", f"label={plan.LABEL}", why="The containers cannot be listed")
    names = listed.stdout.split()
    if not names:
        return {}
    inspected = json.loads(docker("inspect", *names, why="The lab's containers cannot be inspected").stdout)
    return {
        entry["Name"].lstrip("/"): {
            "state": entry["State"]["Status"],
            "image": entry["Config"]["Image"],
            "system": entry["Config"]["Labels"].get(f"{plan.LABEL}.system", ""),
            "database": entry["Config"]["Labels"].get(f"{plan.LABEL}.database", plan.DATABASES[0]),
            "checkout": entry["Config"]["Labels"][plan.LABEL],
        }
        for entry in inspected
    }


def labels(**traits: str) -> list[str]:
    """Options for labels, by which a later run finds a container's checkout and traits."""
    named = {plan.LABEL: str(ROOT)} | {f"{plan.LABEL}.{trait}": value for trait, value in traits.items()}
    return [option for name, value in named.items() for option in ("--label", f"{name}={value}")]


def make_network() -> None:
    if docker("network", "inspect", plan.NETWORK, why="", check=False).returncode != 0:
        docker(
            *("network", "create", "--subnet", plan.SUBNET, "--label", f"{plan.LABEL}={ROOT}", plan.NETWORK),
            why=f"The lab network {plan.SUBNET} could not be made",
        )


def upstream_name_servers(candidates: tuple[str, ...] = NAME_SERVER_FILES) -> str:
    """The lines of a resolv.conf whose name servers a nested container can reach; empty where there are none.

    In a network's containers Docker writes 127.0.0.11, where no server listens inside a nested container. The nested
    engine would then use public name servers, which a school's firewall blocks. So hosts get this machine's own.
    """
    for candidate in candidates:
        try:
            lines = Path(candidate).read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        kept = [line for line in lines if line.startswith(("search", "options"))]
        servers = [line for line in lines if line.startswith("nameserver") and not line.split()[1].startswith("127.")]
        if servers:
            return "\n".join([*servers, *kept]) + "\n"
    return ""


def write_resolv_conf() -> None:
    text = upstream_name_servers()
    if not text:
        raise LabError("All name servers of this machine listen on its loopback, where no lab host can reach them.")
    # Written in place: hosts have this file mounted, and a laptop may change its network while they run.
    if not RESOLV_CONF.exists() or RESOLV_CONF.read_text() != text:
        RESOLV_CONF.write_text(text)


def known_names(but: Host) -> list[str]:
    """Options for the names of all other members of the lab; Docker adds the host's own name."""
    members = [(host.name, host.address) for host in plan.hosts(plan.MOST_HOSTS) if host != but]
    return [f"--add-host={name}:{address}" for name, address in [*members, (plan.IDP_NAME, plan.IDP_ADDRESS)]]


def capability_options(process_status: str, engine_version: str) -> tuple[str, ...]:
    """Options beside --cap-add=ALL on this machine, decided by /proc/self/status and the engine's version.

    A machine that is itself a container or a locked-down virtual machine often lacks CAP_SYS_RESOURCE. Engines before
    23 include it in ALL, and the host does not start; later ones leave it out and refuse the option.
    """
    bounding = next(line.split()[1] for line in process_status.splitlines() if line.startswith("CapBnd:"))
    has_it = int(bounding, 16) >> SYS_RESOURCE & 1
    return () if has_it or int(engine_version.split(".")[0]) >= 23 else ("--cap-drop=SYS_RESOURCE",)


def start_host(host: Host, image: str, traits: dict[str, str]) -> None:
    """Start a host that does not exist yet."""
    engine_version = docker("version", "--format", "{{.Server.Version}}", why="The engine does not report its version")
    docker(
        *("run", "--detach", "--name", host.name, "--hostname", host.name, *labels(**traits)),
        *("--network", plan.NETWORK, "--ip", host.address, *known_names(but=host)),
        *("--publish", f"127.0.0.1:{host.https_port}:443"),
        *HOST_RIGHTS,
        *capability_options(Path("/proc/self/status").read_text(), engine_version.stdout.strip()),
        *("--volume", f"{host.volume}:/var/lib/docker", "--volume", f"{RESOLV_CONF}:/etc/resolv.conf:ro"),
        image,
        why=f"The host {host.name} could not be started",
    )


def start_idp(image: str) -> None:
    certificate, key = (certificates.TLS / f"{plan.IDP_NAME}{suffix}" for suffix in (".crt", ".key"))
    # The provider runs as a user who does not exist on this machine. The files stay private: their folder is closed.
    key.chmod(0o644)
    IDP_SECRET.chmod(0o644)
    docker(
        *("run", "--detach", "--name", plan.IDP_NAME, "--hostname", plan.IDP_NAME, *labels()),
        *("--network", plan.NETWORK, "--ip", plan.IDP_ADDRESS),
        *("--publish", f"127.0.0.1:{plan.IDP_PORT}:{plan.IDP_PORT}"),
        *("--read-only", "--cap-drop=ALL", "--tmpfs", "/tmp:mode=1777"),
        *("--security-opt", "no-new-privileges"),
        *("--volume", f"{certificate}:/run/idp/tls.crt:ro", "--volume", f"{key}:/run/idp/tls.key:ro"),
        *("--volume", f"{IDP_SECRET}:/run/idp/client_secret:ro"),
        *("--env", f"ISSUER_HOST=localhost:{plan.IDP_PORT}", "--env", f"CLIENT_ID={plan.IDP_CLIENT_ID}"),
        image,
        why="The identity provider could not be started",
    )


def remove_host(host: Host) -> None:
    """Remove a host and the volume of its nested engine."""
    docker("rm", "--force", "--volumes", host.name, why=f"{host.name} could not be removed")
    docker("volume", "rm", "--force", host.volume, why=f"The volume of {host.name} could not be removed")


def start_again(name: str) -> None:
    docker("start", name, why=f"The stopped {name} could not be started again")


def ssh_command(host: Host) -> list[str]:
    options = [f'UserKnownHostsFile="{plan.KNOWN_HOSTS}"', "StrictHostKeyChecking=yes", "IdentitiesOnly=yes"]
    flags = [flag for option in (*options, "ConnectTimeout=5") for flag in ("-o", option)]
    return ["ssh", "-i", str(plan.SSH_KEY), *flags, f"{plan.USER}@{host.address}"]


def is_reachable(host: Host) -> bool:
    """Whether a command can be run on the host by SSH."""
    return run(*ssh_command(host), "-o", "BatchMode=yes", "true", why="", check=False).returncode == 0


def learn_host_key(host: Host) -> bool:
    """Replace the host's SSH key in the lab's known_hosts; False while sshd does not answer."""
    scanned = run("ssh-keyscan", "-T", "2", "-t", "ed25519", host.address, why="", check=False).stdout
    lines = [line for line in scanned.splitlines() if line.startswith(f"{host.address} ")]
    if not lines:
        return False
    known = plan.KNOWN_HOSTS.read_text().splitlines() if plan.KNOWN_HOSTS.exists() else []
    others = [line for line in known if not line.startswith(f"{host.address} ")]
    write(plan.KNOWN_HOSTS, "\n".join([*others, *lines]) + "\n", 0o600)
    return True


def boot_state(host: Host) -> str:
    """systemd's word for the state of the boot: running, starting, degraded, …; empty when SSH does not answer."""
    return run(*ssh_command(host), "systemctl", "is-system-running", why="", check=False).stdout.strip()


def wait_for_host(host: Host) -> None:
    """Wait until the host has booted and answers by SSH."""
    otherwise = f"{host.name} does not answer by SSH; `docker logs {host.name}` may say why."
    wait_until(lambda: learn_host_key(host) and is_reachable(host), BOOT_SECONDS, otherwise)
    otherwise = f"{host.name} did not finish booting; `scripts/lab ssh {host.number} systemctl --failed` may say why."
    wait_until(lambda: boot_state(host) in BOOTED, BOOT_SECONDS, otherwise)


def idp_answers() -> bool:
    """Whether the identity provider answers its description over TLS with a certificate of the lab's authority."""
    context = ssl.create_default_context(cafile=str(certificates.CA_CERTIFICATE))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(f"{plan.IDP_ISSUER}/.well-known/openid-configuration", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def wait_for_idp() -> None:
    wait_until(
        idp_answers, BOOT_SECONDS, f"The identity provider does not answer; `docker logs {plan.IDP_NAME}` may say why."
    )


def remove_all() -> int:
    """Remove the containers, volumes and network of any lab; returns how many containers there were."""
    found = sorted(describe_all())
    if found:
        docker("rm", "--force", "--volumes", *found, why="The lab's containers could not be removed")
    for host in plan.hosts(plan.MOST_HOSTS):
        docker("volume", "rm", "--force", host.volume, why=f"The volume of {host.name} could not be removed")
    if docker("network", "inspect", plan.NETWORK, why="", check=False).returncode == 0:
        docker("network", "rm", plan.NETWORK, why="The lab's network could not be removed")
    return len(found)


def become_ssh(host: Host, command: list[str]) -> None:
    """Replace this process by an SSH session on the host."""
    program = find("ssh")
    if program is None:
        raise LabError("This machine has no ssh; install openssh-client.")
    os.execv(program, [*ssh_command(host), *command])


def make_ssh_key() -> None:
    if not plan.SSH_KEY.exists():
        run(
            *("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "scratch4school lab", "-f", str(plan.SSH_KEY)),
            why="The lab's SSH key could not be made",
        )
