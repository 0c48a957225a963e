"""Containers that run one program without privileges, and are removed when it ends.

When scratch4schoolctl is killed, its containers go on. So each has a label, and the next change that has the host's
lock removes them.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from . import docker
from .settings import DataSettings

LABEL = "scratch4school.backup"
# The user of the backup image; the application's user, who owns SQLite's file; and the group of the pupils' files.
USER = 10005
APPLICATION_USER = 10001
FILES_GROUP = 10000
# PostgreSQL's user in its image.
POSTGRES_USER = 10002

# A path on the host, a path in the container, and `ro` or `rw`.
Mount = tuple[Path | str, str, str]


class Containers:
    """Starts containers of the backup image for one run of this program."""

    def __init__(self, settings: DataSettings, *, locked: bool) -> None:
        """`locked`: this process has the host's lock, so all containers with the label are its own."""
        self._settings = settings
        self._label = LABEL if locked else f"{LABEL}.asking"
        self._count = 0

    def remove_left_behind(self) -> None:
        """Remove the containers of a run that was killed."""
        found = docker.run("ps", "--all", "--quiet", "--filter", f"label={self._label}")
        if found.stdout.strip():
            docker.run("rm", "--force", *found.stdout.split())

    def command(
        self,
        *program: str,
        mounts: Sequence[Mount] = (),
        user: str = f"{USER}:{FILES_GROUP}",
        network: str = "none",
        image: str = "",
        environment: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> list[str]:
        """The command line that runs a program in a container."""
        self._count += 1
        settings = self._settings
        line = ["docker", "run", "--rm", "--interactive", "--pull=never", f"--label={self._label}"]
        line += [f"--name=scratch4school-backup-{os.getpid()}-{self._count}", f"--network={network}", f"--user={user}"]
        line += ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges:true"]
        line += ["--tmpfs=/tmp:size=64m,mode=1777", "--log-driver=none", f"--memory={settings.memory}"]
        line += [f"--env={each}" for each in environment]
        for source, target, mode in mounts:
            line.append(f"--mount=type=bind,source={source},target={target}{',readonly' if mode == 'ro' else ''}")
        return [*line, *options, image or settings.image, *program]

    def nice(self, *program: str) -> list[str]:
        """A program with a lower priority than the application's."""
        return ["nice", "-n", str(self._settings.niceness), *program]

    def start(
        self, command: Sequence[str], stdin: IO[bytes] | int | None = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Start a command line of `command`; its output and errors are pipes that the caller reads."""
        return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    @staticmethod
    def remove(command: Sequence[str]) -> None:
        """Remove the container of a command line of `command`, also while it runs."""
        name = next(part.removeprefix("--name=") for part in command if part.startswith("--name="))
        docker.run("rm", "--force", name)

    def secrets(self) -> list[Mount]:
        """Mounts of the secrets, each as a file in /run/secrets that only the container's user may read."""
        folder = Path(self._settings.secrets)
        return [(path, f"/run/secrets/{path.name}", "ro") for path in sorted(folder.iterdir()) if path.is_file()]
