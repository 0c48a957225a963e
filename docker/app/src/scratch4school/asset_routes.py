"""Assets: costumes, sounds and the like, named by their content and therefore never changed."""

import re

import sqlalchemy as sa
from flask import Blueprint, Response, request

from .assets import Upload, put
from .errors import ApiError
from .sending import send_stored
from .services import services
from .sessions import current, require_session
from .tables import assets
from .uploads import file_part

blueprint = Blueprint("assets", __name__, url_prefix="/api/assets")

_TYPE = re.compile(r"[a-z0-9_+-]{1,50}")
_FORMAT = re.compile(r"[a-z0-9_+-]{0,10}")
_ASSET_ID = re.compile(r"([0-9A-Za-z_-]{1,128})(?:\.([0-9A-Za-z_+-]{1,16}))?")
_IMAGE_TYPES = {"svg": "svg+xml", "svg+xml": "svg+xml", "jpg": "jpeg", "jpeg": "jpeg", "png": "png", "gif": "gif"}
_SOUND_TYPES = {"wav": "wav", "mp3": "mpeg", "mpeg": "mpeg", "ogg": "ogg"}


@blueprint.post("/", strict_slashes=False)
@require_session
def upload() -> dict[str, str]:
    """Store an asset; the same bytes sent again, or by two at once, get the same answer."""
    asset = file_part(request, "asset")
    if asset is None:
        raise ApiError(400, "The request has no asset file.")
    asset_type = _checked(_TYPE, "type", request.form.get("type") or "unknown")
    data_format = _checked(_FORMAT, "format", request.form.get("format") or "")
    available = services()
    return {
        "status": "ok",
        "assetId": put(available.database, available.store, current().user_id, Upload(asset, asset_type, data_format)),
    }


@blueprint.get("/<asset_name>")
def show(asset_name: str) -> Response:
    """The bytes of an asset; the editor asks without a session."""
    parts = _ASSET_ID.fullmatch(asset_name)
    row = None
    if parts is not None:
        # One content may be stored under several types; the one whose format was asked for comes first.
        preferred = sa.case((assets.c.data_format == (parts[2] or ""), 0), else_=1)
        statement = sa.select(assets).where(assets.c.asset_id == parts[1]).order_by(preferred, assets.c.id).limit(1)
        row = services().database.read(lambda connection: connection.execute(statement).one_or_none())
    response = send_stored(row.file_path, _mimetype(row.asset_type, row.data_format)) if row is not None else None
    if response is None:
        raise ApiError(404, "There is no such asset.")
    return response


def _checked(pattern: re.Pattern[str], field: str, value: str) -> str:
    lowered = value.lower()
    if not pattern.fullmatch(lowered):
        raise ApiError(400, f"The field {field} may hold only a few letters, digits, '_', '+' and '-'.")
    return lowered


def _mimetype(asset_type: str, data_format: str) -> str:
    if asset_type == "costume":
        return f"image/{_IMAGE_TYPES.get(data_format, 'png')}"
    if asset_type == "sound":
        return f"audio/{_SOUND_TYPES.get(data_format, 'wav')}"
    fixed = {"sprite": "application/zip", "script": "application/json", "thumbnail": "image/jpeg"}
    return fixed.get(asset_type, "application/octet-stream")
