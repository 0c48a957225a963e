"""`scratch4school serve`: the process as it runs in its container."""

import contextlib
import http.client
import json
import os
import re
import secrets
import signal
import socket
import stat
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from helpers import SOURCE_ON_PATH, HttpClient, SlowUpload, metric, project_file, wait_for
from scratch4school.database.tables import projects


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_only_the_group_may_use_socket_and_files(
    start_server: Callable[..., Any], log_in: Callable[..., str], services: Any, tmp_path: Path
) -> None:
    """The proxy, in the same group, may connect and read; other users may not."""
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
def test_probe_reports_health_over_the_socket(
    start_server: Callable[..., Any], services: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The health check's client, over the socket: 0 when ready, 1 when not ready or without answer."""
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


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_counters_of_all_workers_are_summed(start_server: Callable[..., Any]) -> None:
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
    assert server.process.wait(timeout=60) == 0
    assert not folder.exists()


LARGE = 15_000_000


def test_stop_lets_open_uploads_finish(
    start_server: Callable[..., Any], log_in: Callable[..., str], services: Any, together: Callable[..., list[Any]]
) -> None:
    """TERM in the middle of six large saves: each is acknowledged and stored, then the process ends with status 0."""
    # Threads for the six saves, and for the requests of the metrics.
    server = start_server(WORKERS="2", THREADS="8")
    device = HttpClient(server.url, log_in("ada"))
    project_id = device.create("before")
    contents = [secrets.token_hex(8) * (LARGE // 16) for _ in range(6)]
    files = [project_file(content) for content in contents]
    uploads = [SlowUpload(server.url, device.session_id, file) for file in files[:5]]
    uploads.append(SlowUpload(server.url, device.session_id, files[5], "PUT", f"/{project_id}"))
    wait_for(lambda: metric(server.url, "scratch4school_saves_in_flight") == 6)
    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: "Handling signal: term" in server.log.read_text())
    assert together(6, lambda index: uploads[index].finish()) == [200] * 6
    assert server.process.wait(timeout=60) == 0
    rows = services.database.read(lambda connection: connection.execute(sa.select(projects)).all())
    stored = [services.store.find(row.sb3_file_path).read_bytes() for row in rows]
    assert sorted(stored) == sorted(files)
    assert {row.version for row in rows if row.id == project_id} == {2}


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_slow_uploads_leave_threads_for_other_requests(
    start_server: Callable[..., Any], log_in: Callable[..., str]
) -> None:
    """Three tablets with bad reception and four threads: other requests are answered before any of them ends."""
    server = start_server(WORKERS="1", THREADS="4")
    device = HttpClient(server.url, log_in("ada"))
    uploads = [SlowUpload(server.url, device.session_id, project_file("x" * 100_000)) for _ in range(3)]
    wait_for(lambda: metric(server.url, "scratch4school_saves_in_flight") == 3)
    for _ in range(10):
        assert device.ask("GET", "/api/status")[0] == 200
        assert json.loads(device.ask("GET", "/api/projects")[1])["count"] == 0
    assert metric(server.url, "scratch4school_saves_in_flight") == 3
    assert [upload.finish() for upload in uploads] == [200] * 3
    assert json.loads(device.ask("GET", "/api/projects")[1])["count"] == 3


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_busy_process_leaves_requests_to_the_other(
    start_server: Callable[..., Any], log_in: Callable[..., str]
) -> None:
    """The only thread of one process is in a slow upload: requests meanwhile are answered before it ends."""
    server = start_server(WORKERS="2", THREADS="1")
    device = HttpClient(server.url, log_in("ada"))
    upload = SlowUpload(server.url, device.session_id, project_file("x" * 100_000))
    wait_for(lambda: metric(server.url, "scratch4school_saves_in_flight") == 1)
    for _ in range(30):
        assert device.ask("GET", "/api/status")[0] == 200
    assert metric(server.url, "scratch4school_saves_in_flight") == 1
    assert upload.finish() == 200


def test_metrics_count_saves_and_waits_of_all_workers(
    start_server: Callable[..., Any], log_in: Callable[..., str]
) -> None:
    """Saves that succeed, fail or break off are no longer in flight; other requests never are."""
    server = start_server(WORKERS="2")
    device = HttpClient(server.url, log_in("ada"))
    project_id = device.create("first")
    before = metric(server.url, "scratch4school_pool_wait_seconds_count")
    # Session, first read and save are three units of work, and each asks the pool at least once.
    assert device.save(project_id, "second") == 200
    assert metric(server.url, "scratch4school_pool_wait_seconds_count") >= before + 3
    assert metric(server.url, "scratch4school_pool_wait_seconds_sum") > 0
    assert device.save(project_id, "stale", version=1) == 409
    assert device.ask("POST", "/api/assets/", {"asset": b"bytes"}, type="costume")[0] == 200
    broken = SlowUpload(server.url, device.session_id, project_file("x" * LARGE))
    wait_for(lambda: metric(server.url, "scratch4school_saves_in_flight") == 1)
    broken.give_up()
    wait_for(lambda: metric(server.url, "scratch4school_saves_in_flight") == 0)


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_saves_of_a_killed_worker_are_not_in_flight(
    start_server: Callable[..., Any], log_in: Callable[..., str]
) -> None:
    server = start_server(WORKERS="1")
    (worker,) = wait_for(lambda: children(server.process.pid))
    upload = SlowUpload(server.url, log_in("ada"), project_file("x" * LARGE))
    wait_for(lambda: metric(server.url, "scratch4school_saves_in_flight") == 1)
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: worker not in children(server.process.pid) and children(server.process.pid))
    assert metric(server.url, "scratch4school_saves_in_flight") == 0
    upload.give_up()


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


def test_kill_during_saves_loses_no_acknowledged_save(
    start_server: Callable[..., Any], log_in: Callable[..., str], services: Any
) -> None:
    """SIGKILL during large saves; the original left torn projects."""
    server = start_server(WORKERS="1")
    device = HttpClient(server.url, log_in("ada"))
    contents = ["a" * 3_000_000, "b" * 2_000_000]
    acknowledged = {device.create(contents[0]): 0 for _ in range(3)}
    counting = threading.Condition()

    def save(project_id: int, index: int) -> None:
        # Open requests of the killed process end in a connection error; the next process gets the others.
        with contextlib.suppress(OSError, http.client.HTTPException):
            while device.save(project_id, contents[index]) == 200:
                with counting:
                    acknowledged[project_id] += 1
                    counting.notify_all()

    threads = [threading.Thread(target=save, args=(each, index)) for each in acknowledged for index in range(2)]
    for thread in threads:
        thread.start()
    with counting:
        assert counting.wait_for(lambda: min(acknowledged.values()) >= 3, timeout=60)
    (worker,) = children(server.process.pid)
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: worker not in children(server.process.pid))
    # The next process accepts the waiting connections until it is stopped.
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=60) == 0
    for thread in threads:
        thread.join()
    again = start_server(WORKERS="1")
    reader = HttpClient(again.url, log_in("ada"))
    for project_id, count in acknowledged.items():
        # One more is possible: committed, and killed before the answer was sent.
        assert reader.version(project_id) - 1 >= count
        assert reader.content(project_id) in contents
        assert reader.save(project_id, "afterwards") == 200
