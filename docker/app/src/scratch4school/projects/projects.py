"""Projects in the database: each save is one transaction, and one conditional statement in it decides.

These functions know rows and files, not HTTP, so that the verification can call them as the routes do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..clock import utcnow
from ..database.database import CommitUnknown, Database
from ..database.tables import project_groups, project_revisions, projects
from ..monitoring import metrics
from ..storage.file_store import PROJECTS, THUMBNAILS, FileStore, IncomingFile

T = TypeVar("T")

DEFAULT_TITLE = "Untitled Project"
TITLE_LENGTH = 100

_FIND = sa.select(projects).where(projects.c.id == sa.bindparam("project_id"))

_OWNED_BY = (
    sa.select(projects)
    .where(projects.c.owner_id == sa.bindparam("by_owner"))
    .order_by(projects.c.updated_at.desc(), projects.c.id.desc())
)
_OWNED_BY_LIMITED = _OWNED_BY.limit(sa.bindparam("most", type_=sa.Integer))

# The row, and what is recorded about its content.
_FIND_WITH_CONTENT = (
    sa.select(
        projects,
        project_revisions.c.size,
        project_revisions.c.sha256,
        project_revisions.c.file_path.is_not(None).label("is_recorded"),
    )
    .outerjoin(
        project_revisions,
        sa.and_(
            project_revisions.c.project_id == projects.c.id,
            project_revisions.c.file_path == projects.c.sb3_file_path,
        ),
    )
    .where(projects.c.id == sa.bindparam("project_id"))
    # A restored version names the file of the one it restored, so two may match; they describe the same content.
    .limit(1)
)

# The one statement that decides a save. It is built once, because building it is most of its cost in this process. A
# value that a save does not set is NULL here and stays as it is.
_SAVE = (
    sa.update(projects)
    .where(
        projects.c.id == sa.bindparam("project_id"),
        projects.c.owner_id == sa.bindparam("by_owner"),
        projects.c.version == sa.func.coalesce(sa.bindparam("base", type_=sa.Integer), projects.c.version),
    )
    .values(
        version=projects.c.version + 1,
        updated_at=sa.bindparam("now"),
        name=sa.func.coalesce(sa.bindparam("title"), projects.c.name),
        sb3_file_path=sa.func.coalesce(sa.bindparam("file_path"), projects.c.sb3_file_path),
        thumbnail_path=sa.func.coalesce(sa.bindparam("thumbnail"), projects.c.thumbnail_path),
    )
    .returning(*projects.c)
)
_INSERT = sa.insert(projects).returning(*projects.c)
_INSERT_VERSION = sa.insert(project_revisions)
_PRUNE_VERSIONS = sa.delete(project_revisions).where(
    project_revisions.c.project_id == sa.bindparam("pruned_id"),
    project_revisions.c.version
    < sa.select(project_revisions.c.version)
    .where(project_revisions.c.project_id == sa.bindparam("pruned_id"))
    .order_by(project_revisions.c.version.desc())
    .offset(sa.bindparam("kept", type_=sa.Integer))
    .limit(1)
    .scalar_subquery(),
)


class NotFound(Exception):
    """There is no such project."""


class NotOwner(Exception):
    """The project belongs to another user."""


class FileMissing(Exception):
    """The row exists, but the file that it names does not."""


class Conflict(Exception):
    """The save was based on another version than the current one.

    `current` is the project's row from `find_with_content`, `base` the version that the save was based on.
    """

    def __init__(self, current: Row[Any], base: int) -> None:
        super().__init__(f"the current version is {current.version}, the save was based on {base}")
        self.current = current
        self.base = base


@dataclass(frozen=True)
class Content:
    """The new content of a save: a whole project file and, if the front end sent one, a thumbnail."""

    project: IncomingFile
    thumbnail: IncomingFile | None


@dataclass(frozen=True)
class Stored:
    """Content in the uploads folder; `size` (bytes) and `sha256` are None if they were never recorded."""

    file_path: str
    size: int | None
    sha256: str | None


def create(
    database: Database, store: FileStore, owner_id: str, title: str, content: Content, keep_revisions: int
) -> Row[Any]:
    """Create a project with its first version; returns its row."""

    def work(connection: Connection, stored: Stored, thumbnail_path: str | None) -> Row[Any]:
        now = utcnow()
        description = f"Created on {now:%Y-%m-%d}"
        return insert(connection, owner_id, title, description, stored, thumbnail_path, now, keep_revisions)

    return _with_files(database, store, owner_id, content, work)


def insert(
    connection: Connection,
    owner_id: str,
    title: str,
    description: str | None,
    stored: Stored,
    thumbnail_path: str | None,
    now: datetime,
    keep_revisions: int,
) -> Row[Any]:
    """Insert a project whose first version is `stored`; returns its row."""
    values = {
        "name": title,
        "description": description,
        "sb3_file_path": stored.file_path,
        "thumbnail_path": thumbnail_path,
        "version": 1,
        "owner_id": owner_id,
        "created_at": now,
        "updated_at": now,
        "is_published": False,
    }
    row = connection.execute(_INSERT, values).one()
    record_version(connection, row, stored, owner_id, now, keep_revisions)
    return row


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
    """Save new content over a project; returns its row.

    With `base` the save succeeds only if that is still the current version, else Conflict. Without it the last save
    wins, and the replaced content stays as a saved version. Raises NotFound and NotOwner.
    """
    # This read only saves work for a save that must fail. The UPDATE decides.
    seen = database.read(lambda connection: find_with_content(connection, project_id))
    _check_owner_and_base(seen, owner_id, base)

    def work(connection: Connection, stored: Stored, thumbnail_path: str | None) -> Row[Any]:
        now = utcnow()
        # Recorded content stays recorded: a save in between records its own content.
        if not seen.is_recorded:
            record_unrecorded_content(database, connection, project_id)
        row = _update(connection, project_id, owner_id, base, title, stored.file_path, thumbnail_path, now)
        record_version(connection, row, stored, owner_id, now, keep_revisions)
        return row

    return _with_files(database, store, owner_id, content, work)


def retitle(database: Database, project_id: int, owner_id: str, title: str | None, base: int | None) -> Row[Any]:
    """Save a new title only; the version number rises, but there is no new saved version."""
    return database.write(
        lambda connection: _update(connection, project_id, owner_id, base, title, None, None, utcnow())
    )


def set_thumbnail(
    database: Database, store: FileStore, project_id: int, owner_id: str, thumbnail: IncomingFile
) -> Row[Any]:
    """Replace a project's thumbnail. This is no save: the version stays. Raises NotFound and NotOwner."""
    path = store.keep_new(thumbnail, THUMBNAILS, owner_id, ".png")

    def work(connection: Connection) -> Row[Any]:
        row = connection.execute(
            sa.update(projects)
            .where(projects.c.id == project_id, projects.c.owner_id == owner_id)
            .values(thumbnail_path=path)
            .returning(*projects.c)
        ).one_or_none()
        if row is None:
            _check_owner_and_base(find_with_content(connection, project_id), owner_id, None)
            raise NotFound
        return row

    return _or_discard(store, [path], lambda: database.write(work))


def delete(database: Database, project_id: int, owner_id: str) -> None:
    """Delete a project's rows; the sweep removes its files later. Raises NotFound and NotOwner."""

    def work(connection: Connection) -> None:
        if lock(connection, project_id) != owner_id:
            raise NotOwner
        connection.execute(sa.delete(project_groups).where(project_groups.c.project_id == project_id))
        connection.execute(sa.delete(project_revisions).where(project_revisions.c.project_id == project_id))
        connection.execute(sa.delete(projects).where(projects.c.id == project_id))

    database.write(work)


def lock(connection: Connection, project_id: int, reading: bool = False) -> str:
    """Lock a project until this transaction ends, so that its rows keep naming their files; returns the owner's id.

    With `reading` several transactions may have the lock at once. Raises NotFound.
    """
    query = sa.select(projects.c.owner_id).where(projects.c.id == project_id).with_for_update(read=reading)
    owner: str | None = connection.scalar(query)
    if owner is None:
        raise NotFound
    return owner


def find(connection: Connection, project_id: int) -> Row[Any]:
    """The row of a project, or NotFound."""
    row = connection.execute(_FIND, {"project_id": project_id}).one_or_none()
    if row is None:
        raise NotFound
    return row


def find_with_content(connection: Connection, project_id: int) -> Row[Any]:
    """The row of a project, with `size`, `sha256` and `is_recorded` of its content; or NotFound.

    `size` and `sha256` are None for content from before contents were recorded.
    """
    row = connection.execute(_FIND_WITH_CONTENT, {"project_id": project_id}).one_or_none()
    if row is None:
        raise NotFound
    return row


def owned_by(connection: Connection, owner_id: str, limit: int | None = None) -> Sequence[Row[Any]]:
    """A user's own projects, the last saved first."""
    if limit is None:
        return connection.execute(_OWNED_BY, {"by_owner": owner_id}).all()
    return connection.execute(_OWNED_BY_LIMITED, {"by_owner": owner_id, "most": limit}).all()


def _with_files(
    database: Database,
    store: FileStore,
    owner_id: str,
    content: Content,
    work: Callable[[Connection, Stored, str | None], Row[Any]],
) -> Row[Any]:
    """Store the files, then commit the row that names them."""
    size, sha256 = content.project.size, content.project.digest("sha256")
    kept: list[str] = []

    def commit() -> Row[Any]:
        kept.append(store.keep_new(content.project, PROJECTS, owner_id, ".sb3"))
        if content.thumbnail is not None:
            kept.append(store.keep_new(content.thumbnail, THUMBNAILS, owner_id, ".png"))
        stored = Stored(kept[0], size, sha256)
        thumbnail_path = kept[1] if len(kept) > 1 else None
        return database.write(lambda connection: work(connection, stored, thumbnail_path))

    return _or_discard(store, kept, commit)


def _or_discard(store: FileStore, kept: Sequence[str], work: Callable[[], T]) -> T:
    """The result of `work`; if it surely failed, the files that its row would name are removed."""
    try:
        return work()
    except CommitUnknown:
        # The row may name these files. If it does not, the sweep removes them later.
        raise
    except BaseException:
        for path in kept:
            store.discard(path)
        raise


def _update(
    connection: Connection,
    project_id: int,
    owner_id: str,
    base: int | None,
    title: str | None,
    file_path: str | None,
    thumbnail_path: str | None,
    now: datetime,
) -> Row[Any]:
    """Change the row, only for its owner and only from the version `base`; else NotFound, NotOwner or Conflict."""
    values = {
        "project_id": project_id,
        "by_owner": owner_id,
        "base": base,
        "title": title,
        "file_path": file_path,
        "thumbnail": thumbnail_path,
        "now": now,
    }
    row = connection.execute(_SAVE, values).one_or_none()
    if row is None:
        _check_owner_and_base(find_with_content(connection, project_id), owner_id, base)
        # Only another transaction in between explains this: the project was deleted and its id used again.
        raise NotFound
    return row


def _check_owner_and_base(row: Row[Any], owner_id: str, base: int | None) -> None:
    """Raise NotOwner or Conflict if a save by `owner_id` based on `base` must fail."""
    if row.owner_id != owner_id:
        raise NotOwner
    check_base(row, base)


def check_base(row: Row[Any], base: int | None) -> None:
    """Raise Conflict if `base` is not the version of `row`, which comes from `find_with_content`."""
    if base is not None and row.version != base:
        metrics.CONFLICTS.inc()
        raise Conflict(row, base)


def record_unrecorded_content(database: Database, connection: Connection, project_id: int) -> None:
    """Record the current content as a saved version if it is not recorded, as in an imported project."""
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
        # Without the lock, a project that is being deleted would fail the INSERT's foreign key instead of dropping out.
        .with_for_update(of=projects)
    )
    connection.execute(
        database.insert(project_revisions)
        .from_select(["project_id", "version", "file_path", "saved_by", "created_at"], current)
        .on_conflict_do_nothing()
    )


def record_version(
    connection: Connection, row: Row[Any], stored: Stored, saved_by: str, now: datetime, keep_revisions: int
) -> None:
    """Record a save as a saved version, and delete the rows of versions beyond the kept number."""
    values = {
        "project_id": row.id,
        "version": row.version,
        "file_path": stored.file_path,
        "size": stored.size,
        "sha256": stored.sha256,
        "saved_by": saved_by,
        "created_at": now,
    }
    connection.execute(_INSERT_VERSION, values)
    # Most projects never have that many versions and do not need the statement.
    if row.version > keep_revisions + 1:
        prune_versions(connection, row.id, keep_revisions)


def prune_versions(connection: Connection, project_id: int, keep_revisions: int) -> int:
    """Delete the saved versions of a locked project beyond the kept number; returns how many."""
    return connection.execute(_PRUNE_VERSIONS, {"pruned_id": project_id, "kept": keep_revisions}).rowcount
