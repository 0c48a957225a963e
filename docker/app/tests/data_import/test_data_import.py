"""`scratch4school import`: old rows are imported completely, again if needed, and both databases are equal then."""

import gzip
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import PASSWORD, PostgresServer, database_environment

from scratch4school import cli, config
from scratch4school.config import DatabaseSettings
from scratch4school.data_import import data_import, old_rows, transfer
from scratch4school.database import legacy_schema
from scratch4school.database.engine import make_engine
from scratch4school.database.schema import SchemaRefused
from scratch4school.database.tables import metadata

LEGACY = Path(__file__).parents[1] / "legacy"


@dataclass
class Old:
    """A source database of a test."""

    settings: DatabaseSettings
    environment: dict[str, str]

    def run(self, *statements: str) -> None:
        """Run statements as the original does: on SQLite without foreign keys."""
        is_sqlite = self.settings.is_sqlite
        engine = sa.create_engine(self.settings.url) if is_sqlite else make_engine(self.settings, None)
        with engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
        engine.dispose()


@pytest.fixture
def old_of(
    postgres: PostgresServer, postgres_binaries: Path, password_file: Path, tmp_path: Path
) -> Iterator[Callable[[str], Old]]:
    """Make one of the legacy databases by the first part of its file's name."""
    made: list[str] = []

    def make(name: str) -> Old:
        if name.endswith("sqlite"):
            file = tmp_path / f"{name}.db"
            file.write_bytes(gzip.decompress((LEGACY / f"{name}.db.gz").read_bytes()))
            url = f"sqlite:///{file}"
        else:
            database = f"old_{name.replace('-', '_')}"
            postgres.execute(f"DROP DATABASE IF EXISTS {database}")
            postgres.execute(f"CREATE DATABASE {database}")
            made.append(database)
            script = gzip.decompress((LEGACY / f"{name}.sql.gz").read_bytes())
            psql = [postgres_binaries / "psql", "--quiet", "--set=ON_ERROR_STOP=1", "--no-psqlrc"]
            address = f"postgresql://postgres:{PASSWORD}@127.0.0.1:{postgres.port}/{database}"
            subprocess.run([*psql, address], input=script, check=True, stdout=subprocess.DEVNULL)
            url = postgres.url(database)
        environment = database_environment(url, password_file)
        old = {name.replace("_DATABASE", "_SOURCE_DATABASE"): value for name, value in environment.items()}
        return Old(config.load_database(environment), old)

    yield make
    for database in made:
        postgres.execute(f"DROP DATABASE {database} WITH (FORCE)")


@pytest.fixture
def ours(migrated: dict[str, str], password_file: Path, tmp_path: Path) -> Old:
    """A database of ours in SQLite, at the newest schema, without rows."""
    source = tmp_path / "ours.db"
    shutil.copy(sa.make_url(migrated["sqlite"]).database or "", source)
    environment = database_environment(f"sqlite:///{source}", password_file)
    return Old(config.load_database(environment), environment)


@pytest.fixture
def new(database_url: str, password_file: Path) -> DatabaseSettings:
    return config.load_database(database_environment(database_url, password_file))


def rows(settings: DatabaseSettings, query: str) -> list[tuple[Any, ...]]:
    engine = make_engine(settings, None)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(query)]
    finally:
        engine.dispose()


def quietly(_line: str) -> None:
    pass


def findings(old: Old) -> dict[str, int]:
    return {one["finding"]: one["count"] for one in data_import.inspect(old.settings)["findings"]}


@pytest.mark.parametrize("name", ["before-sqlite", "before-postgres", "after-postgres"])
def test_imported_database_equals_the_old_one(old_of: Callable[[str], Old], new: DatabaseSettings, name: str) -> None:
    """All eight tables; a second transfer writes nothing."""
    old = old_of(name)
    moved = data_import.transfer(old.settings, new, False, quietly)
    assert {table: one.new for table, one in moved.items() if one.new} == {
        table: one.rows for table, one in moved.items()
    }
    assert (moved["users"].rows, moved["projects"].rows, moved["assets"].rows) == (60, 140, 43)
    found = data_import.compare(old.settings, new, False, quietly)
    assert (found.differences, sum(found.same.values())) == (0, sum(one.rows for one in moved.values()))
    again = data_import.transfer(old.settings, new, False, quietly)
    assert not any(one.new or one.changed or one.gone for one in again.values())


@pytest.fixture
def later_columns(new: DatabaseSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Our tables with two columns of a later release, which no database of the original has."""
    later = sa.MetaData()
    tables = tuple(table.to_metadata(later) for table in old_rows.TABLES)
    language = sa.Column("language", sa.String(20), nullable=False, server_default=sa.text("'de'"))
    later.tables["projects"].append_column(language)
    later.tables["users"].append_column(sa.Column("nickname", sa.String(20)))
    monkeypatch.setattr(transfer, "TABLES", tables)
    monkeypatch.setattr(
        old_rows.LegacyRows, "tables", tuple(table for table in tables if table.name in legacy_schema.TABLES)
    )
    engine = make_engine(new, None)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE projects ADD COLUMN language VARCHAR(20) DEFAULT 'de' NOT NULL")
        connection.exec_driver_sql("ALTER TABLE users ADD COLUMN nickname VARCHAR(20)")
    yield
    # On PostgreSQL the next test has the same database.
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE projects DROP COLUMN language")
        connection.exec_driver_sql("ALTER TABLE users DROP COLUMN nickname")
    engine.dispose()


@pytest.mark.usefixtures("later_columns")
@pytest.mark.parametrize("name", ["before-sqlite", "before-postgres"])
def test_column_that_the_old_table_lacks_has_its_default(
    old_of: Callable[[str], Old], new: DatabaseSettings, name: str
) -> None:
    """So a new column needs no code here: the databases are equal, and a second transfer writes nothing."""
    old = old_of(name)
    data_import.transfer(old.settings, new, False, quietly)
    assert rows(new, "SELECT DISTINCT language, version FROM projects") == [("de", 1)]
    assert rows(new, "SELECT DISTINCT nickname FROM users") == [(None,)]
    assert data_import.compare(old.settings, new, False, quietly).differences == 0
    again = data_import.transfer(old.settings, new, False, quietly)
    assert not any(one.new or one.changed or one.gone for one in again.values())


@pytest.fixture
def school(old_of: Callable[[str], Old], request: pytest.FixtureRequest) -> Old:
    """The first school's database, on the engine that the test names, by default on SQLite, which checks less."""
    return old_of(getattr(request, "param", "before-sqlite"))


BOTH = pytest.mark.parametrize("school", ["before-sqlite", "before-postgres"], indirect=True)


@BOTH
def test_imported_values_are_unchanged(school: Old, new: DatabaseSettings) -> None:
    """JSON, moments to the microsecond without a zone, titles with all characters, paths cut at uploads/."""
    data_import.transfer(school.settings, new, False, quietly)
    query = "SELECT id, name, created_at, updated_at FROM projects WHERE id IN (12, 17, 62) ORDER BY id"
    there, here = ([tuple(map(str, row)) for row in rows(settings, query)] for settings in (school.settings, new))
    assert there == here
    assert [row[1] for row in here[:2]] == ["Weltraum 🚀🚀 – Kopie", 'Mein "bestes" Spiel']
    assert len(here[2][1]) == 100
    (path,) = rows(new, "SELECT sb3_file_path FROM projects WHERE id = 12")[0]
    assert path == "projects/12_jorg.wei.sb3"
    data = [value for (value,) in rows(new, "SELECT user_data FROM users ORDER BY id")]
    parsed = [json.loads(value) if isinstance(value, str) else value for value in data]
    assert all(isinstance(value, dict) for value in parsed)


@BOTH
def test_next_number_is_above_all_used_ones(school: Old, new: DatabaseSettings) -> None:
    """145 is the highest project. PostgreSQL remembers deleted ones; SQLite would use the highest number again."""
    school.run("DELETE FROM project_groups WHERE project_id > 100", "DELETE FROM projects WHERE id > 100")
    data_import.transfer(school.settings, new, False, quietly)
    used = 145 if school.settings.url.get_backend_name() == "postgresql" else 100
    statement = "INSERT INTO projects (name, owner_id) SELECT 'neu', min(id) FROM users RETURNING id"
    engine = make_engine(new, None)
    with engine.begin() as connection:
        assert connection.exec_driver_sql(statement).scalar() == used + 1
    engine.dispose()


@BOTH
def test_second_transfer_writes_only_changes(school: Old, new: DatabaseSettings) -> None:
    """New, changed and deleted rows, also those that other rows refer to."""
    data_import.transfer(school.settings, new, False, quietly)
    school.run(
        "UPDATE projects SET name = 'anders' WHERE id = 12",
        "INSERT INTO projects (id, name, owner_id) SELECT 999, 'neu', min(id) FROM users",
        "INSERT INTO users (id, username) VALUES ('neu', 'Neu')",
        "DELETE FROM project_groups WHERE project_id = 2",
        "DELETE FROM projects WHERE id = 2",
    )
    shared = rows(new, "SELECT count(*) FROM project_groups WHERE project_id = 2")[0][0]
    differs = data_import.compare(school.settings, new, False, quietly)
    assert differs.differences == 4 + shared
    assert {"projects 12 differs in name", "projects 999 is not here", "projects 2 is not in the source database"} < {
        *differs.named
    }
    moved = data_import.transfer(school.settings, new, False, quietly)
    written = {
        name: (one.new, one.changed, one.gone) for name, one in moved.items() if one.new + one.changed + one.gone
    }
    assert written == {"users": (1, 0, 0), "projects": (1, 1, 1), "project_groups": (0, 0, shared)}
    assert data_import.compare(school.settings, new, False, quietly).differences == 0


def test_groups_with_exchanged_names_are_rewritten(school: Old, new: DatabaseSettings) -> None:
    """One by one their unique names would collide. The transfer says so, and both databases are equal then."""
    data_import.transfer(school.settings, new, False, quietly)
    swap = "UPDATE groups SET external_id = '{}' WHERE id = {}"
    (first,), (second,) = rows(school.settings, "SELECT external_id FROM groups WHERE id IN (1, 2) ORDER BY id")
    school.run(swap.format("temporary", 1), swap.format(first, 2), swap.format(second, 1))
    said: list[str] = []
    data_import.transfer(school.settings, new, False, said.append)
    assert "Some changes cannot be made one by one; all rows are deleted and inserted again." in said
    assert data_import.compare(school.settings, new, False, quietly).differences == 0


def test_report_names_faults_but_no_people(school: Old) -> None:
    """The faults that README.md of legacy/ lists, by number, and the files that rows name."""
    seen = data_import.inspect(school.settings)
    assert seen["shape"] == "the original's, before its fix"
    assert seen["rows"] == seen["become"]
    assert (seen["rows"]["users"], seen["rows"]["projects"], seen["rows"]["backpack_items"]) == (60, 140, 30)
    assert sum(seen["sessions"].values()) == 40
    found = {one["finding"]: one for one in seen["findings"]}
    assert (found["no_file"]["where"], found["shared_with_no_group"]["where"]) == (["projects 103"], ["projects 53"])
    assert set(found) == {"no_file", "shared_with_no_group"}
    files = seen["files"]
    assert files["projects/12_jorg.wei.sb3"] == {"kind": "project", "by": ["projects 12"]}
    assert all(len(one["md5"]) == 32 and one["size"] for one in files.values() if one["kind"] == "asset")
    titles = {title for (title,) in rows(school.settings, "SELECT name FROM projects")}
    assert not [title for title in titles if len(title) > 4 and title in json.dumps(seen, ensure_ascii=False)]


def test_newly_declared_file_column_is_imported_as_one(
    school: Old, new: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The declaration is all that the import needs: the report lists the file, and the path is cut at uploads/."""
    monkeypatch.setitem(metadata.tables["users"].columns["email"].info, "file", "thumbnail")
    school.run("UPDATE users SET email = '/app/app/../uploads/thumbnails/portrait.png' WHERE id = 'jörg.weiß'")
    named = data_import.inspect(school.settings)["files"]["thumbnails/portrait.png"]
    assert named == {"kind": "thumbnail", "by": ["users jörg.weiß"]}
    data_import.transfer(school.settings, new, False, quietly)
    assert rows(new, "SELECT email FROM users WHERE id = 'jörg.weiß'") == [("thumbnails/portrait.png",)]


FAULTS = """UPDATE projects SET owner_id = 'verschwunden' WHERE id = 12;
INSERT INTO user_groups (user_id, group_id) VALUES ('niemand', 1);
INSERT INTO project_groups (project_id, group_id) VALUES (4711, 1), (17, 4711);
INSERT INTO oauth_sessions (id, user_id, access_token, expires_at) VALUES ('s', 'niemand', 't', '2026-01-01 00:00:00');
UPDATE projects SET name = name || substr('0123456789', 1, 5) WHERE id = 62;
UPDATE projects SET sb3_file_path = '/elsewhere/12.sb3' WHERE id = 17;
UPDATE users SET user_data = json_quote(user_data) WHERE id = 'jörg.weiß';
UPDATE users SET user_data = '{half' WHERE id = '2ee48c53-ac59-42f1-a4dd-8daeb5aef6fb';
UPDATE backpack_items SET thumbnail = 'gone' WHERE id = (SELECT min(id) FROM backpack_items)
"""


def test_faulty_rows_are_reported_and_imported_by_their_rules(school: Old, new: DatabaseSettings) -> None:
    """Rows that SQLite accepts without foreign keys: each is found, named, and imported by its rule."""
    school.run(*FAULTS.split(";\n"))
    seen = data_import.inspect(school.settings)
    assert {one["finding"]: one["count"] for one in seen["findings"]} == {
        "no_file": 1,
        "outside": 1,
        "unknown_owner": 1,
        "left_out": 4,
        "as_text": 1,
        "broken_json": 1,
        "too_long": 1,
        "shared_with_no_group": 1,
        "missing_asset": 1,
    }
    assert (seen["become"]["users"], seen["become"]["user_groups"]) == (61, 90)
    with pytest.raises(SchemaRefused, match=r"namely projects 62 \(name: 105 characters, 100 fit\)\."):
        data_import.transfer(school.settings, new, False, quietly)
    assert rows(new, "SELECT count(*) FROM users") == [(0,)]
    data_import.transfer(school.settings, new, True, quietly)
    assert data_import.compare(school.settings, new, True, quietly).differences == 0
    assert rows(new, "SELECT username, role FROM users WHERE id = 'verschwunden'") == [("verschwunden", None)]
    assert rows(new, "SELECT length(name) FROM projects WHERE id = 62") == [(100,)]


def test_duplicate_assets_are_imported_once(school: Old, new: DatabaseSettings) -> None:
    """The new constraint allows one row for each content and type: that with the lowest number."""
    school.run(
        "INSERT INTO assets (id, asset_id, asset_type, data_format, size, md5, owner_id, file_path) "
        "SELECT 999, 'x', asset_type, data_format, size, md5, owner_id, file_path FROM assets WHERE id = 1"
    )
    assert findings(school)["duplicate"] == 1
    assert data_import.transfer(school.settings, new, False, quietly)["assets"].rows == 43
    assert data_import.compare(school.settings, new, False, quietly).differences == 0


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("CREATE TABLE collaborative_projects (id INTEGER)", "since it has collaborative projects"),
        ("CREATE TABLE noten (id INTEGER)", "there is an unknown table noten"),
        ("ALTER TABLE users ADD COLUMN klasse TEXT", "there is an unknown column users.klasse"),
        ("DROP TABLE backpack_items", "the table backpack_items is missing"),
    ],
)
def test_unknown_schema_is_refused(school: Old, new: DatabaseSettings, statement: str, message: str) -> None:
    """The message says what was found, and nothing is written."""
    school.run(statement)
    for work in (
        lambda: data_import.inspect(school.settings),
        lambda: data_import.transfer(school.settings, new, False, quietly),
    ):
        with pytest.raises(SchemaRefused, match=message):
            work()
    assert rows(new, "SELECT count(*) FROM users") == [(0,)]


def test_empty_source_database_is_refused(empty_url: str, password_file: Path) -> None:
    """A wrong path or an empty dump would import nothing and look like a success."""
    with pytest.raises(SchemaRefused, match="no table in it"):
        data_import.inspect(config.load_database(database_environment(empty_url, password_file)))


def test_our_own_database_is_imported_with_saved_versions(ours: Old, new: DatabaseSettings) -> None:
    """From one of our engines to the other: every table, also saved versions."""
    ours.run(
        "INSERT INTO users (id, username) VALUES ('ada', 'Ada')",
        "INSERT INTO projects (id, name, version, owner_id, is_published) VALUES (7, 'Katze', 3, 'ada', 1)",
        "INSERT INTO project_revisions (project_id, version, file_path, size, sha256, saved_by) "
        "VALUES (7, 2, 'projects/a.sb3', 10, 'aa', 'ada'), (7, 3, 'projects/b.sb3', 11, 'bb', 'ada')",
        "DELETE FROM projects WHERE id = 8",
    )
    moved = data_import.transfer(ours.settings, new, False, quietly)
    assert (moved["projects"].new, moved["project_revisions"].new) == (1, 2)
    assert data_import.compare(ours.settings, new, False, quietly).differences == 0
    assert rows(new, "SELECT version, is_published FROM projects") in ([(3, 1)], [(3, True)])


def test_our_own_database_with_long_value_is_refused(ours: Old, new: DatabaseSettings) -> None:
    """SQLite stores any length; the refusal comes before anything is written, with the row's number."""
    ours.run(
        "INSERT INTO users (id, username) VALUES ('ada', 'Ada')",
        f"INSERT INTO projects (id, name, owner_id) VALUES (7, '{'x' * 101}', 'ada')",
    )
    with pytest.raises(SchemaRefused, match=r"projects 7 \(name: 101 characters, 100 fit\)"):
        data_import.transfer(ours.settings, new, False, quietly)
    assert rows(new, "SELECT count(*) FROM users") == [(0,)]


def test_refusal_of_long_values_names_the_option(ours: Old, new: DatabaseSettings) -> None:
    """The number of values, the first by table, row and column, and the option that cuts; the report names it, too."""
    ours.run(
        "INSERT INTO users (id, username) VALUES ('ada', 'Ada')",
        f"INSERT INTO projects (id, name, owner_id) VALUES (7, '{'x' * 101}', 'ada')",
        f"INSERT INTO projects (id, name, owner_id) VALUES (9, '{'y' * 300}', 'ada')",
    )
    with pytest.raises(SchemaRefused) as refused:
        data_import.transfer(ours.settings, new, False, quietly)
    said = str(refused.value)
    assert said.startswith("2 values are longer than their column, or contain a NUL, such as projects 7 (name: 101")
    assert "Type -e cut=true at this step and at those after it" in said
    assert said.endswith("cuts to the column's length and removes the NUL; the source database keeps the full value.")
    # The program on the host shows only the last line.
    assert "\n" not in said
    (finding,) = (one for one in data_import.inspect(ours.settings)["findings"] if one["finding"] == "too_long")
    assert "-e cut=true" in finding["rule"]
    data_import.transfer(ours.settings, new, True, quietly)
    assert rows(new, "SELECT id, length(name) FROM projects ORDER BY id") == [(7, 100), (9, 100)]
    assert rows(ours.settings, "SELECT id, length(name) FROM projects ORDER BY id") == [(7, 101), (9, 300)]


def test_rows_from_elsewhere_are_a_difference(school: Old, new: DatabaseSettings) -> None:
    """A pupil who saved here before the import would lose that save."""
    data_import.transfer(school.settings, new, False, quietly)
    engine = make_engine(new, None)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO project_revisions (project_id, version, file_path, saved_by) VALUES (12, 1, 'x', 'jörg.weiß')"
        )
    engine.dispose()
    found = data_import.compare(school.settings, new, False, quietly)
    assert found.named == ["project_revisions: 1 rows that did not come from the source database"]


def test_transfer_into_older_schema_is_refused(school: Old, empty_url: str, password_file: Path) -> None:
    """The migration is a separate step."""
    empty = config.load_database(database_environment(empty_url, password_file))
    with pytest.raises(SchemaRefused, match="run `scratch4school db upgrade` first"):
        data_import.transfer(school.settings, empty, False, quietly)


def test_commands_print_report_lines_and_sums(
    school: Old,
    new: DatabaseSettings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """`inspect` prints JSON, `transfer` a line for each table, `compare` the sums, with the result as exit status."""
    for name, value in school.environment.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["import", "inspect"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"]["projects"] == 140
    with pytest.raises(SystemExit) as refused:
        cli.main(["import", "transfer"])
    assert refused.value.code == config.EX_CONFIG
    capsys.readouterr()
    monkeypatch.setenv(
        "SCRATCH4SCHOOL_DATABASE_URL", new.url.render_as_string(hide_password=False).replace("+psycopg2", "")
    )
    if not new.is_sqlite:
        password = tmp_path / "password"
        password.write_text(PASSWORD)
        monkeypatch.setenv("SCRATCH4SCHOOL_DATABASE_PASSWORD_FILE", str(password))
    assert cli.main(["import", "transfer"]) == 0
    assert "projects: 140 rows: 140 new, 0 changed, 0 gone" in capsys.readouterr().out
    assert cli.main(["import", "compare"]) == 0
    assert "452 rows are the same, 0 differ" in capsys.readouterr().out
    school.run("UPDATE projects SET name = 'anders' WHERE id = 12")
    assert cli.main(["import", "compare"]) == 1
    assert "DIFFERENT: projects 12 differs in name" in capsys.readouterr().out
