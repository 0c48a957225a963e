"""Projects over HTTP: the original's answers, versions, and wrong input."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from helpers import PNG, SAVED_FIELDS, Device, project_content, project_file
from scratch4school.database.tables import groups, project_groups, project_revisions, projects
from scratch4school.projects import sharing
from scratch4school.projects.projects import TITLE_LENGTH, owned_by
from scratch4school.web.services import Services

# Columns in which a copy differs from its source.
OF_THE_COPY = {"id", "name", "owner_id", "version", "created_at", "updated_at", "is_published"}
# An unusual value for each type of a column.
UNUSUAL: dict[type, Any] = {str: "unusual", int: 7, bool: True}


def revisions(services: Services, project_id: int) -> list[Any]:
    return services.database.read(
        lambda connection: list(
            connection.execute(
                sa.select(project_revisions)
                .where(project_revisions.c.project_id == project_id)
                .order_by(project_revisions.c.version)
            )
        )
    )


def stored_files(services: Services) -> list[Path]:
    return sorted(path for path in services.store.root.rglob("*") if path.is_file())


def test_created_project_comes_back_byte_for_byte(pupil: Device) -> None:
    """The download equals the save."""
    content = project_file("Katze")
    created = pupil.create(content, title="Über Katzen")
    assert created.status_code == 200
    assert set(created.json) == SAVED_FIELDS
    assert created.json["title"] == "Über Katzen"
    assert created.json["description"].startswith("Created on 20")
    assert (created.json["version"], created.headers["ETag"]) == (1, '"1"')
    download = pupil.download(created.json["id"])
    assert download.data == content
    assert download.mimetype == "application/octet-stream"
    assert download.headers["Content-Disposition"].endswith("filename*=UTF-8''%C3%9Cber_Katzen.sb3")


def test_copy_has_every_other_value_of_its_source(pupil: Device, project_id: int, services: Services) -> None:
    """Also that of a column that a later release adds."""
    columns = [column for column in projects.columns if column.name not in OF_THE_COPY]
    values = {column: UNUSUAL[column.type.python_type] for column in columns if "file" not in column.info}
    change = sa.update(projects).where(projects.c.id == project_id).values(values)
    services.database.write(lambda connection: connection.execute(change))
    copy_id = pupil.request("POST", f"/api/projects/{project_id}/copy").json["id"]
    source, copy = (
        services.database.read(
            lambda connection, number=number: connection.execute(
                sa.select(*columns).where(projects.c.id == number)
            ).one()
        )
        for number in (project_id, copy_id)
    )
    assert copy == source


def test_project_without_title_gets_the_default(pupil: Device) -> None:
    """A project without a title gets the original's default; an update without one keeps what is there."""
    created = pupil.create(project_file(1))
    assert created.json["title"] == "Untitled Project"
    assert pupil.save(created.json["id"], project_file(2)).json["title"] == "Untitled Project"
    assert pupil.save(created.json["id"], project_file(2), title="Maus").json["title"] == "Maus"


def test_list_has_only_own_projects_last_saved_first(pupil: Device, device: Callable[..., Device]) -> None:
    first, second = (pupil.create(project_file(n), title=f"P{n}").json["id"] for n in (1, 2))
    pupil.save(first, project_file("again"))
    listed = pupil.get("/api/projects").json
    assert [entry["id"] for entry in listed["projects"]] == [first, second]
    assert (listed["count"], listed["success"]) == (2, True)
    assert listed["projects"][0]["version"] == 2
    assert listed["projects"][0]["thumbnail_url"] == f"/backend/api/projects/{first}/thumbnail"
    assert listed["projects"][0]["shared_with_groups"] == []
    assert pupil.get("/api/projects/recent").json["project"]["id"] == first
    other = device("berta")
    assert other.get("/api/projects").json["count"] == 0
    recent = other.get("/api/projects/recent")
    assert (recent.status_code, list(recent.json)) == (404, ["message"])


def test_save_with_the_current_version_succeeds(pupil: Device, project_id: int) -> None:
    """Query, form field and If-Match can name the base version."""
    assert pupil.save(project_id, project_file(2), version=1).json["version"] == 2
    assert pupil.save(project_id, project_file(3), headers={"If-Match": '"2"'}).json["version"] == 3
    assert pupil.save(project_id, project_file(4), headers={"If-Match": 'W/"3"'}).json["version"] == 4
    form = {"project_file": (io.BytesIO(project_file(5)), "p.sb3"), "version": "4"}
    assert pupil.request("PUT", f"/api/projects/{project_id}", data=form).json["version"] == 5
    assert pupil.save(project_id, project_file(6), headers={"If-Match": "*"}).json["version"] == 6


@pytest.mark.parametrize("how", ["query", "form", "header", "foreign tag"])
def test_stale_save_overwrites_nothing(pupil: Device, services: Services, project_id: int, how: str) -> None:
    """A save based on an older version gets 409 and the current version; content and files stay."""
    pupil.save(project_id, project_file("second"))
    before = stored_files(services)
    headers = {"header": {"If-Match": '"1"'}, "foreign tag": {"If-Match": '"abc"'}}.get(how, {})
    data: dict[str, Any] = {"project_file": (io.BytesIO(project_file("stale")), "p.sb3")}
    if how == "form":
        data["version"] = "1"
    query = "?version=1" if how == "query" else ""
    refused = pupil.request("PUT", f"/api/projects/{project_id}{query}", data=data, headers=headers)
    assert refused.status_code == 409
    assert refused.json["version"] == 2
    assert "saved from somewhere else" in refused.json["error"]
    assert project_content(pupil.download(project_id).data) == "second"
    assert stored_files(services) == before


def test_save_without_version_keeps_the_replaced_content(pupil: Device, services: Services, project_id: int) -> None:
    assert pupil.save(project_id, project_file("second")).json["version"] == 2
    kept = revisions(services, project_id)
    assert [row.version for row in kept] == [1, 2]
    replaced = services.store.find(kept[0].file_path)
    assert replaced is not None
    assert project_content(replaced.read_bytes()) == "first"
    assert (kept[0].size, kept[0].saved_by) == (replaced.stat().st_size, "ada")


def test_only_the_newest_saved_versions_are_kept(make_app: Callable[..., Any], log_in: Callable[..., str]) -> None:
    """Two saved versions beside the current content; the sweep removes the files of older ones."""
    app = make_app(keep_revisions=2)
    services = app.extensions["scratch4school"]
    device = Device(app.test_client(), log_in("ada"))
    project_id = device.create(project_file(1)).json["id"]
    for number in range(2, 7):
        device.save(project_id, project_file(number))
    assert [row.version for row in revisions(services, project_id)] == [4, 5, 6]
    assert len(stored_files(services)) == 6


def test_json_save_changes_only_the_title(pupil: Device, project_id: int) -> None:
    answer = pupil.request("PUT", f"/api/projects/{project_id}", json={"title": "Neu"})
    assert (answer.json["title"], answer.json["version"]) == ("Neu", 2)
    assert project_content(pupil.download(project_id).data) == "first"
    assert pupil.request("PUT", f"/api/projects/{project_id}?version=1", json={"title": "Alt"}).status_code == 409


def test_content_of_an_imported_project_becomes_a_saved_version(
    pupil: Device, services: Services, project_id: int
) -> None:
    """A row with the original's absolute path and no saved version is readable; a save over it keeps its content."""
    old = services.store.root / "projects" / f"{project_id}_ada.sb3"
    old.write_bytes(project_file("from the old installation"))
    stored = f"/app/app/../uploads/projects/{project_id}_ada.sb3"

    def as_imported(connection: Any) -> None:
        connection.execute(sa.delete(project_revisions))
        connection.execute(sa.update(projects).values(sb3_file_path=stored))

    services.database.write(as_imported)
    assert project_content(pupil.download(project_id).data) == "from the old installation"
    pupil.save(project_id, project_file("new"))
    assert [(row.version, row.file_path == stored) for row in revisions(services, project_id)] == [
        (1, True),
        (2, False),
    ]
    assert project_content(old.read_bytes()) == "from the old installation"


def test_metadata_and_download_are_for_owner_and_staff(
    pupil: Device, device: Callable[..., Device], project_id: int
) -> None:
    assert pupil.metadata(project_id).json["is_shared"] is False
    assert pupil.metadata(project_id).headers["ETag"] == '"1"'
    for staff in (device("frau.weber", "lehrer"), device("root", "admins")):
        assert staff.metadata(project_id).status_code == 200
        assert staff.download(project_id).status_code == 200
    other = device("berta")
    assert other.metadata(project_id).status_code == 403
    assert other.download(project_id).status_code == 403


def test_download_is_for_groups_that_share_it(services: Services, device: Callable[..., Device]) -> None:
    owner, classmate = device("ada", "klasse.5a"), device("berta", "klasse.5a")
    project_id = owner.create(project_file(1)).json["id"]

    def publish(connection: Any) -> None:
        group_id = connection.scalar(sa.select(groups.c.id))
        connection.execute(sa.insert(project_groups).values(project_id=project_id, group_id=group_id))

    services.database.write(publish)
    assert classmate.download(project_id).status_code == 403
    services.database.write(lambda connection: connection.execute(sa.update(projects).values(is_published=True)))
    assert classmate.download(project_id).status_code == 200
    assert classmate.metadata(project_id).status_code == 200
    shared = owner.get("/api/projects").json["projects"][0]["shared_with_groups"]
    assert [group["external_id"] for group in shared] == ["klasse.5a"]


def test_only_the_owner_saves_and_deletes(pupil: Device, device: Callable[..., Device], project_id: int) -> None:
    teacher = device("frau.weber", "lehrer")
    assert teacher.save(project_id, project_file(2)).status_code == 403
    assert teacher.request("DELETE", f"/api/projects/{project_id}").status_code == 403
    deleted = pupil.request("DELETE", f"/api/projects/{project_id}")
    assert (deleted.status_code, deleted.json["id"]) == (200, str(project_id))
    assert pupil.download(project_id).status_code == 404
    assert pupil.request("DELETE", f"/api/projects/{project_id}").status_code == 404
    assert pupil.save(project_id, project_file(2)).status_code == 404


def test_thumbnail_without_a_session_falls_back_to_the_default(pupil: Device, app: Any, services: Services) -> None:
    client = app.test_client()
    with_picture = pupil.create(project_file(1), thumbnail=PNG).json["id"]
    without = pupil.create(project_file(1)).json["id"]
    shown = client.get(f"/api/projects/{with_picture}/thumbnail")
    assert (shown.data, shown.mimetype) == (PNG, "image/png")
    assert client.get(f"/api/projects/{without}/thumbnail").status_code == 404
    (services.store.root / "thumbnails" / "default.png").write_bytes(PNG + b"default")
    assert client.get(f"/api/projects/{without}/thumbnail").data == PNG + b"default"
    pupil.save(with_picture, project_file(2), thumbnail=PNG + b"new")
    assert client.get(f"/api/projects/{with_picture}/thumbnail").data == PNG + b"new"
    assert client.get("/api/projects/4711/thumbnail").status_code == 404


def test_save_with_a_broken_thumbnail_succeeds(pupil: Device, app: Any) -> None:
    created = pupil.create(project_file(1), thumbnail=b"<svg onload='alert(1)'>")
    assert created.status_code == 200
    assert app.test_client().get(f"/api/projects/{created.json['id']}/thumbnail").status_code == 404


def test_missing_file_is_404(pupil: Device, services: Services, project_id: int) -> None:
    for path in stored_files(services):
        path.unlink()
    assert pupil.download(project_id).status_code == 404


def test_empty_file_is_refused(pupil: Device, project_id: int) -> None:
    """The body is written here, because Flask's test client leaves out a line break after an empty part."""
    head = b'--b\r\nContent-Disposition: form-data; name="project_file"; filename="a.sb3"\r\n\r\n'
    address, body = f"/api/projects/{project_id}", head + b"\r\n--b--\r\n"
    answer = pupil.request("PUT", address, data=body, content_type="multipart/form-data; boundary=b")
    assert answer.status_code == 400
    assert "not a Scratch project" in answer.json["error"]


@pytest.mark.parametrize(
    "content",
    [b"no zip at all", project_file("x" * 500)[:-30], b"PK\x03\x04 only the beginning", b"PK\x05\x06" + bytes(18)],
    ids=["text", "torn", "only a header", "empty archive"],
)
def test_content_that_is_no_project_is_refused(
    pupil: Device, services: Services, project_id: int, content: bytes
) -> None:
    for answer in (pupil.create(content), pupil.save(project_id, content)):
        assert answer.status_code == 400
        assert "not a Scratch project" in answer.json["error"]
    assert len(stored_files(services)) == 1


def test_over_16_mib_is_413(pupil: Device, services: Services) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="project_file"; filename="p.sb3"\r\n\r\n'
    body = head + bytes(16 * 1024 * 1024) + b"\r\n--x--\r\n"
    answer = pupil.request("POST", "/api/projects", data=body, content_type="multipart/form-data; boundary=x")
    assert (answer.status_code, answer.json) == (413, {"error": "The upload is larger than 16 MiB."})
    assert stored_files(services) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": b"--x\r\nrubbish", "content_type": "multipart/form-data; boundary=x"}, "malformed"),
        ({"data": b"rubbish", "content_type": "multipart/form-data"}, "malformed"),
        (
            {
                "data": b'--x\r\nContent-Disposition: form-data; name="project_file"; filename=""\r\n\r\n\r\n--x--\r\n',
                "content_type": "multipart/form-data; boundary=x",
            },
            "No file was chosen",
        ),
        ({"data": {"title": "x"}}, "project_file"),
        ({"data": b"x", "content_type": "text/plain"}, "project_file"),
        ({"data": b""}, "project_file"),
    ],
    ids=["no end", "no boundary", "no file name", "no file", "plain text", "nothing"],
)
def test_malformed_bodies_are_400(pupil: Device, project_id: int, options: dict[str, Any], message: str) -> None:
    path = f"/api/projects/{project_id}"
    for method, address in (("POST", "/api/projects"), ("PUT", path)):
        answer = pupil.request(method, address, **options)
        assert answer.status_code == 400
        assert message in answer.json["error"]


@pytest.mark.parametrize("body", [b"{}", b"[]", b"null", b'"x"', b"{", b'{"title": 5}', b'{"title": "a\\u0000b"}'])
def test_bad_json_is_400(pupil: Device, project_id: int, body: bytes) -> None:
    answer = pupil.request("PUT", f"/api/projects/{project_id}", data=body, content_type="application/json")
    assert answer.status_code == 400
    assert answer.json["error"]


def test_title_over_100_characters_is_400(pupil: Device) -> None:
    """The original's limit counts characters; the refusal is a message on both engines."""
    longest = "🐻" * TITLE_LENGTH
    assert pupil.create(project_file(1), title=longest).json["title"] == longest
    refused = pupil.create(project_file(1), title=longest + "x")
    assert refused.status_code == 400
    assert "longer than 100 characters" in refused.json["error"]


@pytest.mark.parametrize("title", ["a\0b", "\ud800"])
def test_title_that_cannot_be_stored_is_400(pupil: Device, project_id: int, title: str) -> None:
    assert pupil.request("PUT", f"/api/projects/{project_id}", json={"title": title}).status_code == 400


@pytest.mark.parametrize("version", ["x", "-1", "1.5", "99999999999", "١"])
def test_nonsense_versions_are_400(pupil: Device, project_id: int, version: str) -> None:
    assert pupil.save(project_id, project_file(2), version=version).status_code == 400


def test_two_different_versions_are_400(pupil: Device, project_id: int) -> None:
    assert pupil.save(project_id, project_file(2), version=1, headers={"If-Match": '"2"'}).status_code == 400


@pytest.mark.parametrize("unknown", ["4711", "abc", "99999999999999999999", "-1", "1.5", "%00", "..%2f..%2fetc"])
def test_unknown_ids_are_404(pupil: Device, unknown: str) -> None:
    for method, tail in (
        ("GET", "/metadata"),
        ("GET", "/download"),
        ("GET", "/thumbnail"),
        ("DELETE", ""),
        ("PUT", ""),
    ):
        answer = pupil.request(method, f"/api/projects/{unknown}{tail}")
        assert (method, tail, answer.status_code) == (method, tail, 404)
        assert answer.json["error"]


def test_deeply_nested_json_is_400(pupil: Device, project_id: int) -> None:
    body = '{"title": ' + "[" * 200_000 + "]" * 200_000 + "}"
    answer = pupil.request("PUT", f"/api/projects/{project_id}", data=body, content_type="application/json")
    assert answer.status_code == 400


def test_wrong_methods_are_405(pupil: Device, project_id: int) -> None:
    for method, path in (("DELETE", "/api/projects"), ("POST", f"/api/projects/{project_id}/metadata")):
        answer = pupil.request(method, path)
        assert (answer.status_code, bool(answer.json["error"])) == (405, True)


def test_download_with_accel_redirect_has_no_body(make_app: Callable[..., Any], log_in: Callable[..., str]) -> None:
    """The answer has no body and names the file below the internal address by X-Accel-Redirect."""
    app = make_app(accel_redirect="/_uploads/")
    device = Device(app.test_client(), log_in("ada"))
    project_id = device.create(project_file(1), title="Katze").json["id"]
    answer = device.download(project_id)
    assert (answer.status_code, answer.data) == (200, b"")
    root = app.extensions["scratch4school"].store.root
    assert (root / answer.headers["X-Accel-Redirect"].removeprefix("/_uploads/")).is_file()
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="Katze.sb3"')


def test_every_route_needs_a_session(app: Any) -> None:
    client = app.test_client()
    for method, path in (
        ("GET", "/api/user"),
        ("GET", "/api/groups"),
        ("POST", "/api/projects"),
        ("GET", "/api/projects"),
        ("GET", "/api/projects/recent"),
        ("PUT", "/api/projects/1"),
        ("GET", "/api/projects/1/metadata"),
        ("GET", "/api/projects/1/download"),
        ("DELETE", "/api/projects/1"),
        ("POST", "/api/assets/"),
    ):
        answer = client.open(path, method=method)
        assert (method, path, answer.status_code) == (method, path, 401)
        assert answer.json == {"error": "authentication required"}


def test_id_of_a_deleted_project_is_not_used_again(
    pupil: Device, device: Callable[..., Device], project_id: int
) -> None:
    """A tab that still shows the deleted project must not save over another user's project."""
    assert pupil.request("DELETE", f"/api/projects/{project_id}").status_code == 200
    assert device("berta").create(project_file("of berta")).json["id"] > project_id
    assert pupil.save(project_id, project_file("late"), version=1).status_code == 404


@pytest.mark.parametrize("engine_name", ["sqlite"])
@pytest.mark.parametrize(
    "ask",
    [sharing.shared_with_user, lambda connection, user_id: owned_by(connection, user_id)],
    ids=["shared", "owned"],
)
def test_list_reads_only_rows_of_the_user(services: Services, ask: Callable[..., Any]) -> None:
    """SQLite uses an index; PostgreSQL's plans at a million projects are in benchmarks/results."""

    def plan(connection: Any) -> list[str]:
        asked: list[tuple[str, Any]] = []
        sa.event.listen(connection, "before_cursor_execute", lambda *seen: asked.append((seen[2], seen[3])))
        ask(connection, "ada")
        statement, values = asked[0]
        return [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]

    steps = services.database.read(plan)
    assert any("SEARCH projects" in step for step in steps)
    assert not any("SCAN" in step for step in steps)
