"""Fixtures and helpers of the tests: settings of a host, stand-ins for programs, and the command line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from scratch4school_host import cli

# How long a test waits for another process, in seconds: far more than a slow machine needs.
PATIENCE = 600


def run_command(settings: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run scratch4schoolctl in this process: a new one for each command would take half of the time."""
    output, errors = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM)}
    mask = os.umask(0o077)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            status = cli.main(["--settings", str(settings), *arguments])
    finally:
        os.umask(mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return subprocess.CompletedProcess(arguments, status, output.getvalue(), errors.getvalue())


def write_settings(folder: Path, name: str, content: Mapping[str, Any]) -> None:
    """Write settings as a role does; those that are there already are kept."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**before, **content}))


def slots_settings(folder: Path, **more: Any) -> dict[str, Any]:
    """Settings of the slots, with everything below one folder."""
    return {
        "host": "server",
        "url": "https://scratch.example",
        "engine": "postgres",
        "dependencies": ["scratch4school-postgres", "scratch4school-pgbouncer"],
        "socket_directory": str(folder / "sockets"),
        "change_directory": str(folder / "change"),
        "ledger": str(folder / "releases" / "ledger.jsonl"),
        "certificate": str(folder / "tls.crt"),
        "data_directory": str(folder),
        "drain_seconds": 75,
        "ready_seconds": 60,
        **more,
    }


def script(path: Path, text: str) -> None:
    """A program that stands for another one."""
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that are found before the machine's own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """HTTP over a unix socket, as the engine and gunicorn speak it."""

    daemon_threads = True

    def get_request(self) -> tuple[Any, Any]:
        """The handler needs an address to log."""
        return super().get_request()[0], ("", 0)


@pytest.fixture
def serve() -> Iterator[Callable[[Path, dict[str, Any]], None]]:
    """A function that answers on a unix socket: path asked -> JSON, or (status, JSON); anything else is 404."""
    servers = []

    def start(path: Path, answers: dict[str, Any]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = answers.get(self.path, (404, {}))
                status, answer = found if isinstance(found, tuple) else (200, found)
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = UnixServer(str(path), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name: a unix socket's path may have 108 characters."""
    folder = Path("/tmp") / f"s4s-{os.getpid()}-{time.monotonic_ns() % 10**6}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)
