"""The kept contents of a project: which there are, one of them, and putting one back on top.

Restoring copies no bytes, because files never change: the new version names the file of the old one. The project's row
stays locked meanwhile, so no save can forget the old version, and no moment is without a row that names the file.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from . import projects
from .clock import utcnow
from .database import Database
from .files import FileStore
from .projects import Stored
from .tables import project_revisions, users
from .tables import projects as project_rows

_COLUMNS = (
    project_revisions.c.version,
    project_revisions.c.file_path,
    project_revisions.c.size,
    project_revisions.c.sha256,
    project_revisions.c.saved_by,
    project_revisions.c.created_at,
)
# What a project's own row says of its content, in the same columns, if no revision does.
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
_KEPT = (
    sa.select(_VERSIONS, users.c.username.label("saved_by_name"))
    .outerjoin(users, users.c.id == _VERSIONS.c.saved_by)
    .order_by(_VERSIONS.c.version.desc())
)


class NotKept(Exception):
    """The project has no such version, or it was forgotten when newer ones came."""


def kept(connection: Connection, project_id: int) -> Sequence[Row[Any]]:
    """The kept versions of a project, newest first, the current content included.

    Beside a revision's columns each has `saved_by_name`, None where the user is gone. A content that nobody recorded,
    as in a project imported from an old installation, is listed under the project's own version and owner.
    """
    return connection.execute(_KEPT, {"project_id": project_id}).all()


def restore(
    database: Database,
    store: FileStore,
    project_id: int,
    version: int,
    restored_by: str,
    base: int | None,
    keep_revisions: int,
) -> Row[Any]:
    """The content of a kept version as a new one, saved by `restored_by`; returns the project's row.

    With `base` only if that is still the current version, else Conflict. Whether this user may is not asked here.
    Raises NotFound, NotKept, and FileMissing.
    """

    def work(connection: Connection) -> Row[Any]:
        now = utcnow()
        projects.lock(connection, project_id)
        current = projects.look(connection, project_id)
        projects.refuse_stale(current, base)
        if not current.is_recorded:
            projects.keep_unrecorded(database, connection, project_id)
        revision = _find(connection, project_id, version)
        if store.find(revision.file_path) is None:
            raise projects.FileMissing
        row = connection.execute(
            sa.update(project_rows)
            .where(project_rows.c.id == project_id)
            .values(sb3_file_path=revision.file_path, version=project_rows.c.version + 1, updated_at=now)
            .returning(*project_rows.c)
        ).one()
        stored = Stored(revision.file_path, revision.size, revision.sha256)
        projects.add_revision(connection, row, stored, restored_by, now, keep_revisions)
        return row

    return database.write(work)


def _find(connection: Connection, project_id: int, version: int) -> Row[Any]:
    row = connection.execute(
        sa.select(*_COLUMNS).where(project_revisions.c.project_id == project_id, project_revisions.c.version == version)
    ).one_or_none()
    if row is None:
        raise NotKept
    return row
