"""Containers that run one program to its end: of the backup image, without rights, and gone when this program is.

A container outlives whoever started it when that is killed. So each carries a label, and the next holder of the host's
lock removes what it finds.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from .base import HostSettings, Problem

LABEL = "scratch4school.backup"
USER = 10005
# Whose the rows of SQLite and the pupils' files are.
APPLICATION_USER = 10001
FILES_GROUP = 10000


def docker(*arguments: str, text: bool = True, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Ask the engine; the caller looks how it ended."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=text, check=False, **options)


def must(*arguments: str, doing: str, **options: Any) -> str:
    """Have the engine do something; Problem with its own words when it fails."""
    ended = docker(*arguments, **options)
    if ended.returncode:
        raise Problem(f"{doing} failed: {last_words(ended.stderr)}")
    return str(ended.stdout)


def last_words(text: str | bytes | None) -> str:
    """The line in which a program says what went wrong: the last that calls itself an error, else the last of all."""
    words = text.decode(errors="replace") if isinstance(text, bytes) else text or ""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"^docker: |\b(FATAL|ERROR|[Ff]atal|[Ee]rror):", line)]
    return (errors or lines or ["it said nothing"])[-1]


class Containers:
    """Starts containers of the backup image for one run of this program."""

    def __init__(self, settings: HostSettings, *, locked: bool) -> None:
        """`locked`: this process holds the host's lock, so what carries its label is nobody else's."""
        self._settings = settings
        self._label = LABEL if locked else f"{LABEL}.asking"
        self._count = 0

    def clear(self) -> None:
        """Remove what a run that was killed has left running."""
        found = docker("ps", "--all", "--quiet", "--filter", f"label={self._label}")
        if found.stdout.strip():
            docker("rm", "--force", *found.stdout.split())

    def command(
        self,
        *program: str,
        mounts: Sequence[tuple[Path | str, str, str]] = (),
        user: str = f"{USER}:{FILES_GROUP}",
        network: str = "none",
        image: str = "",
        environment: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> list[str]:
        """The command line that runs a program in a container.

        :param mounts: place on the host, place in the container, and `ro` or `rw`.
        """
        self._count += 1
        settings = self._settings
        line = ["docker", "run", "--rm", "--interactive", "--pull=never", f"--label={self._label}"]
        line += [f"--name=scratch4school-backup-{os.getpid()}-{self._count}", f"--network={network}", f"--user={user}"]
        line += [
            "--read-only",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges:true",
            "--tmpfs=/tmp:size=64m,mode=1777",
        ]
        line += ["--log-driver=none", f"--memory={settings.memory}"]
        line += [f"--env={each}" for each in environment]
        for source, target, mode in mounts:
            line.append(f"--mount=type=bind,source={source},target={target}{',readonly' if mode == 'ro' else ''}")
        return [*line, *options, image or settings.image, *program]

    def patiently(self, *program: str) -> list[str]:
        """A program that stands back behind whatever serves pupils."""
        return ["nice", "-n", str(self._settings.niceness), *program]

    def start(
        self, command: Sequence[str], stdin: IO[bytes] | int | None = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Start what `command` made, with its output to be read."""
        return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    @staticmethod
    def end(command: Sequence[str]) -> None:
        """Remove the container of what `command` made, in whatever state it is."""
        name = next(word.removeprefix("--name=") for word in command if word.startswith("--name="))
        docker("rm", "--force", name)

    def secrets(self) -> list[tuple[Path | str, str, str]]:
        """Each secret as a file of its own, which only the container's user may read."""
        folder = Path(self._settings.secrets)
        return [(path, f"/run/secrets/{path.name}", "ro") for path in sorted(folder.iterdir()) if path.is_file()]
