"""Backpack items in the database: the content and thumbnail of an item are assets."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..assets.assets import Upload, put_all
from ..clock import utcnow
from ..database.database import Database
from ..database.tables import backpack_items
from ..storage.file_store import FileStore


@dataclass(frozen=True)
class NewItem:
    """An item to store: `type`, `name` and `mime` as checked by the route, `body` and `thumbnail` as assets."""

    type: str
    name: str
    mime: str
    body: Upload
    thumbnail: Upload


def page(connection: Connection, owner_id: str, limit: int, offset: int) -> tuple[Sequence[Row[Any]], int]:
    """A page of a user's items, the newest first, and the number of all of them."""
    own = backpack_items.c.owner_id == owner_id
    newest_first = (backpack_items.c.updated_at.desc(), backpack_items.c.id)
    items = sa.select(backpack_items).where(own).order_by(*newest_first).limit(limit).offset(offset)
    total = sa.select(sa.func.count()).select_from(backpack_items).where(own)
    return connection.execute(items).all(), connection.scalar(total) or 0


def add(database: Database, store: FileStore, owner_id: str, item: NewItem) -> Row[Any]:
    """Store an item with its content and thumbnail, all or nothing; returns its row."""
    item_id, now, added = str(uuid.uuid4()), utcnow(), list[Row[Any]]()

    def work(connection: Connection, ids: list[str]) -> None:
        statement = sa.insert(backpack_items).values(
            id=item_id,
            type=item.type,
            name=item.name,
            mime=item.mime,
            body=ids[0],
            thumbnail=ids[1],
            owner_id=owner_id,
            created_at=now,
            updated_at=now,
        )
        added[:] = [connection.execute(statement.returning(*backpack_items.c)).one()]

    put_all(database, store, owner_id, [item.body, item.thumbnail], work)
    return added[0]


def remove(database: Database, owner_id: str, item_id: str) -> bool:
    """Delete an item of this user; False if there is none. Its assets stay, because other items may name them."""
    statement = sa.delete(backpack_items).where(backpack_items.c.id == item_id, backpack_items.c.owner_id == owner_id)
    return database.write(lambda connection: connection.execute(statement).rowcount) > 0
