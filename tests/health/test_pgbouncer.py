"""PgBouncer: logins with SCRAM, and pools that fit into PostgreSQL's limit."""

from typing import Any

import pytest
from conftest import ask_container

pytestmark = pytest.mark.engine("postgres")

# The password is read from standard input, because others could list an argument or an environment.
LOG_IN = (
    "docker exec -i scratch4school-pgbouncer sh -c 'read -r PGPASSWORD; export PGPASSWORD; exec psql --no-psqlrc "
    '--tuples-only --no-align --host 127.0.0.1 --port 6432 --username "$0" --dbname "$1" --command "$2"\' %s %s %s < %s'
)


def _ask(host: Any, user: str, database: str, question: str, secret: str) -> Any:
    return ask_container(host, LOG_IN, user, database, question, f"/etc/scratch4school/app/{secret}")


def test_application_logs_in_through_pgbouncer(host: Any) -> None:
    """With SCRAM from client to PgBouncer and from PgBouncer to PostgreSQL."""
    answer = _ask(host, "scratch4school_app", "scratch4school", "SELECT current_user", "database_password")
    assert answer.rc == 0, answer.stderr
    assert answer.stdout.strip() == "scratch4school_app"


def test_wrong_password_is_refused(host: Any) -> None:
    """By PgBouncer itself."""
    answer = _ask(host, "scratch4school_app", "scratch4school", "SELECT 1", "monitor_password")
    assert answer.rc != 0
    assert "authentication failed" in answer.stderr


def test_pgbouncer_reaches_postgresql_over_its_socket(host: Any) -> None:
    """It uses no address, because that of PostgreSQL's container can change."""
    answers = {
        asked: _ask(host, "scratch4school_monitor", "pgbouncer", f"SHOW {asked}", "monitor_password")
        for asked in ("DATABASES", "DNS_HOSTS")
    }
    assert {answer.rc for answer in answers.values()} == {0}, answers
    hosts = dict(line.split("|")[:2] for line in answers["DATABASES"].stdout.splitlines())
    assert hosts["scratch4school"].startswith("/")
    assert answers["DNS_HOSTS"].stdout.split() == []


@pytest.mark.parametrize(
    ("user", "message"),
    [("scratch4school_app", "no password supplied"), ("postgres", "Peer authentication failed")],
)
def test_socket_of_postgresql_needs_a_password(host: Any, user: str, message: str) -> None:
    """An intruder in PgBouncer's container needs one too."""
    login = "docker exec scratch4school-pgbouncer psql --no-password --host /run/postgresql --username %s --dbname %s"
    answer = ask_container(host, f"{login} --command 'SELECT 1'", user, "scratch4school")
    assert answer.rc != 0
    assert message in answer.stderr


def test_pools_are_by_transaction(host: Any) -> None:
    """A client has a server connection for one transaction, not for a session."""
    answer = _ask(host, "scratch4school_monitor", "pgbouncer", "SHOW CONFIG", "monitor_password")
    assert answer.rc == 0, answer.stderr
    settings = dict(line.split("|")[:2] for line in answer.stdout.splitlines())
    assert settings["pool_mode"] == "transaction"
    assert settings["auth_type"] == "scram-sha-256"


def test_monitor_login_cannot_pause_the_pools(host: Any) -> None:
    """It may only read statistics."""
    answer = _ask(host, "scratch4school_monitor", "pgbouncer", "PAUSE", "monitor_password")
    assert answer.rc != 0
    assert "admin access needed" in answer.stderr


def test_pools_fit_into_the_database(settings: Any, sql: Any) -> None:
    """With five more connections."""
    limit = int(sql("SHOW max_connections").stdout) - int(sql("SHOW superuser_reserved_connections").stdout)
    assert settings["pgbouncer_pool_size"] + settings["pgbouncer_reserve_pool_size"] + 5 <= limit
