"""PostgreSQL: who may do what, and where the data lies."""

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.engine("postgres")

LOGINS = ["scratch4school_app", "scratch4school_migrator", "scratch4school_backup", "scratch4school_monitor"]


def test_owner_cannot_log_in(sql: Any) -> None:
    """The role that owns everything has no door of its own."""
    assert sql("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'scratch4school_owner'").stdout.strip() == "f"


@pytest.mark.parametrize("role", LOGINS)
def test_login_is_no_superuser(sql: Any, role: str) -> None:
    """No login may make databases or roles, replicate, or ignore rights."""
    answer = sql(
        "SELECT rolcanlogin, rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls "
        f"FROM pg_roles WHERE rolname = '{role}'"
    )
    assert answer.stdout.strip() == "t|f"


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE projects",
        "TRUNCATE projects",
        "ALTER TABLE projects ADD COLUMN health integer",
        "CREATE TABLE health (id integer)",
        "CREATE SCHEMA health",
    ],
)
def test_application_cannot_change_the_schema(sql: Any, statement: str) -> None:
    """The database itself refuses accidents: the application's role is told no, whatever its code says."""
    answer = sql(f"BEGIN; SET LOCAL ROLE scratch4school_app; {statement}; ROLLBACK;")
    assert answer.rc != 0
    assert "must be owner" in answer.stderr or "permission denied" in answer.stderr


@pytest.mark.parametrize(
    ("role", "privilege"),
    [
        ("scratch4school_app", "SELECT"),
        ("scratch4school_app", "INSERT"),
        ("scratch4school_app", "UPDATE"),
        ("scratch4school_app", "DELETE"),
        ("scratch4school_backup", "SELECT"),
    ],
)
def test_rows_can_be_used(sql: Any, role: str, privilege: str) -> None:
    """In every table: rows are the application's business, and a backup has all of them."""
    tables = "FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    assert (
        sql(f"SELECT relname {tables} AND NOT has_table_privilege('{role}', oid, '{privilege}')").stdout.split() == []
    )
    assert int(sql(f"SELECT count(*) {tables}").stdout) > 8


def test_tables_belong_to_the_owner(sql: Any) -> None:
    """Nothing in the schema belongs to a role that can log in, so that nobody can drop it by right."""
    answer = sql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
    assert answer.stdout.split() == ["scratch4school_owner"]


def test_everybody_may_do_nothing(sql: Any) -> None:
    """A role that is forgotten here cannot even connect."""
    answer = sql(
        "SELECT count(*) FROM pg_database, aclexplode(datacl) WHERE datname = 'scratch4school' AND grantee = 0"
    )
    assert answer.stdout.strip() == "0"


def test_passwords_are_kept_as_scram(sql: Any) -> None:
    """No login has a password in the old md5 form."""
    answer = sql("SELECT rolname FROM pg_authid WHERE rolcanlogin AND rolpassword NOT LIKE 'SCRAM-SHA-256$%'")
    assert answer.stdout.split() == []


def test_only_the_administrator_needs_no_password(sql: Any) -> None:
    """On either way everybody else proves who they are: being on the host, or in a container beside it, is no proof."""
    answer = sql(
        "SELECT DISTINCT type, user_name, auth_method FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'"
    )
    assert answer.stdout.split() == ["local|{postgres}|peer"]


def test_pooler_does_not_come_over_the_network(sql: Any) -> None:
    """All that serves pupils comes over the socket, where there is no address that could become another's."""
    answer = sql(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'scratch4school_app' AND client_addr IS NOT NULL"
    )
    assert answer.stdout.strip() == "0"


def test_data_lies_on_the_hosts_disk(containers: Any, sql: Any) -> None:
    """The data folder is the one that is mounted from the host: a new image does not lose it."""
    folder = Path(sql("SHOW data_directory").stdout.strip())
    sources = {mount["Destination"]: mount["Source"] for mount in containers["database"]["Mounts"]}
    assert sources[str(folder.parent)] == "/var/lib/scratch4school/postgres"


def test_pages_have_checksums(sql: Any) -> None:
    """A disk that lies is found out when the page is read."""
    assert sql("SHOW data_checksums").stdout.strip() == "on"
