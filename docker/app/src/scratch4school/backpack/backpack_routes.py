"""The routes of the backpack: sprites, costumes, sounds and scripts that a user takes from one project to another.

The front end accepts only status 200 as success. It fetches an item's content as an asset, without a session.
"""

import base64
import binascii
import re
from contextlib import ExitStack
from typing import Any

from flask import Blueprint, request
from sqlalchemy.engine import Row

from ..assets.assets import Upload
from ..clock import isoformat
from ..database.text import is_storable
from ..login.sessions import current, require_session
from ..storage.file_store import IncomingFile
from ..web.errors import ApiError
from ..web.json_body import json_object
from ..web.services import services
from . import backpack
from .backpack import NewItem

blueprint = Blueprint("backpack", __name__, url_prefix="/api/backpack")

_FIELDS = ("type", "mime", "name", "body", "thumbnail")
_TYPE = re.compile(r"[a-z0-9_-]{1,20}")
_MIME = re.compile(r"[a-z]{1,20}/([a-z0-9+-]{1,10})")
_NAME_LENGTH = 255
_DEFAULT_LIMIT = 20
_MAX_LIMIT = 100
_MAX_OFFSET = 2147483647


@blueprint.get("")
@require_session
def index() -> dict[str, Any]:
    """A page of the user's items, the newest first; `limit` is at most 100."""
    limit = min(_number("limit", _DEFAULT_LIMIT, low=1), _MAX_LIMIT)
    offset = _number("offset", 0, low=0)
    user_id = current().user_id
    rows, total = services().database.read(lambda connection: backpack.page(connection, user_id, limit, offset))
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
    """Put an item into the backpack: item, content and thumbnail are stored together or not at all."""
    fields = _fields()
    available = services()
    with ExitStack() as stack:
        body = stack.enter_context(available.store.receive())
        thumbnail = stack.enter_context(available.store.receive())
        _decode("body", fields["body"], body)
        _decode("thumbnail", fields["thumbnail"], thumbnail)
        item = NewItem(
            type=fields["type"],
            name=fields["name"],
            mime=fields["mime"],
            body=Upload(body, fields["type"], _data_format(fields["mime"])),
            thumbnail=Upload(thumbnail, "thumbnail", "jpg"),
        )
        return _item_json(backpack.add(available.database, available.store, current().user_id, item))


@blueprint.delete("/<item_id>")
@require_session
def remove(item_id: str) -> dict[str, str]:
    """Remove an item from the user's own backpack."""
    if not is_storable(item_id) or not backpack.remove(services().database, current().user_id, item_id):
        raise ApiError(404, "There is no such item in your backpack.")
    return {"status": "success", "message": "Item removed from the backpack.", "id": item_id}


def _item_json(row: Row[Any]) -> dict[str, Any]:
    subtype = row.mime.partition("/")[2]
    # The front end loads costumes and sounds by a name with a suffix, and other items by the bare id.
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
    # Browsers send different types for a .wav file; the front end looks for one of them.
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
    """Decode the base64 `text`, with or without the head of a data URL, into a file."""
    try:
        content = base64.b64decode(text.rpartition(",")[2], validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if not content:
        raise ApiError(400, f"The field {name} must be base64 of some content.")
    into.write(content)


def _number(name: str, default: int, low: int) -> int:
    text = request.args.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,10}", text) or not low <= int(text) <= _MAX_OFFSET:
        raise ApiError(400, f"{name} must be a whole number of at least {low}.")
    return int(text)
