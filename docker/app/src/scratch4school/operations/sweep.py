"""`scratch4school sweep`: removes saved versions beyond the kept number, files that no row names, and dead sessions.

It runs beside saves, restores and copies. It never removes a file that a row names, or is about to name, because:

* A file gets a name that is never used again, so no new file can have a name that was found here.
* A row comes to name a file in two ways. A save names a file that it wrote itself, seconds before. A restore or a copy
  names a file that another row names, and locks that row's project until it commits. What would take the file from
  that row (a save, a deletion, the pruning below) needs the same lock. So from a file's first row to its last, some
  row names it at every moment.
* The files are listed first, and only those that were last written before the grace time, which is longer than any
  save. Then one statement, and therefore one snapshot, gives all paths that rows name. A listed file that is not among
  them has lost its last row, or its save failed; no row will ever name it again.

To be unnamed is not enough. A backup reads the database first and the files afterwards, and needs the files of that
first moment until it ends. A file may have been written years ago and unnamed a second ago, and nothing on the file
tells. So a sweep notes the files that it sees unnamed. It removes those that it noted a grace time ago and still sees
unnamed. If the note is lost, they wait once more. Folders stay, because a save may be about to use an empty one.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..clock import utcnow
from ..config import Settings
from ..database import file_columns
from ..database.database import Database
from ..database.tables import oauth_sessions, project_revisions
from ..projects import projects
from ..storage.file_store import FileStore

T = TypeVar("T")

NOTE = ".unnamed.json"
_DEAD_AFTER = timedelta(days=30)
_SESSIONS_AT_ONCE = 500


@dataclass(frozen=True)
class Swept:
    """The unnamed files: how many were removed, their bytes, how many wait, and how many could not be removed."""

    removed: int
    size: int
    waiting: int
    failed: int

    def __str__(self) -> str:
        failed = f", {self.failed} could not be removed" if self.failed else ""
        return f"{self.removed} ({self.size} bytes){failed}; {self.waiting} more wait for the end of their grace time"


def run(settings: Settings, grace_hours: int, dry_run: bool) -> int:
    """Prune saved versions, remove files and sessions, and print a line for each; returns 1 if a file could not go.

    Raises DatabaseUnavailable; the steps before it stay done.
    """
    database, store = Database(settings.database, connections=1), FileStore(settings.uploads)
    grace = grace_hours * 3600.0
    try:
        # Versions first: the files that they leave unnamed are noted in the same run.
        _timed("versions", dry_run, lambda: prune_versions(database, settings.keep_revisions, dry_run))
        swept = _timed("files", dry_run, lambda: remove_files(database, store, grace, grace, dry_run))
        _timed("sessions", dry_run, lambda: remove_sessions(database, dry_run))
    finally:
        database.dispose()
    return 1 if swept.failed else 0


def prune_versions(database: Database, keep_revisions: int, dry_run: bool = False) -> int:
    """Delete saved versions beyond the kept number, as after that number was lowered; returns how many."""
    count = sa.func.count()
    crowded = (
        sa.select(project_revisions.c.project_id, count.label("versions"))
        .group_by(project_revisions.c.project_id)
        .having(count > keep_revisions + 1)
    )
    found = database.read(lambda connection: connection.execute(crowded).all())
    if dry_run:
        return sum(row.versions - keep_revisions - 1 for row in found)

    def prune(connection: Connection, project_id: int) -> int:
        # A restore holds this lock while it reads the file of a version, so that version is not pruned meanwhile.
        try:
            projects.lock(connection, project_id)
        except projects.NotFound:
            return 0
        return projects.prune_versions(connection, project_id, keep_revisions)

    return sum(
        database.write(lambda connection, project_id=row.project_id: prune(connection, project_id)) for row in found
    )


def remove_files(
    database: Database, store: FileStore, min_age: float, min_unnamed: float, dry_run: bool = False
) -> Swept:
    """Remove files last written `min_age` seconds ago, or earlier, and first seen unnamed `min_unnamed` seconds ago.

    `min_age` must be longer than any save takes from its last byte to its commit.
    """
    now = time.time()
    # The argument above rests on the order of these two.
    listed = list(store.written_before(now - min_age))
    unnamed = _unnamed(database, store, listed)
    seen = _read_note(store)
    since = {path: min(seen.get(path, now), now) for path in unnamed}
    due = [path for path, first_seen in since.items() if now - first_seen >= min_unnamed]
    removed = size = failed = 0
    for path in due:
        try:
            size += (store.root / path).stat().st_size
            if not dry_run:
                (store.root / path).unlink()
            removed += 1
        except FileNotFoundError:
            # Its own save removed it, or another sweep did.
            continue
        except OSError:
            failed += 1
    # Last, because a full disk, which is a reason to sweep, has no room for the note before a file is removed.
    if not dry_run:
        _write_note(store, since)
    return Swept(removed, size, len(since) - len(due), failed)


def remove_sessions(database: Database, dry_run: bool = False) -> int:
    """Remove sessions that expired a month ago and were not used since; returns how many."""
    long_ago = utcnow() - _DEAD_AFTER
    dead = sa.and_(
        oauth_sessions.c.expires_at < long_ago,
        sa.or_(oauth_sessions.c.last_accessed.is_(None), oauth_sessions.c.last_accessed < long_ago),
    )
    ids = database.read(lambda connection: connection.scalars(sa.select(oauth_sessions.c.id).where(dead)).all())
    if dry_run:
        return len(ids)
    removed = 0
    # In short transactions, because on SQLite a transaction blocks all saves. A session refreshed meanwhile stays.
    for start in range(0, len(ids), _SESSIONS_AT_ONCE):
        some = sa.delete(oauth_sessions).where(oauth_sessions.c.id.in_(ids[start : start + _SESSIONS_AT_ONCE]), dead)
        removed += database.write(lambda connection, statement=some: connection.execute(statement).rowcount)
    return removed


def _timed(what: str, dry_run: bool, work: Callable[[], T]) -> T:
    started = time.monotonic()
    result = work()
    verb = "would be removed" if dry_run else "removed"
    print(f"{what} {verb}: {result} ({time.monotonic() - started:.1f} s)", flush=True)
    return result


def _unnamed(database: Database, store: FileStore, listed: Iterable[str]) -> list[str]:
    """Those of `listed` that no row names, as one statement sees the rows.

    Columns that are not declared to name files may still name some; a declaration may be missing. So a file
    stays, too, while its path is part of any text in the database.
    """
    rows = database.read(_read_paths)
    named = {store.relative(row.text) for row in rows if row.is_declared}
    other_texts = [row.text for row in rows if not row.is_declared]
    return [path for path in listed if path not in named and not any(path in text for text in other_texts)]


def _read_paths(connection: Connection) -> list[Row[tuple[str, bool]]]:
    """Every text of a column that is declared to name files, and of the other columns every text with a slash."""

    def texts(column: sa.ColumnElement[str], is_declared: bool) -> sa.Select[tuple[str, bool]]:
        return sa.select(column.label("text"), sa.literal(is_declared).label("is_declared"))

    declared = [texts(column, True) for column in file_columns.declared()]
    others = [
        texts(column, False).where(column.contains("/", autoescape=True))
        for column in file_columns.undeclared(connection)
    ]
    return list(connection.execute(sa.union(*declared, *others)))


def _read_note(store: FileStore) -> dict[str, float]:
    """When each file of the last sweep's note was first seen unnamed; empty if the note is lost or unreadable."""
    try:
        note = json.loads((store.root / NOTE).read_text(encoding="ascii"))
        return {str(path): float(first_seen) for path, first_seen in note.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write_note(store: FileStore, since: dict[str, float]) -> None:
    new = store.root / f"{NOTE}.new"
    new.write_text(json.dumps(since), encoding="ascii")
    new.replace(store.root / NOTE)
