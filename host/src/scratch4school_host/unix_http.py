"""HTTP over a unix socket: that of Docker's engine, or of a slot."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

# How long connecting, and each read, may take.
ANSWER_SECONDS = 10.0


class UnixConnection(http.client.HTTPConnection):
    """A connection to the program that listens on the socket at `path`."""

    def __init__(self, path: str, timeout: float = ANSWER_SECONDS) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect; http.client calls this before the first request."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def get_json(socket_path: str, url: str) -> tuple[int, Any]:
    """HTTP status and parsed body of a GET request.

    :raises OSError, http.client.HTTPException: when the server does not answer within ANSWER_SECONDS.
    :raises ValueError: when the body is not JSON.
    """
    connection = UnixConnection(socket_path)
    try:
        connection.request("GET", url)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()
