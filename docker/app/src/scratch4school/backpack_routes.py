"""The backpack: sprites, costumes, sounds and scripts that a user carries from one project to another.

The front end takes no other status than 200 for an answer, and fetches what an item holds as assets, without a session.
"""

import base64
import binascii
import re
import uuid
from contextlib import ExitStack
from typing import Any

import sqlalchemy as sa
from flask import Blueprint, request
from sqlalchemy.engine import Connection, Row

from .assets import Upload, put_all
from .clock import isoformat, utcnow
from .errors import ApiError
from .files import IncomingFile
from .project_answers import json_object
from .services import services
from .sessions import current, require_session
from .tables import backpack_items
from .texts import is_storable

blueprint = Blueprint("backpack", __name__, url_prefix="/api/backpack")

_FIELDS = ("type", "mime", "name", "body", "thumbnail")
_TYPE = re.compile(r"[a-z0-9_-]{1,20}")
_MIME = re.compile(r"[a-z]{1,20}/([a-z0-9+-]{1,10})")
_NAME_LENGTH = 255
_DEFAULT_LIMIT = 20
_LARGEST_LIMIT = 100
_LARGEST_OFFSET = 2147483647


@blueprint.get("")
@require_session
def index() -> dict[str, Any]:
    """A page of the user's items, the newest first; `limit` is at most 100."""
    limit = min(_number("limit", _DEFAULT_LIMIT, low=1), _LARGEST_LIMIT)
    offset = _number("offset", 0, low=0)
    own = backpack_items.c.owner_id == current().user_id
    newest_first = (backpack_items.c.updated_at.desc(), backpack_items.c.id)

    def work(connection: Connection) -> tuple[list[Row[Any]], int]:
        page = sa.select(backpack_items).where(own).order_by(*newest_first).limit(limit).offset(offset)
        total = sa.select(sa.func.count()).select_from(backpack_items).where(own)
        return list(connection.execute(page)), connection.scalar(total) or 0

    rows, total = services().database.read(work)
    return {
        "items": [_item_json(row) for row in rows],
        "offset": offset,
        "limit": limit,
        "total": total,
        "hasMore": offset + len(rows) < total,
    }


@blueprint.post("")
@require_session
def add() -> dict[str, Any]:
    """Put something into the backpack: the item, its content and its picture are stored together or not at all."""
    fields = _fields()
    available, user_id, now = services(), current().user_id, utcnow()
    item_id, added = str(uuid.uuid4()), list[Row[Any]]()
    with ExitStack() as stack:
        body = stack.enter_context(available.store.receive())
        thumbnail = stack.enter_context(available.store.receive())
        _decode("body", fields["body"], body)
        _decode("thumbnail", fields["thumbnail"], thumbnail)
        uploads = [Upload(body, fields["type"], _data_format(fields["mime"])), Upload(thumbnail, "thumbnail", "jpg")]

        def work(connection: Connection, ids: list[str]) -> None:
            statement = sa.insert(backpack_items).values(
                id=item_id,
                type=fields["type"],
                name=fields["name"],
                mime=fields["mime"],
                body=ids[0],
                thumbnail=ids[1],
                owner_id=user_id,
                created_at=now,
                updated_at=now,
            )
            added[:] = [connection.execute(statement.returning(*backpack_items.c)).one()]

        put_all(available.database, available.store, user_id, uploads, work)
    return _item_json(added[0])


@blueprint.delete("/<item_id>")
@require_session
def remove(item_id: str) -> dict[str, str]:
    """Take an item out of one's own backpack; its content stays, since others may carry the same."""
    owner_id = current().user_id
    statement = sa.delete(backpack_items).where(backpack_items.c.id == item_id, backpack_items.c.owner_id == owner_id)
    removed = is_storable(item_id) and services().database.write(
        lambda connection: connection.execute(statement).rowcount
    )
    if not removed:
        raise ApiError(404, "There is no such item in your backpack.")
    return {"status": "success", "message": "Item removed from the backpack.", "id": item_id}


def _item_json(row: Row[Any]) -> dict[str, Any]:
    subtype = row.mime.partition("/")[2]
    # The front end loads costumes and sounds by a name with the file's suffix, and the rest by the bare id.
    suffixed = row.type in ("costume", "sound")
    return {
        "id": row.id,
        "type": row.type,
        "name": row.name,
        "mime": row.mime,
        "body": f"{row.body}.{subtype.partition('+')[0]}" if suffixed else row.body,
        "thumbnail": row.thumbnail,
        "created_at": isoformat(row.created_at),
        "updated_at": isoformat(row.updated_at),
        "thumbnailUrl": f"/backend/api/assets/{row.thumbnail}",
        "bodyUrl": f"/backend/api/assets/{row.body}.{subtype}",
    }


def _fields() -> dict[str, str]:
    body = json_object()
    if not body:
        raise ApiError(400, "The request needs a JSON object with the fields type, mime, name, body and thumbnail.")
    for name in _FIELDS:
        if not isinstance(body.get(name), str):
            raise ApiError(400, f"The field {name} is missing, or it is not text.")
    fields = {name: str(body[name]) for name in _FIELDS}
    # Browsers disagree about what a .wav is; the front end finds its sounds by one of the names.
    if fields["mime"] == "audio/x-wav":
        fields["mime"] = "audio/wav"
    if not _TYPE.fullmatch(fields["type"]):
        raise ApiError(400, "The field type must be a word such as sprite, costume, sound or script.")
    if not _MIME.fullmatch(fields["mime"]):
        raise ApiError(400, "The field mime must be a media type such as image/png.")
    if not is_storable(fields["name"]) or len(fields["name"]) > _NAME_LENGTH:
        raise ApiError(400, f"The name has more than {_NAME_LENGTH} characters, or one that cannot be stored.")
    return fields


def _data_format(mime: str) -> str:
    subtype = mime.partition("/")[2]
    return "jpg" if subtype == "jpeg" else subtype


def _decode(name: str, text: str, into: IncomingFile) -> None:
    """Write what the base64 `text` says, with or without the head of a data URL, into a file."""
    try:
        content = base64.b64decode(text.rpartition(",")[2], validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if not content:
        raise ApiError(400, f"The field {name} must be base64 of some content.")
    into.write(content)


def _number(name: str, default: int, low: int) -> int:
    text = request.args.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,10}", text) or not low <= int(text) <= _LARGEST_OFFSET:
        raise ApiError(400, f"{name} must be a whole number of at least {low}.")
    return int(text)
