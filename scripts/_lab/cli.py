"""The verbs of scripts/lab: the order of things and the words to the person."""

from __future__ import annotations

import argparse
import fcntl
import secrets
import shutil
import socket
from concurrent.futures import Future, ThreadPoolExecutor

from . import certificates, containers, engine, images, inventory, plan
from .plan import Host
from .shell import LabError, fail, find, phase

DESCRIPTION = """\
Throw-away servers on this machine, to deploy on for real.

Each host is a container that boots systemd, reached by SSH as a server would be; beside them runs an OpenID Connect
provider. All state is in .lab/ and in the Docker Engine, which is installed and started where the machine has none."""


def ensure_engine() -> None:
    """Have what a lab needs of this machine: the programs, a running engine, cgroups."""
    with phase("engine") as step:
        running = engine.answers()
        missing = engine.missing_packages(running)
        if missing:
            engine.install(missing)
            running = engine.answers()
        way = "runs already" if running else engine.start()
        engine.check_cgroups()
        step.note = way + (f"; installed {' '.join(missing)}" if missing else "")


def choose_hosts(
    wanted: int | None, wishes: dict[str, str | None], existing: dict[str, dict]
) -> tuple[list[Host], dict[str, dict[str, str]]]:
    """The hosts of the lab and the traits of each: its `system` and its `database`.

    Without a wish for their number there are as many as exist, or one. Hosts that exist keep their traits, so a wish
    for another one holds for those that are new; LabError when it would then hold for none.
    """
    present = [host for host in plan.hosts(plan.MOST_HOSTS) if host.name in existing]
    count = wanted or max(1, len(present))
    if len(present) > count:
        raise LabError(f"The lab has {len(present)} hosts already; run `scripts/lab down` first to have fewer.")
    hosts = plan.hosts(count)
    defaults = {"system": plan.SYSTEMS[0], "database": plan.DATABASES[0]}
    traits = {
        host.name: {
            trait: existing[host.name][trait] if host in present else wishes.get(trait) or default
            for trait, default in defaults.items()
        }
        for host in hosts
    }
    for trait, wish in wishes.items():
        if wish and all(has[trait] != wish for has in traits.values()):
            has = traits[hosts[0].name][trait]
            raise LabError(f"The lab runs {has} already; run `scripts/lab down` first to have {wish}.")
    return hosts, traits


def clear_foreign_lab(existing: dict[str, dict]) -> dict[str, dict]:
    """What exists once another checkout's lab is out of the way, which occupies the names and ports; its keys are not
    ours. One none of whose members runs was left behind by an engine that died, and is removed; LabError when it runs.
    """
    foreign = {name: each for name, each in existing.items() if each["checkout"] != str(plan.ROOT)}
    if not foreign:
        return existing
    checkout = next(iter(foreign.values()))["checkout"]
    if any(each["state"] == "running" for each in foreign.values()):
        raise LabError(f"The lab of {checkout} runs on this machine; run `scripts/lab down` first.")
    with phase("remains of another lab") as step:
        step.note = f"{containers.remove_all()} containers of {checkout} removed; none of them ran"
    return {}


def refuse_taken_ports(newcomers: dict[str, int]) -> None:
    """LabError where another program listens on a port of this machine's loopback that a new member needs."""
    for name, port in newcomers.items():
        with socket.socket() as probe:
            # As Docker does it: a port whose last connections are only fading away is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                raise LabError(f"{name} needs port {port} of this machine, and something else listens there.") from None


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


def up(wanted: int | None, wishes: dict[str, str | None]) -> None:
    """Bring the lab up, or what is missing of it."""
    ensure_engine()
    existing = clear_foreign_lab(containers.describe_all())
    hosts, traits = choose_hosts(wanted, wishes, existing)
    ports = {host.name: host.https_port for host in hosts} | {plan.IDP_NAME: plan.IDP_PORT}
    refuse_taken_ports({name: port for name, port in ports.items() if name not in existing})
    make_keys(hosts)
    with phase("network"):
        containers.write_resolv_conf()
        containers.make_network()

    def state(name: str) -> str | None:
        return existing[name]["state"] if name in existing else None

    # The provider's image takes about as long as a host's, and both mostly wait for downloads.
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
    """Remove hosts, identity provider, network, volumes and inventory, and stop an engine that `up` started."""
    if not engine.answers():
        if find("dockerd") is None:
            inventory.remove()
            print("lab: this machine has no Docker Engine, so there is no lab to take down")
            return
        # What a lab left in a stopped engine (after a reboot, say) can only be removed by a running one.
        engine.start()
    with phase("hosts and network") as step:
        step.note = f"{containers.remove_all()} containers removed"
        plan.KNOWN_HOSTS.unlink(missing_ok=True)
        inventory.remove()
    if with_images:
        with phase("images") as step:
            step.note = f"{images.remove_all()} removed"
    with phase("engine") as step:
        step.note = "stopped" if engine.stop() else "was not started by this lab, so it keeps running"
    if with_images:
        shutil.rmtree(plan.STATE, ignore_errors=True)
    else:
        print("lab: the images and keys are kept, so the next `up` is quick; `scripts/lab down --images` removes them")


def status() -> int:
    """Say what runs; 0 when all of the lab is well, 1 otherwise."""
    if not engine.answers():
        print("engine                does not answer")
        return 1
    pid = engine.own_pid()
    print(f"engine                answers{f' (process {pid}, started by this lab)' if pid else ''}")
    existing = containers.describe_all()
    if not existing:
        print("hosts                 none; scripts/lab up makes one")
        return 1
    well = True
    for host in plan.hosts(plan.MOST_HOSTS):
        if host.name in existing:
            found = existing[host.name]
            boot = containers.boot_state(host) if found["state"] == "running" else found["state"]
            well = well and boot == "running"
            answer = f"ssh {'answers' if boot else 'is silent'}, {boot or 'unknown'}"
            words = f"{found['system']}, {found['database']}, {host.address}, {answer}"
            print(f"{host.name:<22}{words}, https://localhost:{host.https_port}")
    idp = containers.idp_answers()
    print(f"identity provider     {'answers' if idp else 'is silent'}, {plan.IDP_ISSUER}")
    return 0 if well and idp else 1


def ssh(wanted: str, command: list[str]) -> None:
    host = plan.find_host(wanted)
    if host is None:
        raise LabError(f"There is no lab host {wanted}; say 1, {plan.hosts(1)[0].name} or {plan.hosts(1)[0].address}.")
    containers.become_ssh(host, command)


def parser() -> argparse.ArgumentParser:
    main_parser = argparse.ArgumentParser(
        prog="scripts/lab", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = main_parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    up_parser = verbs.add_parser("up", help="bring the lab up; what runs already is left as it is")
    counts = range(1, plan.MOST_HOSTS + 1)
    up_parser.add_argument("--hosts", type=int, choices=counts, help="how many (default: as many as there are, or 1)")
    up_parser.add_argument("--os", choices=plan.SYSTEMS, help="the Debian of hosts that are new (default: trixie)")
    engines = "the database that new hosts are to be deployed with (default: postgres)"
    up_parser.add_argument("--database", choices=plan.DATABASES, help=engines)
    down_parser = verbs.add_parser("down", help="remove hosts, provider, network, volumes; stop an engine `up` started")
    down_parser.add_argument("--images", action="store_true", help="remove the images and all of .lab too")
    verbs.add_parser("status", help="say what runs; exits 0 when all of it is well")
    ssh_parser = verbs.add_parser("ssh", help="open a shell on a host, or run a command there")
    ssh_parser.add_argument("host", metavar="HOST", help="number, name or address")
    ssh_parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    return main_parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    # Closed, for it holds keys; what the containers get of it is mounted file by file.
    plan.STATE.mkdir(mode=0o700, exist_ok=True)
    plan.STATE.chmod(0o700)
    try:
        if options.verb == "ssh":
            ssh(options.host, options.command)
        if options.verb == "status":
            return status()
        with (plan.STATE / "lock").open("w") as lock:
            # Two runs at once would both find a host missing and both start it.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if options.verb == "up":
                up(options.hosts, {"system": options.os, "database": options.database})
            else:
                down(options.images)
    except LabError as error:
        return fail(error)
    return 0
