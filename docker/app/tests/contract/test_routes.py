"""The original's HTTP contract, route by route: which user gets which status, fields and order.

Two tables: ASKED has the status of each request, ORIGINAL the fields of the original's answers. Our answers may have
more fields. The OpenAPI description says exactly which, and the client compares every answer with it.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from contract.school import BASE64, ITEM, Ask, School
from description import operations
from helpers import PNG, Device, project_content, project_file
from scratch4school.database.tables import projects, users
from scratch4school.web.services import Services

PROJECT = {"project_file": project_file("new")}
UNKNOWN = {"project_id": "4711"}
NO_NUMBER = {"project_id": "abc"}
ALONE = {"project_id": "{alone}"}
TOO_LARGE = {"data": bytes(16 * 1024 * 1024 + 1), "content_type": "application/json"}
TOO_LARGE_FORM = {
    "data": b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
    + bytes(16 * 1024 * 1024)
    + b"\r\n--x--\r\n",
    "content_type": "multipart/form-data; boundary=x",
}


def body(value: Any) -> dict[str, Any]:
    return {"json": value}


# The readers of a project: its owner, a classmate who sees it by sharing, a pupil of another class, teacher, admin.
ASKED: dict[str, list[Ask]] = {
    "GET /api/status": [Ask("anonymous", 200), Ask("owner", 200)],
    "GET /healthz": [Ask("anonymous", 200)],
    "GET /readyz": [Ask("anonymous", 200)],
    "GET /metrics": [
        Ask("anonymous", 200),
        Ask("anonymous", 404, options={"headers": {"X-Forwarded-For": "203.0.113.7"}}),
    ],
    "GET /login": [Ask("anonymous", 302)],
    "GET /authorize": [Ask("anonymous", 302), Ask("anonymous", 302, query="?error=a%0Ab&state=x")],
    "GET /session": [
        Ask("owner", 200),
        Ask("anonymous", 400),
        Ask("unknown", 401),
        Ask("expired", 401),
    ],
    "GET /logout": [Ask("unknown", 200), Ask("anonymous", 400), Ask("owner", 200)],
    "POST /logout": [Ask("unknown", 200), Ask("anonymous", 400), Ask("owner", 200)],
    "GET /api/user": [Ask("owner", 200), Ask("anonymous", 401), Ask("unknown", 401), Ask("expired", 401)],
    "GET /api/groups": [Ask("owner", 200), Ask("anonymous", 401)],
    "GET /api/projects/can-save": [Ask("owner", 200), Ask("anonymous", 200), Ask("unknown", 200), Ask("expired", 200)],
    "GET /api/projects": [Ask("owner", 200), Ask("anonymous", 401)],
    "POST /api/projects": [
        Ask("anonymous", 401, files=PROJECT),
        Ask("owner", 200, files=PROJECT),
        Ask("owner", 200, query="?title=Hund&original_id=1&is_copy=1&is_remix=1", files=PROJECT),
        Ask("owner", 400, query=f"?title={'x' * 101}", files=PROJECT),
        Ask("owner", 400, files={"project_file": b"no zip"}),
        Ask("owner", 400, files={"thumbnail": PNG}),
        Ask("owner", 400, options=body({"title": "Hund"})),
        Ask("owner", 400),
        Ask("owner", 413, options=TOO_LARGE_FORM),
    ],
    "PUT /api/projects": [
        Ask("anonymous", 401, files=PROJECT),
        Ask("owner", 400, files=PROJECT),
        Ask("owner", 400, query="?id=x", files=PROJECT),
        Ask("classmate", 403, query="?id={project}", files=PROJECT),
        Ask("owner", 404, query="?id=4711", files=PROJECT),
        Ask("owner", 409, query="?id={project}&version=1", files=PROJECT),
        Ask("owner", 413, query="?id={project}", options=TOO_LARGE_FORM),
        Ask("owner", 200, query="?id={project}&version=2", files=PROJECT),
    ],
    "PUT /api/projects/{project_id}": [
        Ask("anonymous", 401, files=PROJECT),
        Ask("classmate", 403, files=PROJECT),
        Ask("teacher", 403, files=PROJECT),
        Ask("owner", 404, at=UNKNOWN, files=PROJECT),
        Ask("owner", 404, at=NO_NUMBER, files=PROJECT),
        Ask("owner", 400, options=body({})),
        Ask("owner", 400, options=body([])),
        Ask("owner", 400),
        Ask("owner", 400, query="?version=x", files=PROJECT),
        Ask("owner", 400, query=f"?title={'x' * 101}", files=PROJECT),
        Ask("owner", 409, query="?version=1", files=PROJECT),
        Ask("owner", 413, options=TOO_LARGE_FORM),
        Ask("owner", 200, query="?version=2&title=Hund", files={**PROJECT, "thumbnail": PNG}),
        Ask("owner", 200, options=body({"title": "Maus"})),
        Ask("owner", 200, options=body({"anything": 1})),
    ],
    "DELETE /api/projects/{project_id}": [
        Ask("anonymous", 401),
        Ask("classmate", 403),
        Ask("teacher", 403),
        Ask("owner", 404, at=UNKNOWN),
        Ask("owner", 404, at=NO_NUMBER),
        Ask("owner", 200),
        Ask("owner", 404),
    ],
    "GET /api/projects/recent": [Ask("owner", 200), Ask("classmate", 404), Ask("anonymous", 401)],
    "GET /api/projects/{project_id}/metadata": [
        Ask("owner", 200),
        Ask("classmate", 200),
        Ask("teacher", 200),
        Ask("admin", 200),
        Ask("other", 403),
        Ask("classmate", 403, at=ALONE),
        Ask("owner", 404, at=UNKNOWN),
        Ask("owner", 404, at=NO_NUMBER),
        Ask("anonymous", 401),
    ],
    "GET /api/projects/{project_id}/download": [
        Ask("owner", 200),
        Ask("classmate", 200),
        Ask("teacher", 200),
        Ask("admin", 200),
        Ask("other", 403),
        Ask("classmate", 403, at=ALONE),
        Ask("owner", 404, at=UNKNOWN),
        Ask("anonymous", 401),
    ],
    "GET /api/projects/{project_id}/thumbnail": [
        Ask("anonymous", 200),
        Ask("anonymous", 404, at=ALONE),
        Ask("anonymous", 404, at=UNKNOWN),
    ],
    "POST /api/projects/{project_id}/thumbnail": [
        Ask("owner", 200, options={"data": PNG, "content_type": "image/png"}),
        Ask("owner", 200, files={"thumbnail": PNG}),
        Ask("owner", 200, files={"file": PNG}),
        Ask("owner", 400, files={"thumbnail": b"GIF89a"}),
        Ask("owner", 400),
        Ask("classmate", 403, files={"thumbnail": PNG}),
        Ask("teacher", 403, files={"thumbnail": PNG}),
        Ask("owner", 404, at=UNKNOWN, files={"thumbnail": PNG}),
        Ask("owner", 413, options=TOO_LARGE_FORM),
        Ask("anonymous", 401, files={"thumbnail": PNG}),
    ],
    "GET /api/projects/{project_id}/revisions": [
        Ask("owner", 200),
        Ask("teacher", 200),
        Ask("admin", 200),
        Ask("classmate", 403),
        Ask("owner", 404, at=UNKNOWN),
        Ask("anonymous", 401),
    ],
    "GET /api/projects/{project_id}/revisions/{version}/download": [
        Ask("owner", 200),
        Ask("teacher", 200),
        Ask("classmate", 403),
        Ask("owner", 404, at={"version": "9"}),
        Ask("owner", 404, at=UNKNOWN),
        Ask("anonymous", 401),
    ],
    "POST /api/projects/{project_id}/revisions/{version}/restore": [
        Ask("anonymous", 401),
        Ask("classmate", 403),
        Ask("owner", 404, at={"version": "9"}),
        Ask("owner", 404, at=UNKNOWN),
        Ask("owner", 400, query="?version=x"),
        Ask("owner", 409, query="?version=1"),
        Ask("owner", 200, query="?version=2"),
        Ask("teacher", 200),
    ],
    "POST /api/projects/{project_id}/share": [
        Ask("owner", 200, options=body({"group_ids": []})),
        Ask("owner", 400, options=body({})),
        Ask("owner", 400, options=body({"group_ids": "1"})),
        Ask("owner", 400, options=body({"group_ids": [True]})),
        Ask("owner", 400, options=body({"group_ids": ["1"]})),
        Ask("owner", 400, options=body({"group_ids": [1] * 1001})),
        Ask("owner", 400),
        Ask("classmate", 403, options=body({"group_ids": []})),
        Ask("teacher", 403, options=body({"group_ids": []})),
        Ask("owner", 404, at=UNKNOWN, options=body({"group_ids": []})),
        Ask("owner", 404, at=NO_NUMBER, options=body({"group_ids": []})),
        Ask("owner", 413, options=TOO_LARGE),
        Ask("anonymous", 401, options=body({"group_ids": []})),
    ],
    "GET /api/projects/{project_id}/sharing": [
        Ask("owner", 200),
        Ask("teacher", 200),
        Ask("admin", 200),
        Ask("classmate", 403),
        Ask("owner", 404, at=UNKNOWN),
        Ask("anonymous", 401),
    ],
    "GET /api/projects/shared": [Ask("classmate", 200), Ask("anonymous", 401)],
    "POST /api/projects/{project_id}/copy": [
        Ask("owner", 201),
        Ask("classmate", 201),
        Ask("classmate", 403, at=ALONE),
        Ask("other", 403),
        Ask("teacher", 403),
        Ask("owner", 404, at=UNKNOWN),
        Ask("owner", 404, at=NO_NUMBER),
        Ask("anonymous", 401),
    ],
    "POST /api/assets/": [
        Ask("owner", 200, files={"asset": b"bytes"}),
        Ask("owner", 400, files={"other": b"bytes"}),
        Ask("owner", 400),
        Ask("owner", 413, options=TOO_LARGE_FORM),
        Ask("anonymous", 401, files={"asset": b"bytes"}),
    ],
    "GET /api/assets/{asset_name}": [
        Ask("anonymous", 200),
        Ask("anonymous", 200, at={"asset_name": "{asset}.png"}),
        Ask("anonymous", 404, at={"asset_name": "0" * 32}),
        Ask("anonymous", 404, at={"asset_name": "..%2f..%2fetc%2fpasswd"}),
    ],
    "GET /api/backpack": [
        Ask("owner", 200),
        Ask("classmate", 200),
        Ask("owner", 200, query="?limit=1000&offset=5"),
        Ask("owner", 400, query="?limit=0"),
        Ask("owner", 400, query="?offset=-1"),
        Ask("owner", 400, query="?limit=x"),
        Ask("anonymous", 401),
    ],
    "POST /api/backpack": [
        Ask("owner", 200, options=body(ITEM)),
        Ask("owner", 200, options=body({**ITEM, "body": f"data:image/png;base64,{BASE64}"})),
        *[
            Ask("owner", 400, options=body({**ITEM, name: value}))
            for name, value in [
                ("body", "no base64!"),
                ("thumbnail", "no base64!"),
                ("body", 5),
                ("type", "../../x"),
                ("type", "t" * 21),
                ("mime", "../../x"),
                ("mime", f"{'m' * 60}/png"),
                ("name", "n" * 256),
                ("name", "a\0b"),
                ("name", None),
            ]
        ],
        *[Ask("owner", 400, options=body({key: ITEM[key] for key in ITEM if key != missing})) for missing in ITEM],
        Ask("owner", 400, options=body({})),
        Ask("owner", 400),
        Ask("owner", 413, options=TOO_LARGE),
        Ask("anonymous", 401, options=body(ITEM)),
    ],
    "DELETE /api/backpack/{item_id}": [
        Ask("anonymous", 401),
        Ask("classmate", 404),
        Ask("owner", 404, at={"item_id": "4711"}),
        Ask("owner", 404, at={"item_id": "a%00b"}),
        Ask("owner", 200),
        Ask("owner", 404),
    ],
    "GET /api/teacher/students": [
        Ask("teacher", 200),
        Ask("admin", 200),
        Ask("owner", 403),
        Ask("anonymous", 401),
    ],
    "GET /api/teacher/students/{student_id}/projects": [
        Ask("teacher", 200),
        Ask("admin", 200),
        Ask("teacher", 200, at={"student_id": "frau.weber"}),
        Ask("teacher", 404, at={"student_id": "missing/with/slashes"}),
        Ask("teacher", 404, at={"student_id": "a%00b"}),
        Ask("owner", 403),
        Ask("anonymous", 401),
    ],
}

MOMENT = datetime
GROUP = {"id": int, "name": str, "external_id": str}
WHOLE_GROUP = {**GROUP, "description": None}
SAVED = {"id": int, "title": str, "description": str, "created_at": MOMENT, "updated_at": MOMENT, "success": True}
LISTED = {
    "id": int,
    "title": str,
    "description": str,
    "created_at": MOMENT,
    "updated_at": MOMENT,
    "thumbnail_url": str,
    "is_published": bool,
}
BACKPACK_ITEM = {
    "id": str,
    "type": "costume",
    "name": "Hut",
    "mime": "image/png",
    "body": str,
    "thumbnail": str,
    "created_at": MOMENT,
    "updated_at": MOMENT,
    "thumbnailUrl": str,
    "bodyUrl": str,
}

# A type means a value of exactly this type, a list of one shape a list that is not empty, anything else itself.
ORIGINAL: dict[str, Any] = {
    "GET /api/status": {"status": "ok", "timestamp": MOMENT},
    "GET /session": {
        "session": {"id": str, "expires_at": MOMENT},
        "user": {
            "id": "ada",
            "username": "ada",
            "email": None,
            "role": "student",
            "groups": [WHOLE_GROUP],
            "avatar_url": None,
        },
        "authenticated": True,
    },
    "GET /logout": {"success": True, "message": str},
    "POST /logout": {"success": True, "message": str},
    "GET /api/user": {
        "user": {"session_id": str, "user_id": "ada", "username": "ada", "email": None, "role": "student"}
    },
    "GET /api/groups": {"groups": [WHOLE_GROUP]},
    "GET /api/projects/can-save": {"canSave": True, "userId": "ada", "username": "ada"},
    "POST /api/projects": SAVED,
    "PUT /api/projects/{project_id}": SAVED,
    "GET /api/projects": {"projects": [{**LISTED, "shared_with_groups": list}], "count": int, "success": True},
    "GET /api/projects/recent": {"project": SAVED},
    "GET /api/projects/{project_id}/metadata": {
        **SAVED,
        "is_shared": True,
        "is_published": True,
        "shared_with_groups": [GROUP],
    },
    "DELETE /api/projects/{project_id}": {"success": True, "message": str, "id": str},
    "POST /api/projects/{project_id}/share": {"id": int, "title": "Katze", "shared_with_groups": []},
    "GET /api/projects/shared": {
        "projects": [{**LISTED, "shared_with_groups": [GROUP], "owner": {"id": "ada", "username": "ada"}}],
        "count": 1,
        "success": True,
    },
    "POST /api/projects/{project_id}/copy": {**SAVED, "title": "Copy of Katze", "thumbnail_url": str},
    "POST /api/assets/": {"status": "ok", "assetId": str},
    "GET /api/backpack": {"items": [BACKPACK_ITEM], "offset": 0, "limit": 20, "total": 1, "hasMore": False},
    "POST /api/backpack": BACKPACK_ITEM,
    "DELETE /api/backpack/{item_id}": {"status": "success", "message": str, "id": str},
    "GET /api/teacher/students": {"students": [{"id": str, "username": str, "project_count": int}], "count": 3},
    "GET /api/teacher/students/{student_id}/projects": {
        "student": {"id": "ada", "username": "ada"},
        "projects": [{**{name: LISTED[name] for name in LISTED if name not in ("is_published", "thumbnail_url")}}],
        "count": 2,
    },
}


def misfits(answer: Any, shape: Any, where: str = "answer") -> list[str]:
    """The places where `answer` does not match `shape`."""
    if shape is MOMENT:
        return [] if isinstance(answer, str) and datetime.fromisoformat(answer).tzinfo is None else [where]
    if isinstance(shape, type):
        return [] if type(answer) is shape else [f"{where} is {answer!r}"]
    if isinstance(shape, dict) and isinstance(answer, dict):
        missing = [f"{where}.{name} is missing" for name in shape if name not in answer]
        present = [name for name in shape if name in answer]
        return missing + [text for name in present for text in misfits(answer[name], shape[name], f"{where}.{name}")]
    if isinstance(shape, list) and shape and isinstance(answer, list) and answer:
        return [text for index, each in enumerate(answer) for text in misfits(each, shape[0], f"{where}[{index}]")]
    return [] if answer == shape else [f"{where} is {answer!r}"]


def projects_of(answer: Any) -> list[str]:
    return [entry["title"] for entry in answer.json["projects"]]


def test_table_has_every_described_status() -> None:
    """The table and the description name the same routes and statuses; 503 needs a database that is away."""
    described = {
        f"{method} {path}": {int(status) for status in operation["responses"]} - {503}
        for method, path, operation in operations()
    }
    assert {route: {asked.status for asked in table} for route, table in ASKED.items()} == described


@pytest.mark.parametrize("route", ASKED)
def test_request_gets_its_status(school: School, route: str) -> None:
    """Each user gets the expected status, and an answer as described."""
    got = [f"{asked}: {school.ask(route, asked).status_code}" for asked in ASKED[route]]
    assert got == [f"{asked}: {asked.status}" for asked in ASKED[route]]


@pytest.mark.parametrize("route", ORIGINAL)
def test_answer_has_the_fields_of_the_original(school: School, route: str) -> None:
    asked = next(asked for asked in ASKED[route] if asked.status in (200, 201))
    if "logout" in route:
        asked = Ask("owner", 200)
    assert misfits(school.ask(route, asked).json, ORIGINAL[route]) == []


GUARDED = [route for route, table in ASKED.items() if any(asked == 401 for asked in [each.status for each in table])]


@pytest.mark.parametrize("route", [route for route in GUARDED if route.startswith("GET")])
def test_session_id_is_read_from_three_places(school: School, route: str) -> None:
    """From the query, then X-Session-ID, then Authorization; the first that is given counts, valid or not."""
    valid, wrong = school.devices["teacher"].session_id, "no-session"

    def status(query: str | None, header: str | None, bearer: str | None) -> bool:
        headers = {
            "Authorization": f"Bearer {bearer}" if bearer else "",
            **({"X-Session-ID": header} if header else {}),
        }
        asked = Ask("anonymous", 0, f"?session_id={query}" if query else "", options={"headers": headers})
        return bool(school.ask(route, asked).status_code != 401)

    assert status(valid, wrong, wrong)
    assert status(None, valid, wrong)
    assert status(None, None, valid)
    assert not status(wrong, valid, valid)
    assert not status(None, wrong, valid)


def test_missing_unknown_and_expired_sessions_differ(school: School) -> None:
    """The front end distinguishes three cases: no session id, an unknown one, and an expired session."""
    answers = {who: school.ask("GET /api/user", Ask(who, 401)).json for who in ("anonymous", "unknown", "expired")}
    assert answers["anonymous"] == {"error": "authentication required"}
    assert answers["unknown"] == {"error": "invalid session"}
    assert set(answers["expired"]) == {"error", "renewal_required"}
    assert answers["expired"]["renewal_required"] is True


def test_lists_begin_with_the_last_saved(school: School) -> None:
    owner, classmate = school.devices["owner"], school.devices["classmate"]
    assert projects_of(owner.get("/api/projects")) == ["Katze", "Maus"]
    school.ask(
        "POST /api/projects/{project_id}/share",
        Ask("owner", 200, at=ALONE, options=body({"group_ids": [int(school.names["class"])]})),
    )
    owner.save(int(school.names["alone"]), project_file("again"))
    for answer in (
        owner.get("/api/projects"),
        classmate.get("/api/projects/shared"),
        school.devices["teacher"].get("/api/teacher/students/ada/projects"),
    ):
        assert projects_of(answer) == ["Maus", "Katze"]
    assert owner.get("/api/projects/recent").json["project"]["title"] == "Maus"
    for name in ("Schal", "Schuh"):
        owner.request("POST", "/api/backpack", json={**ITEM, "name": name})
    page = owner.get("/api/backpack?limit=2").json
    assert ([item["name"] for item in page["items"]], page["hasMore"]) == (["Schuh", "Schal"], True)
    rest = owner.get("/api/backpack?limit=2&offset=2").json
    assert ([item["name"] for item in rest["items"]], rest["hasMore"], rest["total"]) == (["Hut"], False, 3)


def test_members_see_only_the_groups_they_are_in(school: School) -> None:
    """A project shared with class and choir shows a classmate the class; owner and staff see both."""

    def groups_in(fields: dict[str, Any]) -> list[str]:
        return [group["external_id"] for group in fields["shared_with_groups"]]

    metadata = f"/api/projects/{school.names['project']}/metadata"
    seen = {who: groups_in(school.devices[who].get(metadata).json) for who in ("owner", "classmate", "teacher")}
    assert seen == {"owner": ["chor", "klasse.5a"], "classmate": ["klasse.5a"], "teacher": ["chor", "klasse.5a"]}
    listed = school.devices["classmate"].get("/api/projects/shared").json["projects"][0]
    assert groups_in(listed) == ["klasse.5a"]
    assert projects_of(school.devices["other"].get("/api/projects/shared")) == []
    assert projects_of(school.devices["owner"].get("/api/projects/shared")) == []


def test_sharing_replaces_and_drops_foreign_groups(school: School) -> None:
    """A project is published if any group is left after those that the owner is not in are dropped."""
    foreign = school.devices["other"].get("/api/groups").json["groups"][0]["id"]
    project, choir = school.names["project"], int(school.names["choir"])

    def share(*ids: int) -> dict[str, Any]:
        shared = school.devices["owner"].request("POST", f"/api/projects/{project}/share", json={"group_ids": ids}).json
        shown = school.devices["owner"].get(f"/api/projects/{project}/sharing").json
        assert shown["shared_with_groups"] == shared["shared_with_groups"]
        metadata = school.devices["owner"].metadata(int(project)).json
        assert (
            metadata["is_shared"]
            == metadata["is_published"]
            == shown["is_published"]
            == bool(shared["shared_with_groups"])
        )
        return {group["id"] for group in shared["shared_with_groups"]}

    assert share(choir, choir, foreign, 0, -1, 10**12) == {choir}
    assert school.devices["classmate"].download(int(project)).status_code == 403
    assert share(foreign) == set()
    assert share() == set()


def test_copy_belongs_to_its_owner_and_stays_unchanged(school: School) -> None:
    project, classmate = int(school.names["project"]), school.devices["classmate"]
    copy = classmate.request("POST", f"/api/projects/{project}/copy").json
    assert (copy["version"], copy["id"] != project) == (1, True)
    school.devices["owner"].save(project, project_file("third"), thumbnail=PNG + b"third")
    school.devices["owner"].request("DELETE", f"/api/projects/{project}")
    assert project_content(classmate.download(copy["id"]).data) == "second"
    assert classmate.get(copy["thumbnail_url"].removeprefix("/backend")).data == PNG
    assert classmate.metadata(copy["id"]).json["is_shared"] is False
    assert classmate.save(copy["id"], project_file("mine"), version=1).status_code == 200


def test_title_of_a_copy_is_cut_and_missing_file_is_404(school: School, services: Services) -> None:
    owner, alone = school.devices["owner"], int(school.names["alone"])
    owner.request("PUT", f"/api/projects/{alone}", json={"title": "x" * 100})
    assert owner.request("POST", f"/api/projects/{alone}/copy").json["title"] == "Copy of " + "x" * 92
    services.database.write(
        lambda connection: connection.execute(
            sa.update(projects).where(projects.c.id == alone).values(sb3_file_path="projects/gone.sb3")
        )
    )
    assert owner.request("POST", f"/api/projects/{alone}/copy").status_code == 404


def test_conflict_has_what_the_client_needs(school: School) -> None:
    owner, project = school.devices["owner"], int(school.names["project"])
    refused = owner.save(project, project_file("stale"), version=1).json
    newest = owner.get(refused["revisions_url"].removeprefix("/backend")).json["revisions"][0]
    assert (refused["version"], refused["based_on"]) == (2, 1)
    assert {name: refused[name] for name in ("size", "sha256")} == {name: newest[name] for name in ("size", "sha256")}
    assert refused["updated_at"] == owner.metadata(project).json["updated_at"]
    assert project_content(owner.download(project).data) == "second"


def test_conflict_after_a_lost_answer_shows_the_own_save(school: School) -> None:
    """A save that is sent again conflicts with itself; the answer has the hash of its own content."""
    owner, project = school.devices["owner"], int(school.names["project"])
    content = project_file("third")
    first, again = (owner.save(project, content, version=2) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 409)
    assert (again.json["version"], again.json["sha256"]) == (3, hashlib.sha256(content).hexdigest())
    stale = owner.save(project, project_file("other"), version=2)
    assert stale.json["sha256"] == again.json["sha256"]


def test_put_without_a_number_saves_over_the_project_of_the_query(school: School) -> None:
    owner, project = school.devices["owner"], int(school.names["project"])
    saved = school.ask("PUT /api/projects", Ask("owner", 200, query="?id={project}&title=Hund", files=PROJECT)).json
    assert (saved["id"], saved["title"], saved["version"]) == (project, "Hund", 3)
    assert project_content(owner.download(project).data) == "new"


def test_new_thumbnail_is_no_save(school: School, app: Any) -> None:
    owner, project = school.devices["owner"], int(school.names["project"])
    before = owner.metadata(project).json
    posted = owner.request("POST", f"/api/projects/{project}/thumbnail", data=PNG + b"2", content_type="image/png").json
    assert posted == {"success": True, "id": project, "thumbnail_url": f"/backend/api/projects/{project}/thumbnail"}
    assert app.test_client().get(f"/api/projects/{project}/thumbnail").data == PNG + b"2"
    assert owner.metadata(project).json["version"] == before["version"]


@pytest.mark.parametrize(
    ("kind", "mime", "stored_mime", "suffix", "url_suffix", "served"),
    [
        ("costume", "image/png", "image/png", ".png", ".png", "image/png"),
        ("costume", "image/svg+xml", "image/svg+xml", ".svg", ".svg+xml", "image/svg+xml"),
        ("costume", "image/jpeg", "image/jpeg", ".jpeg", ".jpeg", "image/jpeg"),
        ("sound", "audio/x-wav", "audio/wav", ".wav", ".wav", "audio/wav"),
        ("sound", "audio/mp3", "audio/mp3", ".mp3", ".mp3", "audio/mpeg"),
        ("sprite", "application/zip", "application/zip", "", ".zip", "application/zip"),
        ("script", "application/json", "application/json", "", ".json", "application/json"),
    ],
)
def test_backpack_item_is_returned_unchanged(
    school: School, app: Any, kind: str, mime: str, stored_mime: str, suffix: str, url_suffix: str, served: str
) -> None:
    """The editor fetches body and thumbnail from the item's addresses, without a session."""
    content = json.dumps({"kind": kind}).encode()
    sent = {"type": kind, "mime": mime, "name": "Ding", "body": base64.b64encode(content).decode(), "thumbnail": BASE64}
    item = school.devices["classmate"].request("POST", "/api/backpack", json=sent).json
    md5 = item["body"].partition(".")[0]
    assert (item["mime"], item["body"], item["bodyUrl"]) == (
        stored_mime,
        f"{md5}{suffix}",
        f"/backend/api/assets/{md5}{url_suffix}",
    )
    fetched = app.test_client().get(item["bodyUrl"].removeprefix("/backend"))
    assert (fetched.data, fetched.mimetype) == (content, served)
    assert app.test_client().get(item["thumbnailUrl"].removeprefix("/backend")).data == b"content"
    assert school.devices["classmate"].get("/api/backpack").json["items"] == [item]


def test_teachers_see_pupils_by_name(school: School, services: Services) -> None:
    """A user without a role counts as a pupil; teachers and admins are not in the list."""
    services.database.write(
        lambda connection: connection.execute(sa.update(users).where(users.c.id == "carl").values(role=None))
    )
    for who in ("teacher", "admin"):
        listed = school.devices[who].get("/api/teacher/students").json["students"]
        assert [(each["id"], each["project_count"]) for each in listed] == [("ada", 2), ("berta", 0), ("carl", 0)]


def test_thumbnail_addresses_of_the_teacher_view_are_null_without_a_picture(school: School) -> None:
    listed = school.devices["teacher"].get("/api/teacher/students/ada/projects").json["projects"]
    assert [entry["thumbnail_url"] for entry in listed] == [
        f"/backend/api/projects/{school.names['project']}/thumbnail",
        None,
    ]


@pytest.mark.parametrize("user_id", ["klasse/5a/ada", "ada lovelace", "ä+&?#%", "..", "projects"])
def test_user_id_may_contain_any_character(school: School, device: Callable[..., Device], user_id: str) -> None:
    device(user_id).create(project_file(1), title="Hund")
    answer = school.devices["teacher"].get(f"/api/teacher/students/{quote(user_id, safe='/')}/projects")
    assert (answer.status_code, projects_of(answer)) == (200, ["Hund"])


def test_answer_has_no_cors_headers(school: School) -> None:
    """Front end and API have the same origin, so no client needs a CORS header."""
    asked = Ask("owner", 200, options={"headers": {"Origin": "https://evil.test"}})
    for route in ("GET /api/user", "GET /api/projects", "POST /api/backpack"):
        assert not [name for name, _ in school.ask(route, asked).headers if name.startswith("Access-Control-")]
