"""SQLite: the database file is undamaged, in write-ahead mode, and on the host's disk."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import ask_container

pytestmark = pytest.mark.engine("sqlite")

DATABASE = Path("/var/lib/scratch4school/database/main.db")

# In the application's container, to use the application's SQLite. Read-only, because health tests change nothing.
READ = (
    "import json, sqlite3, sys; "
    "database = sqlite3.connect('file:%s?mode=ro', uri=True, timeout=10); "
    "print(json.dumps(database.execute(sys.argv[1]).fetchall()))"
)


@pytest.fixture(scope="session")
def ask(host: Any, containers: Any) -> Any:
    """A function that returns the rows of one SQL statement as lists."""

    def run(statement: str) -> list[list[Any]]:
        answer = ask_container(
            host,
            "docker exec %s /opt/scratch4school/bin/python -c %s %s",
            containers["app"]["Id"],
            READ % DATABASE,
            statement,
        )
        assert answer.rc == 0, answer.stderr
        return json.loads(answer.stdout)

    return run


def test_sqlite_uses_a_write_ahead_log(ask: Any) -> None:
    """Readers do not wait for writers."""
    assert ask("PRAGMA journal_mode") == [["wal"]]


def test_pages_of_the_file_are_undamaged(ask: Any) -> None:
    """By SQLite's own check of every page."""
    assert ask("PRAGMA quick_check") == [["ok"]]


def test_foreign_keys_have_no_missing_rows(ask: Any) -> None:
    """By SQLite's own check."""
    assert ask("PRAGMA foreign_key_check") == []


def test_application_reads_the_tables_in_the_file(ask: Any) -> None:
    """In the application's container."""
    tables = {name for (name,) in ask("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert {"users", "projects", "alembic_version"} <= tables


def test_folder_of_the_file_is_mounted_from_the_host(containers: Any) -> None:
    """A new container must not lose the database."""
    sources = {mount["Destination"]: mount["Source"] for mount in containers["app"]["Mounts"]}
    assert sources[str(DATABASE.parent)] == str(DATABASE.parent)


def test_only_the_application_can_read_the_folder_of_the_file(host: Any) -> None:
    """SQLite's log contains rows too.

    While a restore is verified, the replaced database is there too, in a folder that only root can open.
    """
    closed = "\\( -uid 10001 -perm 600 \\) -not \\( -type d -uid 0 -perm 700 \\)"
    assert host.check_output(f"find %s -mindepth 1 -not {closed}", str(DATABASE.parent)) == ""
