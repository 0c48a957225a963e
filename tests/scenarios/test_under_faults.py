"""What a school fears, done on purpose to deployed hosts while pupils save: nothing acknowledged may be lost."""

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
from conftest import CA, LAB, PROJECTS, Place, on_host, serving_slot, status, wait_for
from faults import address_of, address_taken
from lesson import Lesson

pytestmark = pytest.mark.alone

ROUNDS = 20
# Docker waits ever longer before it restarts a container that died within ten seconds of its start.
ROUND_SECONDS = 12
MEGABYTES = 15
TABLETS = 40


def inside_application(place: Place, code: str) -> str:
    """What a piece of Python prints in the container that serves, where `database`, `store` and `sa` are at hand."""
    prelude = (
        "import os, sqlalchemy as sa\n"
        "from scratch4school import config, tables\n"
        "from scratch4school.database import Database\n"
        "from scratch4school.files import FileStore\n"
        "settings = config.load(os.environ)\n"
        "database, store = Database(settings.database, connections=1), FileStore(settings.uploads)\n"
    )
    ended = subprocess.run(
        [
            str(LAB),
            "ssh",
            place.name,
            f"sudo docker exec --interactive {serving_slot(place)} /opt/scratch4school/bin/python -",
        ],
        input=prelude + code,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def rows_without_file(place: Place) -> list[str]:
    """The paths that rows name and that are not there."""
    code = """
named = sa.union(
    *(sa.select(column) for column in (
        tables.projects.c.sb3_file_path, tables.projects.c.thumbnail_path,
        tables.project_revisions.c.file_path, tables.assets.c.file_path,
    ))
)
for path in database.read(lambda connection: connection.scalars(named).all()):
    if path is not None and store.find(path) is None:
        print(path)
"""
    return inside_application(place, code).split()


def restarts(place: Place, container: str) -> int:
    """How often Docker has restarted a container by itself."""
    return int(on_host(f"sudo docker inspect --format '{{{{.RestartCount}}}}' {container}", place.name))


def kill(place: Place, container: str, child: bool = False) -> None:
    """SIGKILL to a container's first process, or to one of that process's children."""
    pid = f"$(sudo docker inspect --format '{{{{.State.Pid}}}}' {container})"
    on_host(f"sudo kill -KILL $(pgrep -P {pid} | shuf -n 1)" if child else f"sudo kill -KILL {pid}", place.name)


@pytest.mark.long
def test_killed_again_and_again_in_the_middle_of_saves(
    large: Place, small: Place, lesson: Callable[..., Lesson]
) -> None:
    """A worker, the application and PostgreSQL, twenty times each, while all save 15 MB: nothing is lost or torn.

    Both hosts at once, since most of the time is waiting.
    """
    places = [large, small]
    victims = {large: [serving_slot(large), "scratch4school-postgres"], small: [serving_slot(small)]}
    before = {(place, name): restarts(place, name) for place, names in victims.items() for name in names}
    saves = ["--large-share", "1", "--large-megabytes", str(MEGABYTES), "--allow-failures", "--devices", "0"]
    lessons = [lesson(place, "--users", "6", "--seconds", "900", "--think", "0.6", *saves) for place in places]
    for _ in range(ROUNDS):
        began = time.monotonic()
        for place, (slot, *_rest) in victims.items():
            kill(place, slot, child=True)
        for after, position in ((4, 0), (8, 1)):
            time.sleep(max(0, began + after - time.monotonic()))
            for place, names in victims.items():
                for name in names[position : position + 1]:
                    kill(place, name)
        time.sleep(max(0, began + ROUND_SECONDS - time.monotonic()))
    for place in places:
        wait_for(lambda url=place.url: status(url) == 200, seconds=60)
    reports = [begun.end() for begun in lessons]
    assert {key: restarts(*key) - number for key, number in before.items()} == dict.fromkeys(before, ROUNDS)
    for place, report in zip(places, reports, strict=True):
        assert report["promises"] == {"lost": 0, "torn": 0, "duplicates": 0, "orphans": 0}
        assert report["ledger"]["acknowledged_saves"] > ROUNDS
        # The kills did meet saves that were under way, and the pupils were told so in words.
        assert report["failed"] > 0
        assert rows_without_file(place) == []


def test_database_away_for_ten_seconds(
    large: Place, lesson: Callable[..., Lesson], login: Callable[..., requests.Session]
) -> None:
    """Meanwhile everybody gets a clear 503 and when to come back; afterwards all is well without anybody's doing."""
    begun = lesson(large, "--users", "10", "--seconds", "300", "--think", "0.5", "--allow-failures")
    pupil = login("pupil105", large.url)
    on_host("sudo docker stop --time 5 scratch4school-postgres", large.name)
    stopped = time.monotonic()
    try:
        # By the limits of application and PgBouncer it may take 25 seconds, after those that wait in front of it.
        refused = pupil.get(f"{large.url}/backend/api/projects", timeout=70)
        time.sleep(max(0, stopped + 10 - time.monotonic()))
    finally:
        on_host("sudo docker start scratch4school-postgres", large.name)
    started = time.time()
    wait_for(lambda: pupil.get(f"{large.url}/backend/api/projects", timeout=30).status_code == 200, seconds=30)
    time.sleep(5)
    report = begun.end()
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert "try again" in refused.json()["error"]
    assert {failure["status"] for failure in report["failures"]} == {503}
    # Whoever asked after the recovery was served: a request that waits for the database gives up after some seconds.
    assert max(failure["end"] for failure in report["failures"]) < started + 15


def test_database_comes_back_at_another_address(
    large: Place, lesson: Callable[..., Lesson], login: Callable[..., requests.Session]
) -> None:
    """Another container has got its address meanwhile: saves succeed again all the same, without anybody's doing."""
    begun = lesson(large, "--users", "10", "--seconds", "300", "--think", "0.5", "--allow-failures")
    pupil = login("pupil119", large.url)
    content = (PROJECTS / "default.sb3").read_bytes()

    def save(method: str, address: str) -> requests.Response:
        return pupil.request(method, address, files={"project_file": ("project.sb3", content)}, timeout=30)

    created = save("POST", f"{large.url}/backend/api/projects")
    assert created.status_code == 200, created.text
    address = f"{large.url}/backend/api/projects/{created.json()['id']}"
    with address_taken(large, "scratch4school-postgres") as former:
        on_host("sudo docker start scratch4school-postgres", large.name)
        started = time.time()
        assert address_of(large, "scratch4school-postgres") not in ("", former)
        wait_for(lambda: save("PUT", address).status_code == 200, seconds=30)
        time.sleep(5)
        report = begun.end()
    assert pupil.delete(address, timeout=30).status_code == 200
    assert {failure["status"] for failure in report["failures"]} <= {503}
    # As after any restart of it: whoever asked after the recovery was served.
    assert max((failure["end"] for failure in report["failures"]), default=0) < started + 15


def test_full_disk_refuses_saves_and_loses_nothing(small: Place, login: Callable[..., requests.Session]) -> None:
    """A save that does not fit is told so, the old work stays, and once there is room again the next save works."""
    uploads = "/var/lib/scratch4school/uploads"
    url, pupil = small.url, login("pupil106", small.url)
    first, second = ((PROJECTS / name).read_bytes() for name in ("default.sb3", "variable_characters.sb3"))

    def save(address: str, method: str, content: bytes) -> requests.Response:
        return pupil.request(method, address, files={"project_file": ("project.sb3", content)}, timeout=60)

    # A small file system in place of the folder; what is in it at the end joins the rest.
    small_disk = (
        f"sudo systemctl stop scratch4school && sudo mv {uploads} {uploads}.aside && sudo mkdir {uploads} && "
        f"sudo mount -t tmpfs -o size=64m,uid=10001,gid=10000,mode=2750 tmpfs {uploads}"
    )
    large_disk = (
        f"sudo systemctl stop scratch4school && sudo cp -a {uploads}/. {uploads}.aside/ && sudo umount {uploads} && "
        f"sudo rmdir {uploads} && sudo mv {uploads}.aside {uploads}"
    )
    on_host(small_disk, small.name)
    try:
        on_host("sudo systemctl start scratch4school", small.name)
        wait_for(lambda: status(url) == 200, seconds=60)
        created = save(f"{url}/backend/api/projects", "POST", first)
        address = f"{url}/backend/api/projects/{created.json()['id']}"
        on_host(f"sudo dd if=/dev/zero of={uploads}/filler bs=1M || true", small.name)
        refused = save(address, "PUT", second)
        assert refused.status_code == 503, refused.text
        assert "could not be stored" in refused.json()["error"]
        assert pupil.get(f"{address}/download", timeout=30).content == first
        on_host(f"sudo rm {uploads}/filler", small.name)
        assert save(address, "PUT", second).status_code == 200
        assert pupil.get(f"{address}/download", timeout=30).content == second
    finally:
        on_host(f"{large_disk} && sudo systemctl start scratch4school", small.name)
        wait_for(lambda: status(url) == 200, seconds=60)
    assert pupil.get(f"{address}/download", timeout=30).content == second
    assert rows_without_file(small) == []


def test_tablets_with_bad_reception_hold_up_nobody(large: Place, login: Callable[..., requests.Session]) -> None:
    """Forty uploads that trickle, more than the application has threads: everybody else is served before they end."""
    pupil = login("pupil107", large.url)
    parts = urlsplit(large.url)
    context = ssl.create_default_context(cafile=CA)
    head = (
        f"POST /backend/api/projects HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: 1000000\r\n"
        f"Authorization: {pupil.headers['Authorization']}\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="project_file"; filename="f.sb3"\r\n\r\nPK'
    )
    with ExitStack() as open_uploads:
        uploads = []
        for _ in range(TABLETS):
            plain = socket.create_connection((parts.hostname, parts.port), timeout=30)
            upload = open_uploads.enter_context(context.wrap_socket(plain, server_hostname=parts.hostname))
            upload.sendall(head.encode())
            uploads.append(upload)
        content = (PROJECTS / "default.sb3").read_bytes()
        for _ in range(10):
            for upload in uploads:
                upload.sendall(b"x" * 100)
            saved = pupil.post(
                f"{large.url}/backend/api/projects",
                files={"project_file": ("p.sb3", content)},
                timeout=10,
            )
            assert saved.status_code == 200
            address = f"{large.url}/backend/api/projects/{saved.json()['id']}"
            assert pupil.get(f"{address}/download", timeout=10).content == content
            assert pupil.delete(address, timeout=10).status_code == 200
        # None of them was cut off or answered meanwhile: they were there all the time.
        for upload in uploads:
            upload.setblocking(False)
            with pytest.raises(ssl.SSLWantReadError):
                upload.recv(1)
