"""The school of all contract tests: each kind of person and each kind of object once."""

from collections.abc import Callable
from typing import Any

import pytest

from contract.school import ITEM, School
from helpers import PNG, Device, project_file


@pytest.fixture
def school(app: Any, device: Callable[..., Device], log_in: Callable[..., str]) -> School:
    """Ada has two projects, one of them shared with her groups and saved twice, and a hat in her backpack."""
    owner = device("ada", "klasse.5a", "chor")
    devices = {
        "owner": owner,
        "classmate": device("berta", "klasse.5a"),
        "other": device("carl", "klasse.5b"),
        "teacher": device("frau.weber", "lehrer"),
        "admin": device("root", "admins"),
        "anonymous": Device(app.test_client(), ""),
        "unknown": Device(app.test_client(), "00000000-0000-4000-8000-000000000000"),
        "expired": Device(app.test_client(), log_in("ada", "klasse.5a", "chor", expires_in=-1)),
    }
    alone = owner.create(project_file("alone"), title="Maus").json["id"]
    project = owner.create(project_file("first"), title="Katze", thumbnail=PNG).json["id"]
    owner.save(project, project_file("second"))
    groups = {group["external_id"]: group["id"] for group in owner.get("/api/groups").json["groups"]}
    owner.request("POST", f"/api/projects/{project}/share", json={"group_ids": list(groups.values())})
    item = owner.request("POST", "/api/backpack", json=ITEM).json
    names = {
        "project": project,
        "project_id": project,
        "alone": alone,
        "version": 1,
        "asset": item["body"].partition(".")[0],
        "asset_name": item["body"],
        "item_id": item["id"],
        "student_id": "ada",
        "class": groups["klasse.5a"],
        "choir": groups["chor"],
    }
    return School(devices, {name: str(value) for name, value in names.items()})
