"""The command scripts/lab: its commands and options. One run at a time changes the lab."""

from __future__ import annotations

import argparse
import fcntl

from ..checkout import STATE
from ..hosts import lifecycle, plan, snapshots
from ..shell import LabError, fail

DESCRIPTION = """\
Throw-away hosts on this machine, to deploy on for real.

Each host is a container that boots systemd and is reached by SSH, as a server is; beside them runs an OpenID Connect
provider. All state is in .lab/ and in the Docker Engine, which is installed and started where the machine has none."""

EPILOG = """\
examples:
  scripts/lab up --hosts 2            start two hosts
  scripts/lab ssh 1 sudo docker ps    run a command on the first one
  scripts/lab snapshot 1              keep the first host as it is now, such as after a deploy
  scripts/lab restore 2               start the second host from that snapshot; then deploy on it
  scripts/lab down                    remove all of it"""

SNAPSHOT_HELP = """\
Keeps a host as it is now, under a name: its root file system as an image, and a copy of its Docker Engine's volume.
An earlier snapshot of that name is replaced. The host is stopped and started again; its installation does not answer
for about half a minute."""

RESTORE_HELP = """\
Starts a host from a snapshot, within seconds. An existing host is REPLACED; a new one must have the next number. It
gets the name, address, certificate and SSH keys of its own number. Its installation still has the settings of the host
of which the snapshot was made; deploy.yml applies its own."""


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    main_parser = argparse.ArgumentParser(
        prog="scripts/lab",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = main_parser.add_subparsers(dest="chosen", required=True, metavar="COMMAND")
    up_parser = commands.add_parser("up", help="start the lab; members that run already are not changed")
    counts = range(1, plan.MOST_HOSTS + 1)
    up_parser.add_argument("--hosts", type=int, choices=counts, help="how many (default: as many as there are, or 1)")
    up_parser.add_argument("--os", choices=plan.SYSTEMS, help="the Debian of new hosts (default: trixie)")
    engines = "the database engine that the inventory sets for new hosts (default: postgres)"
    up_parser.add_argument("--database", choices=plan.DATABASES, help=engines)
    down_parser = commands.add_parser(
        "down", help="remove hosts, snapshots, provider, network and volumes; stop an engine that `up` started"
    )
    down_parser.add_argument("--images", action="store_true", help="remove the images and all of .lab too")
    commands.add_parser("status", help="print the state of each member; exits 0 when all are well")
    ssh_parser = commands.add_parser("ssh", help="open a shell on a host, or run a command there")
    ssh_parser.add_argument("host", metavar="HOST", help="number, name or address")
    ssh_parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    snapshot_parser = commands.add_parser("snapshot", help="keep a host as it is now", description=SNAPSHOT_HELP)
    snapshot_parser.add_argument("host", metavar="HOST", help="number, name or address")
    restore_parser = commands.add_parser("restore", help="start a host from a snapshot", description=RESTORE_HELP)
    restore_parser.add_argument("host", metavar="HOST", help="number, name or address of an existing or the next host")
    for each in (snapshot_parser, restore_parser):
        name = f"of the snapshot (default: {snapshots.DEPLOYED})"
        each.add_argument("name", nargs="?", default=snapshots.DEPLOYED, metavar="NAME", help=name)
    return main_parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0 when it was done, 1 after an error or where `status` found one."""
    options = parser().parse_args(arguments)
    # Closed, because it holds keys; containers get single files of it mounted.
    STATE.mkdir(mode=0o700, exist_ok=True)
    STATE.chmod(0o700)
    try:
        if options.chosen == "ssh":
            lifecycle.ssh(options.host, options.command)
        if options.chosen == "status":
            return lifecycle.status()
        with (STATE / "lock").open("w") as lock:
            # Two runs at once would both find a host missing and both start it.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if options.chosen == "up":
                lifecycle.up(options.hosts, {"system": options.os, "database": options.database})
            elif options.chosen == "snapshot":
                lifecycle.snapshot(options.host, options.name)
            elif options.chosen == "restore":
                lifecycle.restore(options.host, options.name)
            else:
                lifecycle.down(options.images)
    except LabError as error:
        return fail(error)
    return 0
