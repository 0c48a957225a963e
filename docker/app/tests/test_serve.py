"""`scratch4school serve`: the process as it runs in its container."""

import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_concurrency import Web

from helpers import SOURCE_ON_PATH, project_file, wait_for


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_socket_is_for_the_group_and_files_are_not_for_others(
    start_server: Callable[..., Any], log_in: Callable[..., str], services: Any, tmp_path: Path
) -> None:
    """The proxy, in the same group, may connect and read; nobody else may do either."""
    path = tmp_path / "gunicorn.sock"
    start_server(BIND=f"unix:{path}")
    wait_for(lambda: path.is_socket())
    assert stat.S_IMODE(path.stat().st_mode) == 0o660

    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    wait_for(lambda: connection.sock.connect_ex(str(path)) == 0)
    content = project_file(1)
    body = (
        b'--b\r\nContent-Disposition: form-data; name="project_file"; filename="p"\r\n\r\n' + content + b"\r\n--b--\r\n"
    )
    headers = {"X-Session-ID": log_in("ada"), "Content-Type": "multipart/form-data; boundary=b"}
    connection.request("POST", "/api/projects", body, headers)
    assert connection.getresponse().status == 200
    connection.close()
    (saved,) = services.store.root.glob("projects/*/*.sb3")
    assert stat.S_IMODE(saved.stat().st_mode) == 0o640
    assert stat.S_IMODE(saved.parent.stat().st_mode) == 0o750


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_container_can_be_asked_how_it_is(
    start_server: Callable[..., Any], services: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The health check's own little client, over the socket: 0 when ready, 1 when not, 1 when nobody answers."""
    bind = f"unix:{tmp_path}/gunicorn.sock"

    def ask(path: str) -> int:
        command = [sys.executable, "-m", "scratch4school.probe", path]
        return subprocess.run(command, env={**SOURCE_ON_PATH, "SCRATCH4SCHOOL_BIND": bind}, check=False).returncode

    assert ask("/healthz") == 1
    assert "does not answer" in capfd.readouterr().err
    start_server(BIND=bind)
    wait_for(lambda: ask("/readyz") == 0)
    (services.store.root / ".incoming").rename(services.store.root / "away")
    (services.store.root / ".incoming").write_bytes(b"in the way")
    capfd.readouterr()
    assert ask("/readyz") == 1
    assert "uploads: Not a directory" in capfd.readouterr().out
    assert ask("/healthz") == 0


def test_log_is_json_without_secrets(start_server: Callable[..., Any], log_in: Callable[..., str]) -> None:
    """Every line parses; no session id, code or query string is in any of them."""
    server = start_server(WORKERS="1")
    session_id = log_in("ada")
    for path in (
        f"/api/user?session_id={session_id}",
        f"/session?session_id={session_id}",
        "/authorize?code=c0de&state=st4te",
    ):
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
        connection.request("GET", path, headers={"X-Real-IP": '192.0.2.1"'})
        connection.getresponse().read()
        connection.close()
    wait_for(lambda: "/authorize" in server.log.read_text())
    text = server.log.read_text()
    for secret in (session_id, "c0de", "st4te"):
        assert secret not in text
    entries = [json.loads(line) for line in text.splitlines()]
    requests = [entry for entry in entries if entry["message"] == "request"]
    (asked,) = [entry for entry in requests if entry["path"] == "/api/user"]
    assert (asked["method"], asked["status"], asked["client"]) == ("GET", 200, '192.0.2.1"')
    assert asked["seconds"] < 5


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_counts_of_all_workers_are_added_up(start_server: Callable[..., Any]) -> None:
    server = start_server()
    for _ in range(60):
        with urllib.request.urlopen(f"{server.url}/api/status") as response:
            assert response.status == 200
    with urllib.request.urlopen(f"{server.url}/metrics") as response:
        text = response.read().decode()
    counted = re.search(r'request_seconds_count\{method="GET",route="/api/status",status="200"\} (\S+)', text)
    assert counted is not None
    assert float(counted[1]) == 60
    environment = Path(f"/proc/{server.process.pid}/environ").read_text()
    folder = Path(re.search(r"PROMETHEUS_MULTIPROC_DIR=([^\0]+)", environment)[1])  # type: ignore[index]
    assert folder.is_dir()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=20) == 0
    assert not folder.exists()


def test_stopping_lets_a_running_upload_finish(start_server: Callable[..., Any], log_in: Callable[..., str]) -> None:
    """TERM in the middle of an upload: the save is acknowledged, then the process ends with status 0."""
    server = start_server(WORKERS="1")
    session_id = log_in("ada")
    content = project_file("x" * 100_000)
    head = b'--b\r\nContent-Disposition: form-data; name="project_file"; filename="p"\r\n\r\n'
    body = head + content + b"\r\n--b--\r\n"
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=20)
    connection.putrequest("POST", "/api/projects")
    for name, value in (
        ("X-Session-ID", session_id),
        ("Content-Type", "multipart/form-data; boundary=b"),
        ("Content-Length", str(len(body))),
    ):
        connection.putheader(name, value)
    connection.endheaders(body[:1000])
    time.sleep(0.5)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    connection.send(body[1000:])
    assert connection.getresponse().status == 200
    connection.close()
    assert server.process.wait(timeout=20) == 0


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_killed_worker_is_replaced(start_server: Callable[..., Any]) -> None:
    server = start_server(WORKERS="1")
    (worker,) = wait_for(lambda: children(server.process.pid))
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: worker not in children(server.process.pid) and children(server.process.pid))
    with urllib.request.urlopen(f"{server.url}/readyz", timeout=10) as response:
        assert response.status == 200


def children(pid: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_killed_during_saves_leaves_whole_projects(
    start_server: Callable[..., Any], log_in: Callable[..., str], services: Any
) -> None:
    """SIGKILL amid large saves; the original left torn projects after this."""
    server = start_server(WORKERS="1")
    device = Web(server.url, log_in("ada"))
    contents = ["a" * 3_000_000, "b" * 2_000_000]
    project_id = device.create(contents[0])
    acknowledged = threading.Semaphore(0)

    def save(index: int) -> None:
        try:
            while device.save(project_id, contents[index]) == 200:
                acknowledged.release()
        except OSError:
            return

    threads = [threading.Thread(target=save, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(6):
        assert acknowledged.acquire(timeout=20)
    (worker,) = children(server.process.pid)
    os.kill(worker, signal.SIGKILL)
    time.sleep(0.2)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=30) == 0
    for thread in threads:
        thread.join()
    again = start_server(WORKERS="1")
    reader = Web(again.url, log_in("ada"))
    assert reader.content(project_id) in contents
    assert reader.save(project_id, "afterwards") == 200
