"""One shell on the host, kept for a whole session: asking takes milliseconds, where ssh and sudo took fifty each."""

from __future__ import annotations

import selectors
import shlex
import subprocess
from collections.abc import Sequence
from typing import Any

from testinfra.backend.base import BaseBackend, CommandResult

# Longer than anything that a test asks; a question that hangs must not hang the verification.
PATIENCE = 120

# Ends each answer on both channels; no output of ours holds it.
END = b"--- scratch4school asked ---"


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
        """Run one command; its words are quoted into it as testinfra does it everywhere."""
        asked = self.quote(command, *args)
        end = f"printf '%s %s\\n' '{END.decode()}' $?"
        assert self._process.stdin
        try:
            self._process.stdin.write(f"sh -c {shlex.quote(asked)} </dev/null; {end}; {end} >&2\n".encode())
        except BrokenPipeError:
            raise RuntimeError(self._ended()) from None
        out, err = self._read()
        out, _, status = out.rpartition(END)
        return self.result(int(status), asked.encode(), out, err.rpartition(END)[0])

    def _read(self) -> tuple[bytes, bytes]:
        """Both channels up to their ends, read side by side, or one would fill while the other is waited for."""
        said = {self._process.stdout: b"", self._process.stderr: b""}
        with selectors.DefaultSelector() as waiting:
            for channel in said:
                waiting.register(channel, selectors.EVENT_READ)
            while waiting.get_map():
                ready = waiting.select(PATIENCE)
                if not ready:
                    raise RuntimeError(f"nothing was answered for {PATIENCE} seconds")
                for key, _ in ready:
                    piece = key.fileobj.read(65536)  # type: ignore[union-attr]
                    said[key.fileobj] += piece
                    if not piece:
                        raise RuntimeError(self._ended(said[self._process.stderr]))
                    # The end's line is whole when its own line break came.
                    if said[key.fileobj].endswith(b"\n") and END in said[key.fileobj][-len(END) - 8 :]:
                        waiting.unregister(key.fileobj)
        return said[self._process.stdout], said[self._process.stderr]

    def _ended(self, said: bytes = b"") -> str:
        said += self._process.communicate(timeout=PATIENCE)[1]
        return f"`{shlex.join(self._argv)}` ended: {said.decode('utf-8', 'replace').strip()}"

    def close(self) -> None:
        """Let the shell end."""
        self._process.communicate(timeout=PATIENCE)
