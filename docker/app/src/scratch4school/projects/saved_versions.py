"""The saved versions of a project: list them, and restore one as a new version.

A restore copies no bytes, because files never change: the new version names the file of the old one. The project's row
stays locked meanwhile, so no save can prune the old version, and a row names the file at every moment.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..clock import utcnow
from ..database.database import Database
from ..database.tables import project_revisions, users
from ..database.tables import projects as project_rows
from ..storage.file_store import FileStore
from . import projects
from .projects import Stored

_COLUMNS = (
    project_revisions.c.version,
    project_revisions.c.file_path,
    project_revisions.c.size,
    project_revisions.c.sha256,
    project_revisions.c.saved_by,
    project_revisions.c.created_at,
)
# The content of a project's own row in the same columns, if no saved version records it.
_UNRECORDED = sa.select(
    project_rows.c.version,
    project_rows.c.sb3_file_path,
    sa.null(),
    sa.null(),
    project_rows.c.owner_id,
    project_rows.c.updated_at,
).where(
    project_rows.c.id == sa.bindparam("project_id"),
    project_rows.c.sb3_file_path.is_not(None),
    ~sa.exists().where(
        project_revisions.c.project_id == project_rows.c.id,
        project_revisions.c.file_path == project_rows.c.sb3_file_path,
    ),
)
_VERSIONS = (
    sa.select(*_COLUMNS)
    .where(project_revisions.c.project_id == sa.bindparam("project_id"))
    .union_all(_UNRECORDED)
    .subquery()
)
_ALL = (
    sa.select(_VERSIONS, users.c.username.label("saved_by_name"))
    .outerjoin(users, users.c.id == _VERSIONS.c.saved_by)
    .order_by(_VERSIONS.c.version.desc())
)


class VersionNotFound(Exception):
    """The project has no such saved version, or newer ones replaced it."""


def of_project(connection: Connection, project_id: int) -> Sequence[Row[Any]]:
    """The saved versions of a project, newest first, the current content included.

    Each row has the table's columns and `saved_by_name`, None if the user is deleted. Content that is not recorded, as
    in an imported project, is listed under the project's own version and owner.
    """
    return connection.execute(_ALL, {"project_id": project_id}).all()


def restore(
    database: Database,
    store: FileStore,
    project_id: int,
    version: int,
    restored_by: str,
    base: int | None,
    keep_revisions: int,
) -> Row[Any]:
    """Save the content of a saved version as a new version, by `restored_by`; returns the project's row.

    With `base` only if that is still the current version, else Conflict. The caller checks whether this user may.
    Raises NotFound, VersionNotFound and FileMissing.
    """

    def work(connection: Connection) -> Row[Any]:
        now = utcnow()
        projects.lock(connection, project_id)
        current = projects.find_with_content(connection, project_id)
        projects.check_base(current, base)
        if not current.is_recorded:
            projects.record_unrecorded_content(database, connection, project_id)
        found = _find(connection, project_id, version)
        if store.find(found.file_path) is None:
            raise projects.FileMissing
        row = connection.execute(
            sa.update(project_rows)
            .where(project_rows.c.id == project_id)
            .values(sb3_file_path=found.file_path, version=project_rows.c.version + 1, updated_at=now)
            .returning(*project_rows.c)
        ).one()
        stored = Stored(found.file_path, found.size, found.sha256)
        projects.record_version(connection, row, stored, restored_by, now, keep_revisions)
        return row

    return database.write(work)


def _find(connection: Connection, project_id: int, version: int) -> Row[Any]:
    row = connection.execute(
        sa.select(*_COLUMNS).where(project_revisions.c.project_id == project_id, project_revisions.c.version == version)
    ).one_or_none()
    if row is None:
        raise VersionNotFound
    return row
