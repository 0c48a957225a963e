"""Reads the state of the slots: the live slot, their containers, readiness, and requests in flight."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from .. import docker
from ..errors import OperatorError
from ..files import read_json, sync_folder
from ..locking import exclusive
from ..settings import SlotsSettings

NAMES = ("blue", "green")
PROXY = "scratch4school-proxy"
PYTHON = "/opt/scratch4school/bin/python"

# The file name of gunicorn's socket, in the folder of its slot and in /proc/net/unix.
SOCKET = "gunicorn.sock"
RUNNING = ("running", "restarting")


def container(slot: str) -> str:
    """The name of the slot's container."""
    return f"scratch4school-app-{slot}"


def other(slot: str) -> str:
    """The other slot."""
    return "green" if slot == "blue" else "blue"


def live_slot(socket_directory: str | os.PathLike[str]) -> str:
    """The slot to which the proxy's symbolic link points; '' before the first release."""
    try:
        return os.path.basename(os.readlink(Path(socket_directory) / "current"))
    except OSError:
        return ""


class Slots:
    """The slots of this host: their containers, and the symbolic link to the live one."""

    def __init__(self, settings: SlotsSettings, program: Sequence[str] = ()) -> None:
        """`program`: the command line with which systemd can run this program, with its global options."""
        self.program = [*program]
        self.sockets = Path(settings.socket_directory)
        self.changes = settings.change_directory
        self.ledger = settings.ledger
        self.releases = Path(settings.ledger).parent
        self.dependencies = settings.dependencies
        self.drain_seconds = settings.drain_seconds
        self.ready_seconds: float = settings.ready_seconds

    def exclusively(self) -> AbstractContextManager[None]:
        """Let one process at a time change the slots, also one whose run has lost the host's lock."""
        folder = Path(self.changes)
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        return exclusive(folder / ".slots")

    def live(self) -> str:
        """The live slot; '' before the first release."""
        return live_slot(self.sockets)

    def switch_to(self, slot: str) -> None:
        """Point the proxy's link at this slot, for all later requests. A rename replaces it, so it always exists."""
        new = self.sockets / "current.new"
        new.unlink(missing_ok=True)
        new.symlink_to(slot)
        new.replace(self.sockets / "current")
        sync_folder(self.sockets)

    def containers(self) -> dict[str, dict[str, Any]]:
        """State, release and image of the containers by slot; a slot without a container is left out.

        :raises OperatorError: when Docker does not answer; then containers may run all the same.
        """
        ended = docker.ask("inspect", "--type=container", *map(container, NAMES))
        problems = [line for line in ended.stderr.splitlines() if line.strip() and "no such" not in line.lower()]
        if ended.returncode and problems:
            raise OperatorError(f"`docker inspect` failed: {problems[-1].strip()}. Check `systemctl status docker`.")
        found = {}
        for one in json.loads(ended.stdout or "[]"):
            slot = one["Name"].removeprefix("/scratch4school-app-")
            found[slot] = {
                "state": one["State"]["Status"],
                "release": one["Config"]["Labels"].get("scratch4school.release", ""),
                "image": one["Config"]["Image"],
                "started_at": one["State"]["StartedAt"],
                "restarts": one["RestartCount"],
                "pid": one["State"]["Pid"],
            }
        return found

    def container_of(self, slot: str) -> dict[str, Any]:
        """The entry of one slot in `containers`; {} when there is no container, or Docker does not answer."""
        with suppress(OperatorError):
            return self.containers().get(slot, {})
        return {}

    def live_release(self) -> dict[str, Any]:
        """The description of the live release, which contains no secret; {} when no release is live."""
        release = self.container_of(self.live()).get("release", "")
        return read_json(self.releases / f"{release}.json") if release else {}

    def why_not_ready(self, slot: str) -> str:
        """The reason why the slot cannot answer requests, asked from the proxy's container; '' when it can."""
        url = "http://localhost/readyz"
        if docker.process_of(PROXY):
            path = f"/run/scratch4school/{slot}/{SOCKET}"
            ended = docker.ask("exec", PROXY, "curl", "--silent", "--show-error", "--max-time", "5",
                               "--write-out", "\n%{http_code}", "--unix-socket", path, url)  # fmt: skip
            body, _, status = ended.stdout.rpartition("\n")
            if status == "200":
                return ""
            return body.strip() or ended.stderr.strip() or f"it answers {status or 'nothing'}"
        ended = docker.ask("exec", container(slot), PYTHON, "-m", "scratch4school.probe", "/readyz")
        return "" if ended.returncode == 0 else (ended.stdout or ended.stderr).strip()

    def in_flight(self, slot: str) -> int:
        """The number of connections that the slot has accepted from the proxy; each is one open request.

        Connections in the socket's queue are not counted. A process accepts the next one as soon as it has answered
        another, so two zero readings mean that the queue is empty (see `switching.drain_and_stop`).

        The kernel lists the accepted side of a unix socket in the network namespace of the process that connected, here
        the proxy's. Both slots' sockets have the same name there; the files that a slot's processes have open tell them
        apart.
        """
        first, proxy = docker.process_of(container(slot)), docker.process_of(PROXY)
        if not first or not proxy:
            return 0
        lines = (line.split() for line in Path(f"/proc/{proxy}/net/unix").read_text().splitlines()[1:])
        # State 03 is a connected socket, 01 a listening one.
        ours = (fields for fields in lines if fields[5] == "03" and fields[-1].endswith(f"/{SOCKET}"))
        accepted = {f"socket:[{fields[6]}]" for fields in ours}
        return sum(opened in accepted for process in family(first) for opened in open_files(process))


def family(process: int) -> list[int]:
    """The ids of a process and of all its descendants."""
    found = [process]
    for one in found:
        try:
            found += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
        except OSError:
            continue
    return found


def open_files(process: int) -> Iterator[str]:
    """Yield the targets of a process's file descriptors, such as `socket:[4711]`; none when the process has ended."""
    try:
        for descriptor in os.scandir(f"/proc/{process}/fd"):
            yield os.readlink(descriptor.path)
    except OSError:
        return
