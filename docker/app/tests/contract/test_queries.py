"""The number of statements of each request, so that it does not grow unnoticed: a hundred pupils pay for each one.

The tests count reads outside transactions, transactions, and statements inside them, without BEGIN and COMMIT.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from contract.school import ITEM, Ask, School
from helpers import PNG, project_file
from scratch4school.database.database import Database
from scratch4school.web.services import Services

PROJECT = {"project_file": project_file("new")}


@dataclass
class Cost:
    """Reads outside transactions, transactions, statements inside them."""

    reads: int = 0
    transactions: int = 0
    writes: int = 0

    def as_tuple(self) -> tuple[int, int, int]:
        return self.reads, self.transactions, self.writes


@contextmanager
def counted(database: Database) -> Iterator[Cost]:
    """Count the statements on the engine of `database`."""
    cost = Cost()

    def executed(connection: Any, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith(("BEGIN", "COMMIT")):
            return
        if connection.get_execution_options().get("without_begin"):
            cost.reads += 1
        else:
            cost.writes += 1

    def committed(_connection: object) -> None:
        cost.transactions += 1

    sa.event.listen(database.engine, "before_cursor_execute", executed)
    sa.event.listen(database.engine, "commit", committed)
    try:
        yield cost
    finally:
        sa.event.remove(database.engine, "before_cursor_execute", executed)
        sa.event.remove(database.engine, "commit", committed)


# Each request with its reads, transactions and statements in transactions. One read is the session's. The requests run
# in this order in one school, so those that delete come last.
COSTS: list[tuple[str, Ask, tuple[int, int, int]]] = [
    ("GET /api/status", Ask("owner", 200), (0, 0, 0)),
    ("GET /session", Ask("owner", 200), (3, 0, 0)),
    ("GET /api/user", Ask("owner", 200), (1, 0, 0)),
    ("GET /api/groups", Ask("owner", 200), (2, 0, 0)),
    ("GET /api/projects/can-save", Ask("owner", 200), (1, 0, 0)),
    ("GET /api/projects", Ask("owner", 200), (3, 0, 0)),
    ("GET /api/projects/recent", Ask("owner", 200), (2, 0, 0)),
    ("GET /api/projects/shared", Ask("classmate", 200), (3, 0, 0)),
    ("GET /api/projects/{project_id}/metadata", Ask("owner", 200), (3, 0, 0)),
    ("GET /api/projects/{project_id}/metadata", Ask("classmate", 200), (4, 0, 0)),
    ("GET /api/projects/{project_id}/download", Ask("owner", 200), (2, 0, 0)),
    ("GET /api/projects/{project_id}/download", Ask("classmate", 200), (3, 0, 0)),
    ("GET /api/projects/{project_id}/thumbnail", Ask("anonymous", 200), (1, 0, 0)),
    ("GET /api/projects/{project_id}/sharing", Ask("owner", 200), (3, 0, 0)),
    ("GET /api/projects/{project_id}/revisions", Ask("owner", 200), (3, 0, 0)),
    ("GET /api/projects/{project_id}/revisions/{version}/download", Ask("owner", 200), (3, 0, 0)),
    ("GET /api/assets/{asset_name}", Ask("anonymous", 200), (1, 0, 0)),
    ("GET /api/backpack", Ask("owner", 200), (3, 0, 0)),
    ("GET /api/teacher/students", Ask("teacher", 200), (2, 0, 0)),
    ("GET /api/teacher/students/{student_id}/projects", Ask("teacher", 200), (3, 0, 0)),
    ("POST /api/projects", Ask("owner", 200, files=PROJECT), (1, 1, 2)),
    ("PUT /api/projects", Ask("owner", 200, query="?id={project}", files=PROJECT), (2, 1, 2)),
    ("PUT /api/projects/{project_id}", Ask("owner", 200, files=PROJECT), (2, 1, 2)),
    ("PUT /api/projects/{project_id}", Ask("owner", 409, query="?version=1", files=PROJECT), (2, 0, 0)),
    ("PUT /api/projects/{project_id}", Ask("owner", 200, options={"json": {"title": "Hund"}}), (2, 1, 1)),
    ("POST /api/projects/{project_id}/thumbnail", Ask("owner", 200, files={"thumbnail": PNG}), (1, 1, 1)),
    ("POST /api/projects/{project_id}/share", Ask("owner", 200, options={"json": {"group_ids": [1, 2]}}), (2, 1, 5)),
    ("POST /api/projects/{project_id}/copy", Ask("classmate", 201), (1, 1, 5)),
    ("POST /api/projects/{project_id}/revisions/{version}/restore", Ask("owner", 200), (2, 1, 5)),
    ("POST /api/assets/", Ask("owner", 200, files={"asset": b"bytes"}), (2, 1, 2)),
    ("POST /api/assets/", Ask("owner", 200, files={"asset": b"bytes"}), (2, 0, 0)),
    ("POST /api/backpack", Ask("owner", 200, options={"json": {**ITEM, "body": "bmV3"}}), (3, 1, 3)),
    ("DELETE /api/backpack/{item_id}", Ask("owner", 200), (1, 1, 1)),
    ("DELETE /api/projects/{project_id}", Ask("owner", 200), (1, 1, 4)),
    ("POST /logout", Ask("owner", 200), (0, 1, 1)),
]


@pytest.mark.parametrize("projects", [1, 20])
def test_requests_have_a_fixed_number_of_statements(school: School, services: Services, projects: int) -> None:
    """Exactly these numbers, and the same with more projects."""
    owner = school.devices["owner"]
    for number in range(projects - 1):
        created = owner.create(project_file(number)).json["id"]
        owner.request("POST", f"/api/projects/{created}/share", json={"group_ids": [1, 2]})
        owner.request("POST", "/api/backpack", json=ITEM)
    found = []
    for route, asked, _ in COSTS:
        with counted(services.database) as cost:
            assert (route, school.ask(route, asked).status_code) == (route, asked.status)
        found.append(f"{route}, {asked}: {cost.as_tuple()}")
    assert found == [f"{route}, {asked}: {expected}" for route, asked, expected in COSTS]
