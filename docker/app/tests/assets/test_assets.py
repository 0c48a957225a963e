"""Assets over HTTP: named by content, sent without a session, and never outside the uploads folder."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from helpers import Device
from scratch4school.assets.assets import Upload, put, put_all
from scratch4school.database.database import CommitUnknown
from scratch4school.database.tables import assets
from scratch4school.web.services import Services


def rows(services: Services) -> list[Any]:
    return services.database.read(lambda connection: list(connection.execute(sa.select(assets).order_by(assets.c.id))))


def stored_files(services: Services) -> list[Path]:
    return sorted(path.relative_to(services.store.root) for path in services.store.root.rglob("*") if path.is_file())


def test_uploaded_asset_is_sent_without_a_session(pupil: Device, app: Any) -> None:
    """The editor asks for costumes without a session."""
    content = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    uploaded = pupil.upload(content, type="costume", format="svg")
    asset_id = hashlib.md5(content).hexdigest()
    assert uploaded.json == {"status": "ok", "assetId": asset_id}
    for name in (asset_id, f"{asset_id}.svg"):
        shown = app.test_client().get(f"/api/assets/{name}")
        assert (shown.status_code, shown.data, shown.mimetype) == (200, content, "image/svg+xml")
        assert "sandbox" in shown.headers["Content-Security-Policy"]
        assert shown.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("asset_type", "data_format", "mimetype"),
    [
        ("sprite", "zip", "application/zip"),
        ("costume", "png", "image/png"),
        ("costume", "svg+xml", "image/svg+xml"),
        ("sound", "wav", "audio/wav"),
        ("script", "json", "application/json"),
        ("thumbnail", "jpg", "image/jpeg"),
        ("unknown", "", "application/octet-stream"),
    ],
)
def test_type_decides_the_mimetype(pupil: Device, asset_type: str, data_format: str, mimetype: str) -> None:
    form = {"type": asset_type, **({"format": data_format} if data_format else {})}
    asset_id = pupil.upload(b"content", **form).json["assetId"]
    assert pupil.get(f"/api/assets/{asset_id}").mimetype == mimetype


def test_upload_without_type_and_format_gets_defaults(pupil: Device, services: Services) -> None:
    assert pupil.upload(b"content").status_code == 200
    assert [(row.asset_type, row.data_format) for row in rows(services)] == [("unknown", "")]


def test_same_bytes_again_are_the_same_asset(pupil: Device, device: Callable[..., Device], services: Services) -> None:
    first = pupil.upload(b"content", type="costume", format="png")
    second = device("berta").upload(b"content", type="costume", format="png")
    assert first.json == second.json
    assert len(rows(services)) == len(stored_files(services)) == 1


def test_same_bytes_as_second_type_are_stored_again(pupil: Device, services: Services) -> None:
    """The original answered 500 here and left a file behind."""
    for asset_type in ("costume", "sound"):
        assert pupil.upload(b"content", type=asset_type, format="wav").status_code == 200
    assert [row.asset_type for row in rows(services)] == ["costume", "sound"]
    assert len(stored_files(services)) == 2


def test_missing_file_is_restored_by_the_next_upload(pupil: Device, services: Services) -> None:
    """A row without its file, as imported databases have, is repaired when the same bytes are sent again."""
    asset_id = pupil.upload(b"content", type="costume", format="png").json["assetId"]
    services.database.write(
        lambda connection: connection.execute(sa.update(assets).values(file_path="/app/uploads/costume/gone.png"))
    )
    assert pupil.get(f"/api/assets/{asset_id}").status_code == 404
    assert pupil.upload(b"content", type="costume", format="png").status_code == 200
    assert pupil.get(f"/api/assets/{asset_id}").data == b"content"


def test_file_name_is_never_used_twice(pupil: Device, services: Services) -> None:
    """If a name were used again, the sweep or another request could remove the new file for the old one."""
    pupil.upload(b"content", type="costume", format="png")
    (first,) = stored_files(services)
    services.store.discard(str(first))
    pupil.upload(b"content", type="costume", format="png")
    (second,) = stored_files(services)
    md5 = hashlib.md5(b"content").hexdigest()
    assert first != second
    for path in (first, second):
        assert (path.parent, path.name.split(".")[0], path.suffix) == (Path("assets/costume"), md5, ".png")


@pytest.fixture
def costume(services: Services) -> Iterator[Callable[[bytes], Upload]]:
    """Make received uploads, as a route gets them; they are closed after the test."""
    received = []

    def receive(content: bytes) -> Upload:
        received.append(services.store.receive())
        received[-1].write(content)
        return Upload(received[-1], "costume", "png")

    yield receive
    for incoming in received:
        incoming.close()


def test_assets_and_their_work_are_one_transaction(
    pupil: Device, services: Services, costume: Callable[[bytes], Upload]
) -> None:
    """`work` sees the assets of its own transaction, and gets their ids in the caller's order."""
    uploads = [costume(content) for content in (b"body", b"picture", b"body")]
    seen: list[Any] = []

    def work(connection: Connection, ids: list[str]) -> None:
        seen.append((ids, set(connection.scalars(sa.select(assets.c.asset_id)))))

    ids = put_all(services.database, services.store, "ada", uploads, work)
    assert ids == [hashlib.md5(content).hexdigest() for content in (b"body", b"picture", b"body")]
    assert seen == [(ids, set(ids))]
    assert len(rows(services)) == len(stored_files(services)) == 2


def test_work_runs_when_its_assets_are_stored_already(
    pupil: Device, services: Services, costume: Callable[[bytes], Upload]
) -> None:
    put(services.database, services.store, "ada", costume(b"body"))
    seen: list[list[str]] = []
    again = [costume(b"body")]
    ids = put_all(services.database, services.store, "ada", again, lambda _connection, ids: seen.append(ids))
    assert seen == [ids]


def test_failing_work_leaves_neither_row_nor_file(
    pupil: Device, services: Services, costume: Callable[[bytes], Upload]
) -> None:
    def fail(_connection: Connection, _ids: list[str]) -> None:
        raise ValueError("the item is refused")

    uploads = [costume(content) for content in (b"body", b"picture")]
    with pytest.raises(ValueError, match="refused"):
        put_all(services.database, services.store, "ada", uploads, fail)
    assert (rows(services), stored_files(services)) == ([], [])


def test_files_stay_when_the_answer_to_the_commit_is_lost(
    pupil: Device, services: Services, costume: Callable[[bytes], Upload], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows may name the files."""

    def lose_the_answer(transaction: sa.RootTransaction) -> None:
        transaction.commit()
        raise CommitUnknown("the connection broke while committing")

    monkeypatch.setattr(services.database, "_commit", lose_the_answer)
    with pytest.raises(CommitUnknown):
        put(services.database, services.store, "ada", costume(b"body"))
    (row,) = rows(services)
    assert [str(path) for path in stored_files(services)] == [row.file_path]


@pytest.mark.parametrize("field", ["type", "format"])
@pytest.mark.parametrize("value", ["../../escaped", "/etc", "a/b", "..", ".", "a\\b", "x" * 51, "ä", "a b", "a\n"])
def test_type_or_format_with_path_is_400(pupil: Device, services: Services, field: str, value: str) -> None:
    """Nothing is written, least of all outside the uploads folder."""
    before = set(services.store.root.parent.rglob("*"))
    answer = pupil.upload(b"content", **{field: value})
    assert answer.status_code == 400
    assert field in answer.json["error"]
    after = set(services.store.root.parent.rglob("*"))
    assert {path for path in after - before if path.suffix != ".db-shm"} <= {services.store.root / ".incoming"}


def test_upload_without_a_file_is_400(pupil: Device) -> None:
    for options in ({"data": {"type": "costume"}}, {"data": b""}, {"json": {"asset": "x"}}):
        assert pupil.request("POST", "/api/assets/", **options).status_code == 400


def test_address_without_the_slash_is_not_redirected(pupil: Device) -> None:
    """Behind the proxy a redirect would lose the prefix that the proxy strips."""
    answer = pupil.request("POST", "/api/assets", data={"type": "x"})
    assert answer.status_code == 400


@pytest.mark.parametrize("name", ["0" * 32, "nothing", "a.b.c", "..%2f..%2fetc%2fpasswd", "%00", "x" * 200])
def test_unknown_asset_is_404(pupil: Device, name: str) -> None:
    answer = pupil.get(f"/api/assets/{name}")
    assert (answer.status_code, bool(answer.json["error"])) == (404, True)


def test_row_with_path_outside_the_uploads_folder_is_404(pupil: Device, services: Services) -> None:
    asset_id = pupil.upload(b"content", type="costume", format="png").json["assetId"]
    outside = services.store.root.parent / "outside"
    outside.write_bytes(b"not for pupils")
    (services.store.root / "link").symlink_to(outside)
    for path in ("../outside", "/app/uploads/../outside", str(outside), "x/../../outside", "link", "."):
        services.database.write(
            lambda connection, path=path: connection.execute(sa.update(assets).values(file_path=path))
        )
        assert (path, pupil.get(f"/api/assets/{asset_id}").status_code) == (path, 404)
