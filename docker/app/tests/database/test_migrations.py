"""Migrations on both engines: up, down, with data, and from databases without an Alembic revision."""

import gzip
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from conftest import PASSWORD, PostgresServer, database_environment

from helpers import wait_for
from scratch4school import cli, config
from scratch4school.config import DatabaseSettings
from scratch4school.database import lock_watch, schema
from scratch4school.database.engine import make_engine
from scratch4school.database.schema import LockNotObtained, SchemaRefused
from scratch4school.database.tables import metadata

LEGACY = Path(__file__).parents[1] / "legacy"
HEAD = schema.head()
NOW_AT = [f"Now at revision {script.revision}." for script in schema._revisions()]
NOTHING_TO_DO = f"The database is at revision {HEAD}; nothing to do (newest known: {HEAD})."


@pytest.fixture
def settings(empty_url: str, password_file: Path) -> DatabaseSettings:
    return config.load_database(database_environment(empty_url, password_file))


@pytest.fixture(autouse=True)
def patient_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a slow machine connect: these tests are not about that limit."""
    monkeypatch.setattr("scratch4school.database.engine._CONNECT_SECONDS", 60)


@pytest.fixture
def environment_of_database(empty_url: str, password_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of the test's database in the environment of this process."""
    for key, value in database_environment(empty_url, password_file).items():
        monkeypatch.setenv(key, value)


@pytest.fixture
def engine(settings: DatabaseSettings) -> Iterator[sa.Engine]:
    made = make_engine(settings, None)
    yield made
    made.dispose()


def run(engine: sa.Engine, script: str) -> None:
    with engine.begin() as connection:
        for statement in script.split(";"):
            if statement.strip():
                connection.exec_driver_sql(statement)


def run_behind_a_migration(engine: sa.Engine, statement: str) -> None:
    """Repeat the statement until it has waited for a lock; AssertionError if it never waits."""
    waits = sa.text("SELECT cardinality(pg_blocking_pids(:pid)) > 0")
    with engine.connect() as pupil, engine.connect() as watching, ThreadPoolExecutor(1) as thread:
        pid = pupil.scalar(sa.select(sa.func.pg_backend_pid()))
        pupil.commit()

        def has_waited() -> bool:
            running = thread.submit(lambda: pupil.exec_driver_sql(statement).close())
            seen = False
            while not running.done():
                seen = seen or bool(watching.scalar(waits, {"pid": pid}))
            running.result()
            pupil.commit()
            return seen

        wait_for(has_waited, seconds=schema.PATIENCE_SECONDS)


def refusal_that_names_a_session(settings: DatabaseSettings, patience: float) -> str:
    """The message of an upgrade that gives up; repeated, because a slow machine may not find the session in time."""

    def refusal() -> str | None:
        with pytest.raises(LockNotObtained) as refused:
            schema.upgrade(settings, lambda line: None, patience=patience)
        return str(refused.value) if "In the way: " in str(refused.value) else None

    return str(wait_for(refusal, seconds=180))


def move(settings: DatabaseSettings, target: str) -> None:
    with schema._engine(settings) as engine, engine.begin() as connection:
        current = schema.current_revision(connection)
        go = command.upgrade if target != "base" and (current is None or current < target) else command.downgrade
        go(schema._alembic(connection), target)


def upgrade(settings: DatabaseSettings, contract: bool = False) -> list[str]:
    said: list[str] = []
    schema.upgrade(settings, said.append, contract=contract)
    return said


def differences(engine: sa.Engine) -> list[Any]:
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def rows(engine: sa.Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def autoincrementing(engine: sa.Engine) -> list[str]:
    return [name for (name,) in rows(engine, "SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'")]


DATA = """
INSERT INTO users (id, username) VALUES ('ada', 'Ada'), ('jörg.weiß', 'Jörg');
INSERT INTO groups (id, name, external_id) VALUES (1, '5a', 'klasse.5a');
INSERT INTO user_groups (user_id, group_id) VALUES ('ada', 1);
INSERT INTO projects (id, name, owner_id, sb3_file_path)
VALUES (7, 'Katze', 'ada', '/app/app/../uploads/projects/7_ada.sb3');
INSERT INTO project_groups (project_id, group_id) VALUES (7, 1);
INSERT INTO assets (id, asset_id, asset_type, data_format, size, md5, owner_id, file_path)
VALUES (3, 'aa', 'costume', 'png', 1, 'aa', 'ada', 'costume/aa.png');
"""


def test_tables_and_migrations_give_the_same_schema(settings: DatabaseSettings, engine: sa.Engine) -> None:
    upgrade(settings)
    assert differences(engine) == []
    if engine.dialect.name == "sqlite":
        # Alembic does not compare this property.
        modelled = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
        metadata.create_all(modelled)
        assert autoincrementing(engine) == autoincrementing(modelled) == ["projects"]
        modelled.dispose()


def test_every_revision_has_kind_number_and_description() -> None:
    """Expand or contract; a number, because revisions are compared; and a description in one line."""
    for number, script in enumerate(schema._revisions(), start=1):
        assert schema.kind(script) in ("expand", "contract")
        assert script.revision == f"{number:04}"
        assert re.fullmatch(r".+[.:]", script.doc), script.doc


def test_rows_survive_up_and_down(settings: DatabaseSettings, engine: sa.Engine) -> None:
    """Each revision up and down keeps the rows that the lower schema can store."""
    move(settings, "0001")
    before = sa.inspect(engine).get_table_names()
    run(engine, DATA)
    for _ in range(2):
        move(settings, "0002")
        assert rows(engine, "SELECT id, name, version FROM projects") == [(7, "Katze", 1)]
        run(
            engine,
            "INSERT INTO assets (id, asset_id, asset_type, data_format, size, md5, owner_id, file_path) "
            "VALUES (4, 'aa', 'sound', 'png', 1, 'aa', 'ada', 'sound/aa.png');"
            "INSERT INTO project_revisions (project_id, version, file_path, saved_by) VALUES (7, 1, 'x', 'ada')",
        )
        with pytest.raises(sa.exc.IntegrityError):
            run(
                engine,
                "INSERT INTO assets (id, asset_id, asset_type, data_format, size, md5, owner_id, file_path) "
                "VALUES (5, 'aa', 'sound', 'png', 1, 'aa', 'ada', 'sound/aa.png')",
            )
        move(settings, "0001")
        assert sorted(sa.inspect(engine).get_table_names()) == sorted(before)
        assert rows(engine, "SELECT id, asset_type FROM assets") == [(3, "costume")]
        assert "version" not in {column["name"] for column in sa.inspect(engine).get_columns("projects")}
        with pytest.raises(sa.exc.IntegrityError):
            run(
                engine,
                "INSERT INTO assets (id, asset_id, asset_type, data_format, size, md5, owner_id, file_path) "
                "VALUES (6, 'aa', 'sound', 'png', 1, 'aa', 'ada', 'x')",
            )
    assert rows(engine, "SELECT user_id, group_id FROM user_groups") == [("ada", 1)]
    run(engine, "DELETE FROM project_groups; DELETE FROM projects; DELETE FROM assets")
    move(settings, "base")
    assert set(sa.inspect(engine).get_table_names()) <= {"alembic_version"}


def test_rebuilt_projects_keep_rows_and_references(settings: DatabaseSettings, engine: sa.Engine) -> None:
    """Revision 0003, twice up and down: the rebuilt table loses neither rows nor the rows that refer to it."""
    move(settings, "0002")
    run(engine, DATA + REVISION)
    for target in ("0003", "0002", "0003"):
        move(settings, target)
        found = rows(engine, "SELECT id, name, version, owner_id, sb3_file_path FROM projects")
        assert found == [(7, "Katze", 1, "ada", "/app/app/../uploads/projects/7_ada.sb3")]
        assert rows(engine, "SELECT project_id, group_id FROM project_groups") == [(7, 1)]
        assert rows(engine, "SELECT project_id, version FROM project_revisions") == [(7, 1)]
        assert "ix_projects_owner_id" in {index["name"] for index in sa.inspect(engine).get_indexes("projects")}
        for table in ("project_groups", "project_revisions"):
            references = {key["referred_table"] for key in sa.inspect(engine).get_foreign_keys(table)}
            assert "projects" in references
        with pytest.raises(sa.exc.IntegrityError):
            run(engine, "INSERT INTO projects (id, name, owner_id) VALUES (8, 'Maus', 'missing')")
    run(engine, "INSERT INTO projects (id, name, owner_id) VALUES (9, 'Maus', 'ada')")
    run(engine, "DELETE FROM projects WHERE id = 9")
    if engine.dialect.name == "sqlite":
        run(engine, "INSERT INTO projects (name, owner_id) VALUES ('Hund', 'ada')")
        assert rows(engine, "SELECT max(id) FROM projects") == [(10,)]


# The original's statements, without `version` and saved versions; its ORM names each column of its own models.
ORIGINAL_WORK = """
UPDATE users SET username = 'Ada L.', user_data = '{"sub": "ada"}', last_login = '2025-10-30 08:00:00' WHERE id = 'ada';
DELETE FROM user_groups WHERE user_id = 'ada';
INSERT INTO user_groups (user_id, group_id, joined_at) VALUES ('ada', 1, '2025-10-30 08:00:00');
INSERT INTO oauth_sessions (id, user_id, access_token, refresh_token, expires_at, created_at, last_accessed)
VALUES ('s', 'ada', 'a', 'r', '2030-01-01 00:00:00', '2025-10-30 08:00:00', '2025-10-30 08:00:00');
UPDATE oauth_sessions SET access_token = 'b', last_accessed = '2025-10-30 08:05:00' WHERE id = 's';
INSERT INTO projects (name, description, sb3_file_path, thumbnail_path, owner_id, created_at, updated_at, is_published)
VALUES ('Maus', 'Created on 2025-10-30', 'x.sb3', NULL, 'ada', '2025-10-30 08:00:00', '2025-10-30 08:00:00', FALSE);
UPDATE projects SET name = 'Kater', sb3_file_path = 'y.sb3', updated_at = '2025-10-30 08:10:00' WHERE id = 7;
UPDATE projects SET is_published = TRUE WHERE id = 7;
INSERT INTO assets (asset_id, asset_type, data_format, size, md5, owner_id, file_path, created_at)
VALUES ('bb', 'sound', 'wav', 2, 'bb', 'ada', 'sound/bb.wav', '2025-10-30 08:00:00');
INSERT INTO backpack_items (id, type, name, mime, body, thumbnail, owner_id, created_at, updated_at)
VALUES ('i', 'costume', 'Katze', 'image/png', 'aa', 'aa', 'ada', '2025-10-30 08:00:00', '2025-10-30 08:00:00');
DELETE FROM backpack_items WHERE id = 'i';
DELETE FROM oauth_sessions WHERE id = 's'
"""
# Statements of our first release, on the schema of 0002.
RELEASE_0002_WORK = """
UPDATE projects SET version = version + 1, sb3_file_path = 'z.sb3', updated_at = '2026-01-01 08:00:00'
WHERE id = 7 AND owner_id = 'ada' AND version = 1;
INSERT INTO project_revisions (project_id, version, file_path, size, sha256, saved_by, created_at)
VALUES (7, 2, 'z.sb3', 3, 'cc', 'ada', '2026-01-01 08:00:00');
DELETE FROM project_revisions WHERE project_id = 7 AND version < 2;
INSERT INTO assets (asset_id, asset_type, data_format, size, md5, owner_id, file_path, created_at)
VALUES ('aa', 'costume', 'png', 1, 'aa', 'ada', 'assets/costume/aa.png', '2026-01-01 08:00:00')
ON CONFLICT (md5, asset_type) DO NOTHING
"""
REVISION = "INSERT INTO project_revisions (project_id, version, file_path, saved_by) VALUES (7, 1, 'x.sb3', 'ada');"


@pytest.mark.parametrize("work", [ORIGINAL_WORK, RELEASE_0002_WORK], ids=["original", "release on 0002"])
def test_earlier_release_works_with_the_new_schema(settings: DatabaseSettings, engine: sa.Engine, work: str) -> None:
    """A rollback changes only images, so the statements of an earlier release must succeed, also beside newer rows."""
    upgrade(settings)
    run(engine, DATA + REVISION)
    run(engine, work)
    assert rows(engine, "SELECT id, asset_type FROM assets WHERE md5 = 'aa'") == [(3, "costume")]
    # Neither release knows of rows that must be deleted first.
    run(engine, "DELETE FROM project_groups WHERE project_id = 7; DELETE FROM projects WHERE id = 7")
    assert rows(engine, "SELECT * FROM project_revisions") == []
    run(engine, "INSERT INTO projects (name, owner_id) VALUES ('Hund', 'ada')")
    assert rows(engine, "SELECT name, version FROM projects ORDER BY id DESC")[0] == ("Hund", 1)


def test_upgrade_reports_each_revision_and_then_nothing_to_do(
    settings: DatabaseSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    said = upgrade(settings)
    assert [line for line in said if line.startswith("Now")] == NOW_AT
    assert [line for line in said if line.startswith("Applying")] == [
        f"Applying revision {schema.described(script)}" for script in schema._revisions()
    ]
    assert upgrade(settings) == [NOTHING_TO_DO]


def test_db_check_and_current_print_revisions(
    environment_of_database: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (cli.main(["db", "check"]), capsys.readouterr().out) == (1, f"current none, head {HEAD}\n")
    assert (cli.main(["db", "current"]), capsys.readouterr().out) == (0, "none\n")
    assert cli.main(["db", "upgrade"]) == 0
    capsys.readouterr()
    assert (cli.main(["db", "check"]), capsys.readouterr().out) == (0, f"current {HEAD}, head {HEAD}\n")
    assert (cli.main(["db", "current"]), capsys.readouterr().out) == (0, f"{HEAD}\n")


def test_newer_schema_is_accepted(settings: DatabaseSettings, engine: sa.Engine) -> None:
    """After a rollback the schema is one that this release does not know, expanded from one that it knows."""
    upgrade(settings)
    newer = f"{int(HEAD) + 1:04}"
    run(engine, f"UPDATE alembic_version SET version_num = '{newer}'")
    assert schema.check(settings) == (newer, HEAD, True)
    assert upgrade(settings) == [f"The database is at revision {newer}; nothing to do (newest known: {HEAD})."]


REVISION_FILE = """\"\"\"{kind} number {number}.\"\"\"

import sqlalchemy as sa
from alembic import op

revision = "{number:04}"
down_revision = "{previous:04}"
kind = "{kind}"


def upgrade() -> None:
    op.create_table("from_{number:04}", sa.Column("id", sa.Integer))


def downgrade() -> None:
    op.drop_table("from_{number:04}")
"""


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """A release with the revisions up to 0003 and then these kinds; its other revisions are left out.

    So the numbers in the tests stay the same when the application gets a migration.
    """
    scripts = tmp_path / "migrations"

    def add(*kinds: str) -> None:
        shutil.copytree(Path(schema.__file__).parent / "migrations", scripts)
        for file in (scripts / "versions").glob("[0-9]*.py"):
            if file.name[:4] > "0003":
                file.unlink()
        for number, kind in enumerate(kinds, start=4):
            text = REVISION_FILE.format(kind=kind, number=number, previous=number - 1)
            (scripts / "versions" / f"{number:04}_{kind}.py").write_text(text)
        monkeypatch.setattr(schema, "_SCRIPTS", scripts)
        schema._revisions.cache_clear()

    yield add
    schema._revisions.cache_clear()


class TestContracts:
    """A contract is applied only on request, and no needed revision comes after it."""

    def test_upgrade_stops_before_a_contract(self, settings: DatabaseSettings, later: Callable[..., None]) -> None:
        move(settings, "0002")
        later("expand", "contract", "contract")
        said = upgrade(settings)
        assert [line for line in said if line.startswith("Now")] == ["Now at revision 0003.", "Now at revision 0004."]
        waits = "Waits until `scratch4school db upgrade --contract` asks for it: revision"
        assert said[-2:] == [
            f"{waits} 0005 (contract): contract number 5.",
            f"{waits} 0006 (contract): contract number 6.",
        ]
        # A release does not need a contract.
        assert (schema.needed(), schema.head()) == ("0004", "0006")
        assert schema.check(settings) == ("0004", "0006", True)
        assert not schema.is_acceptable("0003")
        assert upgrade(settings)[0] == "The database is at revision 0004; nothing to do (newest known: 0006)."

    def test_upgrade_with_contract_applies_all(self, settings: DatabaseSettings, later: Callable[..., None]) -> None:
        move(settings, "0003")
        later("contract", "contract", "expand")
        said = upgrade(settings, contract=True)
        assert [line for line in said if line.startswith("Now")] == [f"Now at revision 000{n}." for n in (4, 5, 6)]
        assert schema.check(settings) == ("0006", "0006", True)

    def test_expand_after_a_contract_is_refused(self, settings: DatabaseSettings, later: Callable[..., None]) -> None:
        move(settings, "0003")
        later("expand", "contract", "expand")
        for ask in (upgrade, schema.plan):
            with pytest.raises(SchemaRefused, match=r"0006 \(expand\) comes after 0005 \(contract\)"):
                ask(settings)
        assert schema.check(settings) == ("0003", "0006", False)

    def test_empty_database_gets_contracts_without_request(
        self, settings: DatabaseSettings, later: Callable[..., None]
    ) -> None:
        """No earlier release ever used it."""
        later("contract", "expand")
        upgrade(settings)
        assert schema.check(settings)[0] == "0005"

    def test_plan_command_changes_nothing(
        self,
        settings: DatabaseSettings,
        later: Callable[..., None],
        environment_of_database: None,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """The plan names each revision by number, kind and description, and changes nothing."""
        move(settings, "0003")
        later("expand", "contract")
        stands = "The database is at revision 0003; this release needs 0004."
        would = "Would apply revision 0004 (expand): expand number 4."
        assert cli.main(["db", "plan"]) == 0
        waits = "Waits until `scratch4school db upgrade --contract` asks for it: revision 0005 (contract)"
        assert capsys.readouterr().out.splitlines() == [stands, would, f"{waits}: contract number 5."]
        assert cli.main(["db", "plan", "--contract"]) == 0
        assert capsys.readouterr().out.splitlines()[1:] == [
            would,
            "Would apply revision 0005 (contract): contract number 5.",
        ]
        assert schema.check(settings)[0] == "0003"
        assert cli.main(["db", "upgrade", "--contract"]) == 0
        capsys.readouterr()
        assert cli.main(["db", "plan"]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "Nothing to do."


LEGACY_STATES = ["before", "after", "after, upgraded in place"]


def original_schema(state: str, engine_name: str) -> str:
    if state != "after, upgraded in place":
        return (LEGACY / f"{state}.{engine_name}.sql").read_text()
    before = (LEGACY / f"before.{engine_name}.sql").read_text()
    return before + "\nALTER TABLE projects ADD COLUMN version INTEGER NOT NULL DEFAULT 1;"


@pytest.mark.parametrize("state", LEGACY_STATES)
def test_database_of_the_original_is_recognised_and_upgraded(
    settings: DatabaseSettings, engine: sa.Engine, engine_name: str, state: str
) -> None:
    run(engine, original_schema(state, engine_name))
    data = DATA.replace("owner_id, sb3_file_path)", "owner_id, sb3_file_path, version)").replace(
        "7_ada.sb3')", "7_ada.sb3', 1)"
    )
    run(engine, DATA if state == "before" else data)
    said = upgrade(settings, contract=True)
    assert any("at revision 0001" in line for line in said)
    assert differences(engine) == []
    assert rows(engine, "SELECT id, name, version FROM projects") == [(7, "Katze", 1)]
    assert rows(engine, "SELECT project_id, group_id FROM project_groups") == [(7, 1)]
    assert rows(engine, "SELECT id, md5 FROM assets") == [(3, "aa")]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("CREATE TABLE commits (id INTEGER PRIMARY KEY)", "unknown table commits"),
        ("DROP TABLE backpack_items", "table backpack_items is missing"),
        ("ALTER TABLE projects ADD COLUMN deleted_at TIMESTAMP", "unknown column projects.deleted_at"),
        ("ALTER TABLE users RENAME COLUMN email TO mail", "users.email is missing"),
    ],
)
def test_unknown_database_is_refused_unchanged(
    settings: DatabaseSettings, engine: sa.Engine, engine_name: str, change: str, complaint: str
) -> None:
    run(engine, original_schema("before", engine_name))
    run(engine, change)
    tables = sa.inspect(engine).get_table_names()
    with pytest.raises(SchemaRefused, match=complaint):
        upgrade(settings)
    with pytest.raises(SchemaRefused, match=complaint):
        schema.check(settings)
    assert sa.inspect(engine).get_table_names() == tables


def test_refused_database_is_exit_status_3(
    settings: DatabaseSettings,
    engine: sa.Engine,
    environment_of_database: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(engine, "CREATE TABLE something (id INTEGER PRIMARY KEY)")
    monkeypatch.setattr("sys.argv", ["scratch4school", "db", "upgrade"])
    with pytest.raises(SystemExit) as left:
        cli.entry_point()
    assert left.value.code == 3
    assert "unknown table something" in capsys.readouterr().err


def test_unreachable_database_is_exit_status_69(
    password_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, value in database_environment("postgresql://a@127.0.0.1:1/x", password_file).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr("sys.argv", ["scratch4school", "db", "check"])
    with pytest.raises(SystemExit) as left:
        cli.entry_point()
    assert left.value.code == 69
    assert "Connection refused" in capsys.readouterr().err


def test_foreign_alembic_revision_is_refused(settings: DatabaseSettings, engine: sa.Engine) -> None:
    """Another program's migrations ran here; that is no pending migration of ours."""
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('ab12cd34')")
    for ask in (schema.check, lambda found: upgrade(found)):
        with pytest.raises(schema.SchemaRefused, match="ab12cd34"):
            ask(settings)


def test_many_upgrades_at_once_apply_each_revision_once(
    settings: DatabaseSettings, engine: sa.Engine, together: Callable[..., Any]
) -> None:
    """Several deployments at once: each succeeds, and each revision is applied by one of them."""
    said = together(5, lambda _: upgrade(settings))
    applied = [line for lines in said for line in lines if line.startswith("Now at")]
    assert sorted(applied) == NOW_AT
    assert differences(engine) == []


@pytest.mark.parametrize("engine_name", ["postgresql"])
class TestPostgres:
    def test_upgrade_waits_for_a_busy_table_in_short_tries(
        self, settings: DatabaseSettings, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A long transaction locks a table: a statement waits behind a try of the migration, and ends with that try."""
        monkeypatch.setattr(lock_watch, "_PAUSE_SECONDS", 0.02)
        move(settings, "0001")
        limits = []
        apply_next = schema._Upgrade._apply_next

        def apply_and_note_the_limit(steps: schema._Upgrade, connection: sa.Connection) -> str | None:
            limits.append(connection.scalar(sa.text("SHOW lock_timeout")))
            return apply_next(steps, connection)

        monkeypatch.setattr(schema._Upgrade, "_apply_next", apply_and_note_the_limit)
        said: list[str] = []
        statements = ("SELECT count(*) FROM projects", "UPDATE projects SET name = name")
        with engine.connect() as long_transaction, ThreadPoolExecutor(1) as pupils:
            long_transaction.exec_driver_sql("LOCK TABLE projects IN ACCESS SHARE MODE")
            pid = long_transaction.scalar(sa.select(sa.func.pg_backend_pid()))
            waited = [pupils.submit(run_behind_a_migration, engine, statement) for statement in statements]

            def between_two_tries(_seconds: float) -> None:
                for statement in statements:
                    run(engine, statement)
                if sum("In the way: " in line for line in said) >= 3 and all(done.done() for done in waited):
                    long_transaction.rollback()

            schema.upgrade(settings, said.append, contract=True, pause=between_two_tries)
        for done in waited:
            done.result()
        assert all("in use (lock_timeout); trying again" in line for line in said if "in use (" in line)
        # A slow machine may not find who blocks a try before it ends.
        named = [line for line in said if "In the way: " in line]
        assert len(named) >= 3
        assert all(f"In the way: session {pid} of postgres with scratch4school for " in line for line in named)
        assert said[-1] == NOW_AT[-1]
        assert set(limits) == {"2s"}

    def test_upgrade_names_the_session_that_keeps_a_table_busy(
        self, settings: DatabaseSettings, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lock_watch, "_PAUSE_SECONDS", 0.02)
        monkeypatch.setattr(schema, "_PAUSES", (0.05, 0.05))
        move(settings, "0001")
        with engine.connect() as long_query:
            long_query.exec_driver_sql("SELECT count(*) FROM projects")
            refusal = refusal_that_names_a_session(settings, patience=3)
        assert re.search(r"stayed in use for 3 s.*In the way: session \d+ of postgres", refusal)
        assert schema.check(settings)[0] == "0001"

    def test_ordinary_role_sees_the_blocking_session(
        self, owned: DatabaseSettings, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It sees user and program of the session; since when, only for sessions of its own role."""
        monkeypatch.setattr(lock_watch, "_PAUSE_SECONDS", 0.02)
        upgrade(owned)
        with schema._engine(owned) as acting, acting.begin() as connection:
            command.downgrade(schema._alembic(connection), "0001")
        with engine.connect() as long_query:
            long_query.exec_driver_sql("SELECT count(*) FROM projects")
            refusal = refusal_that_names_a_session(owned, patience=0)
        assert re.search(r"session \d+ of postgres with scratch4school\. End", refusal)

    def test_upgrade_gives_up_on_another_migration(self, settings: DatabaseSettings, engine: sa.Engine) -> None:
        with engine.connect() as other:
            other.execute(sa.select(sa.func.pg_advisory_lock(schema._ADVISORY_LOCK)))
            with pytest.raises(LockNotObtained, match="Another migration"):
                schema.upgrade(settings, say=lambda line: None, pause=lambda seconds: None)

    @pytest.fixture
    def owned(self, postgres: PostgresServer, empty_url: str, password_file: Path) -> DatabaseSettings:
        """The roles of a deployment: an owner without login, and a migrator that acts as the owner by SET ROLE."""
        name = empty_url.rsplit("/", 1)[1]
        postgres.execute(
            f"DROP ROLE IF EXISTS migrator; DROP ROLE IF EXISTS owner_{name}; CREATE ROLE owner_{name} NOLOGIN; "
            f"CREATE ROLE migrator LOGIN NOINHERIT PASSWORD '{PASSWORD}' IN ROLE owner_{name}; "
            f"ALTER DATABASE {name} OWNER TO owner_{name}"
        )
        postgres.execute(f"ALTER SCHEMA public OWNER TO owner_{name}", database=name)
        environment = database_environment(empty_url.replace("postgres@", "migrator@"), password_file)
        return config.load_database({**environment, "SCRATCH4SCHOOL_DATABASE_ROLE": f"owner_{name}"})

    def test_tables_belong_to_the_owner_role(self, owned: DatabaseSettings, engine: sa.Engine) -> None:
        """The migrator acts as the owner, so the tables belong to the owner."""
        upgrade(owned)
        owners = rows(engine, "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
        assert owners == [(owned.role,)]

    @pytest.mark.parametrize("snapshot", ["before-postgres", "after-postgres"])
    def test_dump_of_an_installation_is_upgraded(
        self, settings: DatabaseSettings, engine: sa.Engine, postgres_binaries: Path, snapshot: str
    ) -> None:
        """A dump of an installation in use, restored as a sysadmin would, then upgraded."""
        url = settings.url
        psql: list[str | Path] = [postgres_binaries / "psql", "-qX", "-v", "ON_ERROR_STOP=1"]
        psql += ["-h", str(url.host), "-p", str(url.port), "-U", str(url.username), "-d", str(url.database)]
        dump = gzip.decompress((LEGACY / f"{snapshot}.sql.gz").read_bytes())
        subprocess.run(psql, input=dump, env={"PGPASSWORD": PASSWORD}, check=True, capture_output=True)
        _check_upgraded_snapshot(settings, engine)


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_sqlite_file_of_an_installation_is_upgraded(settings: DatabaseSettings, engine: sa.Engine) -> None:
    Path(str(settings.url.database)).write_bytes(gzip.decompress((LEGACY / "before-sqlite.db.gz").read_bytes()))
    _check_upgraded_snapshot(settings, engine)


def _check_upgraded_snapshot(settings: DatabaseSettings, engine: sa.Engine) -> None:
    tables = ["users", "groups", "user_groups", "oauth_sessions", "projects", "project_groups", "assets"]
    before = [rows(engine, f"SELECT count(*) FROM {table}") for table in tables]
    upgrade(settings, contract=True)
    assert [rows(engine, f"SELECT count(*) FROM {table}") for table in tables] == before
    assert rows(engine, "SELECT DISTINCT version FROM projects") == [(1,)]
    assert differences(engine) == []
