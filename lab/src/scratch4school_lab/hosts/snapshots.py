"""Snapshots of a lab host, from which it, or another host, starts again within seconds.

A snapshot has two parts: an image of the host's root file system, and a copy of the volume of its nested Docker Engine.
A restored host gets the name, address, certificate and SSH keys of its own number. Its installation still has the
settings of the host of which the snapshot was made; `deploy.yml` applies its own.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from ..checkout import ROOT
from ..shell import LabError, docker
from . import containers, plan
from .plan import Host

# The name of the snapshot where the caller gives none: a host after its first deploy.
DEPLOYED = "deployed"
REPOSITORY = "scratch4school-lab-snapshot"
LABEL = f"{plan.LABEL}.snapshot"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
# Each host makes its own of these at its next start. Without the last file, lab-init copies the data once more.
IDENTITY = "rm -f /etc/ssh/ssh_host_* /var/lib/lab-data-is-copied && : > /etc/machine-id"
# A host stops within seconds. Docker kills one that takes longer than this; its files are then as after a power cut.
STOP_SECONDS = 180
# The nested engine marks deleted files by device nodes and by trusted attributes; to copy these needs both rights.
COPY_RIGHTS = ("--cap-add=SYS_ADMIN", "--cap-add=MKNOD", "--security-opt", "apparmor=unconfined")


def image_of(name: str) -> str:
    """The image of a snapshot."""
    return f"{REPOSITORY}:{name}"


def volume_of(name: str) -> str:
    """The volume of a snapshot."""
    return f"{REPOSITORY}-{name}"


def check_name(name: str) -> None:
    """LabError for a name that Docker does not take as a tag and as a part of a volume's name."""
    if not NAME.fullmatch(name):
        raise LabError(f"“{name}” is not a name for a snapshot; use up to 31 of a-z, 0-9 and -, such as {DEPLOYED}.")


def describe_all() -> dict[str, dict[str, str]]:
    """Every snapshot of any lab, by name: `system`, `database`, `checkout` and `created`."""
    listed = docker(
        # The label leaves out the committed image, which has a name too while a snapshot is made.
        *("image", "ls", "--filter", f"reference={REPOSITORY}:*", "--filter", f"label={LABEL}"),
        *("--format", "{{.Repository}}:{{.Tag}}"),
        why="The snapshots cannot be listed",
    )
    images = listed.stdout.split()
    if not images:
        return {}
    inspected = json.loads(docker("image", "inspect", *images, why="The snapshots cannot be inspected").stdout)
    return {
        entry["Config"]["Labels"][LABEL]: {
            "system": entry["Config"]["Labels"].get(f"{plan.LABEL}.system", ""),
            "database": entry["Config"]["Labels"].get(f"{plan.LABEL}.database", plan.DATABASES[0]),
            "checkout": entry["Config"]["Labels"][plan.LABEL],
            "created": entry["Created"],
        }
        for entry in inspected
    }


def exists(name: str) -> bool:
    """Whether this checkout's lab has such a snapshot."""
    return describe_all().get(name, {}).get("checkout") == str(ROOT)


def take(name: str, host: Host, traits: dict[str, str]) -> None:
    """Make a snapshot of a host, in place of an earlier one of that name; the host is stopped for it."""
    remove(name)
    committed = f"{REPOSITORY}:{name}-committed"
    docker("stop", "--time", str(STOP_SECONDS), host.name, why=f"{host.name} could not be stopped")
    try:
        docker("commit", host.name, committed, why=f"The root file system of {host.name} could not be saved")
        build(image_of(name), committed, name, traits)
        copy_volume(host.volume, volume_of(name), image_of(name))
    finally:
        docker("image", "rm", "--force", committed, why="", check=False)
        containers.start_again(host.name)


def build(image: str, committed: str, name: str, traits: dict[str, str]) -> None:
    """Build the snapshot's image: the committed one without the identity of its host."""
    labels = {plan.LABEL: str(ROOT), LABEL: name} | {f"{plan.LABEL}.{trait}": value for trait, value in traits.items()}
    options = [option for label, value in labels.items() for option in ("--label", f"{label}={value}")]
    with tempfile.TemporaryDirectory(prefix="scratch4school-lab-") as folder:
        Path(folder, "Dockerfile").write_text(f"FROM {committed}\nRUN {IDENTITY}\n")
        docker("build", *options, "--tag", image, folder, why=f"The snapshot {name} could not be built")


def copy_volume(source: str, target: str, image: str) -> None:
    """Copy a volume to a new one, with a program of `image`: this machine's user may not read Docker's folders."""
    docker("volume", "create", "--label", f"{plan.LABEL}={ROOT}", target, why=f"The volume {target} could not be made")
    docker(
        *("run", "--rm", "--network", "none", *COPY_RIGHTS),
        *("--volume", f"{source}:/source:ro", "--volume", f"{target}:/target"),
        *("--entrypoint", "cp", image, "--archive", "--reflink=auto", "/source/.", "/target/"),
        why=f"The volume {source} could not be copied",
    )


def start_host(name: str, host: Host, traits: dict[str, str]) -> None:
    """Start a host, which must not exist, from a snapshot."""
    copy_volume(volume_of(name), host.volume, image_of(name))
    containers.start_host(host, image_of(name), traits)


def remove(name: str) -> None:
    """Remove a snapshot, if there is one. Hosts that were started from it go on."""
    docker("image", "rm", "--force", image_of(name), why="", check=False)
    docker("volume", "rm", "--force", volume_of(name), why=f"The volume of the snapshot {name} could not be removed")


def remove_all() -> int:
    """Remove every snapshot of any lab; returns how many there were."""
    names = list(describe_all())
    for name in names:
        remove(name)
    # A host that was started from a snapshot kept its image, without a name, when the snapshot was made again.
    unnamed = docker("image", "ls", "--quiet", "--filter", f"label={LABEL}", why="The snapshots cannot be listed")
    if unnamed.stdout.split():
        docker("image", "rm", "--force", *unnamed.stdout.split(), why="", check=False)
    return len(names)
