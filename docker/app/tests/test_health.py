"""Health: alive without asking anybody, ready only when a save would succeed, and counted over all workers."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from helpers import Device, project_file
from scratch4school.services import Services


def test_ready(app: Any) -> None:
    answer = app.test_client().get("/readyz")
    assert (answer.status_code, answer.json) == (
        200,
        {"release": "release-under-test", "schema": "0003", "status": "ready"},
    )


def set_revision(services: Services, revision: str) -> None:
    services.database.write(
        lambda connection: connection.execute(sa.text("UPDATE alembic_version SET version_num = :r"), {"r": revision})
    )


@pytest.fixture
def any_revision(services: Services) -> Any:
    yield lambda revision: set_revision(services, revision)
    set_revision(services, "0003")


@pytest.mark.parametrize(("revision", "status"), [("0002", 503), ("0003", 200), ("0004", 200), ("odd", 503)])
def test_ready_with_a_schema_that_is_new_enough(
    app: Any, any_revision: Callable[[str], None], revision: str, status: int
) -> None:
    any_revision(revision)
    answer = app.test_client().get("/readyz")
    assert answer.status_code == status
    if status == 503:
        assert "this release needs 0003" in answer.json["error"]


def test_not_ready_without_a_schema(empty_url: str, settings: Any, make_app: Callable[..., Any]) -> None:
    """An empty database is named as such, and is no error 500."""
    url = settings.database.url.set(database=make_url(empty_url).database)
    answer = make_app(database=replace(settings.database, url=url)).test_client().get("/readyz")
    assert answer.status_code == 503
    assert "revision none" in answer.json["problems"][0]


def test_not_ready_when_uploads_cannot_be_written(app: Any, services: Services) -> None:
    (services.store.root / ".incoming").write_bytes(b"in the way")
    answer = app.test_client().get("/readyz")
    assert (answer.status_code, answer.json["problems"]) == (503, ["uploads: Not a directory"])


def test_unwritable_uploads_are_503_for_a_save(pupil: Device, services: Services) -> None:
    (services.store.root / ".incoming").write_bytes(b"in the way")
    answer = pupil.create(project_file(1))
    assert answer.status_code == 503
    assert answer.json["error"].startswith("The file could not be stored")
    assert str(services.store.root) not in answer.text


def test_invented_methods_share_one_series(app: Any) -> None:
    """What a client makes up cannot grow the counters, whose files lie in memory."""
    client = app.test_client()
    for number in range(5):
        client.open("/healthz", method=f"INVENTED{number}")
    text = client.get("/metrics").text
    assert "INVENTED" not in text
    assert 'method="other"' in text


def test_metrics_are_for_those_inside(app: Any, pupil: Device, project_id: int) -> None:
    assert pupil.save(project_id, project_file(1), version=4711).status_code == 409
    client = app.test_client()
    text = client.get("/metrics").text
    assert 'seconds_bucket{le="2.5",method="PUT",route="/api/projects/<row_id:project_id>",status="409"}' in text
    assert "scratch4school_save_conflicts_total" in text
    assert client.get("/metrics", headers={"X-Forwarded-For": "192.0.2.1"}).status_code == 404
