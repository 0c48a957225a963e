"""Runs the `docker` command, and asks Docker's engine over its socket, which is faster for many questions."""

from __future__ import annotations

import http.client
import re
import subprocess
from pathlib import Path
from typing import Any

from .errors import OperatorError
from .processes import execute
from .unix_http import get_json

ENGINE_SOCKET = "/var/run/docker.sock"
# The engine answers within milliseconds; after this long it counts as hanging.
ANSWER_SECONDS = 20.0
LOG_LINES = "25"


def ask(*arguments: str, seconds: float = ANSWER_SECONDS) -> subprocess.CompletedProcess[str]:
    """Run a command that answers at once; the caller looks at the status, which is TIMED_OUT after `seconds`."""
    return execute(["docker", *arguments], seconds)


def feed(container: str, *argv: str, file: Path, problem: str) -> None:
    """Run a program in a container, however long it takes, with a file as its standard input.

    :param problem: begins the message of a failure; the program's own message follows.
    :raises OperatorError: when the program fails.
    """
    with file.open("rb") as content:
        ended = subprocess.run(
            ["docker", "exec", "--interactive", container, *argv],
            stdin=content, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
    if ended.returncode:
        raise OperatorError(f"{problem} {last_message(ended.stderr)}")


def run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command, however long it takes; the caller looks at the status."""
    return subprocess.run(["docker", *arguments], input=stdin, capture_output=True, text=True, check=False)


def must(*arguments: str, doing: str = "", stdin: str | None = None) -> str:
    """Run a command, however long it takes, and return its output.

    :param doing: begins the message of a failure, such as “Renaming the databases”; by default the command itself.
    :raises OperatorError: when it fails, with the message of Docker or of the program in the container.
    """
    ended = run(*arguments, stdin=stdin)
    if ended.returncode:
        # Docker may give the cause in the first line of its message; a program marks the line that has the cause.
        is_program = arguments[0] in ("exec", "run")
        message = last_message(ended.stderr) if is_program else ended.stderr.strip()
        command = f"`docker {' '.join(arguments[:2])}`"
        raise OperatorError(f"{doing or command} failed: {message}")
    return ended.stdout


def stop(name: str) -> None:
    """Stop a container within the stop timeout of its definition; does nothing when there is no such container."""
    run("stop", name)


def process_of(name: str) -> int:
    """The process id of the container's first process; 0 when the container does not run."""
    ended = ask("inspect", "--type=container", "--format={{.State.Pid}}", name)
    return int(ended.stdout) if ended.returncode == 0 else 0


def logs(name: str) -> str:
    """The last LOG_LINES lines of the container's output."""
    ended = ask("logs", "--tail", LOG_LINES, name)
    return (ended.stdout + ended.stderr).strip()


def last_message(text: str | bytes | None) -> str:
    """The line of a program's output with the cause of a failure: the last line marked as an error, else the last."""
    decoded = text.decode(errors="replace") if isinstance(text, bytes) else text or ""
    lines = [line.strip() for line in decoded.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"^docker: |\b(FATAL|ERROR|[Ff]atal|[Ee]rror):", line)]
    return (errors or lines or ["it printed nothing"])[-1]


class Engine:
    """The HTTP interface of Docker's engine, read-only. A request takes some ms, the `docker` command about 50."""

    def __init__(self, path: str = ENGINE_SOCKET) -> None:
        self._path = path

    def get(self, url: str) -> Any:
        """The parsed answer to a GET request; None when the engine does not answer, or answers with an error."""
        try:
            status, answer = get_json(self._path, url)
        except (OSError, ValueError, http.client.HTTPException):
            return None
        return answer if status == 200 else None

    def containers(self, prefix: str) -> dict[str, dict[str, Any]]:
        """The engine's descriptions of the containers whose name begins with the prefix, by name."""
        described = [
            self.get(f"/containers/{one['Id']}/json")
            for one in self.get("/containers/json?all=1") or []
            if any(name.startswith(f"/{prefix}") for name in one["Names"])
        ]
        return {one["Name"].lstrip("/"): one for one in described if one}
