"""The school's pupils, as teachers and admins see them."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..database.tables import projects, users
from ..database.text import is_storable

_COUNTED = sa.select(projects.c.owner_id, sa.func.count().label("projects")).group_by(projects.c.owner_id).subquery()
_STUDENTS = (
    sa.select(users.c.id, users.c.username, sa.func.coalesce(_COUNTED.c.projects, 0).label("projects"))
    .outerjoin(_COUNTED, _COUNTED.c.owner_id == users.c.id)
    # An old installation whose provider sent no groups has users without a role; they are no teachers.
    .where(sa.or_(users.c.role.is_(None), users.c.role.not_in(("teacher", "admin"))))
    .order_by(users.c.username, users.c.id)
)


def students(connection: Connection) -> Sequence[Row[Any]]:
    """`id`, `username` and number of `projects` of each pupil, by name."""
    return connection.execute(_STUDENTS).all()


def find(connection: Connection, user_id: str) -> Row[Any] | None:
    """`id` and `username` of a person, or None for an id that never logged in."""
    # PostgreSQL answers a NUL with an error instead of no row.
    if not is_storable(user_id):
        return None
    return connection.execute(sa.select(users.c.id, users.c.username).where(users.c.id == user_id)).one_or_none()
