"""The routes of assets, which are named by their content and therefore never change."""

import re

from flask import Blueprint, Response, request

from ..login.sessions import current, require_session
from ..web.downloads import send_stored
from ..web.errors import ApiError
from ..web.services import services
from ..web.uploads import file_part
from .assets import Upload, find, put

blueprint = Blueprint("assets", __name__, url_prefix="/api/assets")

_TYPE = re.compile(r"[a-z0-9_+-]{1,50}")
_FORMAT = re.compile(r"[a-z0-9_+-]{0,10}")
_ASSET_ID = re.compile(r"([0-9A-Za-z_-]{1,128})(?:\.([0-9A-Za-z_+-]{1,16}))?")
_IMAGE_TYPES = {"svg": "svg+xml", "svg+xml": "svg+xml", "jpg": "jpeg", "jpeg": "jpeg", "png": "png", "gif": "gif"}
_SOUND_TYPES = {"wav": "wav", "mp3": "mpeg", "mpeg": "mpeg", "ogg": "ogg"}


@blueprint.post("/", strict_slashes=False)
@require_session
def upload() -> dict[str, str]:
    """Store an asset; the same bytes sent again, or twice at once, get the same answer."""
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
    """The content of an asset; without a session, because the editor asks so."""
    parts = _ASSET_ID.fullmatch(asset_name)
    row = None
    if parts is not None:
        row = services().database.read(lambda connection: find(connection, parts[1], parts[2] or ""))
    response = send_stored(row.file_path, _mimetype(row.asset_type, row.data_format)) if row is not None else None
    if response is None:
        raise ApiError(404, "There is no such asset.")
    return response


def _checked(pattern: re.Pattern[str], field: str, value: str) -> str:
    lowered = value.lower()
    if not pattern.fullmatch(lowered):
        raise ApiError(400, f"The field {field} may contain only a few letters, digits, '_', '+' and '-'.")
    return lowered


def _mimetype(asset_type: str, data_format: str) -> str:
    if asset_type == "costume":
        return f"image/{_IMAGE_TYPES.get(data_format, 'png')}"
    if asset_type == "sound":
        return f"audio/{_SOUND_TYPES.get(data_format, 'wav')}"
    fixed = {"sprite": "application/zip", "script": "application/json", "thumbnail": "image/jpeg"}
    return fixed.get(asset_type, "application/octet-stream")
