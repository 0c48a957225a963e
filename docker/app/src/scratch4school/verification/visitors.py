"""Removing the verification's temporary users: those of one run, and those of killed runs.

A client that got no answer in time does not show that the service has stopped working on the request. So the removal
also covers what a late request writes. After the users are deleted, no request can write for them.
"""

import re
from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..clock import utcnow
from ..database.database import Database
from ..database.tables import (
    assets,
    groups,
    oauth_sessions,
    project_groups,
    project_revisions,
    projects,
    user_groups,
    users,
)
from ..people.users import VISITOR_PREFIX as PREFIX
from ..storage.file_store import FileStore

# Longer than any run, so that two runs at once do not remove each other's users.
_LEFTOVER_AGE = timedelta(hours=1)
_OURS = re.compile(r"verify-[0-9a-f]{12}-[a-z0-9-]+")


def remove_run(database: Database, store: FileStore, run_id: str) -> None:
    """Remove every row and file of the users and groups of one run."""
    _remove(database, store, f"{PREFIX}{run_id}-", None)


def remove_leftovers(database: Database, store: FileStore) -> None:
    """Remove the users of runs that were killed more than an hour ago."""
    _remove(database, store, PREFIX, utcnow() - _LEFTOVER_AGE)


def _remove(database: Database, store: FileStore, prefix: str, before: object | None) -> None:
    def find(connection: Connection) -> tuple[list[str], list[int], list[str]]:
        people = sa.select(users.c.id).where(users.c.id.startswith(prefix, autoescape=True))
        teams = sa.select(groups.c.id, groups.c.external_id).where(
            groups.c.external_id.startswith(prefix, autoescape=True)
        )
        if before is not None:
            people, teams = people.where(users.c.created_at < before), teams.where(groups.c.created_at < before)
        user_ids = [user_id for user_id in connection.scalars(people) if _OURS.fullmatch(user_id)]
        group_ids = [row.id for row in connection.execute(teams) if _OURS.fullmatch(row.external_id)]
        paths = connection.scalars(sa.select(assets.c.file_path).where(assets.c.owner_id.in_(user_ids))).all()
        return user_ids, group_ids, list(paths)

    user_ids, group_ids, asset_paths = database.read(find)
    if not user_ids and not group_ids:
        return
    # Files first: after an interruption the rows still exist and lead the next run to the remaining files.
    _remove_files(store, user_ids, asset_paths)
    late_asset_paths = database.write(lambda connection: _delete(connection, user_ids, group_ids))
    # Files again: those written since, whose rows are deleted now.
    _remove_files(store, user_ids, late_asset_paths)


def _remove_files(store: FileStore, user_ids: Sequence[str], asset_paths: Sequence[str]) -> None:
    for path in asset_paths:
        store.discard(path)
    for user_id in user_ids:
        store.remove_owner(user_id)


def _delete(connection: Connection, user_ids: Sequence[str], group_ids: Sequence[int]) -> Sequence[str]:
    """Delete the users with all their rows; returns the paths of their assets' files."""
    # A transaction that inserts a row of these users locks their key until its commit. This statement waits for it, and
    # the next one sees the row. A later transaction waits for this one, and then finds no user to refer to.
    connection.execute(sa.select(users.c.id).where(users.c.id.in_(user_ids)).order_by(users.c.id).with_for_update())
    asset_paths = connection.scalars(sa.select(assets.c.file_path).where(assets.c.owner_id.in_(user_ids))).all()
    owned = sa.select(projects.c.id).where(projects.c.owner_id.in_(user_ids))
    for table, condition in (
        (project_groups, project_groups.c.project_id.in_(owned)),
        (project_revisions, project_revisions.c.project_id.in_(owned)),
        (projects, projects.c.owner_id.in_(user_ids)),
        (assets, assets.c.owner_id.in_(user_ids)),
        (oauth_sessions, oauth_sessions.c.user_id.in_(user_ids)),
        (user_groups, sa.or_(user_groups.c.user_id.in_(user_ids), user_groups.c.group_id.in_(group_ids))),
        (groups, groups.c.id.in_(group_ids)),
        (users, users.c.id.in_(user_ids)),
    ):
        connection.execute(sa.delete(table).where(condition))
    return asset_paths
