"""PgBouncer's transaction pool: no state reaches the next transaction, and a request that waits is answered."""

from __future__ import annotations

import base64
import ctypes
import re
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import psycopg2
import pytest
import requests

from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.background_class import BackgroundClass
from scratch4school_lab.scenarios.faults import psql
from scratch4school_lab.scenarios.lab_hosts import LAB, on_host, wait_for
from scratch4school_lab.scenarios.pgbouncer import (
    APPLICATION,
    CONSOLE,
    DATABASE,
    Client,
    ask,
    console,
    log_in,
    logged_in,
    password_of_application,
    run_in_console,
    servers,
    tunnel,
)
from scratch4school_lab.scenarios.pupils import create, numbered, read

# A line of PostgreSQL's log for a statement that succeeded: the server's process, the kind of query, and its text.
LOGGED = re.compile(r"UTC \[(\d+)\] LOG:  duration: \S+ ms  (\w+)[^:]*: (.*)$", flags=re.MULTILINE)
# The kinds of statements that the application sends.
KINDS = {"BEGIN", "SET", "SELECT", "INSERT", "UPDATE", "DELETE", "COMMIT"}
# Statements whose effect would outlive their transaction.
OUTLIVES = re.compile(
    r"(SET (?!LOCAL\b|TRANSACTION\b)|RESET|DISCARD|LISTEN|UNLISTEN|LOAD|PREPARE|EXECUTE|DEALLOCATE|DECLARE .*WITH HOLD"
    r"|(CREATE|.*\bINTO) (LOCAL |GLOBAL )?TEMP(ORARY)?\b|.*\bpg_(try_)?advisory_lock|.*\bset_config\(.*\bfalse)",
    flags=re.IGNORECASE | re.DOTALL,
)
# PgBouncer knows these settings of each client, and sets them where a server's differ.
KNOWN = ("application_name", "client_encoding", "datestyle", "intervalstyle", "standard_conforming_strings", "timezone")
SET_BY_PGBOUNCER = re.compile(rf"SET ({'|'.join(KNOWN)})=''", flags=re.IGNORECASE)
# State that a connection still has from earlier clients.
LEFT = f"""
SELECT 'prepared statement ' || name FROM pg_prepared_statements
UNION ALL SELECT 'cursor ' || name FROM pg_cursors
UNION ALL SELECT 'channel ' || channel FROM pg_listening_channels() AS channel
UNION ALL SELECT 'temporary tables' WHERE pg_my_temp_schema() <> 0
UNION ALL SELECT 'advisory lock' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
UNION ALL SELECT 'setting ' || name FROM pg_settings WHERE source = 'session' AND lower(name) NOT IN {KNOWN}
"""
# State that a transaction sees: the server's process, a setting, its isolation, and whether a row exists.
FOUND = """
SELECT pg_backend_pid(), coalesce(current_setting('rehearsal.mark', true), ''),
       current_setting('transaction_isolation'), (SELECT count(*) FROM groups WHERE external_id = 'rehearsal')
"""
ADD_ROW = "INSERT INTO groups (name, external_id) VALUES ('Rehearsal', 'rehearsal')"

# The fourth column of SHOW POOLS, cl_waiting, counts the clients that wait for a connection.
RESUME_FOR_A_WAITING_CLIENT = (
    f'for attempt in $(seq 1000); do {CONSOLE} -c "SHOW POOLS" | grep -q "^{DATABASE},{APPLICATION},[0-9]*,[1-9]" && '
    f'exec {CONSOLE} -c "RESUME"; sleep 0.1; done; exit 1'
)

Login = Callable[..., requests.Session]


def renew() -> None:
    """Replace every connection to PostgreSQL, between two transactions."""
    run_in_console("RECONNECT", "WAIT_CLOSE")


@contextmanager
def statements_logged(host: Host) -> Iterator[Callable[[], dict[int, list[str]]]]:
    """Let PostgreSQL log the application's statements; yields a function that reads them, by server process."""
    began = time.time()

    def read_log() -> dict[int, list[str]]:
        log = on_host(f"sudo docker logs --since {began:.3f} scratch4school-postgres 2>&1", host)
        statements = defaultdict(list)
        # Further lines of a statement begin with a tab. A driver that prepares sends no plain statement.
        for process, how, what in LOGGED.findall(log.replace("\n\t", " ")):
            statements[int(process)].append(what if how == "statement" else f"PREPARE, in the protocol: {how}")
        return statements

    # Settings of a role apply to new connections.
    psql(host, f"ALTER ROLE {APPLICATION} SET log_min_duration_statement = 0")
    try:
        renew()
        yield read_log
    finally:
        psql(host, f"ALTER ROLE {APPLICATION} RESET log_min_duration_statement")
        renew()


def single_statements(texts: list[str]) -> list[str]:
    """The statements of a connection, one by one, without the text between quotation marks."""
    bare = (re.sub(r"'(?:[^']|'')*'", "''", text) for text in texts)
    return [part.strip() for text in bare for part in text.split(";") if part.strip()]


def kinds(logged: dict[int, list[str]]) -> set[str]:
    """The first words of all statements."""
    return {statement.split()[0] for texts in logged.values() for statement in single_statements(texts)}


def outliving(statements: list[str]) -> list[str]:
    """The statements of a connection that would outlive their transaction, or a transaction without an end."""
    found, within = [], False
    for statement in statements:
        word = statement.split()[0].upper()
        if SET_BY_PGBOUNCER.fullmatch(statement):
            continue
        if OUTLIVES.match(statement) or (word == "SET" and not within) or (word == "BEGIN" and within):
            found.append(statement)
        within = word == "BEGIN" or (within and statement not in ("COMMIT", "ROLLBACK"))
    return found + ["a transaction that does not end"] * within


def use_other_routes(pupil: requests.Session, host: Host) -> None:
    """Use the routes that a class of scripts/classroom does not use: saved versions, sharing, the backpack."""
    api, address = f"{host.url}/backend/api", create(pupil, host, "Nachmittag", 1)
    pupil.put(address, files={"project_file": ("p.sb3", numbered("Nachmittag", 2))}, timeout=60).raise_for_status()
    some = base64.b64encode(b"some").decode()
    item = {"type": "sprite", "mime": "application/zip", "name": "Katze", "body": some, "thumbnail": some}
    packed = pupil.post(f"{api}/backpack", json=item, timeout=60).json()["id"]
    for method, path, body in (
        ("GET", f"{address}/revisions", None),
        ("POST", f"{address}/revisions/1/restore", None),
        ("POST", f"{address}/share", {"group_ids": []}),
        ("GET", f"{address}/sharing", None),
        ("DELETE", f"{api}/backpack/{packed}", None),
        ("DELETE", address, None),
    ):
        assert pupil.request(method, path, json=body, timeout=60).status_code == 200, path


def test_application_leaves_no_state_in_connection(
    deployed: Host, start_class: Callable[..., BackgroundClass], login: Login
) -> None:
    """No statement of the application outlives its transaction, and no connection has state afterwards."""
    with statements_logged(deployed) as read_log:
        background_class = start_class(deployed, "--users", "8", "--think", "0.1", "--devices", "4")
        use_other_routes(login("pupil110", deployed), deployed)
        wait_for(lambda: kinds(read_log()) >= KINDS)
        background_class.end()
        logged = {process: single_statements(texts) for process, texts in read_log().items()}
        with logged_in(deployed, len(servers())) as clients:
            # Each client gets another connection, until all connections of the pool were asked.
            for client in clients:
                ask(client, "BEGIN")
            kept = {line for client in clients for line in ask(client, LEFT)}
    assert {process: left for process, statements in logged.items() if (left := outliving(statements))} == {}
    assert kept == set()


@contextmanager
def one_connection(host: Host, clients: int) -> Iterator[list[Client]]:
    """So many clients with the application's login, which share one connection to PostgreSQL with the application."""
    usual = {row["key"]: row["value"] for row in console("SHOW CONFIG")}
    narrow = {"default_pool_size": 1, "reserve_pool_size": 0}
    try:
        run_in_console(*(f"SET {name} = {value}" for name, value in narrow.items()))
        renew()
        with logged_in(host, clients) as found:
            yield found
    finally:
        run_in_console(*(f"SET {name} = {usual[name]}" for name in narrow))
        renew()


def test_transaction_leaves_no_state_to_next_one(deployed: Host) -> None:
    """In one connection no setting, isolation level or rolled back row of a transaction reaches the next one."""
    with one_connection(deployed, 3) as (first, second, third):
        ((server, *_),) = ask(second, FOUND)
        untouched = [(server, "", "read committed", 0)]
        for end in ("COMMIT", "ROLLBACK"):
            ask(first, "BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL rehearsal.mark = 'first'")
            assert ask(first, FOUND) == [(server, "first", "repeatable read", 0)]
            ask(first, end)
            assert ask(second, FOUND) == untouched
        ask(first, f"BEGIN; {ADD_ROW}")
        assert ask(first, FOUND) == [(server, "", "read committed", 1)]
        ask(first, "ROLLBACK")
        assert ask(second, FOUND) == untouched
        # Without LOCAL the setting does reach the next transaction.
        ask(first, "SET rehearsal.mark = 'first'")
        assert ask(second, FOUND) == [(server, "first", "read committed", 0)]
        # A client that closes within a transaction closes its connection to PostgreSQL too.
        ask(third, f"BEGIN ISOLATION LEVEL REPEATABLE READ; {ADD_ROW}")
        third.close()
        ((other, *rest),) = ask(second, FOUND)
        assert (other != server, rest) == (True, ["", "read committed", 0])


def test_prepared_statement_stays_with_connection(deployed: Host) -> None:
    """PgBouncer does not track them, because our driver makes none; this is how other drivers would see it."""
    with one_connection(deployed, 2) as (first, second):
        assert prepare(first, "rehearsal", "SELECT 'of the first'") == ""
        assert 'prepared statement "rehearsal" already exists' in prepare(second, "rehearsal", "SELECT 'of the second'")
        assert ask(second, "EXECUTE rehearsal") == [("of the first",)]
        renew()
        with pytest.raises(psycopg2.errors.InvalidSqlStatementName, match='"rehearsal" does not exist'):
            ask(first, "EXECUTE rehearsal")


def prepare(client: Client, name: str, sql: str) -> str:
    """Prepare a statement in the protocol, as other drivers do by themselves; returns PostgreSQL's error."""
    libpq = ctypes.CDLL(psycopg2._psycopg.__file__)
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    libpq.PQprepare.argtypes, libpq.PQprepare.restype = [pointer, text, text, ctypes.c_int, pointer], pointer
    libpq.PQresultErrorMessage.argtypes, libpq.PQresultErrorMessage.restype = [pointer], text
    libpq.PQclear.argtypes, libpq.PQclear.restype = [pointer], None
    result = libpq.PQprepare(client.pgconn_ptr, name.encode(), sql.encode(), 0, None)
    try:
        return libpq.PQresultErrorMessage(result).decode()
    finally:
        libpq.PQclear(result)


def test_scram_authenticates_client_and_pgbouncer(deployed: Host) -> None:
    """Clients authenticate to PgBouncer by SCRAM, and PgBouncer to PostgreSQL; a wrong password is refused."""
    password = password_of_application(deployed)
    with tunnel(deployed) as address:
        with closing(log_in(address, password, require_auth="scram-sha-256")) as client:
            # The method and the name with which PgBouncer authenticated.
            assert ask(client, "SELECT system_user") == [(f"scram-sha-256:{APPLICATION}",)]
        with pytest.raises(psycopg2.OperationalError, match="authentication failed"):
            log_in(address, password[::-1])
    # PgBouncer has the passwords of these two logins only (docs/decisions/0004-secrets.md).
    users = on_host("sudo cat /etc/scratch4school/pgbouncer/userlist.txt", deployed)
    names = re.findall(r'^"(\w+)" "(?!md5)', users, flags=re.MULTILINE)
    assert names == [APPLICATION, "scratch4school_monitor"]


def test_save_with_exhausted_pool_gets_503(deployed: Host, login: Login) -> None:
    """While other clients use every server connection, a save waits and gets 503 with a time; later it succeeds."""
    pupil = login("pupil108", deployed)
    address = create(pupil, deployed, "Geduld", 1)
    pool = console("SHOW DATABASES")[-1]
    all_of_it = int(pool["pool_size"]) + int(pool["reserve_pool_size"])

    def save(number: int) -> requests.Response:
        return pupil.put(address, files={"project_file": ("p.sb3", numbered("Geduld", number))}, timeout=60)

    with logged_in(deployed, all_of_it) as others:
        # At once, because PgBouncer gives a connection of the reserve only after a wait.
        with ThreadPoolExecutor(all_of_it) as threads:
            list(threads.map(lambda other: ask(other, "BEGIN"), others))
        asked = time.monotonic()
        refused = save(2)
        waited = time.monotonic() - asked
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert "try again" in refused.json()["error"]
    assert waited > 5
    assert (save(3).status_code, read(pupil, address)) == (200, 3)
    pupil.delete(address, timeout=60)


def test_save_during_pause_waits(deployed: Host, login: Login) -> None:
    """A sysadmin pauses PgBouncer by hand and resumes it: the save waits at PgBouncer, and does not fail."""
    pupil = login("pupil109", deployed)
    address = create(pupil, deployed, "Pause", 1)
    run_in_console("PAUSE")
    try:
        # In one command on the host, because the save waits for a few seconds only (pgbouncer_query_wait_timeout).
        resume = subprocess.Popen([str(LAB), "ssh", deployed.name, RESUME_FOR_A_WAITING_CLIENT])
        answer = pupil.put(address, files={"project_file": ("p.sb3", numbered("Pause", 2))}, timeout=60)
        assert resume.wait() == 0, "no client waited"
    finally:
        if any(row["paused"] == "1" for row in console("SHOW DATABASES")):
            run_in_console("RESUME")
    assert answer.status_code == 200
    assert read(pupil, address) == 2
    pupil.delete(address, timeout=60)
