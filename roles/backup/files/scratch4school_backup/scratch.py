"""A PostgreSQL for a while: without a network, with a folder of its own, and provably not the live one."""

from __future__ import annotations

import time
from pathlib import Path

from .base import HostSettings, Problem, empty_folder
from .containers import Containers, docker, last_words, must
from .engines import SOCKET, Server

USER = 10002
START_SECONDS = 90
# A server that forgets everything with the drill need not write anything down for good.
COMMAND = (
    "initdb --pgdata=/data/17 --username=postgres --encoding=UTF8 --locale-provider=builtin --builtin-locale=C.UTF-8 "
    "--locale=C.UTF-8 --auth=trust >/dev/null && exec postgres -D /data/17 -c listen_addresses=127.0.0.1 -c fsync=off "
    "-c full_page_writes=off -c synchronous_commit=off -c max_wal_size=2GB -c unix_socket_directories=/run/postgresql"
)


class ScratchServer(Server):
    """Nothing reaches it but by `docker exec` and by the socket in its folder, and it can reach nothing."""

    def __init__(self, name: str, settings: HostSettings, containers: Containers, folder: Path) -> None:
        super().__init__(name)
        self.folder = folder
        self._settings = settings
        self._containers = containers

    @property
    def socket(self) -> Path:
        """The folder with its socket, for those who come over that."""
        return self.folder / "socket"

    def start(self) -> None:
        """Begin with an empty server; Problem when it does not come up, or is in a network."""
        docker("rm", "--force", self.container)
        empty_folder(self.folder, mode=0o755)
        data = empty_folder(self.folder / "data", owner=USER)
        empty_folder(self.socket, owner=USER, mode=0o755)
        command = self._containers.command(
            "sh", "-c", COMMAND,
            mounts=[(data, "/data", "rw"), (self.socket, SOCKET, "rw")],
            user=f"{USER}:{USER}",
            image=self._settings.postgres_image,
            options=[f"--name={self.container}", "--detach", "--shm-size=256m", "--log-driver=json-file"],
        )  # fmt: skip
        must(
            *[each for each in command[1:] if each not in ("--rm", "--interactive")], doing=f"Starting {self.container}"
        )
        end = time.monotonic() + START_SECONDS
        while not self.answers():
            if time.monotonic() > end or not self._runs():
                why = last_words(docker("logs", "--tail", "3", self.container).stderr)
                raise Problem(f"{self.container} did not start: {why}")
            time.sleep(0.3)
        network = must(
            "inspect", "--format={{.HostConfig.NetworkMode}}", self.container, doing=f"Looking at {self.container}"
        ).strip()
        if network != "none":
            raise Problem(
                f"{self.container} is in the network {network}, where the live server is; nothing was loaded."
            )

    def _runs(self) -> bool:
        return docker("inspect", "--format={{.State.Running}}", self.container).stdout.strip() == "true"
