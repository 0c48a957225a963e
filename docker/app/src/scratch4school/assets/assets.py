"""Assets in the database: one row for each content and type, and each file under a name that is used once.

If the name followed from the content alone, uploads that do not know of each other would share it. One of them could
then name a file at the moment when another upload, or the sweep, removes it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..clock import utcnow
from ..database.database import CommitUnknown, Database
from ..database.tables import assets
from ..storage.file_store import FileStore, IncomingFile

_PATH = sa.select(assets.c.file_path).where(
    assets.c.md5 == sa.bindparam("md5"), assets.c.asset_type == sa.bindparam("asset_type")
)
_PATH_FOR_UPDATE = _PATH.with_for_update()
# By `Database.is_sqlite`.
_INSERTS: dict[bool, Any] = {}


@dataclass(frozen=True)
class Upload:
    """Content that will be an asset. `asset_type` and `data_format` become parts of a path; the caller checks them."""

    incoming: IncomingFile
    asset_type: str
    data_format: str


@dataclass(frozen=True)
class _New:
    """An asset whose file is stored and which no row names yet."""

    md5: str
    size: int
    asset_type: str
    data_format: str
    path: str


def find(connection: Connection, asset_id: str, data_format: str) -> Row[Any] | None:
    """The row of an asset, or None. If one content has several types, the one with `data_format` is preferred."""
    preferred = sa.case((assets.c.data_format == data_format, 0), else_=1)
    statement = sa.select(assets).where(assets.c.asset_id == asset_id).order_by(preferred, assets.c.id).limit(1)
    return connection.execute(statement).one_or_none()


def put(database: Database, store: FileStore, owner_id: str, upload: Upload) -> str:
    """Store an upload unless it is stored already; returns its id, the MD5 of its content."""
    return put_all(database, store, owner_id, [upload], None)[0]


def put_all(
    database: Database,
    store: FileStore,
    owner_id: str,
    uploads: Sequence[Upload],
    work: Callable[[Connection, list[str]], object] | None,
) -> list[str]:
    """Store the uploads that are not stored already, and do `work` in the same transaction; returns the uploads' ids.

    `work` gets the ids in the order of the uploads and, as any unit of work, may run several times. Without `work` and
    without a new upload there is no transaction. Files that no row names in the end are removed at once. If
    the answer to the commit was lost, the sweep removes them.
    """
    ids = [upload.incoming.digest("md5") for upload in uploads]
    new: list[_New] = []

    def store_all(connection: Connection) -> set[str]:
        named = {_record(database, connection, store, owner_id, asset) for asset in new}
        if work is not None:
            work(connection, ids)
        return named

    named: set[str] = set()
    try:
        # Always in the same order, so that two requests with the same assets cannot deadlock.
        for md5, upload in sorted(zip(ids, uploads, strict=True), key=lambda pair: (pair[0], pair[1].asset_type)):
            if not _is_stored(database, store, md5, upload.asset_type):
                new.append(_keep(store, md5, upload))
        if new or work is not None:
            named = database.write(store_all)
    except CommitUnknown:
        raise
    except BaseException:
        _discard_unnamed(store, new, set())
        raise
    _discard_unnamed(store, new, named)
    return ids


def _is_stored(database: Database, store: FileStore, md5: str, asset_type: str) -> bool:
    known = database.read(lambda connection: connection.scalar(_PATH, {"md5": md5, "asset_type": asset_type}))
    return known is not None and store.find(known) is not None


def _keep(store: FileStore, md5: str, upload: Upload) -> _New:
    path = store.keep_asset(upload.incoming, upload.asset_type, md5, upload.data_format)
    return _New(md5, upload.incoming.size, upload.asset_type, upload.data_format, path)


def _record(database: Database, connection: Connection, store: FileStore, owner_id: str, asset: _New) -> str:
    """Insert the asset's row unless it exists; returns the path that the row names, which may be another upload's."""
    values = {
        "asset_id": asset.md5,
        "asset_type": asset.asset_type,
        "data_format": asset.data_format,
        "size": asset.size,
        "md5": asset.md5,
        "owner_id": owner_id,
        "file_path": asset.path,
        "created_at": utcnow(),
    }
    connection.execute(_insert_once(database), values)
    named: str = connection.scalar(_PATH_FOR_UPDATE, {"md5": asset.md5, "asset_type": asset.asset_type})
    if store.find(named) is not None:
        return named
    # A row without its file, as imported databases have; this upload replaces the missing file.
    connection.execute(
        sa.update(assets)
        .where(assets.c.md5 == asset.md5, assets.c.asset_type == asset.asset_type)
        .values(file_path=asset.path, data_format=asset.data_format)
    )
    return asset.path


def _insert_once(database: Database) -> Any:
    """The INSERT of this database's dialect, built at its first use."""
    if database.is_sqlite not in _INSERTS:
        key = [assets.c.md5, assets.c.asset_type]
        _INSERTS[database.is_sqlite] = database.insert(assets).on_conflict_do_nothing(index_elements=key)
    return _INSERTS[database.is_sqlite]


def _discard_unnamed(store: FileStore, new: Sequence[_New], named: set[str]) -> None:
    for asset in new:
        if asset.path not in named:
            store.discard(asset.path)
