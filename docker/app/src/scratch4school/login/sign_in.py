"""Recording a login: the user, the groups, the memberships and a session, as the identity provider describes them.

First logins race: a class of thirty arrives in the same second, and so do three tablets of one pupil. So this code
never looks first and inserts afterwards; each row is one INSERT … ON CONFLICT.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..clock import utcnow
from ..database.database import Database
from ..database.tables import groups, oauth_sessions, user_groups, users
from .claims import GroupClaim, Identity


def sign_in(
    database: Database, identity: Identity, access_token: str, refresh_token: str | None, expires_at: datetime
) -> str:
    """Record a login in one transaction; returns the id of the new session.

    One transaction, so that no reader sees a user without groups while the memberships are replaced.
    """
    session_id = str(uuid.uuid4())

    def work(connection: Connection) -> None:
        now = utcnow()
        _put_user(database, connection, identity, now)
        group_ids = _put_groups(database, connection, identity.groups, now)
        _put_memberships(database, connection, identity.user_id, group_ids, now)
        connection.execute(
            sa.insert(oauth_sessions).values(
                id=session_id,
                user_id=identity.user_id,
                access_token=access_token,
                refresh_token=refresh_token,
                expires_at=expires_at,
                created_at=now,
                last_accessed=now,
            )
        )

    database.write(work)
    return session_id


def _put_user(database: Database, connection: Connection, identity: Identity, now: datetime) -> None:
    described = {
        "username": identity.username,
        "email": identity.email,
        "role": identity.role,
        "user_data": identity.raw,
        "last_login": now,
    }
    connection.execute(
        database.insert(users)
        .values(id=identity.user_id, created_at=now, **described)
        .on_conflict_do_update(index_elements=[users.c.id], set_=described)
    )


def _put_groups(
    database: Database, connection: Connection, claims: Sequence[GroupClaim], now: datetime
) -> dict[str, int]:
    """The row ids of `claims` by external id; inserts new groups and updates renamed ones. `claims` must be sorted.

    The first look saves the usual login every write. It decides nothing: if a group appears after it, ON CONFLICT
    handles that, and the second look finds the row.
    """
    found = _find_groups(connection, claims)
    changed = [
        claim
        for claim in claims
        if claim.external_id not in found or (claim.name is not None and found[claim.external_id][1] != claim.name)
    ]
    if not changed:
        return {external_id: row[0] for external_id, row in found.items()}
    insert = database.insert(groups)
    for claim in changed:
        values = insert.values(
            external_id=claim.external_id, name=claim.name or claim.external_id[:128], created_at=now
        )
        # A provider that sends only external ids must not replace a good name from an earlier login.
        if claim.name is None:
            statement = values.on_conflict_do_nothing(index_elements=[groups.c.external_id])
        else:
            statement = values.on_conflict_do_update(
                index_elements=[groups.c.external_id],
                set_={"name": values.excluded.name},
                where=groups.c.name != values.excluded.name,
            )
        connection.execute(statement)
    return {external_id: row[0] for external_id, row in _find_groups(connection, claims).items()}


def _find_groups(connection: Connection, claims: Sequence[GroupClaim]) -> dict[str, tuple[int, str]]:
    if not claims:
        return {}
    rows = connection.execute(
        sa.select(groups.c.external_id, groups.c.id, groups.c.name).where(
            groups.c.external_id.in_([claim.external_id for claim in claims])
        )
    )
    return {row.external_id: (row.id, row.name) for row in rows}


def _put_memberships(
    database: Database, connection: Connection, user_id: str, group_ids: dict[str, int], now: datetime
) -> None:
    claimed = sorted(group_ids.values())
    present = set(connection.scalars(sa.select(user_groups.c.group_id).where(user_groups.c.user_id == user_id)).all())
    if gone := present.difference(claimed):
        connection.execute(
            sa.delete(user_groups).where(user_groups.c.user_id == user_id, user_groups.c.group_id.in_(sorted(gone)))
        )
    if missing := [group_id for group_id in claimed if group_id not in present]:
        connection.execute(
            database.insert(user_groups).on_conflict_do_nothing(),
            [{"user_id": user_id, "group_id": group_id, "joined_at": now} for group_id in missing],
        )
