"""The promises under real concurrency: threads against a real gunicorn with several processes, on both engines."""

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

from helpers import project_content, project_file
from scratch4school.claims import identity
from scratch4school.clock import utcnow
from scratch4school.config import Settings
from scratch4school.database import Database
from scratch4school.services import Services
from scratch4school.tables import assets, groups, oauth_sessions, project_revisions, user_groups, users
from scratch4school.users import sign_in

Together = Callable[[int, Callable[[int], Any]], list[Any]]


class Web:
    """Requests of one session to a running server."""

    def __init__(self, url: str, session_id: str) -> None:
        self._url, self.session_id = url, session_id

    def ask(
        self,
        method: str,
        path: str,
        files: dict[str, bytes] | None = None,
        json_body: Any = None,
        **form: str,
    ) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self.session_id}"}
        body = None
        if json_body is not None:
            body = json.dumps(json_body).encode()
            headers["Content-Type"] = "application/json"
        if files is not None:
            parts = [f'name="{key}"\r\n\r\n{value}'.encode() for key, value in form.items()]
            parts += [f'name="{key}"; filename="f.sb3"\r\n\r\n'.encode() + content for key, content in files.items()]
            body = (
                b"".join(b"--b\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--b--\r\n"
            )
            headers["Content-Type"] = "multipart/form-data; boundary=b"
        request = urllib.request.Request(self._url + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def create(self, content: Any) -> int:
        status, body = self.ask("POST", "/api/projects", {"project_file": project_file(content)})
        assert status == 200, body
        return int(json.loads(body)["id"])

    def save(self, project_id: int, content: Any, version: int | None = None) -> int:
        query = "" if version is None else f"?version={version}"
        return self.ask("PUT", f"/api/projects/{project_id}{query}", {"project_file": project_file(content)})[0]

    def share(self, project_id: int, group_ids: list[int]) -> int:
        return self.ask("POST", f"/api/projects/{project_id}/share", json_body={"group_ids": group_ids})[0]

    def version(self, project_id: int) -> int:
        return int(json.loads(self.ask("GET", f"/api/projects/{project_id}/metadata")[1])["version"])

    def content(self, project_id: int) -> Any:
        status, body = self.ask("GET", f"/api/projects/{project_id}/download")
        assert status == 200, body
        return project_content(body)


@pytest.fixture
def web(start_server: Callable[..., Any], log_in: Callable[..., str]) -> Callable[..., Web]:
    server = start_server()
    return lambda name="ada": Web(server.url, log_in(name))


def test_no_update_is_lost_by_devices_that_state_their_version(web: Callable[..., Web], together: Together) -> None:
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


def test_saves_that_state_nothing_all_count_and_none_is_torn(
    web: Callable[..., Web], services: Services, together: Together
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


def test_readers_never_meet_half_a_file(web: Callable[..., Web], together: Together) -> None:
    """While two writers save files of very different lengths, every download is one of them, whole."""
    device = web()
    contents = ["a" * 10, "b" * 2_000_000]
    project_id = device.create(contents[0])
    end = time.monotonic() + 3

    def write_or_read(index: int) -> int:
        seen = 0
        while time.monotonic() < end:
            if index < 2:
                assert device.save(project_id, contents[index]) == 200
            else:
                assert device.content(project_id) in contents
                seen += 1
        return seen

    assert sum(together(8, write_or_read)) > 20


def test_one_of_ten_stale_saves_wins(web: Callable[..., Web], together: Together) -> None:
    device = web()
    project_id = device.create("start")
    statuses = together(10, lambda index: device.save(project_id, index, 1))
    assert sorted(statuses) == [200] + [409] * 9
    assert device.content(project_id) == statuses.index(200)


def test_same_asset_from_a_hundred_at_once(web: Callable[..., Web], services: Services, together: Together) -> None:
    """Two types and two formats of the same bytes: a row and a file for each type, and everybody is answered."""
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


def test_hundred_first_logins_of_one_user(wide: Database, together: Together) -> None:
    """The original failed 22 of them."""
    together(100, lambda _: first_login(wide, "ada", ["a", "b", "c"]))
    assert counts(wide) == [1, 3, 3, 100]


def test_first_logins_of_a_class_with_new_groups_in_any_order(wide: Database, together: Together) -> None:
    """A hundred pupils whose provider lists the same new groups in different orders."""
    names = ["5a", "chor", "ag", "schule"]
    together(100, lambda index: first_login(wide, f"pupil-{index}", names[index % 4 :] + names[: index % 4]))
    assert counts(wide) == [100, 4, 400, 100]


def test_memberships_never_have_a_gap(wide: Database, together: Together) -> None:
    """Whoever looks while somebody logs in again finds the groups complete."""
    first_login(wide, "ada", ["a", "b", "c"])
    done = threading.Event()

    def log_in_or_look(index: int) -> set[int]:
        seen: set[int] = set()
        if index < 4:
            for _ in range(20):
                first_login(wide, "ada", ["a", "b", "c"])
            done.set()
        else:
            while not done.is_set():
                seen.add(counts(wide)[2])
        return seen

    assert set().union(*together(8, log_in_or_look)) <= {3}


def test_saves_and_delete_at_once_leave_nothing_odd(
    web: Callable[..., Web], services: Services, together: Together
) -> None:
    """A project deleted while others save: each save is either counted or told that there is no such project."""
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


def test_copies_are_whole_whatever_happens_to_the_original(
    start_server: Callable[..., Any], log_in: Callable[..., str], services: Services, together: Together
) -> None:
    """Classmates copy while the owner saves, shares anew and at last deletes: what was answered 201 can be opened."""
    server = start_server()
    owner = Web(server.url, log_in("ada", "klasse.5a"))
    classmates = [Web(server.url, log_in(f"classmate-{index}", "klasse.5a")) for index in range(6)]
    project_id = owner.create("0")
    group_id = json.loads(owner.ask("GET", "/api/groups")[1])["groups"][0]["id"]
    assert owner.share(project_id, [group_id]) == 200

    def change_or_copy(index: int) -> list[int]:
        if index == len(classmates):
            assert [owner.save(project_id, str(number)) for number in range(1, 16)] == [200] * 15
            assert {owner.share(project_id, wanted) for wanted in ([], [group_id], [group_id, group_id])} == {200}
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


def test_slow_upload_delays_nobody(start_server: Callable[..., Any], log_in: Callable[..., str]) -> None:
    """One tablet with bad reception; the original's single worker stood still for it."""
    server = start_server(WORKERS="1", THREADS="4")
    session_id = log_in("ada")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("project.json", "{}" + " " * 100_000)
    finished = threading.Event()

    def trickle() -> Any:
        head = b'--b\r\nContent-Disposition: form-data; name="project_file"; filename="f.sb3"\r\n\r\n'
        body = head + buffer.getvalue() + b"\r\n--b--\r\n"
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]
            time.sleep(0.1)
        finished.set()

    request = urllib.request.Request(f"{server.url}/api/projects", trickle(), method="POST")
    request.add_header("Authorization", f"Bearer {session_id}")
    request.add_header("Content-Type", "multipart/form-data; boundary=b")
    statuses: list[int] = []

    def upload() -> None:
        with urllib.request.urlopen(request, timeout=30) as response:
            statuses.append(response.status)

    thread = threading.Thread(target=upload)
    thread.start()
    while not finished.is_set():
        started = time.monotonic()
        assert Web(server.url, session_id).ask("GET", "/api/projects")[0] == 200
        assert time.monotonic() - started < 1
    thread.join()
    assert statuses == [200]
