"""Faults of a deployed host while pupils save: no acknowledged save is lost."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
import requests
from conftest import PROJECTS

from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.background_class import BackgroundClass
from scratch4school_lab.scenarios.faults import address_of, address_taken
from scratch4school_lab.scenarios.lab_hosts import CA, LAB, PATIENCE_SECONDS, http_status, live_slot, on_host, wait_for

ROUNDS = 20
# Docker waits ever longer before it restarts a container that died within ten seconds of its start.
STABLE_SECONDS = 11
# Between two kills pupils save. The number of saves in it depends on the machine, and no assertion on it.
PAUSE_SECONDS = 2
# Of a class of ten after a recovery; a fault that stays would fail some of them.
LATER_REQUESTS = 50
MEGABYTES = 15
TABLETS = 40


def run_in_application(host: Host, code: str) -> str:
    """Return the output of Python code in the live container, with `database`, `store` and `sa` defined."""
    prelude = (
        "import os, sqlalchemy as sa\n"
        "from scratch4school import config\n"
        "from scratch4school.database import file_columns\n"
        "from scratch4school.database.database import Database\n"
        "from scratch4school.storage.file_store import FileStore\n"
        "settings = config.load(os.environ)\n"
        "database, store = Database(settings.database, connections=1), FileStore(settings.uploads)\n"
    )
    ended = subprocess.run(
        [
            str(LAB),
            "ssh",
            host.name,
            f"sudo docker exec --interactive {live_slot(host)} /opt/scratch4school/bin/python -",
        ],
        input=prelude + code,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def rows_without_file(host: Host) -> list[str]:
    """The paths of files that rows name and that do not exist."""
    code = """
named = sa.union(*(sa.select(column) for column in file_columns.declared()))
for path in database.read(lambda connection: connection.scalars(named).all()):
    if path is not None and store.find(path) is None:
        print(path)
"""
    return run_in_application(host, code).split()


def restarts(host: Host, container: str) -> int:
    """How often Docker has restarted a container by itself."""
    return int(on_host(f"sudo docker inspect --format '{{{{.RestartCount}}}}' {container}", host))


def kill(host: Host, container: str, child: bool = False) -> None:
    """Send SIGKILL to a container's first process, or to one of its children, as soon as that runs."""
    wait_for(lambda: process_of(host, container, child) != "", pause=0.2)
    on_host(f"sudo kill -KILL {process_of(host, container, child)}", host)


def kill_and_wait_for_restart(host: Host, container: str) -> None:
    """Send SIGKILL to a container's first process, and wait until Docker has restarted the container."""
    before = restarts(host, container)
    kill(host, container)
    wait_for(lambda: restarts(host, container) > before, pause=0.5)


def seconds_since_start(host: Host, container: str) -> float:
    """How long ago a container was last started; a lab host has this machine's clock."""
    started_at = f"$(sudo docker inspect --format '{{{{.State.StartedAt}}}}' {container})"
    return time.time() - float(on_host(f'date --date "{started_at}" +%s.%N', host))


def process_of(host: Host, container: str, child: bool) -> str:
    """The id of a container's first process, or of one of its children; empty while Docker restarts the container."""
    pid = on_host(f"sudo docker inspect --format '{{{{.State.Pid}}}}' {container}", host).strip()
    # The children of 0 would be the host's own first process.
    if pid == "0":
        return ""
    return on_host(f"pgrep -P {pid} | shuf -n 1", host).strip() if child else pid


@pytest.mark.long
def test_repeated_kills_during_saves_lose_nothing(
    deployed: Host, sqlite_host: Host, start_class: Callable[..., BackgroundClass]
) -> None:
    """Twenty kills each of a worker, the application and PostgreSQL, while all pupils save 15 MB.

    On both hosts at once, because most of the time is waiting.
    """
    hosts = [deployed, sqlite_host]
    victims = {deployed: [live_slot(deployed), "scratch4school-postgres"], sqlite_host: [live_slot(sqlite_host)]}
    before = {(host, name): restarts(host, name) for host, names in victims.items() for name in names}
    saves = ["--large-share", "1", "--large-megabytes", str(MEGABYTES), "--allow-failures", "--devices", "0"]
    # Few enough that the files of twenty minutes fit on the disk of a small machine.
    classes = [start_class(host, "--users", "4", "--think", "6", *saves) for host in hosts]
    for _ in range(ROUNDS):
        for host, (slot, *_rest) in victims.items():
            kill(host, slot, child=True)
        time.sleep(PAUSE_SECONDS)
        for host, names in victims.items():
            for name in names:
                wait_for(lambda host=host, name=name: seconds_since_start(host, name) > STABLE_SECONDS, pause=0.5)
                kill_and_wait_for_restart(host, name)
                time.sleep(PAUSE_SECONDS)
    for host in hosts:
        wait_for(lambda host=host: http_status(host) == 200)
    reports = [each.end() for each in classes]
    assert {key: restarts(*key) - number for key, number in before.items()} == dict.fromkeys(before, ROUNDS)
    for host, report in zip(hosts, reports, strict=True):
        assert report["promises"] == {"lost": 0, "torn": 0, "duplicates": 0, "orphans": 0}
        assert report["save_record"]["acknowledged_saves"] > ROUNDS
        # Some kills did interrupt saves.
        assert report["failed"] > 0
        assert rows_without_file(host) == []


def test_requests_without_database_get_503_until_it_is_back(
    deployed: Host, start_class: Callable[..., BackgroundClass], login: Callable[..., requests.Session]
) -> None:
    """The answer has a time to try again; after the start of the database requests succeed without a command."""
    background_class = start_class(deployed, "--users", "10", "--think", "0.5", "--allow-failures")
    pupil = login("pupil105", deployed)
    stopped = time.time()
    on_host("sudo docker stop --time 5 scratch4school-postgres", deployed)
    try:
        refused = pupil.get(f"{deployed.url}/backend/api/projects", timeout=PATIENCE_SECONDS)
        # Requests of the class were refused too.
        wait_for(lambda: background_class.since(stopped).failed > 0)
    finally:
        on_host("sudo docker start scratch4school-postgres", deployed)
    wait_for(lambda: pupil.get(f"{deployed.url}/backend/api/projects", timeout=60).status_code == 200)
    recovered = time.time()
    wait_for(lambda: background_class.since(recovered).requests >= LATER_REQUESTS)
    report = background_class.end()
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert "try again" in refused.json()["error"]
    assert {failure["status"] for failure in report["failures"]} == {503}
    # A request that waits for the database may fail after the recovery; a later request succeeds.
    assert max(failure["start"] for failure in report["failures"]) < recovered


def test_saves_succeed_with_database_at_other_address(
    deployed: Host, start_class: Callable[..., BackgroundClass], login: Callable[..., requests.Session]
) -> None:
    """Another container has its previous address; saves succeed again without a command."""
    background_class = start_class(deployed, "--users", "10", "--think", "0.5", "--allow-failures")
    pupil = login("pupil119", deployed)
    content = (PROJECTS / "default.sb3").read_bytes()

    def save(method: str, address: str) -> requests.Response:
        return pupil.request(method, address, files={"project_file": ("project.sb3", content)}, timeout=60)

    created = save("POST", f"{deployed.url}/backend/api/projects")
    assert created.status_code == 200, created.text
    address = f"{deployed.url}/backend/api/projects/{created.json()['id']}"
    with address_taken(deployed, "scratch4school-postgres") as address_before:
        on_host("sudo docker start scratch4school-postgres", deployed)
        assert address_of(deployed, "scratch4school-postgres") not in ("", address_before)
        wait_for(lambda: save("PUT", address).status_code == 200)
        recovered = time.time()
        wait_for(lambda: background_class.since(recovered).requests >= LATER_REQUESTS)
        report = background_class.end()
    assert pupil.delete(address, timeout=60).status_code == 200
    assert {failure["status"] for failure in report["failures"]} <= {503}
    assert max((failure["start"] for failure in report["failures"]), default=0) < recovered


def test_full_disk_refuses_save_and_keeps_previous_content(
    sqlite_host: Host, login: Callable[..., requests.Session]
) -> None:
    """With space again the next save succeeds."""
    uploads = "/var/lib/scratch4school/uploads"
    url, pupil = sqlite_host.url, login("pupil106", sqlite_host)
    first, second = ((PROJECTS / name).read_bytes() for name in ("default.sb3", "variable_characters.sb3"))

    def save(address: str, method: str, content: bytes) -> requests.Response:
        return pupil.request(method, address, files={"project_file": ("project.sb3", content)}, timeout=60)

    # A small file system in place of the folder; its files are added to the folder at the end.
    small_disk = (
        f"sudo systemctl stop scratch4school && sudo mv {uploads} {uploads}.aside && sudo mkdir {uploads} && "
        f"sudo mount -t tmpfs -o size=64m,uid=10001,gid=10000,mode=2750 tmpfs {uploads}"
    )
    large_disk = (
        f"sudo systemctl stop scratch4school && sudo cp -a {uploads}/. {uploads}.aside/ && sudo umount {uploads} && "
        f"sudo rmdir {uploads} && sudo mv {uploads}.aside {uploads}"
    )
    on_host(small_disk, sqlite_host)
    try:
        on_host("sudo systemctl start scratch4school", sqlite_host)
        wait_for(lambda: http_status(sqlite_host) == 200)
        created = save(f"{url}/backend/api/projects", "POST", first)
        address = f"{url}/backend/api/projects/{created.json()['id']}"
        on_host(f"sudo dd if=/dev/zero of={uploads}/filler bs=1M || true", sqlite_host)
        refused = save(address, "PUT", second)
        assert refused.status_code == 503, refused.text
        assert "could not be stored" in refused.json()["error"]
        assert pupil.get(f"{address}/download", timeout=60).content == first
        on_host(f"sudo rm {uploads}/filler", sqlite_host)
        assert save(address, "PUT", second).status_code == 200
        assert pupil.get(f"{address}/download", timeout=60).content == second
    finally:
        on_host(f"{large_disk} && sudo systemctl start scratch4school", sqlite_host)
        wait_for(lambda: http_status(sqlite_host) == 200)
    assert pupil.get(f"{address}/download", timeout=60).content == second
    assert rows_without_file(sqlite_host) == []


def test_slow_uploads_delay_no_other_request(deployed: Host, login: Callable[..., requests.Session]) -> None:
    """Forty slow uploads, more than the application has threads; other requests are answered before they end."""
    pupil = login("pupil107", deployed)
    parts = urlsplit(deployed.url)
    context = ssl.create_default_context(cafile=CA)
    head = (
        f"POST /backend/api/projects HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: 1000000\r\n"
        f"Authorization: {pupil.headers['Authorization']}\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="project_file"; filename="f.sb3"\r\n\r\nPK'
    )
    with ExitStack() as open_uploads:
        uploads = []
        for _ in range(TABLETS):
            plain = socket.create_connection((parts.hostname, parts.port), timeout=60)
            upload = open_uploads.enter_context(context.wrap_socket(plain, server_hostname=parts.hostname))
            upload.sendall(head.encode())
            uploads.append(upload)
        content = (PROJECTS / "default.sb3").read_bytes()
        for _ in range(10):
            for upload in uploads:
                upload.sendall(b"x" * 100)
            saved = pupil.post(
                f"{deployed.url}/backend/api/projects",
                files={"project_file": ("p.sb3", content)},
                timeout=60,
            )
            assert saved.status_code == 200
            address = f"{deployed.url}/backend/api/projects/{saved.json()['id']}"
            assert pupil.get(f"{address}/download", timeout=60).content == content
            assert pupil.delete(address, timeout=60).status_code == 200
        # None of them was cut off or answered: all were open during the whole test.
        for upload in uploads:
            upload.setblocking(False)
            with pytest.raises(ssl.SSLWantReadError):
                upload.recv(1)
