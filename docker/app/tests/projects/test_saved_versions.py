"""Saved versions over HTTP: listed, downloaded, and restored without losing the current content."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from helpers import SAVED_FIELDS, Device, project_content, project_file
from scratch4school.database.tables import project_revisions
from scratch4school.database.tables import projects as project_rows
from scratch4school.projects import projects, saved_versions
from scratch4school.web.services import Services


def listed(device: Device, project_id: int) -> Any:
    return device.get(f"/api/projects/{project_id}/revisions")


def download(device: Device, project_id: int, version: int) -> Any:
    return device.get(f"/api/projects/{project_id}/revisions/{version}/download")


def restore(device: Device, project_id: int, version: int, query: str = "", **options: Any) -> Any:
    path = f"/api/projects/{project_id}/revisions/{version}/restore{query}"
    return device.request("POST", path, **options)


def versions(device: Device, project_id: int) -> list[tuple[int, bool]]:
    return [(item["version"], item["is_current"]) for item in listed(device, project_id).json["revisions"]]


def execute(services: Services, statement: sa.Executable) -> None:
    services.database.write(lambda connection: connection.execute(statement))


def test_list_shows_saved_versions_newest_first(pupil: Device, project_id: int) -> None:
    second = project_file("second")
    pupil.save(project_id, second)
    answer = listed(pupil, project_id)
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"2"')
    body = answer.json
    assert (body["project_id"], body["version"], body["count"], body["success"]) == (project_id, 2, 2, True)
    newest = body["revisions"][0]
    assert newest.pop("created_at").startswith("20")
    assert newest == {
        "version": 2,
        "size": len(second),
        "sha256": hashlib.sha256(second).hexdigest(),
        "saved_by": {"id": "ada", "username": "ada"},
        "is_current": True,
        "download_url": f"/backend/api/projects/{project_id}/revisions/2/download",
    }
    assert [item["version"] for item in body["revisions"]] == [2, 1]


def test_saved_version_is_downloaded_unchanged(pupil: Device, project_id: int) -> None:
    pupil.save(project_id, project_file("second"), title="Über Katzen")
    answer = download(pupil, project_id, 1)
    assert project_content(answer.data) == "first"
    assert answer.headers["Content-Disposition"].endswith("filename*=UTF-8''%C3%9Cber_Katzen-v1.sb3")
    assert answer.headers["Cache-Control"] == "private, no-cache"


def test_download_of_a_version_with_accel_redirect_has_no_body(
    make_app: Callable[..., Any], log_in: Callable[..., str]
) -> None:
    app = make_app(accel_redirect="/_uploads/")
    device = Device(app.test_client(), log_in("ada"))
    project_id = device.create(project_file(1)).json["id"]
    answer = download(device, project_id, 1)
    assert (answer.status_code, answer.data) == (200, b"")
    root = app.extensions["scratch4school"].store.root
    assert (root / answer.headers["X-Accel-Redirect"].removeprefix("/_uploads/")).is_file()


def test_restored_version_is_the_newest(pupil: Device, project_id: int) -> None:
    """The version number only rises, and the replaced content stays; the answer is that of a save."""
    pupil.save(project_id, project_file("second"))
    answer = restore(pupil, project_id, 1)
    assert (answer.status_code, answer.headers["ETag"], answer.json["version"]) == (200, '"3"', 3)
    assert set(answer.json) == SAVED_FIELDS
    assert project_content(pupil.download(project_id).data) == "first"
    assert versions(pupil, project_id) == [(3, True), (2, False), (1, False)]
    top, _, bottom = listed(pupil, project_id).json["revisions"]
    assert (top["size"], top["sha256"]) == (bottom["size"], bottom["sha256"])
    assert project_content(download(pupil, project_id, 2).data) == "second"


def test_restore_copies_no_file(pupil: Device, project_id: int, services: Services) -> None:
    pupil.save(project_id, project_file("second"))
    before = services.store.files_of("ada")
    restore(pupil, project_id, 1)
    assert services.store.files_of("ada") == before


@pytest.mark.parametrize(
    "options", [{"query": "?version=1"}, {"data": {"version": "1"}}, {"headers": {"If-Match": '"1"'}}]
)
def test_stale_restore_is_409_and_changes_nothing(pupil: Device, project_id: int, options: dict[str, Any]) -> None:
    pupil.save(project_id, project_file("second"))
    answer = restore(pupil, project_id, 1, **options)
    assert (answer.status_code, answer.json["version"]) == (409, 2)
    assert project_content(pupil.download(project_id).data) == "second"
    assert restore(pupil, project_id, 1, "?version=2").json["version"] == 3


def test_teachers_restore_for_their_pupils(pupil: Device, device: Callable[..., Device], project_id: int) -> None:
    """The project stays the pupil's; the list names the teacher."""
    pupil.save(project_id, project_file("second"))
    teacher = device("ms.frizzle", "lehrer")
    assert project_content(download(teacher, project_id, 1).data) == "first"
    assert restore(teacher, project_id, 1).json["version"] == 3
    assert listed(pupil, project_id).json["revisions"][0]["saved_by"] == {"id": "ms.frizzle", "username": "ms.frizzle"}
    assert pupil.save(project_id, project_file("fourth"), version=3).status_code == 200


def test_other_pupils_get_403(pupil: Device, device: Callable[..., Device], project_id: int) -> None:
    """Members of a group that shares the project see its content, but no saved versions."""
    other = device("berta")
    answers = [listed(other, project_id), download(other, project_id, 1), restore(other, project_id, 1)]
    assert [answer.status_code for answer in answers] == [403, 403, 403]
    assert pupil.metadata(project_id).json["version"] == 1


def test_unknown_projects_and_versions_are_404(pupil: Device, project_id: int) -> None:
    answers = [listed(pupil, 999999), download(pupil, 999999, 1), restore(pupil, 999999, 1)]
    answers += [download(pupil, project_id, 2), restore(pupil, project_id, 2)]
    assert [answer.status_code for answer in answers] == [404] * 5
    assert "This project has no saved version 2" in answers[-1].json["error"]


def test_version_without_file_is_404(pupil: Device, project_id: int, services: Services) -> None:
    pupil.save(project_id, project_file("second"))
    lost = sa.update(project_revisions).where(project_revisions.c.version == 1).values(file_path="projects/gone.sb3")
    execute(services, lost)
    assert [answer(pupil, project_id, 1).status_code for answer in (download, restore)] == [404, 404]
    assert pupil.metadata(project_id).json["version"] == 2


def test_routes_need_a_session(app: Any) -> None:
    for method, tail in (("GET", ""), ("GET", "/1/download"), ("POST", "/1/restore")):
        assert app.test_client().open(f"/api/projects/1/revisions{tail}", method=method).status_code == 401


def test_unrecorded_content_is_listed_and_restored(pupil: Device, project_id: int, services: Services) -> None:
    """In an imported project, which has only its row."""
    execute(services, sa.delete(project_revisions))
    (only,) = listed(pupil, project_id).json["revisions"]
    assert (only["version"], only["size"], only["saved_by"]["id"], only["is_current"]) == (1, None, "ada", True)
    assert project_content(download(pupil, project_id, 1).data) == "first"
    assert restore(pupil, project_id, 1).json["version"] == 2
    assert versions(pupil, project_id) == [(2, True), (1, False)]


def test_new_title_is_no_saved_version(pupil: Device, project_id: int) -> None:
    pupil.request("PUT", f"/api/projects/{project_id}", json={"title": "Maus"})
    assert listed(pupil, project_id).json["version"] == 2
    assert versions(pupil, project_id) == [(1, True)]
    assert restore(pupil, project_id, 1).json["title"] == "Maus"


def test_deleted_user_has_no_name(pupil: Device, project_id: int, services: Services) -> None:
    execute(services, sa.update(project_revisions).values(saved_by="gone"))
    assert listed(pupil, project_id).json["revisions"][0]["saved_by"] == {"id": "gone", "username": None}


def test_list_is_limited_to_the_kept_number(make_app: Callable[..., Any], log_in: Callable[..., str]) -> None:
    app = make_app(keep_revisions=2)
    device = Device(app.test_client(), log_in("ada"))
    project_id = device.create(project_file(1)).json["id"]
    for number in range(2, 6):
        device.save(project_id, project_file(number))
    assert versions(device, project_id) == [(5, True), (4, False), (3, False)]
    restore(device, project_id, 3)
    assert versions(device, project_id) == [(6, True), (5, False), (4, False)]
    assert project_content(device.download(project_id).data) == 3


def test_restores_beside_saves_lose_no_file(
    pupil: Device, project_id: int, services: Services, together: Callable[..., list[Any]]
) -> None:
    """With two saved versions, saves prune the oldest while restores ask for it: each restore succeeds or is a 404.

    If a file's last row went while a restore was about to name it, the sweep would remove the file.
    """
    keep = 1

    def restore_or_save(index: int) -> int:
        restored = 0
        for number in range(10):
            if index % 2:
                with services.store.receive() as file:
                    file.write(project_file([index, number]))
                    content = projects.Content(file, None)
                    projects.save(services.database, services.store, project_id, "ada", None, content, None, keep)
                continue
            oldest = services.database.read(lambda connection: saved_versions.of_project(connection, project_id))[
                -1
            ].version
            try:
                saved_versions.restore(services.database, services.store, project_id, oldest, "ada", None, keep)
                restored += 1
            except saved_versions.VersionNotFound:
                continue
        return restored

    restored = sum(together(6, restore_or_save))
    assert pupil.metadata(project_id).json["version"] == 1 + 30 + restored
    rows = services.database.read(lambda connection: saved_versions.of_project(connection, project_id))
    current = services.database.read(lambda connection: connection.scalar(sa.select(project_rows.c.sb3_file_path)))
    assert [row.version for row in rows] == [31 + restored, 30 + restored]
    assert rows[0].file_path == current
    assert all(services.store.find(row.file_path) is not None for row in rows)
