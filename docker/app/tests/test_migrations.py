"""Migrations, proved on both engines: up, down, with data in it, and from databases that carry no stamp of ours."""

import gzip
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from conftest import PASSWORD, PostgresServer, database_environment

from scratch4school import cli, config, schema
from scratch4school.config import DatabaseSettings
from scratch4school.database import make_engine
from scratch4school.schema import LockNotObtained, SchemaRefused
from scratch4school.tables import metadata

LEGACY = Path(__file__).parent / "legacy"
NOW_AT = ["Now at revision 0001.", "Now at revision 0002.", "Now at revision 0003."]


@pytest.fixture
def settings(empty_url: str, password_file: Path) -> DatabaseSettings:
    return config.load_database(database_environment(empty_url, password_file))


@pytest.fixture
def environment_of_database(empty_url: str, password_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of the test's database where the command line looks for them."""
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


def move(settings: DatabaseSettings, target: str) -> None:
    with schema._engine(settings) as engine, engine.begin() as connection:
        current = schema.stamped_revision(connection)
        go = command.upgrade if target != "base" and (current is None or current < target) else command.downgrade
        go(schema._alembic(connection), target)


def upgrade(settings: DatabaseSettings) -> list[str]:
    said: list[str] = []
    schema.upgrade(settings, said.append)
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


def test_models_and_migrations_give_the_same_schema(settings: DatabaseSettings, engine: sa.Engine) -> None:
    upgrade(settings)
    assert differences(engine) == []
    if engine.dialect.name == "sqlite":
        # Alembic's comparison does not see this property.
        modelled = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
        metadata.create_all(modelled)
        assert autoincrementing(engine) == autoincrementing(modelled) == ["projects"]
        modelled.dispose()


def test_every_revision_says_what_it_is() -> None:
    """Expand or contract; numbered, because "newer" is asked of revisions; and explained in a sentence."""
    for number, script in enumerate(schema._revisions(), start=1):
        assert schema.kind(script) in ("expand", "contract")
        assert script.revision == f"{number:04}"
        assert re.fullmatch(r".+[.:]", script.doc), script.doc


def test_up_and_down_with_data(settings: DatabaseSettings, engine: sa.Engine) -> None:
    """Each revision upwards and back again keeps the rows that the schema below it can hold."""
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


def test_rebuilt_projects_keep_their_rows_and_references(settings: DatabaseSettings, engine: sa.Engine) -> None:
    """Revision 0003, twice up and down: a rebuilt table may lose neither a row nor the rows that refer to it."""
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
            run(engine, "INSERT INTO projects (id, name, owner_id) VALUES (8, 'Maus', 'nobody')")
    run(engine, "INSERT INTO projects (id, name, owner_id) VALUES (9, 'Maus', 'ada')")
    run(engine, "DELETE FROM projects WHERE id = 9")
    if engine.dialect.name == "sqlite":
        run(engine, "INSERT INTO projects (name, owner_id) VALUES ('Hund', 'ada')")
        assert rows(engine, "SELECT max(id) FROM projects") == [(10,)]


# What the original sends, which knows neither `version` nor revisions: its ORM names each column of its own models.
ORIGINALS_WORK = """
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
# The first release of ours wrote these, on the schema of 0002.
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


@pytest.mark.parametrize("work", [ORIGINALS_WORK, RELEASE_0002_WORK], ids=["original", "release on 0002"])
def test_former_release_works_with_the_new_schema(settings: DatabaseSettings, engine: sa.Engine, work: str) -> None:
    """Going back is a switch of images, so what a former release sends has to succeed, beside newer rows too."""
    upgrade(settings)
    run(engine, DATA + REVISION)
    run(engine, work)
    assert rows(engine, "SELECT id, asset_type FROM assets WHERE md5 = 'aa'") == [(3, "costume")]
    # Neither knows of anything that would have to go first.
    run(engine, "DELETE FROM project_groups WHERE project_id = 7; DELETE FROM projects WHERE id = 7")
    assert rows(engine, "SELECT * FROM project_revisions") == []
    run(engine, "INSERT INTO projects (name, owner_id) VALUES ('Hund', 'ada')")
    assert rows(engine, "SELECT name, version FROM projects ORDER BY id DESC")[0] == ("Hund", 1)


def test_upgrade_says_each_revision_and_then_that_nothing_is_to_do(
    settings: DatabaseSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    said = upgrade(settings)
    assert [line for line in said if line.startswith("Now")] == NOW_AT
    assert any("0003 (expand)" in line for line in said)
    assert upgrade(settings) == ["The database is at revision 0003; nothing to do (newest known: 0003)."]


def test_check_command(environment_of_database: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert (cli.main(["db", "check"]), capsys.readouterr().out) == (1, "current none, head 0003\n")
    assert (cli.main(["db", "current"]), capsys.readouterr().out) == (0, "none\n")
    assert cli.main(["db", "upgrade"]) == 0
    capsys.readouterr()
    assert (cli.main(["db", "check"]), capsys.readouterr().out) == (0, "current 0003, head 0003\n")
    assert (cli.main(["db", "current"]), capsys.readouterr().out) == (0, "0003\n")


def test_newer_schema_is_accepted(settings: DatabaseSettings, engine: sa.Engine) -> None:
    """After a rollback of the image the schema is one this release does not know, and grew from one it does."""
    upgrade(settings)
    run(engine, "UPDATE alembic_version SET version_num = '0004'")
    assert schema.check(settings) == ("0004", "0003", True)
    assert upgrade(settings) == ["The database is at revision 0004; nothing to do (newest known: 0003)."]


REVISION_FILE = """\"\"\"{kind} number {number}.\"\"\"

import sqlalchemy as sa
from alembic import op

revision = "{number:04}"
down_revision = "{former:04}"
kind = "{kind}"


def upgrade() -> None:
    op.create_table("from_{number:04}", sa.Column("id", sa.Integer))


def downgrade() -> None:
    op.drop_table("from_{number:04}")
"""


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Give the release more revisions behind 0003, of the kinds that are named."""
    scripts = tmp_path / "migrations"

    def add(*kinds: str) -> None:
        shutil.copytree(Path(schema.__file__).parent / "migrations", scripts)
        for number, kind in enumerate(kinds, start=4):
            text = REVISION_FILE.format(kind=kind, number=number, former=number - 1)
            (scripts / "versions" / f"{number:04}_{kind}.py").write_text(text)
        monkeypatch.setattr(schema, "_SCRIPTS", scripts)
        schema._revisions.cache_clear()

    yield add
    schema._revisions.cache_clear()


class TestContracts:
    """What takes something away is applied when it is asked for, and nothing that is needed lies behind it."""

    def test_upgrade_stops_before_it(self, settings: DatabaseSettings, later: Callable[..., None]) -> None:
        move(settings, "0002")
        later("expand", "contract", "contract")
        said = upgrade(settings)
        assert [line for line in said if line.startswith("Now")] == ["Now at revision 0003.", "Now at revision 0004."]
        waits = "Waits until `scratch4school db upgrade --contract` asks for it: revision"
        assert said[-2:] == [
            f"{waits} 0005 (contract): contract number 5.",
            f"{waits} 0006 (contract): contract number 6.",
        ]
        # A release does not need what only takes away.
        assert (schema.needed(), schema.head()) == ("0004", "0006")
        assert schema.check(settings) == ("0004", "0006", True)
        assert not schema.is_acceptable("0003")
        assert upgrade(settings)[0] == "The database is at revision 0004; nothing to do (newest known: 0006)."

    def test_asked_for(self, settings: DatabaseSettings, later: Callable[..., None]) -> None:
        move(settings, "0003")
        later("contract", "contract", "expand")
        said: list[str] = []
        schema.upgrade(settings, said.append, contract=True)
        assert [line for line in said if line.startswith("Now")] == [f"Now at revision 000{n}." for n in (4, 5, 6)]
        assert schema.check(settings) == ("0006", "0006", True)

    def test_expand_behind_it_is_refused_and_nothing_is_done(
        self, settings: DatabaseSettings, later: Callable[..., None]
    ) -> None:
        move(settings, "0003")
        later("expand", "contract", "expand")
        for ask in (upgrade, schema.plan):
            with pytest.raises(SchemaRefused, match=r"0006 \(expand\) comes after 0005 \(contract\)"):
                ask(settings)
        assert schema.check(settings) == ("0003", "0006", False)

    def test_empty_database_needs_no_asking(self, settings: DatabaseSettings, later: Callable[..., None]) -> None:
        """No former release ever used it."""
        later("contract", "expand")
        upgrade(settings)
        assert schema.check(settings)[0] == "0005"

    def test_plan(
        self,
        settings: DatabaseSettings,
        later: Callable[..., None],
        environment_of_database: None,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """What would be done is said, by number, kind and sentence, and nothing is done."""
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


ORIGINALS = ["before", "after", "after, upgraded in place"]


def original_schema(state: str, engine_name: str) -> str:
    if state != "after, upgraded in place":
        return (LEGACY / f"{state}.{engine_name}.sql").read_text()
    before = (LEGACY / f"before.{engine_name}.sql").read_text()
    return before + "\nALTER TABLE projects ADD COLUMN version INTEGER NOT NULL DEFAULT 1;"


@pytest.mark.parametrize("state", ORIGINALS)
def test_originals_database_is_recognised_and_brought_to_the_same_schema(
    settings: DatabaseSettings, engine: sa.Engine, engine_name: str, state: str
) -> None:
    run(engine, original_schema(state, engine_name))
    data = DATA.replace("owner_id, sb3_file_path)", "owner_id, sb3_file_path, version)").replace(
        "7_ada.sb3')", "7_ada.sb3', 1)"
    )
    run(engine, DATA if state == "before" else data)
    said = upgrade(settings)
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
def test_unknown_database_is_refused_and_left_alone(
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


def test_refusal_has_its_own_status(
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


def test_unreachable_database_has_its_own_status(
    password_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, value in database_environment("postgresql://a@127.0.0.1:1/x", password_file).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr("sys.argv", ["scratch4school", "db", "check"])
    with pytest.raises(SystemExit) as left:
        cli.entry_point()
    assert left.value.code == 69
    assert "Connection refused" in capsys.readouterr().err


def test_foreign_stamp_is_refused(settings: DatabaseSettings, engine: sa.Engine) -> None:
    """Another program's migrations ran here; that is no pending migration of ours."""
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('ab12cd34')")
    for ask in (schema.check, lambda found: upgrade(found)):
        with pytest.raises(schema.SchemaRefused, match="ab12cd34"):
            ask(settings)


def test_many_at_once_migrate_once(settings: DatabaseSettings, engine: sa.Engine, together: Callable[..., Any]) -> None:
    """Two deployments, or ten: each ends well, and each revision is applied by one of them."""
    said = together(5, lambda _: upgrade(settings))
    applied = [line for lines in said for line in lines if line.startswith("Now at")]
    assert sorted(applied) == NOW_AT
    assert differences(engine) == []


@pytest.mark.parametrize("engine_name", ["postgresql"])
class TestPostgres:
    def test_busy_table_is_waited_for_without_queueing_others(
        self, settings: DatabaseSettings, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A long transaction holds a table: nobody waits behind the migration longer than it tries, and it is done."""
        monkeypatch.setattr(schema, "_LOCK_TIMEOUT", "500ms")
        monkeypatch.setattr(schema, "_PAUSES", (0.25, 0.5))
        move(settings, "0001")
        said: list[str] = []
        waits: list[float] = []
        with engine.connect() as long_transaction:
            long_transaction.exec_driver_sql("LOCK TABLE projects IN ACCESS SHARE MODE")
            pid = long_transaction.scalar(sa.select(sa.func.pg_backend_pid()))
            thread = threading.Thread(target=schema.upgrade, args=(settings, said.append))
            thread.start()
            give_up = time.monotonic() + 4
            while time.monotonic() < give_up:
                for statement in ("SELECT count(*) FROM projects", "UPDATE projects SET name = name"):
                    began = time.monotonic()
                    run(engine, statement)
                    waits.append(time.monotonic() - began)
            assert thread.is_alive()
        thread.join()
        tries = [line for line in said if "in use (lock_timeout); trying again" in line]
        assert len(tries) >= 3
        assert all(f"In the way: session {pid} of postgres with scratch4school for " in line for line in tries)
        assert said[-1] == NOW_AT[-1]
        # Somebody did wait behind the migration, and nobody longer than it waited itself.
        assert 0.3 < max(waits) < 0.9, max(waits)

    def test_table_that_stays_busy_ends_in_a_sentence(
        self, settings: DatabaseSettings, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(schema, "_LOCK_TIMEOUT", "300ms")
        monkeypatch.setattr(schema, "_PAUSES", (0.05, 0.05))
        move(settings, "0001")
        with engine.connect() as long_query:
            long_query.exec_driver_sql("SELECT count(*) FROM projects")
            with pytest.raises(LockNotObtained, match=r"stayed in use for 1 s.*In the way: session \d+ of postgres"):
                schema.upgrade(settings, lambda line: None, patience=1)
        assert schema.check(settings)[0] == "0001"

    def test_who_is_in_the_way_is_seen_by_an_ordinary_role(
        self, owned: DatabaseSettings, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The migrator is told who it is and by what program; since when, only of sessions of its own role."""
        monkeypatch.setattr(schema, "_LOCK_TIMEOUT", "300ms")
        upgrade(owned)
        with schema._engine(owned) as acting, acting.begin() as connection:
            command.downgrade(schema._alembic(connection), "0001")
        with engine.connect() as long_query:
            long_query.exec_driver_sql("SELECT count(*) FROM projects")
            with pytest.raises(LockNotObtained, match=r"session \d+ of postgres with scratch4school\. End"):
                schema.upgrade(owned, lambda line: None, patience=0)

    def test_other_migration_is_waited_for(self, settings: DatabaseSettings, engine: sa.Engine) -> None:
        with engine.connect() as other:
            other.execute(sa.select(sa.func.pg_advisory_lock(schema._ADVISORY_LOCK)))
            with pytest.raises(LockNotObtained, match="Another migration"):
                schema.upgrade(settings, say=lambda line: None, pause=lambda seconds: None)

    @pytest.fixture
    def owned(self, postgres: PostgresServer, empty_url: str, password_file: Path) -> DatabaseSettings:
        """As in a deployment: an owner without a login, and a migrator who acts as the owner without inheriting."""
        name = empty_url.rsplit("/", 1)[1]
        postgres.execute(
            f"DROP ROLE IF EXISTS migrator; DROP ROLE IF EXISTS owner_{name}; CREATE ROLE owner_{name} NOLOGIN; "
            f"CREATE ROLE migrator LOGIN NOINHERIT PASSWORD '{PASSWORD}' IN ROLE owner_{name}; "
            f"ALTER DATABASE {name} OWNER TO owner_{name}"
        )
        postgres.execute(f"ALTER SCHEMA public OWNER TO owner_{name}", database=name)
        environment = database_environment(empty_url.replace("postgres@", "migrator@"), password_file)
        return config.load_database({**environment, "SCRATCH4SCHOOL_DATABASE_ROLE": f"owner_{name}"})

    def test_role_owns_what_is_made(self, owned: DatabaseSettings, engine: sa.Engine) -> None:
        """The migrator acts as the owner, so that the tables are the owner's."""
        upgrade(owned)
        owners = rows(engine, "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
        assert owners == [(owned.role,)]

    @pytest.mark.parametrize("snapshot", ["before-postgres", "after-postgres"])
    def test_real_installation(
        self, settings: DatabaseSettings, engine: sa.Engine, postgres_binaries: Path, snapshot: str
    ) -> None:
        """A dump of an installation in use, restored as an operator would, then upgraded."""
        url = settings.url
        psql: list[str | Path] = [postgres_binaries / "psql", "-qX", "-v", "ON_ERROR_STOP=1"]
        psql += ["-h", str(url.host), "-p", str(url.port), "-U", str(url.username), "-d", str(url.database)]
        dump = gzip.decompress((LEGACY / f"{snapshot}.sql.gz").read_bytes())
        subprocess.run(psql, input=dump, env={"PGPASSWORD": PASSWORD}, check=True, capture_output=True)
        _prove_snapshot(settings, engine)


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_real_sqlite_installation(settings: DatabaseSettings, engine: sa.Engine) -> None:
    Path(str(settings.url.database)).write_bytes(gzip.decompress((LEGACY / "before-sqlite.db.gz").read_bytes()))
    _prove_snapshot(settings, engine)


def _prove_snapshot(settings: DatabaseSettings, engine: sa.Engine) -> None:
    tables = ["users", "groups", "user_groups", "oauth_sessions", "projects", "project_groups", "assets"]
    before = [rows(engine, f"SELECT count(*) FROM {table}") for table in tables]
    upgrade(settings)
    assert [rows(engine, f"SELECT count(*) FROM {table}") for table in tables] == before
    assert rows(engine, "SELECT DISTINCT version FROM projects") == [(1,)]
    assert differences(engine) == []
