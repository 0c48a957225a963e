"""SQLite: the file that holds the rows is whole, and is what the application's processes can share."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import ask_container

pytestmark = pytest.mark.engine("sqlite")

DATABASE = Path("/var/lib/scratch4school/database/main.db")

# In the application's container, because its SQLite is the one that counts. Read-only, because tests change nothing.
READ = (
    "import json, sqlite3, sys; "
    "database = sqlite3.connect('file:%s?mode=ro', uri=True, timeout=10); "
    "print(json.dumps(database.execute(sys.argv[1]).fetchall()))"
)


@pytest.fixture(scope="session")
def ask(host: Any, containers: Any) -> Any:
    """A function that gives the rows of one SQL statement, as lists."""

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


def test_journal_is_a_write_ahead_log(ask: Any) -> None:
    """Who reads does not wait for who writes."""
    assert ask("PRAGMA journal_mode") == [["wal"]]


def test_pages_are_whole(ask: Any) -> None:
    """SQLite's own look at every page finds nothing wrong."""
    assert ask("PRAGMA quick_check") == [["ok"]]


def test_references_lead_somewhere(ask: Any) -> None:
    """No row refers to one that is gone."""
    assert ask("PRAGMA foreign_key_check") == []


def test_rows_can_be_read(ask: Any) -> None:
    """The application's own container sees the school's tables in the file."""
    tables = {name for (name,) in ask("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert {"users", "projects", "alembic_version"} <= tables


def test_rows_lie_on_the_hosts_disk(containers: Any) -> None:
    """The folder is the one that is mounted from the host: a new container does not lose it."""
    sources = {mount["Destination"]: mount["Source"] for mount in containers["app"]["Mounts"]}
    assert sources[str(DATABASE.parent)] == str(DATABASE.parent)


def test_what_lies_beside_it_is_as_closed(host: Any) -> None:
    """SQLite's log holds rows too: whatever is in the folder is for the application alone.

    While a restore is verified, what it replaced lies there as well, in a folder that only root opens.
    """
    closed = "\\( -uid 10001 -perm 600 \\) -not \\( -type d -uid 0 -perm 700 \\)"
    assert host.check_output(f"find %s -mindepth 1 -not {closed}", str(DATABASE.parent)) == ""
