"""Health: alive without the database, ready only when a save would succeed, metrics over all workers."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from helpers import Device, FakeProvider, project_file
from scratch4school.clock import utcnow
from scratch4school.database import schema
from scratch4school.database.tables import users
from scratch4school.web.services import Services


def test_complete_service_is_ready(app: Any) -> None:
    answer = app.test_client().get("/readyz")
    assert (answer.status_code, answer.json) == (
        200,
        {"release": "release-under-test", "schema": schema.head(), "last_login": None, "status": "ready"},
    )


def put_user(services: Services, user_id: str, created_at: datetime, last_login: datetime | None) -> None:
    values = {"id": user_id, "username": user_id, "created_at": created_at, "last_login": last_login}
    services.database.write(lambda connection: connection.execute(sa.insert(users).values(values)))


def put_last_login(services: Services, moment: datetime) -> None:
    services.database.write(lambda connection: connection.execute(sa.update(users).values(last_login=moment)))


def last_login_of(app: Any) -> datetime:
    told = str(app.test_client().get("/readyz").json["last_login"])
    return datetime.fromisoformat(told).replace(tzinfo=None)


def test_last_login_is_the_newest_of_all_people(app: Any, services: Services) -> None:
    """In UTC with a Z. A user who logged in once, under an early release, has only the moment of creation."""
    client = app.test_client()
    put_user(services, "once", datetime(2026, 9, 1, 8, 0, 0, 250_000), None)
    assert client.get("/readyz").json["last_login"] == "2026-09-01T08:00:00Z"
    put_user(services, "often", datetime(2025, 9, 1), datetime(2026, 11, 2, 7, 30))
    put_user(services, "before", datetime(2025, 9, 1), datetime(2026, 10, 2, 7, 30))
    assert client.get("/readyz").json["last_login"] == "2026-11-02T07:30:00Z"


def test_last_login_follows_each_login(app: Any, services: Services, log_in: Callable[..., str]) -> None:
    """Also a later login of the same person counts."""
    log_in("ada")
    put_last_login(services, datetime(2025, 9, 1))
    before = utcnow().replace(microsecond=0)
    log_in("ada")
    assert before <= last_login_of(app) <= utcnow()


def test_last_login_ignores_the_verification(app: Any, services: Services, log_in: Callable[..., str]) -> None:
    """The verification of a deployment must not look as if a person could log in."""
    log_in("verify-0123456789ab-late")
    assert app.test_client().get("/readyz").json["last_login"] is None
    put_user(services, "ada", datetime(2025, 9, 1), datetime(2025, 9, 2))
    assert last_login_of(app) == datetime(2025, 9, 2)


def test_last_login_stays_when_a_session_is_refreshed(
    app: Any, services: Services, log_in: Callable[..., str], provider: FakeProvider
) -> None:
    """A session that is refreshed does not show that a login works."""
    session_id = log_in("ada", expires_in=-1, refresh_token="one")
    put_last_login(services, datetime(2025, 9, 1))
    assert app.test_client().get("/session", headers={"X-Session-ID": session_id}).status_code == 200
    assert [asked["grant_type"] for asked in provider.requests] == ["refresh_token"]
    assert last_login_of(app) == datetime(2025, 9, 1)


def test_last_login_is_shown_while_not_ready(app: Any, services: Services, log_in: Callable[..., str]) -> None:
    """It is shown as long as the database can be read."""
    log_in("ada")
    (services.store.root / ".incoming").write_bytes(b"in the way")
    answer = app.test_client().get("/readyz")
    assert (answer.status_code, answer.json["last_login"] is None) == (503, False)


def set_revision(services: Services, revision: str) -> None:
    services.database.write(
        lambda connection: connection.execute(sa.text("UPDATE alembic_version SET version_num = :r"), {"r": revision})
    )


@pytest.fixture
def any_revision(services: Services) -> Any:
    yield lambda revision: set_revision(services, revision)
    set_revision(services, schema.head())


def after(revision: str, steps: int) -> str:
    """The number of the revision that comes so many steps after this one."""
    return f"{int(revision) + steps:04}"


@pytest.mark.parametrize(
    ("revision", "status"),
    [
        (after(schema.needed(), -1), 503),
        (schema.needed(), 200),
        (schema.head(), 200),
        (after(schema.head(), 1), 200),
        ("odd", 503),
    ],
)
def test_ready_with_a_schema_that_is_new_enough(
    app: Any, any_revision: Callable[[str], None], log_in: Callable[..., str], revision: str, status: int
) -> None:
    """From a schema that this release does not know, only the revision is read."""
    log_in("ada")
    any_revision(revision)
    answer = app.test_client().get("/readyz")
    assert answer.status_code == status
    assert (answer.json["last_login"] is None) == (status == 503)
    if status == 503:
        assert f"this release needs {schema.needed()}" in answer.json["error"]


def test_not_ready_without_a_schema(empty_url: str, settings: Any, make_app: Callable[..., Any]) -> None:
    """An empty database is named as such and causes no 500."""
    url = settings.database.url.set(database=make_url(empty_url).database)
    answer = make_app(database=replace(settings.database, url=url)).test_client().get("/readyz")
    assert answer.status_code == 503
    assert "revision none" in answer.json["problems"][0]
    assert answer.json["last_login"] is None


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
    """Methods that a client invents cannot grow the counters, whose files are in memory."""
    client = app.test_client()
    for number in range(5):
        client.open("/healthz", method=f"INVENTED{number}")
    text = client.get("/metrics").text
    assert "INVENTED" not in text
    assert 'method="other"' in text


def test_metrics_are_404_through_the_proxy(app: Any, pupil: Device, project_id: int) -> None:
    assert pupil.save(project_id, project_file(1), version=4711).status_code == 409
    client = app.test_client()
    text = client.get("/metrics").text
    assert 'seconds_bucket{le="2.5",method="PUT",route="/api/projects/<row_id:project_id>",status="409"}' in text
    assert "scratch4school_save_conflicts_total" in text
    assert client.get("/metrics", headers={"X-Forwarded-For": "192.0.2.1"}).status_code == 404
