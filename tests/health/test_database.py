"""PostgreSQL: roles and rights, and the place of the data."""

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.engine("postgres")

LOGINS = ["scratch4school_app", "scratch4school_migrator", "scratch4school_backup", "scratch4school_monitor"]


def test_owner_cannot_log_in(sql: Any) -> None:
    """The role that owns the database and its tables."""
    assert sql("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'scratch4school_owner'").stdout.strip() == "f"


@pytest.mark.parametrize("role", LOGINS)
def test_login_is_no_superuser(sql: Any, role: str) -> None:
    """No login may create databases or roles, replicate, or bypass rights."""
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
    """PostgreSQL refuses the application's role, whatever the application's code does."""
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
def test_role_has_its_privilege_in_every_table(sql: Any, role: str, privilege: str) -> None:
    """The application reads and writes all tables, and a backup reads them."""
    tables = "FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    assert (
        sql(f"SELECT relname {tables} AND NOT has_table_privilege('{role}', oid, '{privilege}')").stdout.split() == []
    )
    assert int(sql(f"SELECT count(*) {tables}").stdout) > 8


def test_tables_belong_to_the_owner(sql: Any) -> None:
    """A role that can log in owns no table, so that it cannot drop one."""
    answer = sql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
    assert answer.stdout.split() == ["scratch4school_owner"]


def test_public_has_no_rights_on_the_database(sql: Any) -> None:
    """Another role cannot even connect."""
    answer = sql(
        "SELECT count(*) FROM pg_database, aclexplode(datacl) WHERE datname = 'scratch4school' AND grantee = 0"
    )
    assert answer.stdout.strip() == "0"


def test_passwords_are_stored_as_scram_secrets(sql: Any) -> None:
    """No login has an MD5 hash."""
    answer = sql("SELECT rolname FROM pg_authid WHERE rolcanlogin AND rolpassword NOT LIKE 'SCRAM-SHA-256$%'")
    assert answer.stdout.split() == []


def test_only_the_administrator_needs_no_password(sql: Any) -> None:
    """All other logins need a password, over the socket and over the network."""
    answer = sql(
        "SELECT DISTINCT type, user_name, auth_method FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'"
    )
    assert answer.stdout.split() == ["local|{postgres}|peer"]


def test_application_connects_only_over_the_socket(sql: Any) -> None:
    """PgBouncer uses the socket, because the address of PostgreSQL's container can change."""
    answer = sql(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'scratch4school_app' AND client_addr IS NOT NULL"
    )
    assert answer.stdout.strip() == "0"


def test_data_folder_is_mounted_from_the_host(containers: Any, sql: Any) -> None:
    """A new container must not lose the data."""
    folder = Path(sql("SHOW data_directory").stdout.strip())
    sources = {mount["Destination"]: mount["Source"] for mount in containers["database"]["Mounts"]}
    assert sources[str(folder.parent)] == "/var/lib/scratch4school/postgres"


def test_pages_of_the_database_have_checksums(sql: Any) -> None:
    """With them PostgreSQL detects a damaged page when it reads it."""
    assert sql("SHOW data_checksums").stdout.strip() == "on"
