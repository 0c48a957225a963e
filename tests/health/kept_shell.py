"""One shell on the host for a whole session: a command takes milliseconds, where ssh and sudo take fifty each."""

from __future__ import annotations

import selectors
import shlex
import subprocess
from collections.abc import Sequence
from typing import Any

from testinfra.backend.base import BaseBackend, CommandResult

# Seconds after which a command fails. No test needs as long, and a command that hangs must not block the verification.
TIMEOUT = 120

# Printed after each command on both channels; no command prints it.
END = b"--- scratch4school end of output ---"


class ShellBackend(BaseBackend):
    """Runs each command in the same shell, as a process of its own with nothing on its standard input."""

    NAME = "kept-shell"

    def __init__(self, argv: Sequence[str]) -> None:
        """Start the shell; `argv` ends in a program that reads commands as `sh` does."""
        super().__init__("kept-shell")
        self._encoding = "utf-8"
        self._argv = argv
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )

    def run(self, command: str, *args: str, **_: Any) -> CommandResult:
        """Run one command, with its arguments quoted as in testinfra's other backends."""
        quoted = self.quote(command, *args)
        end = f"printf '%s %s\\n' '{END.decode()}' $?"
        assert self._process.stdin
        try:
            self._process.stdin.write(f"sh -c {shlex.quote(quoted)} </dev/null; {end}; {end} >&2\n".encode())
        except BrokenPipeError:
            raise RuntimeError(self._ended()) from None
        out, err = self._read()
        out, _, status = out.rpartition(END)
        return self.result(int(status), quoted.encode(), out, err.rpartition(END)[0])

    def _read(self) -> tuple[bytes, bytes]:
        """Read both channels up to END, at the same time, because a channel that is not read fills up and blocks."""
        output = {self._process.stdout: b"", self._process.stderr: b""}
        with selectors.DefaultSelector() as waiting:
            for channel in output:
                waiting.register(channel, selectors.EVENT_READ)
            while waiting.get_map():
                ready = waiting.select(TIMEOUT)
                if not ready:
                    raise RuntimeError(f"the command printed nothing for {TIMEOUT} seconds")
                for key, _ in ready:
                    piece = key.fileobj.read(65536)  # type: ignore[union-attr]
                    output[key.fileobj] += piece
                    if not piece:
                        raise RuntimeError(self._ended(output[self._process.stderr]))
                    # The line of END is complete with its line break.
                    if output[key.fileobj].endswith(b"\n") and END in output[key.fileobj][-len(END) - 8 :]:
                        waiting.unregister(key.fileobj)
        return output[self._process.stdout], output[self._process.stderr]

    def _ended(self, errors: bytes = b"") -> str:
        errors += self._process.communicate(timeout=TIMEOUT)[1]
        return f"`{shlex.join(self._argv)}` ended: {errors.decode('utf-8', 'replace').strip()}"

    def close(self) -> None:
        """End the shell."""
        self._process.communicate(timeout=TIMEOUT)
