"""The steps of each command of scripts/lab, in order, with their output."""

from __future__ import annotations

import secrets
import shutil
import socket
from concurrent.futures import Future, ThreadPoolExecutor

from ..checkout import ROOT, STATE
from ..shell import LabError, find, phase
from . import certificates, containers, engine, images, inventory, plan, snapshots
from .plan import Host


def ensure_engine() -> None:
    """Have the programs, the running engine and the cgroups that a lab needs on this machine."""
    with phase("engine") as step:
        running = engine.answers()
        missing = engine.missing_packages(running)
        if missing:
            engine.install(missing)
            running = engine.answers()
        state = "runs already" if running else engine.start()
        engine.check_cgroups()
        step.note = state + (f"; installed {' '.join(missing)}" if missing else "")


def choose_hosts(
    count: int | None, requested: dict[str, str | None], existing: dict[str, dict]
) -> tuple[list[Host], dict[str, dict[str, str]]]:
    """The hosts of the lab and the traits of each: its `system` and its `database`.

    Without a `count` there are as many as exist, or one. Existing hosts keep their traits, so a requested trait is for
    new hosts; LabError when no host would have it.
    """
    present = [host for host in plan.hosts(plan.MOST_HOSTS) if host.name in existing]
    count = count or max(1, len(present))
    if len(present) > count:
        raise LabError(f"The lab has {len(present)} hosts already; run `scripts/lab down` first to have fewer.")
    hosts = plan.hosts(count)
    defaults = {"system": plan.SYSTEMS[0], "database": plan.DATABASES[0]}
    traits = {
        host.name: {
            trait: existing[host.name][trait] if host in present else requested.get(trait) or default
            for trait, default in defaults.items()
        }
        for host in hosts
    }
    for trait, value in requested.items():
        if value and all(has[trait] != value for has in traits.values()):
            has = traits[hosts[0].name][trait]
            raise LabError(f"The lab runs {has} already; run `scripts/lab down` first to have {value}.")
    return hosts, traits


def clear_foreign_lab(existing: dict[str, dict]) -> dict[str, dict]:
    """The existing members, after those of another checkout's lab were removed: they occupy the names and ports.

    LabError while one of them runs. If none runs, an engine that died has left them.
    """
    foreign = {name: each for name, each in existing.items() if each["checkout"] != str(ROOT)}
    if not foreign:
        return existing
    checkout = next(iter(foreign.values()))["checkout"]
    if any(each["state"] == "running" for each in foreign.values()):
        raise LabError(f"The lab of {checkout} runs on this machine; run `scripts/lab down` first.")
    with phase("remove another lab") as step:
        step.note = f"{containers.remove_all()} containers of {checkout} removed; none of them ran"
    return {}


def refuse_taken_ports(newcomers: dict[str, int]) -> None:
    """LabError where another program listens on a port of this machine's loopback that a new member needs."""
    for name, port in newcomers.items():
        with socket.socket() as probe:
            # As Docker does: a port whose connections are only closing is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                raise LabError(
                    f"{name} needs port {port} of this machine, and another program listens there."
                ) from None


def make_keys(hosts: list[Host]) -> None:
    with phase("keys and certificates") as step:
        containers.make_ssh_key()
        new = certificates.make_authority()
        members = [(host.name, host.address) for host in hosts] + [(plan.IDP_NAME, plan.IDP_ADDRESS)]
        made = [name for name, address in members if certificates.make_certificate(name, address, new)]
        if not containers.IDP_SECRET.exists():
            containers.IDP_SECRET.touch(mode=0o600)
            containers.IDP_SECRET.write_text(secrets.token_urlsafe(32))
        step.note = f"made for {', '.join(made)}" if made else "unchanged"


def bring_up_host(host: Host, traits: dict[str, str], state: str | None) -> None:
    if state is None:
        with phase(f"image lab-host {traits['system']}") as step:
            image, built = images.build_host(traits["system"])
            step.note = f"built {image}" if built else f"unchanged {image}"
    with phase(host.name) as step:
        if state is None:
            containers.start_host(host, image, traits)
        elif state != "running":
            containers.start_again(host.name)
        if state != "running" or not containers.is_reachable(host):
            containers.wait_for_host(host)
        kind = f"{traits['system']}, {traits['database']}"
        step.note = f"{kind}, {host.address}, " + ("runs already" if state == "running" else "booted")


def bring_up_idp(state: str | None) -> None:
    if state is None:
        with phase("image lab-idp") as step:
            image, built = images.build_idp()
            step.note = f"built {image}" if built else f"unchanged {image}"
    with phase("identity provider") as step:
        if state is None:
            containers.start_idp(image)
        elif state != "running":
            containers.start_again(plan.IDP_NAME)
        containers.wait_for_idp()
        step.note = plan.IDP_ISSUER + (", runs already" if state == "running" else "")


def up(count: int | None, requested: dict[str, str | None]) -> None:
    """Start the members of the lab that do not run; `requested` has the traits of new hosts."""
    ensure_engine()
    existing = clear_foreign_lab(containers.describe_all())
    hosts, traits = choose_hosts(count, requested, existing)
    ports = {host.name: host.https_port for host in hosts} | {plan.IDP_NAME: plan.IDP_PORT}
    refuse_taken_ports({name: port for name, port in ports.items() if name not in existing})
    make_keys(hosts)
    with phase("network"):
        containers.write_resolv_conf()
        containers.make_network()

    def state(name: str) -> str | None:
        return existing[name]["state"] if name in existing else None

    # To build the provider's image takes about as long as a host's, and both mostly wait for downloads.
    with ThreadPoolExecutor(max_workers=2) as pool:
        provider: Future[None] = pool.submit(bring_up_idp, state(plan.IDP_NAME))
        for host in hosts:
            bring_up_host(host, traits[host.name], state(host.name))
        with phase("inventories/lab") as step:
            databases = {host.name: traits[host.name]["database"] for host in hosts}
            changed = inventory.write(hosts, databases, containers.IDP_SECRET.read_text())
            step.note = "written" if changed else "unchanged"
        provider.result()


def down(with_images: bool) -> None:
    """Remove hosts, snapshots, identity provider, network and inventory, and stop an engine that `up` started."""
    if not engine.answers():
        if find("dockerd") is None:
            inventory.remove()
            print("lab: this machine has no Docker Engine, so there is no lab to remove")
            return
        # Only a running engine can remove what a lab left in it, for example after a reboot.
        engine.start()
    with phase("hosts and network") as step:
        step.note = f"{containers.remove_all()} containers and {snapshots.remove_all()} snapshots removed"
        plan.KNOWN_HOSTS.unlink(missing_ok=True)
        inventory.remove()
    if with_images:
        with phase("images") as step:
            step.note = f"{images.remove_all()} removed"
    with phase("engine") as step:
        step.note = "stopped" if engine.stop() else "was not started by this lab, so it keeps running"
    if with_images:
        shutil.rmtree(STATE, ignore_errors=True)
    else:
        print("lab: the images and keys are kept, so the next `up` is quick; `scripts/lab down --images` removes them")


def status() -> int:
    """Print the state of each member; returns 0 when all are well, 1 otherwise."""
    if not engine.answers():
        print("engine                does not answer")
        return 1
    pid = engine.own_pid()
    print(f"engine                answers{f' (process {pid}, started by this lab)' if pid else ''}")
    existing = containers.describe_all()
    if not existing:
        print("hosts                 none; `scripts/lab up` makes one")
        return 1
    well = True
    for host in plan.hosts(plan.MOST_HOSTS):
        if host.name in existing:
            found = existing[host.name]
            boot = containers.boot_state(host) if found["state"] == "running" else found["state"]
            well = well and boot == "running"
            answer = f"ssh {'answers' if boot else 'does not answer'}, {boot or 'unknown'}"
            traits = f"{found['system']}, {found['database']}, {host.address}, {answer}"
            print(f"{host.name:<22}{traits}, {host.url}")
    idp = containers.idp_answers()
    print(f"identity provider     {'answers' if idp else 'does not answer'}, {plan.IDP_ISSUER}")
    for name, found in sorted(snapshots.describe_all().items()):
        print(f"{'snapshot ' + name:<22}{found['system']}, {found['database']}, made {found['created'][:16]}Z")
    return 0 if well and idp else 1


def named_host(text: str) -> Host:
    """The host with that number, name or address; LabError where a lab cannot have it."""
    host = plan.find_host(text)
    if host is None:
        first = plan.hosts(1)[0]
        raise LabError(
            f"There is no lab host {text}; use a number up to {plan.MOST_HOSTS}, {first.name} or {first.address}."
        )
    return host


def require_lab() -> dict[str, dict]:
    """The members of this checkout's lab; LabError where it is not up."""
    existing = containers.describe_all() if engine.answers() else {}
    ours = {name: each for name, each in existing.items() if each["checkout"] == str(ROOT)}
    if plan.IDP_NAME not in ours:
        raise LabError("The lab of this checkout is not up; run `scripts/lab up` first.")
    return ours


def snapshot(text: str, name: str) -> None:
    """Make a snapshot of a host; the host is stopped for it and started again."""
    snapshots.check_name(name)
    existing, host = require_lab(), named_host(text)
    if host.name not in existing:
        raise LabError(f"The lab has no {host.name}; `scripts/lab status` lists its hosts.")
    traits = {trait: existing[host.name][trait] for trait in ("system", "database")}
    with phase(f"snapshot {name}") as step:
        snapshots.take(name, host, traits)
        step.note = f"of {host.name}, {traits['system']}, {traits['database']}"
    with phase(host.name) as step:
        containers.wait_for_host(host)
        step.note = "booted"


def restore(text: str, name: str) -> None:
    """Start an existing or the next host from a snapshot."""
    existing, host = require_lab(), named_host(text)
    found = snapshots.describe_all().get(name)
    if found is None:
        raise LabError(f"There is no snapshot {name}; make it with `scripts/lab snapshot 1 {name}`.")
    if found["checkout"] != str(ROOT):
        raise LabError(f"The snapshot {name} is of the lab of {found['checkout']}, whose keys this lab does not have.")
    present = [each for each in plan.hosts(plan.MOST_HOSTS) if each.name in existing]
    if host not in present and host.number != len(present) + 1:
        raise LabError(f"{host.name} would leave a gap; the next host is {len(present) + 1}.")
    traits = {"system": found["system"], "database": found["database"]}
    if host in present:
        with phase(f"remove {host.name}"):
            containers.remove_host(host)
    else:
        refuse_taken_ports({host.name: host.https_port})
        present.append(host)
    make_keys(present)
    with phase(host.name) as step:
        containers.write_resolv_conf()
        snapshots.start_host(name, host, traits)
        containers.wait_for_host(host)
        step.note = f"{traits['system']}, {traits['database']}, {host.address}, restored from {name}"
    with phase("inventories/lab") as step:
        databases = {each.name: existing[each.name]["database"] for each in present if each != host}
        changed = inventory.write(
            present, databases | {host.name: traits["database"]}, containers.IDP_SECRET.read_text()
        )
        step.note = "written" if changed else "unchanged"


def ssh(text: str, command: list[str]) -> None:
    """Replace this process by an SSH session on a host, or by a command there."""
    containers.become_ssh(named_host(text), command)
