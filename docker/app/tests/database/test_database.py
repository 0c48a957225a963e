"""Units of work: retried where that helps, given up in bounded time, and clear about what may have been written."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from conftest import database_environment
from sqlalchemy.exc import OperationalError

from helpers import Device, Forwarder, project_file
from scratch4school.config import DatabaseSettings, Settings, load_database
from scratch4school.database.database import CommitUnknown, Database, DatabaseUnavailable
from scratch4school.database.engine import make_engine
from scratch4school.database.tables import groups, oauth_sessions, project_revisions, projects, users
from scratch4school.monitoring import metrics
from scratch4school.web.services import Services


@pytest.fixture
def database(services: Services) -> Database:
    return services.database


def add_user(connection: sa.Connection, user_id: str = "ada") -> None:
    connection.execute(sa.insert(users).values(id=user_id, username=user_id))


def count(database: Database, table: sa.Table) -> int:
    return database.read(lambda connection: connection.scalar(sa.select(sa.func.count()).select_from(table))) or 0


def contention(is_sqlite: bool, code: str = "40001") -> OperationalError:
    """The driver's error when two transactions conflict."""
    if is_sqlite:
        return OperationalError("UPDATE", {}, sqlite3.OperationalError("database is locked"))

    class Raised(psycopg2.OperationalError):
        pgcode = code

    return OperationalError("UPDATE", {}, Raised("could not serialize access"))


class Clock:
    """A clock, in place of the module `time`, that advances only by `sleep`."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("code", ["40001", "40P01", "55P03"])
def test_contention_is_retried_and_written_once(database: Database, code: str) -> None:
    tries = []

    def work(connection: sa.Connection) -> str:
        add_user(connection)
        tries.append(1)
        if len(tries) < 4:
            raise contention(database.is_sqlite, code)
        return "done"

    assert database.write(work) == "done"
    assert (len(tries), count(database, users)) == (4, 1)


def test_failed_work_leaves_no_transaction_open(database: Database) -> None:
    """Behind PgBouncer an open transaction would block a server connection for all other clients."""

    def fail(connection: sa.Connection) -> None:
        add_user(connection)
        raise KeyError

    def in_transaction(connection: sa.Connection) -> bool:
        if database.is_sqlite:
            return bool(connection.connection.driver_connection.in_transaction)
        state = psycopg2.extensions.TRANSACTION_STATUS_IDLE
        return connection.connection.driver_connection.info.transaction_status != state

    for _ in range(3):
        with pytest.raises(KeyError):
            database.write(fail)
        assert not database.read(in_transaction)
    assert count(database, users) == 0
    database.write(add_user)
    assert (database.read(in_transaction), count(database, users)) == (False, 1)


@pytest.mark.parametrize("engine_name", ["postgresql"])
@pytest.mark.parametrize("code", ["57014", "25006", "53100"])
def test_database_without_resources_is_unavailable(database: Database, code: str) -> None:
    """A time limit, a read-only server, a full disk: DatabaseUnavailable after one try, so 503 instead of 500."""
    tries = []

    def work(_connection: sa.Connection) -> None:
        tries.append(1)
        raise contention(False, code)

    with pytest.raises(DatabaseUnavailable):
        database.write(work)
    assert len(tries) == 1


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_unwritable_sqlite_is_503_for_a_save(
    settings: Settings, make_app: Callable[..., Any], log_in: Callable[..., str]
) -> None:
    """Full or read-only: a save gets 503 and leaves nothing, and reads work without a written `last_accessed`."""
    app = make_app(server=replace(settings.server, threads=1))
    services: Services = app.extensions["scratch4school"]
    pupil = Device(app.test_client(), log_in("ada"))
    project_id = pupil.create(project_file("kept")).json["id"]
    long_ago = sa.update(oauth_sessions).values(last_accessed=None)
    services.database.write(lambda connection: connection.execute(long_ago))

    def pragma(setting: str) -> None:
        services.database.read(lambda connection: connection.exec_driver_sql(f"PRAGMA {setting}").close())

    files = set(services.store.root.rglob("*.sb3"))
    for forbidden, allowed in (
        ("query_only = 1", "query_only = 0"),
        ("max_page_count = 1", "max_page_count = 1000000"),
    ):
        pragma(forbidden)
        # Long titles, so that the file needs another page.
        for answer in (pupil.create(project_file("lost"), title="x" * 100) for _ in range(60)):
            if answer.status_code != 200:
                break
        assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "5")
        assert pupil.download(project_id).status_code == 200
        pragma(allowed)
        assert pupil.save(project_id, project_file("kept")).status_code == 200
    assert len(set(services.store.root.rglob("*.sb3")) - files) == count(services.database, project_revisions) - 1


def test_endless_contention_ends_in_bounded_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    tries, clock = [], Clock()
    monkeypatch.setattr("scratch4school.database.database.time", clock)

    def work(_connection: sa.Connection) -> None:
        tries.append(1)
        raise contention(database.is_sqlite)

    with pytest.raises(DatabaseUnavailable):
        database.write(work)
    assert len(tries) == 8
    assert 0 < clock.now < 4


def test_long_waits_for_locks_end_in_bounded_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty seconds: there are fewer tries if each of them has waited."""
    tries, clock = [], Clock()
    monkeypatch.setattr("scratch4school.database.database.time", clock)

    def work(_connection: sa.Connection) -> None:
        tries.append(clock.sleep(11))
        raise contention(database.is_sqlite)

    with pytest.raises(DatabaseUnavailable):
        database.write(work)
    assert len(tries) == 2


def test_other_errors_are_not_retried(database: Database) -> None:
    tries = []

    def work(connection: sa.Connection) -> None:
        tries.append(1)
        add_user(connection)
        add_user(connection)

    with pytest.raises(sa.exc.IntegrityError):
        database.write(work)
    assert (len(tries), count(database, users)) == (1, 0)


def test_transaction_that_ends_a_deadlock_is_retried(database: Database, together: Callable[..., list[Any]]) -> None:
    """Two transactions lock two rows in opposite order: PostgreSQL ends one of them, and its retry succeeds.

    SQLite has one writer at a time, so there is no deadlock and no retry.
    """
    database.write(lambda connection: [add_user(connection, name) for name in ("a", "b")])
    both_have_one = threading.Barrier(2)
    tries: list[int] = []
    deadlocks = metrics.RETRIES.labels("deadlock")._value
    before = deadlocks.get()

    def work(index: int) -> None:
        first, second = ("a", "b") if index == 0 else ("b", "a")

        def cross(connection: sa.Connection) -> None:
            is_first_try = index not in tries
            tries.append(index)
            connection.execute(sa.update(users).where(users.c.id == first).values(email=str(index)))
            if is_first_try and not database.is_sqlite:
                both_have_one.wait(60)
            connection.execute(sa.update(users).where(users.c.id == second).values(email=str(index)))

        database.write(cross)

    together(2, work)
    emails = database.read(lambda connection: set(connection.scalars(sa.select(users.c.email))))
    assert len(emails) == 1
    expected = (2, 0) if database.is_sqlite else (3, 1)
    assert (len(tries), deadlocks.get() - before) == expected


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_restarted_server_costs_only_a_retry(services: Services) -> None:
    """Dead connections of the pool cost a retry, not a failed request."""
    database = services.database
    database.write(add_user)
    others = sa.text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    killer = make_engine(services.settings.database, None)
    with killer.connect() as connection:
        connection.execute(others)
    assert count(database, users) == 1
    with killer.connect() as connection:
        connection.execute(others)
    database.write(lambda connection: add_user(connection, "berta"))
    assert count(database, users) == 2


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_units_of_work_need_the_fewest_round_trips(settings: Settings, forwarder: Forwarder) -> None:
    """A read is one statement; a write is BEGIN with the time limits, the statement and COMMIT."""
    through = replace(settings.database, url=settings.database.url.set(port=forwarder.port))
    database = Database(through, connections=1)

    def trips(unit: Callable[..., Any]) -> int:
        before = forwarder.questions
        unit(lambda connection: connection.execute(sa.text("SELECT 1")))
        return forwarder.questions - before

    database.read(lambda connection: connection.execute(sa.text("SELECT 1")))
    assert [trips(unit) for unit in (database.read, database.write, database.read, database.read)] == [1, 3, 1, 1]
    database.dispose()


def cut(services: Services, connection: sa.Connection) -> None:
    """End the server's side of a connection, as a restart of the server or the pooler does."""
    killer = make_engine(services.settings.database, None)
    pid = connection.scalar(sa.select(sa.func.pg_backend_pid()))
    with killer.connect() as other:
        other.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_connection_lost_in_a_transaction_costs_a_retry(services: Services) -> None:
    """The rest of the broken transaction must not disturb the next try."""
    attempts = []

    def work(connection: sa.Connection) -> None:
        attempts.append(connection)
        add_user(connection)
        if len(attempts) == 1:
            cut(services, connection)
        add_user(connection, "berta")

    services.database.write(work)
    assert (len(attempts), count(services.database, users)) == (2, 2)


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_connection_lost_before_the_commit_is_unknown(services: Services) -> None:
    """The server may or may not have committed, so files that the row may name stay, and there is no retry."""
    attempts = []

    def work(connection: sa.Connection) -> None:
        attempts.append(connection)
        add_user(connection)
        cut(services, connection)

    with pytest.raises(CommitUnknown):
        services.database.write(work)
    assert (len(attempts), count(services.database, users)) == (1, 0)


def test_sqlite_enforces_references_between_tables(database: Database) -> None:
    with pytest.raises(sa.exc.IntegrityError):
        database.write(
            lambda connection: connection.execute(sa.insert(projects).values(name="x", owner_id="missing", version=1))
        )


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_sqlite_has_wal_and_full_sync(database: Database) -> None:
    """Readers beside a writer, and a commit that survives a power cut."""
    found = [
        database.read(lambda connection, name=name: connection.exec_driver_sql(f"PRAGMA {name}").scalar())
        for name in ("journal_mode", "synchronous")
    ]
    assert found == ["wal", 2]


@pytest.mark.parametrize("engine_name", ["sqlite"])
class TestNewSqliteFile:
    """The first process switches a new file to WAL; SQLite refuses that at once while another process writes."""

    @pytest.fixture
    def new_file(self, empty_url: str, password_file: Path) -> DatabaseSettings:
        return load_database(database_environment(empty_url, password_file))

    @pytest.fixture
    def writer(self, new_file: DatabaseSettings) -> Iterator[sqlite3.Connection]:
        """Another process inside a transaction."""
        with closing(sqlite3.connect(new_file.url.database or "", isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection

    def test_switch_to_wal_waits_for_a_writer(
        self, new_file: DatabaseSettings, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pauses = []

        def end_the_transaction(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                writer.execute("COMMIT")

        monkeypatch.setattr("scratch4school.database.engine.time.sleep", end_the_transaction)
        with make_engine(new_file, None).connect() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert len(pauses) == 3

    def test_switch_to_wal_gives_up_in_time(
        self, new_file: DatabaseSettings, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("scratch4school.database.engine._SQLITE_BUSY_SECONDS", 0.2)
        started = time.monotonic()
        with pytest.raises(OperationalError, match="database is locked"):
            make_engine(new_file, None).connect()
        assert time.monotonic() - started >= 0.2
        assert writer.in_transaction


def test_many_processes_open_a_new_sqlite_file_at_once(
    tmp_path: Path, password_file: Path, together: Callable[..., list[Any]]
) -> None:
    """Each writes as soon as it has connected, and so blocks those that still have to switch."""

    def add_row(settings: DatabaseSettings) -> None:
        with make_engine(settings, None).begin() as connection:
            connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS visits (id INTEGER PRIMARY KEY)")
            connection.exec_driver_sql("INSERT INTO visits DEFAULT VALUES")

    for number in range(10):
        url = f"sqlite:///{tmp_path}/many-{number}.db"
        settings = load_database(database_environment(url, password_file))
        together(10, lambda _, settings=settings: add_row(settings))
        with make_engine(settings, None).connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM visits").scalar() == 10


def test_file_stays_when_the_commit_is_unknown(
    make_app: Callable[..., Any], log_in: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the connection breaks during the commit, the row may exist; then its file must exist as well."""
    app = make_app()
    services = app.extensions["scratch4school"]
    device = Device(app.test_client(), log_in("ada"))
    commit = sa.RootTransaction.commit

    def lose(transaction: sa.RootTransaction) -> None:
        commit(transaction)
        error = OperationalError("COMMIT", {}, psycopg2.OperationalError("server closed the connection"))
        error.connection_invalidated = True
        raise error

    monkeypatch.setattr(sa.RootTransaction, "commit", lose)
    answer = device.create(project_file(1))
    monkeypatch.undo()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    row = services.database.read(lambda connection: connection.execute(sa.select(projects)).one())
    assert services.store.find(row.sb3_file_path) is not None


def test_failed_save_removes_its_new_files(
    services: Services, pupil: Device, project_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old content is unchanged, and the failed save leaves nothing."""
    before = {path: path.read_bytes() for path in services.store.root.rglob("*") if path.is_file()}

    def fail(_database: Database, transaction: sa.RootTransaction) -> None:
        transaction.rollback()
        raise RuntimeError("(psycopg2.errors) INSERT INTO secret_table")

    monkeypatch.setattr(Database, "_commit", fail)
    for answer in (pupil.save(project_id, project_file("lost")), pupil.create(project_file("lost"))):
        assert answer.status_code == 500
        assert "secret_table" not in answer.text
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in services.store.root.rglob("*") if path.is_file()} == before
    assert pupil.metadata(project_id).json["version"] == 1


def test_database_away_is_503_with_retry_after(
    settings: Settings, make_app: Callable[..., Any], engine_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON with a message, not the driver's, in bounded time; the process itself stays healthy."""
    monkeypatch.setattr("scratch4school.database.database._RECONNECT_SECONDS", 0.3)
    monkeypatch.setattr("scratch4school.database.database._CONTENTION_ATTEMPTS", 2)
    if engine_name == "postgresql":
        database = replace(settings.database, url=settings.database.url.set(port=1))
        client = make_app(database=database).test_client()
    else:
        client = make_app().test_client()
        monkeypatch.setattr(Database, "read", _locked)
    answer = client.get("/api/user", query_string={"session_id": "x"})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert answer.json["error"].startswith("The service is busy")
    assert client.get("/healthz").status_code == 200
    assert client.get("/api/status").status_code == 200
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json["problems"]) == (503, ["database: DatabaseUnavailable"])


def _locked(database: Database, _work: object, _patience: float | None = None) -> None:
    def attempt() -> None:
        raise contention(is_sqlite=True)

    database._persist(attempt)


def test_external_ids_of_groups_are_unique(database: Database) -> None:
    with pytest.raises(sa.exc.IntegrityError):
        database.write(
            lambda connection: connection.execute(
                sa.insert(groups), [{"name": "a", "external_id": "x"}, {"name": "b", "external_id": "x"}]
            )
        )
