"""Users and their groups, as the last login recorded them (`login.sign_in`)."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..database.tables import groups, user_groups, users

# The ids of the verification's temporary users begin with this (verification/visitors.py).
VISITOR_PREFIX = "verify-"


def last_login(connection: Connection) -> datetime | None:
    """When a person last logged in; None before the first login. The verification's temporary users do not count."""
    # The original, and early releases of ours, leave `last_login` empty at the first login, which creates the user.
    moment = sa.func.coalesce(users.c.last_login, users.c.created_at)
    is_visitor = sa.func.substr(users.c.id, 1, len(VISITOR_PREFIX)) == VISITOR_PREFIX
    return connection.scalar(sa.select(sa.func.max(moment)).where(~is_visitor))


def groups_of(connection: Connection, user_id: str) -> Sequence[Row[Any]]:
    """The groups of a user, by name."""
    return connection.execute(
        sa.select(groups.c.id, groups.c.name, groups.c.external_id, groups.c.description)
        .join(user_groups, user_groups.c.group_id == groups.c.id)
        .where(user_groups.c.user_id == user_id)
        .order_by(groups.c.name, groups.c.id)
    ).all()


def avatar_url(connection: Connection, user_id: str) -> str | None:
    """The picture's address among the claims of the last login, or None.

    The claims are read as text, because old installations have some as JSON inside JSON, or as invalid JSON.
    """
    stored = connection.scalar(sa.select(sa.cast(users.c.user_data, sa.Text)).where(users.c.id == user_id))
    try:
        claims = json.loads(stored or "null")
    except ValueError:
        return None
    picture = claims.get("picture") if isinstance(claims, dict) else None
    return picture if isinstance(picture, str) else None
