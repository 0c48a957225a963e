"""A temporary PostgreSQL server without a network and with its own folder, for drills, imports and rehearsals."""

from __future__ import annotations

import time
from pathlib import Path

from .. import docker
from ..containers import POSTGRES_USER, Containers
from ..errors import OperatorError
from ..files import empty_folder
from ..settings import DataSettings
from .engines import SOCKET, Server

START_SECONDS = 90
# Its data need not survive a power failure, so nothing is synced to the disk.
COMMAND = (
    "initdb --pgdata=/data/17 --username=postgres --encoding=UTF8 --locale-provider=builtin --builtin-locale=C.UTF-8 "
    "--locale=C.UTF-8 --auth=trust >/dev/null && exec postgres -D /data/17 -c listen_addresses=127.0.0.1 -c fsync=off "
    "-c full_page_writes=off -c synchronous_commit=off -c max_wal_size=2GB -c unix_socket_directories=/run/postgresql"
)


class ScratchServer(Server):
    """A server that is reached only by `docker exec` and by the socket in its folder."""

    def __init__(self, name: str, settings: DataSettings, containers: Containers, folder: Path) -> None:
        super().__init__(name)
        self.folder = folder
        self._settings = settings
        self._containers = containers

    @property
    def socket(self) -> Path:
        """The folder on the host with the server's socket."""
        return self.folder / "socket"

    def start(self) -> None:
        """Start an empty server.

        :raises OperatorError: when it does not accept connections within START_SECONDS, or is in a network.
        """
        docker.run("rm", "--force", self.container)
        empty_folder(self.folder, mode=0o755)
        data = empty_folder(self.folder / "data", owner=POSTGRES_USER)
        empty_folder(self.socket, owner=POSTGRES_USER, mode=0o755)
        command = self._containers.command(
            "sh", "-c", COMMAND,
            mounts=[(data, "/data", "rw"), (self.socket, SOCKET, "rw")],
            user=f"{POSTGRES_USER}:{POSTGRES_USER}",
            image=self._settings.postgres_image,
            options=[f"--name={self.container}", "--detach", "--shm-size=256m", "--log-driver=json-file"],
        )  # fmt: skip
        stays = [part for part in command[1:] if part not in ("--rm", "--interactive")]
        docker.must(*stays, doing=f"Starting {self.container}")
        end = time.monotonic() + START_SECONDS
        while not self.is_ready():
            if time.monotonic() > end or not self._runs():
                why = docker.last_message(docker.run("logs", "--tail", "3", self.container).stderr)
                raise OperatorError(f"{self.container} did not start: {why}")
            time.sleep(0.3)
        network = docker.must(
            "inspect", "--format={{.HostConfig.NetworkMode}}", self.container, doing=f"Inspecting {self.container}"
        ).strip()
        if network != "none":
            raise OperatorError(
                f"{self.container} is in the network {network}, where the live server is; nothing was loaded."
            )

    def _runs(self) -> bool:
        return docker.run("inspect", "--format={{.State.Running}}", self.container).stdout.strip() == "true"
