"""`scratch4school sweep`: removes versions beyond the kept number, files that no row names, and sessions long dead.

It runs beside saves, restores and copies. That no file goes which a row names, or is about to name, rests on this:

* A file gets a name that is never used twice, so nobody can come to mean another file by a name found here.
* A row comes to name a file in two ways. A save names one that it wrote itself, seconds before. A restore or a copy
  names one that another row names, and holds the lock of the project behind that row until it commits; what would take
  the file from that row (a save, a deletion, the forgetting below) needs this lock too. So from a file's first row to
  its last there is no moment without one.
* The files are listed first, and only those that nobody has written to for the grace time, which no save takes. Then
  one statement, and therefore one snapshot, gives all paths that rows name. A listed file that is not among them had
  its last row, or its save failed, and it stays unnamed for ever.

Being unnamed is not enough to go. A backup reads the database first and the files afterwards, and the files of that
first moment have to be there as long as it runs. A file may have been written years ago and unnamed a second ago, and
nothing on it tells. So a sweep notes what it sees unnamed, and removes what it noted a grace time ago and still sees
unnamed. If the note is lost, all waits once more. Folders stay: a save may be about to put its file into an empty one.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from . import projects
from .clock import utcnow
from .config import Settings
from .database import Database
from .files import FileStore
from .tables import assets, oauth_sessions, project_revisions
from .tables import projects as project_rows

T = TypeVar("T")

NOTE = ".unnamed.json"
_DEAD_AFTER = timedelta(days=30)
_SESSIONS_AT_ONCE = 500


@dataclass(frozen=True)
class Swept:
    """What became of the unnamed files: how many went, their bytes, how many wait, and how many could not go."""

    removed: int
    size: int
    waiting: int
    failed: int

    def __str__(self) -> str:
        failed = f", {self.failed} could not be removed" if self.failed else ""
        return f"{self.removed} ({self.size} bytes){failed}; {self.waiting} more wait for the end of their grace time"


def run(settings: Settings, grace_hours: int, dry_run: bool) -> int:
    """Forget versions, remove files and sessions, with a line for each; returns 1 if a file could not go, else 0.

    Raises DatabaseUnavailable; what was done before that stays done.
    """
    database, store = Database(settings.database, connections=1), FileStore(settings.uploads)
    grace = grace_hours * 3600.0
    try:
        # Versions first: what they leave unnamed is noted in the same run.
        _timed("versions", dry_run, lambda: forget_revisions(database, settings.keep_revisions, dry_run))
        swept = _timed("files", dry_run, lambda: remove_files(database, store, grace, grace, dry_run))
        _timed("sessions", dry_run, lambda: remove_sessions(database, dry_run))
    finally:
        database.dispose()
    return 1 if swept.failed else 0


def forget_revisions(database: Database, keep_revisions: int, dry_run: bool = False) -> int:
    """Forget what is beyond the kept number, as after that was lowered; returns how many versions that were."""
    count = sa.func.count()
    crowded = (
        sa.select(project_revisions.c.project_id, count.label("versions"))
        .group_by(project_revisions.c.project_id)
        .having(count > keep_revisions + 1)
    )
    found = database.read(lambda connection: connection.execute(crowded).all())
    if dry_run:
        return sum(row.versions - keep_revisions - 1 for row in found)

    def forget(connection: Connection, project_id: int) -> int:
        # A restore holds this lock while it takes the file of a version; so nobody forgets that version meanwhile.
        try:
            projects.lock(connection, project_id)
        except projects.NotFound:
            return 0
        return projects.forget_revisions(connection, project_id, keep_revisions)

    return sum(
        database.write(lambda connection, project_id=row.project_id: forget(connection, project_id)) for row in found
    )


def remove_files(database: Database, store: FileStore, settled: float, unnamed: float, dry_run: bool = False) -> Swept:
    """Remove files last written `settled` seconds ago or earlier and first seen unnamed `unnamed` seconds ago or more.

    `settled` has to be longer than any save lasts, from its last byte to its commit.
    """
    now = time.time()
    # The order of these two is what the argument above stands on.
    listed = list(store.settled(before=now - settled))
    named = _named(database, store)
    seen = _noted(store)
    since = {path: min(seen.get(path, now), now) for path in listed if path not in named}
    due = [path for path, first_seen in since.items() if now - first_seen >= unnamed]
    removed = size = failed = 0
    for path in due:
        try:
            size += (store.root / path).stat().st_size
            if not dry_run:
                (store.root / path).unlink()
            removed += 1
        except FileNotFoundError:
            # Its own save took it back, or another sweep was faster.
            continue
        except OSError:
            failed += 1
    # Last, because a full disk is a reason to sweep, and has no room for a note before something went.
    if not dry_run:
        _note(store, since)
    return Swept(removed, size, len(since) - len(due), failed)


def remove_sessions(database: Database, dry_run: bool = False) -> int:
    """Remove sessions that ran out a month ago and were not used since; returns how many."""
    long_ago = utcnow() - _DEAD_AFTER
    dead = sa.and_(
        oauth_sessions.c.expires_at < long_ago,
        sa.or_(oauth_sessions.c.last_accessed.is_(None), oauth_sessions.c.last_accessed < long_ago),
    )
    ids = database.read(lambda connection: connection.scalars(sa.select(oauth_sessions.c.id).where(dead)).all())
    if dry_run:
        return len(ids)
    removed = 0
    # In short transactions: on SQLite nobody can save as long as one lasts. A session renewed meanwhile is spared.
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


def _named(database: Database, store: FileStore) -> set[str | None]:
    """Every path that a row names, as one statement sees them."""
    columns = (
        project_rows.c.sb3_file_path,
        project_rows.c.thumbnail_path,
        project_revisions.c.file_path,
        assets.c.file_path,
    )
    statement = sa.union(*(sa.select(column) for column in columns))
    return {store.relative(path) for path in database.read(lambda connection: connection.scalars(statement).all())}


def _noted(store: FileStore) -> dict[str, float]:
    """When the files of the last sweep's note were first seen unnamed; nothing if it is lost or not readable."""
    try:
        note = json.loads((store.root / NOTE).read_text(encoding="ascii"))
        return {str(path): float(first_seen) for path, first_seen in note.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _note(store: FileStore, since: dict[str, float]) -> None:
    new = store.root / f"{NOTE}.new"
    new.write_text(json.dumps(since), encoding="ascii")
    new.replace(store.root / NOTE)
