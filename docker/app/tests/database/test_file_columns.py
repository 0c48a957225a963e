"""The columns that name files: the declaration in tables.py is complete."""

from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from contract.school import ITEM
from helpers import PNG, Device, project_file
from scratch4school.database import file_columns
from scratch4school.web.services import Services

DECLARED = {
    "projects.sb3_file_path": "project",
    "projects.thumbnail_path": "thumbnail",
    "project_revisions.file_path": "project",
    "assets.file_path": "asset",
}


def columns_with_files(services: Services) -> set[str]:
    """The columns, of all that the database has, with a value that is the path of a stored file."""

    def read(connection: Connection) -> set[str]:
        found = set()
        for (_, name), columns in sa.inspect(connection).get_multi_columns().items():
            for column in (sa.column(each["name"]) for each in columns):
                values = connection.scalars(sa.select(column).select_from(sa.table(name))).all()
                if any(isinstance(value, str) and services.store.find(value) is not None for value in values):
                    found.add(f"{name}.{column.name}")
        return found

    return services.database.read(read)


def test_declared_columns_are_those_whose_values_are_stored_files(
    device: Callable[..., Device], services: Services
) -> None:
    """After every request that stores a file: a column that names files and is not declared fails this test."""
    owner, classmate = device("ada", "klasse.5a"), device("berta", "klasse.5a")
    project = owner.create(project_file("first"), thumbnail=PNG).json["id"]
    owner.save(project, project_file("second"))
    owner.request("POST", f"/api/projects/{project}/thumbnail", data=PNG + b"2", content_type="image/png")
    group_ids = [group["id"] for group in owner.get("/api/groups").json["groups"]]
    owner.request("POST", f"/api/projects/{project}/share", json={"group_ids": group_ids})
    assert classmate.request("POST", f"/api/projects/{project}/copy").status_code == 201
    assert owner.request("POST", f"/api/projects/{project}/revisions/1/restore").status_code == 200
    assert owner.upload(b"a sound", type="sound", format="wav").status_code == 200
    assert owner.request("POST", "/api/backpack", json=ITEM).status_code == 200
    declared = {f"{column.table.name}.{column.name}": column.info["file"] for column in file_columns.declared()}
    assert declared == DECLARED
    assert columns_with_files(services) == set(DECLARED)


def test_every_undeclared_text_column_is_searched(services: Services) -> None:
    """They come from the database itself, so tables and columns that tables.py does not know are among them."""

    def read(connection: Connection) -> set[str]:
        return {str(column.clause) for column in file_columns.undeclared(connection)}  # type: ignore[attr-defined]

    found = services.database.read(read)
    assert {"users.user_data", "projects.name", "backpack_items.body", "alembic_version.version_num"} <= found
    assert not found & {*DECLARED, "projects.id", "projects.updated_at", "projects.is_published", "assets.size"}
