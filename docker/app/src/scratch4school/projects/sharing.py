"""Sharing projects with groups: who sees a project, the list of shared projects, and copies of them."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..clock import utcnow
from ..database.database import Database
from ..database.tables import groups, project_groups, user_groups, users
from ..database.tables import projects as project_rows
from ..storage.file_store import FileStore
from . import projects
from .projects import NotOwner, Stored

COPY_PREFIX = "Copy of "

_IS_SHARED = (
    sa.select(sa.literal(1))
    .select_from(project_groups)
    .join(user_groups, user_groups.c.group_id == project_groups.c.group_id)
    .where(project_groups.c.project_id == sa.bindparam("project_id"), user_groups.c.user_id == sa.bindparam("user_id"))
    .limit(1)
)

# The groups that each of some projects is shared with: all of them, or only those of one user.
_SHARED_WITH = (
    sa.select(project_groups.c.project_id, groups.c.id, groups.c.name, groups.c.external_id)
    .join(groups, groups.c.id == project_groups.c.group_id)
    .where(project_groups.c.project_id.in_(sa.bindparam("project_ids", expanding=True)))
    .order_by(groups.c.name, groups.c.id)
)
_SHARED_WITH_SEEN = _SHARED_WITH.join(
    user_groups,
    sa.and_(user_groups.c.group_id == groups.c.id, user_groups.c.user_id == sa.bindparam("seen_by")),
)
# From the user's groups to their projects: with EXISTS instead of IN, SQLite reads every project of the school.
_SHARED_WITH_USER = (
    sa.select(project_rows, users.c.username.label("owner_name"))
    .join(users, users.c.id == project_rows.c.owner_id)
    .where(
        project_rows.c.is_published,
        project_rows.c.owner_id != sa.bindparam("user_id"),
        project_rows.c.id.in_(
            sa.select(project_groups.c.project_id)
            .join(user_groups, user_groups.c.group_id == project_groups.c.group_id)
            .where(user_groups.c.user_id == sa.bindparam("user_id"))
        ),
    )
    .order_by(project_rows.c.updated_at.desc(), project_rows.c.id.desc())
)


class NotShared(Exception):
    """The project is not shared with the user."""


def share(database: Database, project_id: int, owner_id: str, group_ids: Sequence[int]) -> Row[Any]:
    """Share a project with exactly those of `group_ids` that its owner is in; returns its row.

    If no group is left, the project is shared no longer. This is no save: the version stays. Raises NotFound, NotOwner.
    """

    def work(connection: Connection) -> Row[Any]:
        now = utcnow()
        if projects.lock(connection, project_id) != owner_id:
            raise NotOwner
        own = sa.select(user_groups.c.group_id).where(
            user_groups.c.user_id == owner_id, user_groups.c.group_id.in_(group_ids)
        )
        allowed = sorted(connection.scalars(own)) if group_ids else []
        connection.execute(sa.delete(project_groups).where(project_groups.c.project_id == project_id))
        if allowed:
            connection.execute(
                sa.insert(project_groups),
                [{"project_id": project_id, "group_id": group_id, "published_at": now} for group_id in allowed],
            )
        return connection.execute(
            sa.update(project_rows)
            .where(project_rows.c.id == project_id)
            .values(is_published=bool(allowed), updated_at=now)
            .returning(*project_rows.c)
        ).one()

    return database.write(work)


def shared_with(
    connection: Connection, project_ids: Sequence[int], seen_by: str | None = None
) -> dict[int, list[dict[str, Any]]]:
    """For each project the groups that it is shared with; with `seen_by` only those that this user is in."""
    found: dict[int, list[dict[str, Any]]] = {project_id: [] for project_id in project_ids}
    if found:
        values: dict[str, Any] = {"project_ids": list(found)}
        statement = _SHARED_WITH
        if seen_by is not None:
            statement, values["seen_by"] = _SHARED_WITH_SEEN, seen_by
        for row in connection.execute(statement, values):
            found[row.project_id].append({"id": row.id, "name": row.name, "external_id": row.external_id})
    return found


def is_shared_with(connection: Connection, project: Row[Any], user_id: str) -> bool:
    """Whether a project is published to a group that the user is in."""
    if not project.is_published:
        return False
    values = {"project_id": project.id, "user_id": user_id}
    return connection.scalar(_IS_SHARED, values) is not None


def shared_with_user(connection: Connection, user_id: str) -> Sequence[Row[Any]]:
    """Other users' projects that are shared with a group of this user, with `owner_name`, the last saved first."""
    return connection.execute(_SHARED_WITH_USER, {"user_id": user_id}).all()


def copy(database: Database, store: FileStore, project_id: int, user_id: str, keep_revisions: int) -> Row[Any]:
    """Copy a project that the user owns or sees by sharing into a new project of the user; returns the new row.

    Files never change, so the copy names the same files. Raises NotFound, NotShared and FileMissing.
    """

    def work(connection: Connection) -> Row[Any]:
        now = utcnow()
        # The lock keeps the project from being saved or deleted, so a row names its files until this transaction ends.
        projects.lock(connection, project_id, reading=True)
        source = projects.find_with_content(connection, project_id)
        if source.owner_id != user_id and not is_shared_with(connection, source, user_id):
            raise NotShared
        if store.find(source.sb3_file_path) is None:
            raise projects.FileMissing
        title = f"{COPY_PREFIX}{source.name}"[: projects.TITLE_LENGTH]
        stored = Stored(source.sb3_file_path, source.size, source.sha256)
        thumbnail = source.thumbnail_path
        return projects.insert(connection, user_id, title, source.description, stored, thumbnail, now, keep_revisions)

    return database.write(work)
