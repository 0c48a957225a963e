"""Through PgBouncer's pool of transactions: nothing of one reaches the next, and who has to wait is served or told."""

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
from conftest import LAB, Place, on_host
from faults import psql
from lesson import Lesson
from pooler import (
    APPLICATION,
    CONSOLE,
    Client,
    ask,
    console,
    log_in,
    logged_in,
    password_of_application,
    servers,
    tell,
    tunnel,
)
from pupils import create, numbered, read

# One line of PostgreSQL's log for a statement that succeeded: the server's process, how it was asked, and what.
SPOKEN = re.compile(r"UTC \[(\d+)\] LOG:  duration: \S+ ms  (\w+)[^:]*: (.*)$", flags=re.MULTILINE)
# What would outlive the transaction that it is in.
OUTLIVES = re.compile(
    r"(SET (?!LOCAL\b|TRANSACTION\b)|RESET|DISCARD|LISTEN|UNLISTEN|LOAD|PREPARE|EXECUTE|DEALLOCATE|DECLARE .*WITH HOLD"
    r"|(CREATE|.*\bINTO) (LOCAL |GLOBAL )?TEMP(ORARY)?\b|.*\bpg_(try_)?advisory_lock|.*\bset_config\(.*\bfalse)",
    flags=re.IGNORECASE | re.DOTALL,
)
# These PgBouncer knows of each client, and sets by itself where a server's differ.
KNOWN = ("application_name", "client_encoding", "datestyle", "intervalstyle", "standard_conforming_strings", "timezone")
SET_BY_POOLER = re.compile(rf"SET ({'|'.join(KNOWN)})=''", flags=re.IGNORECASE)
# What a connection still has of those who had it before.
LEFT = f"""
SELECT 'prepared statement ' || name FROM pg_prepared_statements
UNION ALL SELECT 'cursor ' || name FROM pg_cursors
UNION ALL SELECT 'channel ' || channel FROM pg_listening_channels() AS channel
UNION ALL SELECT 'temporary tables' WHERE pg_my_temp_schema() <> 0
UNION ALL SELECT 'advisory lock' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
UNION ALL SELECT 'setting ' || name FROM pg_settings WHERE source = 'session' AND lower(name) NOT IN {KNOWN}
"""
# What a transaction finds: the server's process, a setting, how it is isolated, and whether a row is there.
FOUND = """
SELECT pg_backend_pid(), coalesce(current_setting('rehearsal.mark', true), ''),
       current_setting('transaction_isolation'), (SELECT count(*) FROM groups WHERE external_id = 'rehearsal')
"""
ADD_ROW = "INSERT INTO groups (name, external_id) VALUES ('Rehearsal', 'rehearsal')"

Login = Callable[..., requests.Session]


def renew() -> None:
    """Have each connection to PostgreSQL made anew, between two transactions."""
    tell("RECONNECT", "WAIT_CLOSE")


@contextmanager
def overheard(place: Place) -> Iterator[Callable[[], dict[int, list[str]]]]:
    """PostgreSQL logs all that the application says; gives what tells it: by server process, in its order."""
    began = time.time()

    def heard() -> dict[int, list[str]]:
        log = on_host(f"sudo docker logs --since {began:.3f} scratch4school-postgres 2>&1", place.name)
        said = defaultdict(list)
        # Lines after the first of a statement begin with a tab. A driver that prepares does not ask by statement.
        for process, how, what in SPOKEN.findall(log.replace("\n\t", " ")):
            said[int(process)].append(what if how == "statement" else f"PREPARE, in the protocol: {how}")
        return said

    # Settings of a role hold for connections that are made from then on.
    psql(place, f"ALTER ROLE {APPLICATION} SET log_min_duration_statement = 0")
    try:
        renew()
        yield heard
    finally:
        psql(place, f"ALTER ROLE {APPLICATION} RESET log_min_duration_statement")
        renew()


def single_statements(said: list[str]) -> list[str]:
    """Everything that was said in a connection, one by one, with nothing between its quotation marks."""
    bare = (re.sub(r"'(?:[^']|'')*'", "''", text) for text in said)
    return [part.strip() for text in bare for part in text.split(";") if part.strip()]


def left_behind(statements: list[str]) -> list[str]:
    """What of all that was said in a connection would outlive its transaction, or is a transaction without an end."""
    found, within = [], False
    for statement in statements:
        word = statement.split()[0].upper()
        if SET_BY_POOLER.fullmatch(statement):
            continue
        if OUTLIVES.match(statement) or (word == "SET" and not within) or (word == "BEGIN" and within):
            found.append(statement)
        within = word == "BEGIN" or (within and statement not in ("COMMIT", "ROLLBACK"))
    return found + ["a transaction that does not end"] * within


def afternoon(pupil: requests.Session, url: str) -> None:
    """What a class of the load generator does not do: kept versions, sharing, the backpack."""
    api, address = f"{url}/backend/api", create(pupil, url, "Nachmittag", 1)
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


def test_the_application_leaves_nothing_in_a_connection(
    large: Place, lesson: Callable[..., Lesson], login: Login
) -> None:
    """Whatever a class asks for, PostgreSQL hears nothing that would outlive its transaction, and keeps nothing."""
    with overheard(large) as heard:
        begun = lesson(large, "--users", "8", "--seconds", "300", "--think", "0.1", "--devices", "4")
        afternoon(login("pupil110", large.url), large.url)
        time.sleep(3)
        begun.end()
        said = {process: single_statements(texts) for process, texts in heard().items()}
        with logged_in(large, len(servers())) as clients:
            # One after the other gets a connection of its own, until there is none that nobody asked.
            for client in clients:
                ask(client, "BEGIN")
            kept = {line for client in clients for line in ask(client, LEFT)}
    words = {statement.split()[0] for statements in said.values() for statement in statements}
    assert words >= {"BEGIN", "SET", "SELECT", "INSERT", "UPDATE", "DELETE", "COMMIT"}
    assert {process: left for process, statements in said.items() if (left := left_behind(statements))} == {}
    assert kept == set()


@contextmanager
def one_connection(place: Place, clients: int) -> Iterator[list[Client]]:
    """So many clients with the application's login, who share one connection to PostgreSQL with each other and it."""
    usual = {row["key"]: row["value"] for row in console("SHOW CONFIG")}
    narrow = {"default_pool_size": 1, "reserve_pool_size": 0}
    try:
        tell(*(f"SET {name} = {value}" for name, value in narrow.items()))
        renew()
        with logged_in(place, clients) as found:
            yield found
    finally:
        tell(*(f"SET {name} = {usual[name]}" for name in narrow))
        renew()


def test_a_transaction_hands_nothing_on(large: Place) -> None:
    """One after the other in one connection: no setting, isolation level or undone row of one reaches the next."""
    with one_connection(large, 3) as (first, second, third):
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
        # So it would be without LOCAL.
        ask(first, "SET rehearsal.mark = 'first'")
        assert ask(second, FOUND) == [(server, "first", "read committed", 0)]
        # And who goes in the middle of a transaction takes the connection along.
        ask(third, f"BEGIN ISOLATION LEVEL REPEATABLE READ; {ADD_ROW}")
        third.close()
        ((other, *rest),) = ask(second, FOUND)
        assert (other != server, rest) == (True, ["", "read committed", 0])


def test_a_prepared_statement_is_met_by_strangers_and_missed_by_its_owner(large: Place) -> None:
    """PgBouncer keeps no account of them, since our driver makes none: what this is like for one that does."""
    with one_connection(large, 2) as (first, second):
        assert prepare(first, "rehearsal", "SELECT 'of the first'") == ""
        assert 'prepared statement "rehearsal" already exists' in prepare(second, "rehearsal", "SELECT 'of the second'")
        assert ask(second, "EXECUTE rehearsal") == [("of the first",)]
        renew()
        with pytest.raises(psycopg2.errors.InvalidSqlStatementName, match='"rehearsal" does not exist'):
            ask(first, "EXECUTE rehearsal")


def prepare(client: Client, name: str, sql: str) -> str:
    """Prepare a statement in the protocol, as other drivers do by themselves; gives what PostgreSQL objects to."""
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


def test_scram_from_end_to_end(large: Place) -> None:
    """Clients prove to the pooler who they are by SCRAM, and it does so to PostgreSQL; nobody else comes in."""
    password = password_of_application(large)
    with tunnel(large) as address:
        with closing(log_in(address, password, require_auth="scram-sha-256")) as client:
            # How the server's end was proved, and by whom.
            assert ask(client, "SELECT system_user") == [(f"scram-sha-256:{APPLICATION}",)]
        with pytest.raises(psycopg2.OperationalError, match="authentication failed"):
            log_in(address, password[::-1])
    # It logs in with passwords (docs/decisions/0004-secrets.md): of those two who come through it, and of nobody else.
    users = on_host("sudo cat /etc/scratch4school/pgbouncer/userlist.txt", large.name)
    names = re.findall(r'^"(\w+)" "(?!md5)', users, flags=re.MULTILINE)
    assert names == [APPLICATION, "scratch4school_monitor"]


def test_an_exhausted_pool_is_told_and_recovers(large: Place, login: Login) -> None:
    """While others hold every server connection a save waits, then is told 503 and when; afterwards it goes through."""
    pupil = login("pupil108", large.url)
    address = create(pupil, large.url, "Geduld", 1)
    pool = console("SHOW DATABASES")[-1]
    all_of_it = int(pool["pool_size"]) + int(pool["reserve_pool_size"])

    def save(number: int) -> requests.Response:
        return pupil.put(address, files={"project_file": ("p.sb3", numbered("Geduld", number))}, timeout=60)

    with logged_in(large, all_of_it) as others:
        # At once, since each of the reserve is only had after a wait.
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


def test_an_operators_pause_makes_saves_wait(large: Place, login: Login) -> None:
    """Somebody pauses the pooler by hand and resumes it: a save takes that much longer, and does not fail."""
    pupil = login("pupil109", large.url)
    address = create(pupil, large.url, "Pause", 1)
    tell("PAUSE")
    try:
        resume = subprocess.Popen([str(LAB), "ssh", large.name, f'sleep 5; {CONSOLE} -c "RESUME"'])
        asked = time.monotonic()
        answer = pupil.put(address, files={"project_file": ("p.sb3", numbered("Pause", 2))}, timeout=60)
        waited = time.monotonic() - asked
        assert resume.wait(timeout=30) == 0
    finally:
        if any(row["paused"] == "1" for row in console("SHOW DATABASES")):
            tell("RESUME")
    assert (answer.status_code, waited > 3) == (200, True)
    assert read(pupil, address) == 2
    pupil.delete(address, timeout=60)
