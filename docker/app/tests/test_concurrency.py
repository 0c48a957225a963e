"""The promises under real concurrency: threads against gunicorn with several processes, on both engines."""

import hashlib
import io
import json
import random
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from helpers import HttpClient
from scratch4school.clock import utcnow
from scratch4school.config import Settings
from scratch4school.database.database import Database
from scratch4school.database.tables import assets, groups, oauth_sessions, project_revisions, user_groups, users
from scratch4school.login.claims import identity
from scratch4school.login.sign_in import sign_in
from scratch4school.web.services import Services

Together = Callable[[int, Callable[[int], Any]], list[Any]]


@pytest.fixture
def web(start_server: Callable[..., Any], log_in: Callable[..., str]) -> Callable[..., HttpClient]:
    server = start_server()
    return lambda name="ada": HttpClient(server.url, log_in(name))


def test_devices_that_name_their_version_lose_no_update(web: Callable[..., HttpClient], together: Together) -> None:
    """Ten devices count in one project; the original lost 606 of 700 such updates."""
    device = web()
    project_id = device.create(0)

    def count(_index: int) -> None:
        for _ in range(6):
            while True:
                version = device.version(project_id)
                status = device.save(project_id, device.content(project_id) + 1, version)
                if status == 200:
                    break
                assert status == 409
                time.sleep(random.uniform(0, 0.2))

    together(10, count)
    assert (device.content(project_id), device.version(project_id)) == (60, 61)


def test_saves_without_version_all_count_and_stay_whole(
    web: Callable[..., HttpClient], services: Services, together: Together
) -> None:
    """Last write wins: every save is a version, and the final content belongs to the final row."""
    device = web()
    project_id = device.create("start")
    statuses = together(10, lambda index: [device.save(project_id, f"{index}-{n}") for n in range(5)])
    assert {status for device_statuses in statuses for status in device_statuses} == {200}
    assert device.version(project_id) == 51
    newest = services.database.read(
        lambda connection: connection.execute(
            sa.select(project_revisions).order_by(project_revisions.c.version.desc()).limit(1)
        ).one()
    )
    status, body = device.ask("GET", f"/api/projects/{project_id}/download")
    assert (status, hashlib.sha256(body).hexdigest()) == (200, newest.sha256)


def test_readers_never_get_half_a_file(web: Callable[..., HttpClient], together: Together) -> None:
    """While two writers save files of very different lengths, every download is one of them, whole."""
    device = web()
    contents = ["a" * 10, "b" * 2_000_000]
    project_id = device.create(contents[0])
    readers = 6
    ended: list[int] = []

    def write_or_read(index: int) -> set[str]:
        seen: set[str] = set()
        if index < 2:
            while len(ended) < readers:
                assert device.save(project_id, contents[index]) == 200
            return seen
        try:
            reads = 0
            while reads < 10 or len(seen) < len(contents):
                seen.add(device.content(project_id))
                reads += 1
        finally:
            ended.append(index)
        return seen

    assert set().union(*together(2 + readers, write_or_read)) == set(contents)


def test_one_of_ten_saves_from_one_version_wins(web: Callable[..., HttpClient], together: Together) -> None:
    device = web()
    project_id = device.create("start")
    statuses = together(10, lambda index: device.save(project_id, index, 1))
    assert sorted(statuses) == [200] + [409] * 9
    assert device.content(project_id) == statuses.index(200)


def test_same_asset_sent_a_hundred_times_is_stored_once(
    web: Callable[..., HttpClient], services: Services, together: Together
) -> None:
    """Two types and two formats of the same bytes: a row and a file for each type, and every request succeeds."""
    device = web()

    def upload(index: int) -> tuple[int, str]:
        form = {"type": ("costume", "sound")[index % 2], "format": ("png", "wav")[index // 2 % 2]}
        status, body = device.ask("POST", "/api/assets/", {"asset": b"the same bytes"}, **form)
        return status, json.loads(body).get("assetId")

    expected = (200, hashlib.md5(b"the same bytes").hexdigest())
    assert set(together(100, upload)) == {expected}
    rows = services.database.read(lambda connection: connection.execute(sa.select(assets)).all())
    assert sorted(row.asset_type for row in rows) == ["costume", "sound"]
    files = {str(path.relative_to(services.store.root)) for path in services.store.root.glob("assets/*/*")}
    assert files == {row.file_path for row in rows}
    assert device.ask("GET", f"/api/assets/{expected[1]}") == (200, b"the same bytes")


@pytest.fixture
def wide(settings: Settings, services: Services) -> Any:
    """A database handle with a hundred connections."""
    database = Database(settings.database, connections=100)
    yield database
    database.dispose()


def first_login(database: Database, name: str, names: list[str]) -> str:
    who = identity({"sub": name, "groups": [{"act": group, "name": group.title()} for group in names]}, "a", "b")
    return sign_in(database, who, "token", None, utcnow())


def counts(database: Database) -> list[int]:
    return [
        database.read(lambda connection, table=table: connection.scalar(sa.select(sa.func.count()).select_from(table)))
        or 0
        for table in (users, groups, user_groups, oauth_sessions)
    ]


def test_hundred_first_logins_make_one_user(wide: Database, together: Together) -> None:
    """The original failed 22 of them."""
    together(100, lambda _: first_login(wide, "ada", ["a", "b", "c"]))
    assert counts(wide) == [1, 3, 3, 100]


def test_first_logins_of_a_class_make_each_group_once(wide: Database, together: Together) -> None:
    """A hundred pupils whose provider lists the same new groups in different orders."""
    names = ["5a", "chor", "ag", "schule"]
    together(100, lambda index: first_login(wide, f"pupil-{index}", names[index % 4 :] + names[: index % 4]))
    assert counts(wide) == [100, 4, 400, 100]


def test_memberships_are_complete_at_every_moment(wide: Database, together: Together) -> None:
    """During another login of the user, every reader finds all groups."""
    first_login(wide, "ada", ["a", "b", "c"])
    done = threading.Event()

    def log_in_or_read(index: int) -> set[int]:
        seen: set[int] = set()
        if index < 4:
            for _ in range(20):
                first_login(wide, "ada", ["a", "b", "c"])
            done.set()
        else:
            while not done.is_set():
                seen.add(counts(wide)[2])
        return seen

    assert set().union(*together(8, log_in_or_read)) <= {3}


def test_saves_beside_a_delete_leave_no_saved_version(
    web: Callable[..., HttpClient], services: Services, together: Together
) -> None:
    """A project is deleted while others save: each save counts or gets 404."""
    device = web()
    project_ids = [device.create("x") for _ in range(6)]

    def save_or_delete(index: int) -> set[int]:
        if index == 0:
            return {device.ask("DELETE", f"/api/projects/{project_id}")[0] for project_id in project_ids}
        return {device.save(project_id, index) for project_id in project_ids for _ in range(3)}

    assert set().union(*together(6, save_or_delete)) <= {200, 404}
    left = services.database.read(
        lambda connection: connection.scalar(sa.select(sa.func.count()).select_from(project_revisions))
    )
    assert left == 0


def test_copies_beside_saves_and_delete_are_whole(
    start_server: Callable[..., Any], log_in: Callable[..., str], services: Services, together: Together
) -> None:
    """Classmates copy while the owner saves, shares and at last deletes: every acknowledged copy can be opened."""
    server = start_server()
    owner = HttpClient(server.url, log_in("ada", "klasse.5a"))
    classmates = [HttpClient(server.url, log_in(f"classmate-{index}", "klasse.5a")) for index in range(6)]
    project_id = owner.create("0")
    group_id = json.loads(owner.ask("GET", "/api/groups")[1])["groups"][0]["id"]
    assert owner.share(project_id, [group_id]) == 200

    def change_or_copy(index: int) -> list[int]:
        if index == len(classmates):
            assert [owner.save(project_id, str(number)) for number in range(1, 16)] == [200] * 15
            assert {owner.share(project_id, shared) for shared in ([], [group_id], [group_id, group_id])} == {200}
            assert owner.ask("DELETE", f"/api/projects/{project_id}")[0] == 200
            return []
        copies = []
        while True:
            status, body = classmates[index].ask("POST", f"/api/projects/{project_id}/copy")
            if status == 404:
                return copies
            assert status in (201, 403), body
            if status == 201:
                copies.append(json.loads(body)["id"])

    copied = together(len(classmates) + 1, change_or_copy)
    assert sum(map(len, copied)) > 0
    for classmate, copies in zip(classmates, copied, strict=False):
        assert {classmate.content(copy) for copy in copies} <= {str(number) for number in range(16)}


def test_slow_upload_delays_no_other_request(start_server: Callable[..., Any], log_in: Callable[..., str]) -> None:
    """One tablet with bad reception, which sends on only after another request is answered.

    Such an upload stopped the original's single worker.
    """
    server = start_server(WORKERS="1", THREADS="4")
    session_id = log_in("ada")
    other = HttpClient(server.url, session_id)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("project.json", "{}" + " " * 100_000)
    answered = []

    def trickle() -> Any:
        head = b'--b\r\nContent-Disposition: form-data; name="project_file"; filename="f.sb3"\r\n\r\n'
        body = head + buffer.getvalue() + b"\r\n--b--\r\n"
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]
            answered.append(other.ask("GET", "/api/projects")[0])

    request = urllib.request.Request(f"{server.url}/api/projects", trickle(), method="POST")
    request.add_header("Authorization", f"Bearer {session_id}")
    request.add_header("Content-Type", "multipart/form-data; boundary=b")
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.status == 200
    assert len(answered) > 10
    assert set(answered) == {200}
