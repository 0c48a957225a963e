"""Request a health route of the server in this container: `python -m scratch4school.probe /readyz`.

The container's health check runs this every few seconds, so it imports nothing but the standard library.
"""

import http.client
import os
import socket
import sys


class _UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over the unix socket at `path`."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def main(path: str) -> int:
    """Request `path` at the address in SCRATCH4SCHOOL_BIND and print the answer; 0 when it is 200, else 1."""
    bind = os.environ.get("SCRATCH4SCHOOL_BIND", "127.0.0.1:8000")
    if bind.startswith("unix:"):
        connection: http.client.HTTPConnection = _UnixConnection(bind.removeprefix("unix:"), timeout=5)
    else:
        connection = http.client.HTTPConnection(bind, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode("utf-8", "replace").strip()
    except OSError as error:
        print(f"{bind} does not answer: {error}", file=sys.stderr)
        return 1
    print(body)
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "/healthz"))
