"""People and their groups, as the identity provider last described them.

First logins race: a class of thirty arrives in the same second, and one pupil's three tablets too. So nothing here
looks first and inserts afterwards; each row is one INSERT … ON CONFLICT.
"""

import json
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from .claims import GroupClaim, Identity
from .clock import utcnow
from .database import Database
from .tables import groups, oauth_sessions, user_groups, users

# How the ids of those users begin that the verification makes for a moment (verification/visitors.py).
VISITOR_PREFIX = "verify-"


def sign_in(
    database: Database, identity: Identity, access_token: str, refresh_token: str | None, expires_at: datetime
) -> str:
    """Record a login: the user, the groups, the memberships and a session; returns the session's id.

    One transaction, so that nobody ever sees a user who is in no group because the rebuilding is under way.
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


def last_login(connection: Connection) -> datetime | None:
    """When a person last logged in, None when none ever did; the verification's visitors do not count."""
    # The original and former releases of ours leave `last_login` empty at the first login, which creates the user.
    moment = sa.func.coalesce(users.c.last_login, users.c.created_at)
    is_visitor = sa.func.substr(users.c.id, 1, len(VISITOR_PREFIX)) == VISITOR_PREFIX
    return connection.scalar(sa.select(sa.func.max(moment)).where(~is_visitor))


def groups_of(connection: Connection, user_id: str) -> Sequence[Row[Any]]:
    """The groups a user is in, by name."""
    return connection.execute(
        sa.select(groups.c.id, groups.c.name, groups.c.external_id, groups.c.description)
        .join(user_groups, user_groups.c.group_id == groups.c.id)
        .where(user_groups.c.user_id == user_id)
        .order_by(groups.c.name, groups.c.id)
    ).all()


def group_json(row: Row[Any]) -> dict[str, Any]:
    return {"id": row.id, "name": row.name, "external_id": row.external_id, "description": row.description}


def avatar_url(connection: Connection, user_id: str) -> str | None:
    """The picture among the claims of the last login.

    The claims are read as text, because old installations hold some as JSON inside JSON or as no JSON at all.
    """
    stored = connection.scalar(sa.select(sa.cast(users.c.user_data, sa.Text)).where(users.c.id == user_id))
    try:
        claims = json.loads(stored or "null")
    except ValueError:
        return None
    picture = claims.get("picture") if isinstance(claims, dict) else None
    return picture if isinstance(picture, str) else None


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
    database: Database, connection: Connection, wanted: Sequence[GroupClaim], now: datetime
) -> dict[str, int]:
    """The ids of `wanted`, which must be sorted; groups that are new or were renamed are written.

    Looking first spares the usual login every write. It decides nothing: a group that appears in between is met by
    the ON CONFLICT, and its row is what the second look finds.
    """
    found = _find_groups(connection, wanted)
    changed = [
        claim
        for claim in wanted
        if claim.external_id not in found or (claim.name is not None and found[claim.external_id][1] != claim.name)
    ]
    if not changed:
        return {external_id: row[0] for external_id, row in found.items()}
    insert = database.insert(groups)
    for claim in changed:
        values = insert.values(
            external_id=claim.external_id, name=claim.name or claim.external_id[:128], created_at=now
        )
        # A provider that sends bare names must not undo a good name that was given before.
        if claim.name is None:
            statement = values.on_conflict_do_nothing(index_elements=[groups.c.external_id])
        else:
            statement = values.on_conflict_do_update(
                index_elements=[groups.c.external_id],
                set_={"name": values.excluded.name},
                where=groups.c.name != values.excluded.name,
            )
        connection.execute(statement)
    return {external_id: row[0] for external_id, row in _find_groups(connection, wanted).items()}


def _find_groups(connection: Connection, wanted: Sequence[GroupClaim]) -> dict[str, tuple[int, str]]:
    if not wanted:
        return {}
    rows = connection.execute(
        sa.select(groups.c.external_id, groups.c.id, groups.c.name).where(
            groups.c.external_id.in_([claim.external_id for claim in wanted])
        )
    )
    return {row.external_id: (row.id, row.name) for row in rows}


def _put_memberships(
    database: Database, connection: Connection, user_id: str, group_ids: dict[str, int], now: datetime
) -> None:
    wanted = sorted(group_ids.values())
    present = set(connection.scalars(sa.select(user_groups.c.group_id).where(user_groups.c.user_id == user_id)).all())
    if gone := present.difference(wanted):
        connection.execute(
            sa.delete(user_groups).where(user_groups.c.user_id == user_id, user_groups.c.group_id.in_(sorted(gone)))
        )
    if missing := [group_id for group_id in wanted if group_id not in present]:
        connection.execute(
            database.insert(user_groups).on_conflict_do_nothing(),
            [{"user_id": user_id, "group_id": group_id, "joined_at": now} for group_id in missing],
        )
