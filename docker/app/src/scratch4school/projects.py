"""Projects in the database: each save is one transaction in which one conditional statement decides.

These functions know rows and files and nothing of HTTP, so that the verification can use them as the routes do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from . import metrics
from .clock import utcnow
from .database import CommitUnknown, Database
from .files import PROJECTS, THUMBNAILS, FileStore, IncomingFile
from .tables import groups, project_groups, project_revisions, projects, user_groups

DEFAULT_TITLE = "Untitled Project"
TITLE_LENGTH = 100

_FIND = sa.select(projects).where(projects.c.id == sa.bindparam("project_id"))


class NotFound(Exception):
    """There is no such project."""


class NotOwner(Exception):
    """The project belongs to somebody else."""


class Conflict(Exception):
    """The save was based on another version than the current one, which is `version`."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the current version is {version}")
        self.version = version


@dataclass(frozen=True)
class Content:
    """The new content of a save: a whole project file and, if the front end sent one, a thumbnail."""

    project: IncomingFile
    thumbnail: IncomingFile | None


@dataclass(frozen=True)
class _Stored:
    file_path: str
    thumbnail_path: str | None
    size: int
    sha256: str


def create(
    database: Database, store: FileStore, owner_id: str, title: str, content: Content, keep_revisions: int
) -> Row[Any]:
    """A new project with its first version; returns its row."""

    def work(connection: Connection, stored: _Stored) -> Row[Any]:
        now = utcnow()
        row = connection.execute(
            sa.insert(projects)
            .values(
                name=title,
                description=f"Created on {now:%Y-%m-%d}",
                sb3_file_path=stored.file_path,
                thumbnail_path=stored.thumbnail_path,
                version=1,
                owner_id=owner_id,
                created_at=now,
                updated_at=now,
                is_published=False,
            )
            .returning(*projects.c)
        ).one()
        _add_revision(connection, row, stored, owner_id, now, keep_revisions)
        return row

    return _with_files(database, store, owner_id, content, work)


def save(
    database: Database,
    store: FileStore,
    project_id: int,
    owner_id: str,
    title: str | None,
    content: Content,
    base: int | None,
    keep_revisions: int,
) -> Row[Any]:
    """New content for a project; returns its row.

    With `base` the save happens only if that is still the current version, else Conflict. Without, the last save wins
    and what it replaced stays as a revision. Raises NotFound and NotOwner.
    """

    def work(connection: Connection, stored: _Stored) -> Row[Any]:
        now = utcnow()
        _keep_unrecorded(database, connection, project_id)
        values: dict[str, Any] = {"sb3_file_path": stored.file_path}
        if stored.thumbnail_path is not None:
            values["thumbnail_path"] = stored.thumbnail_path
        row = _update(connection, project_id, owner_id, base, title, values, now)
        _add_revision(connection, row, stored, owner_id, now, keep_revisions)
        return row

    return _with_files(database, store, owner_id, content, work)


def retitle(database: Database, project_id: int, owner_id: str, title: str | None, base: int | None) -> Row[Any]:
    """A save without content: it counts as a version, but there is nothing to keep as a revision."""
    return database.write(lambda connection: _update(connection, project_id, owner_id, base, title, {}, utcnow()))


def delete(database: Database, project_id: int, owner_id: str) -> None:
    """Remove a project's rows; its files are left for the sweep. Raises NotFound and NotOwner."""

    def work(connection: Connection) -> None:
        owner = connection.scalar(sa.select(projects.c.owner_id).where(projects.c.id == project_id).with_for_update())
        if owner is None:
            raise NotFound
        if owner != owner_id:
            raise NotOwner
        connection.execute(sa.delete(project_groups).where(project_groups.c.project_id == project_id))
        connection.execute(sa.delete(project_revisions).where(project_revisions.c.project_id == project_id))
        connection.execute(sa.delete(projects).where(projects.c.id == project_id))

    database.write(work)


def find(connection: Connection, project_id: int) -> Row[Any]:
    """The row of a project, or NotFound."""
    row = connection.execute(_FIND, {"project_id": project_id}).one_or_none()
    if row is None:
        raise NotFound
    return row


def owned_by(connection: Connection, owner_id: str, limit: int | None = None) -> Sequence[Row[Any]]:
    """A user's own projects, the last saved first."""
    return connection.execute(
        sa.select(projects)
        .where(projects.c.owner_id == owner_id)
        .order_by(projects.c.updated_at.desc(), projects.c.id.desc())
        .limit(limit)
    ).all()


def shared_with(connection: Connection, project_ids: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """For each project the groups it is shared with."""
    found: dict[int, list[dict[str, Any]]] = {project_id: [] for project_id in project_ids}
    if found:
        rows = connection.execute(
            sa.select(project_groups.c.project_id, groups.c.id, groups.c.name, groups.c.external_id)
            .join(groups, groups.c.id == project_groups.c.group_id)
            .where(project_groups.c.project_id.in_(list(found)))
            .order_by(groups.c.name, groups.c.id)
        )
        for row in rows:
            found[row.project_id].append({"id": row.id, "name": row.name, "external_id": row.external_id})
    return found


def is_shared_with_user(connection: Connection, project: Row[Any], user_id: str) -> bool:
    """Whether a project is published to a group that the user is in."""
    if not project.is_published:
        return False
    shared = (
        sa.select(sa.literal(1))
        .select_from(project_groups)
        .join(user_groups, user_groups.c.group_id == project_groups.c.group_id)
        .where(project_groups.c.project_id == project.id, user_groups.c.user_id == user_id)
        .limit(1)
    )
    return connection.scalar(shared) is not None


def _with_files(
    database: Database,
    store: FileStore,
    owner_id: str,
    content: Content,
    work: Callable[[Connection, _Stored], Row[Any]],
) -> Row[Any]:
    """Store the files, then commit the row that names them, and take the files back if it certainly was not."""
    kept: list[str] = []
    try:
        size, sha256 = content.project.size, content.project.digest("sha256")
        kept.append(store.keep_new(content.project, PROJECTS, owner_id, ".sb3"))
        if content.thumbnail is not None:
            kept.append(store.keep_new(content.thumbnail, THUMBNAILS, owner_id, ".png"))
        stored = _Stored(kept[0], kept[1] if len(kept) > 1 else None, size, sha256)
        return database.write(lambda connection: work(connection, stored))
    except CommitUnknown:
        # The row may name these files. Keeping files that nobody names is the cheaper mistake; the sweep finds them.
        raise
    except BaseException:
        for relative in kept:
            store.discard(relative)
        raise


def _update(
    connection: Connection,
    project_id: int,
    owner_id: str,
    base: int | None,
    title: str | None,
    values: dict[str, Any],
    now: datetime,
) -> Row[Any]:
    """The one statement that decides: it changes the row only for its owner and only from the version `base`."""
    statement = sa.update(projects).where(projects.c.id == project_id, projects.c.owner_id == owner_id)
    if base is not None:
        statement = statement.where(projects.c.version == base)
    if title is not None:
        values = {**values, "name": title}
    row = connection.execute(
        statement.values(version=projects.c.version + 1, updated_at=now, **values).returning(*projects.c)
    ).one_or_none()
    if row is None:
        refuse_if_hopeless(connection, project_id, owner_id, base)
        # Nothing was wrong a moment later: the project was deleted and its id given again, or the like.
        raise NotFound
    return row


def refuse_if_hopeless(connection: Connection, project_id: int, owner_id: str, base: int | None) -> None:
    """Raise NotFound, NotOwner or Conflict if a save would now; a look that spares work and decides nothing."""
    row = find(connection, project_id)
    if row.owner_id != owner_id:
        raise NotOwner
    if base is not None and row.version != base:
        metrics.CONFLICTS.inc()
        raise Conflict(row.version)


def _keep_unrecorded(database: Database, connection: Connection, project_id: int) -> None:
    """Record the content about to be replaced if nobody did, as for a project imported from an old installation."""
    current = (
        sa.select(
            projects.c.id, projects.c.version, projects.c.sb3_file_path, projects.c.owner_id, projects.c.updated_at
        )
        .where(projects.c.id == project_id, projects.c.sb3_file_path.is_not(None))
        .where(
            ~sa.exists().where(
                project_revisions.c.project_id == projects.c.id,
                project_revisions.c.file_path == projects.c.sb3_file_path,
            )
        )
        # A project that is being deleted at this moment then drops out, where its foreign key would be an error.
        .with_for_update(of=projects)
    )
    connection.execute(
        database.insert(project_revisions)
        .from_select(["project_id", "version", "file_path", "saved_by", "created_at"], current)
        .on_conflict_do_nothing()
    )


def _add_revision(
    connection: Connection, row: Row[Any], stored: _Stored, saved_by: str, now: datetime, keep_revisions: int
) -> None:
    """Record what was saved, and forget what is older than the kept number of replaced contents."""
    connection.execute(
        sa.insert(project_revisions).values(
            project_id=row.id,
            version=row.version,
            file_path=stored.file_path,
            size=stored.size,
            sha256=stored.sha256,
            saved_by=saved_by,
            created_at=now,
        )
    )
    oldest_kept = (
        sa.select(project_revisions.c.version)
        .where(project_revisions.c.project_id == row.id)
        .order_by(project_revisions.c.version.desc())
        .offset(keep_revisions)
        .limit(1)
        .scalar_subquery()
    )
    if row.version > keep_revisions + 1:
        connection.execute(
            sa.delete(project_revisions).where(
                project_revisions.c.project_id == row.id, project_revisions.c.version < oldest_kept
            )
        )
