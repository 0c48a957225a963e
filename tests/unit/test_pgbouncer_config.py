"""Reading, checking, importing and comparing of PgBouncer's files, and scripts/pgbouncer-config."""

from __future__ import annotations

import json
import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.pgbouncer_config import (
    KEYS,
    SECTIONS,
    Circumstances,
    Configuration,
    PgbouncerConfigError,
    changes,
    check,
    check_intent,
    intent_of,
    pool_table,
    pools_of,
    read_ini,
    read_userlist,
    render_ini,
    running,
    size,
)

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "pgbouncer-config"

# Files as administrators write them: packaged, by hand, in a container, with peers, with auth_query, by a program.
FOUND = {
    "packaged": """\
;; database name = connect string
[databases]
;foodb =
shop = host=db.example.org port=5433 user=shop password='it''s a secret' pool_size=10 reserve_pool=2

[users]

[pgbouncer]
logfile = /var/log/postgresql/pgbouncer.log
pidfile = /var/run/postgresql/pgbouncer.pid
listen_addr = 127.0.0.1
listen_port = 6432
unix_socket_dir = /var/run/postgresql
auth_type = md5
auth_file = /etc/pgbouncer/userlist.txt
""",
    "by hand": """\
[databases]
a=host=127.0.0.1
b = dbname=bb connect_query='SET x TO ''y'''
* = host=/run/postgresql auth_dbname=postgres
[pgbouncer]
pool_mode=Transaction
listen_addr=*
  max_client_conn    =   1000
default_pool_size = 0x14
server_idle_timeout = 30.5
admin_users = root, postgres,root
ignore_startup_parameters = extra_float_digits,options
unix_socket_mode = 0777
verbose = 10
tcp_defer_accept = 45
min_pool_size = 30
""",
    "container": """\
#pgbouncer.ini
[databases]
* = host = postgres port=5432
[pgbouncer] listen_addr = 0.0.0.0
listen_port = 5432
auth_type = scram-sha-256
auth_file = /etc/pgbouncer/userlist.txt
server_tls_sslmode = require
tcp_keepalive = 1
log_connections = 0
""",
    "peers": """\
[databases]
postgres = host=a.example.org,b.example.org load_balance_hosts=round-robin
[peers]
1 = host=/tmp/pgbouncer1
2 = host=/tmp/pgbouncer2 port=6433 pool_size=50
[users]
report = pool_mode=session max_user_connections=3 query_timeout=30
[pgbouncer]
listen_addr = ::
so_reuseport = 1
unix_socket_dir = /tmp/pgbouncer1
peer_id = 1
""",
    "by query": """\
[databases]
* =
[pgbouncer]
listen_addr =
unix_socket_dir = @pgbouncer
auth_type = hba
auth_hba_file = /etc/pgbouncer/hba.conf
auth_user = pgbouncer
auth_query = SELECT usename, passwd FROM user_search($1)
track_extra_parameters = IntervalStyle, search_path
server_check_query =
""",
    "by a program": """\
[databases]\r
a = pool_size=3 min_pool_size=5 user=u
b = auth_query='SELECT u,\tp FROM f($1)'\r
[pgbouncer]\r
logfile =  /l\u00a0\r
job_name = a\u2028b\u0085c
""",
}


@pytest.mark.parametrize("name", FOUND)
def test_imported_file_renders_to_the_same_values(name: str) -> None:
    """The conversion to YAML and back loses and adds nothing."""
    configuration = read_ini(FOUND[name])
    assert [finding for finding in configuration.findings if finding.error] == []
    intent = yaml.safe_load(yaml.safe_dump(intent_of(configuration)))
    again = read_ini(render_ini(intent))
    assert again.values == configuration.values


def test_values_are_read_as_pgbouncer_reads_them() -> None:
    """Decimal and hexadecimal numbers, words in capitals, quoted text, and lists with any separator."""
    pooler = read_ini(FOUND["by hand"]).pooler
    assert (pooler["pool_mode"], pooler["default_pool_size"], pooler["server_idle_timeout"]) == (
        "transaction",
        20,
        30.5,
    )
    assert (pooler["admin_users"], pooler["unix_socket_mode"]) == (["postgres", "root"], "0777")
    assert (pooler["verbose"], pooler["tcp_defer_accept"]) == (10, True)
    databases = read_ini(FOUND["packaged"]).values["databases"]
    assert databases["shop"]["password"] == "it's a secret"
    assert databases["shop"]["reserve_pool_size"] == 2
    assert read_ini(FOUND["container"]).values["databases"]["*"]["host"] == "postgres"


@pytest.mark.parametrize(
    ("line", "number", "message"),
    [
        ("pool_mod = session", 3, "there is no setting “pool_mod” in [pgbouncer]; did you mean “pool_mode”?"),
        ("AUTH_TYPE = md5", 3, "did you mean “auth_type”?"),
        ("transaction_timeout = 5", 3, "there is no setting “transaction_timeout” in [pgbouncer]; only versions after"),
        ("pool_mode session", 3, "“pool_mode session” is no setting; write a name, “=” and a value."),
        ("pool_mode = sessions", 3, "did you mean “session”?"),
        ("max_client_conn = 1k", 3, "must be a whole number"),
        ("max_client_conn = 0100", 3, "remove the leading 0"),
        ("listen_port = 65536", 3, "between 1 and 65535"),
        ("listen_port = ${PORT}", 3, "must be a whole number. It contains a placeholder such as ${…} or {{ … }}"),
        ("listen_port = 6432   ; as ever", 3, "must be a whole number. It contains what looks like a comment"),
        ("listen_addr = *   # all", 3, "listen_addr contains what looks like a comment; PgBouncer supports comments"),
        ('listen_addr = "*"', 3, "listen_addr is in quotation marks, which PgBouncer reads as part of the value"),
        ("unix_socket_mode = 777", 3, "which PgBouncer reads as decimal; write 0777"),
        ("track_extra_parameters = IntervalStyle search_path", 3, "without blanks and commas"),
        ("pool_mode = session\u00a0", 3, "must be one of session, transaction, statement"),
        ("auth_query = a\rb", 3, "must be one line without control characters"),
        ("query_wait_timeout = soon", 3, "must be a number of seconds"),
        ("log_stats = yes", 3, "must be 0 or 1"),
        ("[pgbounce]", 3, "there is no section “pgbounce”; did you mean “pgbouncer”?"),
        ("[pgbouncer", 3, "has no closing “]”"),
        ("[pgbouncer]", 3, "PgBouncer forgets the settings above"),
        ("[databases]\nx = host=", 4, "“x”: host has no value; write one, or remove host."),
        ("[databases]\nx = hots=a", 4, "there is no setting “hots” in [databases]; did you mean “host”?"),
        ("[databases]\nx = connect_query='a", 4, "do not close"),
        ("[databases]\nx = y", 4, "“y” should be a name, “=” and a value."),
        ("[databases]\nx = host=a # b", 4, "what follows host should be a name, “=” and a value; write a value with"),
        ("[databases]\nx = host=a # b", 4, "The line contains what looks like a comment"),
        ("[databases]\nx = host=a\tport=1", 4, "there is a tab in the value of host"),
        ("[databases]\nx = connect_query='a'host=b", 4, "after the quotation marks of connect_query"),
        ("[databases]\nlisten_addr = b", 4, "listen_addr is a setting of [pgbouncer], but is in [databases]"),
        ("[databases]\na* = host=b", 4, "“a*” is no name; only “*” by itself stands for all others"),
        ("[databases]\n = host=b", 4, "“” is no name"),
        ('[databases]\n"x" = host=a', 4, "is no setting"),
        ("[databases]\npgbouncer = host=a", 4, "reserved for PgBouncer's console"),
        ("[peers]\na = host=b", 4, "must be a number from 1 to 16383"),
        ("[peers]\n1 = port=6432", 4, "has no host"),
        ("%include nowhere.ini", 3, "“nowhere.ini” is included, but cannot be read"),
    ],
)
def test_error_is_reported_with_its_line(line: str, number: int, message: str) -> None:
    """With each of these PgBouncer does not start, or does something else than intended."""

    def include(name: str) -> str:
        raise FileNotFoundError(2, "No such file or directory")

    findings = check(read_ini(f"[pgbouncer]\nlog_stats = 1\n{line}\n", "x.ini", include))
    errors = [finding for finding in findings if finding.error]
    assert [(finding.file, finding.line) for finding in errors] == [("x.ini", number)]
    assert message in errors[0].text


def test_included_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A file that is no text, and one that includes itself; reading still ends soon."""
    ini, loop, noise = (tmp_path / name for name in ("a.ini", "loop.ini", "noise.ini"))
    ini.write_text("[databases]\n%include loop.ini\n%include noise.ini\n")
    loop.write_text("%include loop.ini\n" * 50)
    noise.write_bytes(b"\xff\xfe")
    checked = run_script("check", ini)
    assert (checked.returncode, "Traceback" in checked.stderr) == (1, False)
    assert checked.stdout.count("“loop.ini” includes itself") == 50
    assert f"{ini}:3: error: “noise.ini” is included, but is not text in UTF-8." in checked.stdout


BASE = """\
[databases]
school = host=a
[pgbouncer]
listen_addr = *
auth_type = scram-sha-256
auth_file = /etc/pgbouncer/userlist.txt
ignore_startup_parameters = extra_float_digits
"""
TLS = "client_tls_cert_file = /c\nclient_tls_key_file = /k\nclient_tls_ca_file = /a\n"
SCRAM = "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy"


@pytest.mark.parametrize(
    ("more", "around", "error", "message"),
    [
        ("client_tls_sslmode = require", {}, True, "needs client_tls_cert_file and client_tls_key_file"),
        ("server_tls_sslmode = verify-full", {}, True, "needs server_tls_ca_file"),
        ("server_tls_key_file = /k", {}, True, "set both, or none"),
        ("min_pool_size = 30", {}, False, "never has more connections than default_pool_size, 20"),
        (
            "min_pool_size = 5\n[databases]\nx = pool_size=3",
            {},
            False,
            "“x” is 5, but its pool never has more connections than 3",
        ),
        ("auth_type = hba", {}, True, "needs auth_hba_file"),
        ("auth_type = any", {}, True, "needs a user for the database “school”"),
        ("auth_type = cert", {}, True, "PgBouncer refuses clients without a certificate"),
        (f"auth_type = cert\n{TLS}client_tls_sslmode = verify-ca", {}, True, "needs client_tls_sslmode verify-full"),
        ("reserve_pool_size = 5", {"max_connections": 24}, True, "25 for “school” = 25 server connections"),
        ("max_client_conn = 1000", {"open_files": 1019}, True, "1020 connections, but PgBouncer may have 1019"),
        (
            "max_client_conn = 1000",
            {"open_files": 1019, "open_files_known": False},
            False,
            "1020 connections, but PgBouncer may have 1019",
        ),
        ("", {"users": {"a": "md5" + "0" * 32}}, True, "“a” has an MD5 hash in userlist.txt"),
        ("[databases]\nx = user=a", {"users": {"a": SCRAM}}, True, "the user “a” of “x” has a SCRAM secret"),
        ("[databases]\nx = user=b", {"users": {"a": SCRAM}}, False, "the user “b” of “x” is not in userlist.txt"),
        ("admin_users = b", {"users": {"a": SCRAM}}, False, "“b” of admin_users is not in userlist.txt"),
        ("pool_mode = statement", {}, False, "refuses every transaction"),
        ("pool_mode = transaction", {}, False, "a forgotten transaction"),
        ("pool_mode = transaction\nserver_reset_query = DISCARD ALL", {}, False, "is not used in transaction mode"),
        ("server_reset_query =", {}, False, "gets the state that the last one left"),
        ("ignore_startup_parameters =", {}, False, "JDBC and other drivers"),
        ("auth_type = trust", {}, False, "accepts every client without a password"),
        ("query_wait_timeout = 0", {}, False, "wait forever"),
        ("query_timeout = 5", {}, False, "statement_timeout"),
        ("max_client_conn = 10", {}, False, "fewer than the 20 server connections"),
        ("auth_file =", {}, False, "neither auth_file nor auth_user"),
        ("verbose = 2", {}, False, "statements with their values to the log"),
        ("log_stats = 2", {}, False, "log_stats is 2, which PgBouncer reads as 1; write 0 or 1"),
        ("server_check_query = SELECT 1 # light", {}, False, "server_check_query contains what looks like a comment"),
        ("auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename=$1", {}, False, "CVE-2025-2291"),
        (
            "[databases]\nx = auth_query='SELECT a, b FROM pg_shadow'",
            {},
            False,
            "“x”: auth_query does not read VALID UNTIL",
        ),
        ("[databases]\nx = host=a host=b", {}, False, "host of “x” is set twice; the last one counts"),
        ("[databases]\nx = user=${USER}", {}, False, "user of “x” contains a placeholder"),
        ('[databases]\nx = password="a"', {}, False, "password of “x” is in quotation marks"),
    ],
)
def test_contradiction_is_an_error_and_inadvisable_setting_a_warning(
    more: str, around: dict[str, Any], error: bool, message: str
) -> None:
    """An error where PgBouncer would not work, a warning where a setting is valid and rarely intended."""
    assert check(read_ini(BASE), Circumstances(open_files=1020, max_connections=20)) == []
    findings = [one for one in check(read_ini(BASE + more), Circumstances(**around)) if message in one.text]
    assert [finding.error for finding in findings] == [error]


def test_requirement_that_another_setting_fulfils_is_no_finding() -> None:
    """Users by auth_query, a pool mode for each database, and a query with the expiry."""
    session = "pool_mode = transaction\nidle_transaction_timeout = 60\nserver_reset_query = DISCARD ALL\n"
    query = "auth_query = SELECT usename, CASE WHEN valuntil < now() THEN NULL ELSE passwd END FROM pg_shadow\n"
    one = BASE.replace("host=a", "host=a auth_user=u pool_mode=session").replace("auth_file = ", "; ")
    assert check(read_ini(one + session + query)) == []
    assert "is not used" in " ".join(map(str, check(read_ini(BASE + session))))


@pytest.mark.parametrize("text", ["", "[databases]\na = host=b\n", "\ufeff[databases]\n[pgbouncer]\n"])
def test_file_without_a_readable_start_is_one_error(text: str) -> None:
    """Without section [pgbouncer], or with a byte order mark; consequences of that are not reported."""
    (error,) = (finding for finding in check(read_ini(text)) if finding.error)
    assert ("byte order mark" if text.startswith("\ufeff") else "no section [pgbouncer]") in error.text


def test_findings_and_differences_contain_no_secret() -> None:
    """Of a broken userlist, of a database, and of a changed password."""
    users, findings = read_userlist('"a" "canary"\nb canary\n"a" "canary2"\n')
    assert users == {"a": "canary2"}
    before, after = (read_ini(f"[databases]\na = password={word} hots=x\n") for word in ("canary", "canary2"))
    told = [*map(str, findings), *map(str, check(after, Circumstances(users))), *map(str, changes(before, after))]
    cut = read_ini("[databases]\na = password=a canary host=b\nb = password=' canary'\nc = password='a' canary=b\n")
    told += [*map(str, check(cut)), *map(str, check_intent({"databases": {"a": {"password": "canary\n"}}}, "i", {}))]
    assert len(told) > 8
    assert "canary" not in " ".join(told)


def test_findings_about_an_intent_have_its_lines() -> None:
    """All errors at once, each with its own line."""
    lines = {
        ("pool_mod",): 2,
        ("databases",): 3,
        ("databases", "a"): 4,
        ("databases", "a", "prot"): 5,
        ("capacity",): 7,
    }
    capacity = {"workers": 3, "threads": 4, "max_connections": 60}
    intent = {"pool_mod": "x", "databases": {"a": {"prot": 1}}, "capacity": capacity}
    findings = check_intent(intent, "i.yml", lines, Circumstances(max_connections=24))
    assert [(one.line, one.error) for one in findings] == [(2, True), (5, True), (7, True)]
    assert "25 for “a” = 25 server connections" in findings[2].text


def test_sizes_follow_from_slots_workers_and_threads() -> None:
    """With their calculations, at most as many as PostgreSQL accepts, and a problem when that is too few."""
    sizes = size({"workers": 3, "threads": 4, "max_connections": 60})
    assert sizes.numbers == {"default_pool_size": 20, "reserve_pool_size": 5, "max_client_conn": 300}
    assert "2 slots × 3 workers × 4 threads = 24" in sizes.why["default_pool_size"]
    small = size({"workers": 8, "threads": 8, "max_connections": 30})
    assert small.numbers["default_pool_size"] + small.numbers["reserve_pool_size"] == 30 - 3 - 8
    assert size({"workers": 1, "threads": 1, "max_connections": 10}).problems != []
    with pytest.raises(PgbouncerConfigError, match="needs “max_connections”: connections that PostgreSQL accepts"):
        size({"cores": 4})
    rendered = read_ini(
        render_ini({"databases": {"a": {}}, "capacity": {"workers": 3, "threads": 4, "max_connections": 60}})
    )
    assert rendered.pooler["default_pool_size"] == 20
    assert any("3 workers" in line for line in rendered.comments["pgbouncer", "", "default_pool_size"])


def anything(chance: random.Random) -> str:
    """Make a file of valid words in random places."""
    words = [*KEYS, *SECTIONS["databases"], "[databases]", "[pgbouncer]", "[users]", "[peers]", "%include x", "=", "'"]
    words += ["\n", "\n", ";", " ", "\t", "\0", "ä", "*", "1", "0x", "-", "9" * 400, "]", "[", '"', ",", "\r\n"]
    return "".join(chance.choice(words) for _ in range(chance.randrange(60)))


def test_random_file_never_raises() -> None:
    """Each has findings only, and a file without errors renders to the same values."""
    chance = random.Random(20261126)
    for _ in range(3000):
        text = anything(chance)
        configuration = read_ini(text, "x.ini", lambda _: anything(random.Random(1)))
        findings = check(configuration)
        assert all(finding.text and "\n" not in finding.text.replace(text, "") for finding in findings)
        read_userlist(text)
        if not any(finding.error for finding in findings):
            assert read_ini(render_ini(intent_of(configuration))).values == configuration.values


def test_difference_tells_whether_it_needs_a_restart() -> None:
    """A missing setting has PgBouncer's default, and equal values are no difference."""
    before = read_ini("[pgbouncer]\nlisten_port = 6432\nmax_client_conn = 100\n")
    after = read_ini("[databases]\na = host=b\n[pgbouncer]\nlisten_port = 6433\nserver_lifetime = 3600\n")
    assert [(change.name, change.restart) for change in changes(before, after)] == [
        ("listen_port", True),
        ("databases.a.host", False),
    ]
    assert str(changes(before, after)[0]) == "listen_port: 6432 → 6433 (needs a restart)"


DATABASE = {
    "name": "school",
    "host": "/run/postgresql",
    "port": 5432,
    "database": "school",
    "force_user": None,
    "pool_size": 20,
    "min_pool_size": 0,
    "reserve_pool_size": 5,
    "pool_mode": None,
    "max_connections": 0,
}


def shown(configuration: Configuration) -> list[dict[str, object]]:
    """The rows of `SHOW CONFIG` for a configuration."""
    values = {name: key.default for name, key in KEYS.items()} | {"unix_socket_mode": "511"}
    for name, value in configuration.pooler.items():
        values[name] = (
            str(int(value)) if isinstance(value, bool) else ",".join(value) if isinstance(value, list) else str(value)
        )
    return [{"key": key, "value": value} for key, value in values.items()]


def test_running_pgbouncer_is_compared_with_its_file() -> None:
    """Equal settings are no difference, and settings that PgBouncer does not show are not compared."""
    text = render_ini({"databases": {"school": {"host": "/run/postgresql", "port": 5432, "connect_query": "SELECT 1"}}})
    file = read_ini(text)
    rows = [{**DATABASE, "name": "pgbouncer"}, DATABASE]
    assert changes(running(shown(file), rows, file), file) == []
    other = read_ini(text.replace("port=5432", "port=5433").replace("default_pool_size = 20", "default_pool_size = 30"))
    assert [str(change) for change in changes(running(shown(file), rows, other), other)] == [
        "default_pool_size: 20 → 30 (needs a RELOAD)",
        "databases.school.port: 5432 → 5433 (needs a RELOAD)",
    ]


def test_pool_with_waiting_clients_comes_first() -> None:
    """The pool of PgBouncer's console is left out."""
    pool = {
        "cl_active": 3,
        "maxwait": 1,
        "maxwait_us": 500000,
        "sv_active": 2,
        "sv_idle": 1,
        "sv_used": 1,
        "sv_tested": 0,
    }
    rows = [{"database": name, "user": "app", "cl_waiting": waiting, **pool} for name, waiting in (("a", 0), ("b", 7))]
    rows.append({"database": "pgbouncer", "user": "pgbouncer", "cl_waiting": 0, **pool})
    stats = [{"database": "b", "avg_wait_time": 2500, "avg_xact_count": 40, "avg_query_time": 900}]
    pools = pools_of(rows, stats, [{"name": "b", "pool_size": 20}])
    assert [(one.database, one.waiting, one.longest_wait, one.average_wait, one.size) for one in pools] == [
        ("b", 7, 1.5, 2.5, 20),
        ("a", 0, 1.5, 0.0, 0),
    ]
    assert "2/20" in pool_table(pools)[1]


def run_script(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run scripts/pgbouncer-config with this Python."""
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_status_of_script_check_tells_errors_and_strict_warnings(tmp_path: Path) -> None:
    """0 without errors, 1 for an error, 1 for a warning with --strict; auth_file's userlist is read."""
    ini, users, intent = (tmp_path / name for name in ("a.ini", "userlist.txt", "intent.yml"))
    users.write_text('"a" "b"\n')
    ini.write_text(BASE.replace("/etc/pgbouncer/userlist.txt", str(users)))
    assert run_script("check", ini).returncode == 0
    assert run_script("check", ini, "--max-connections", "22").returncode == 1
    users.write_text(f'"a" "md5{"0" * 32}"\n')
    assert "has an MD5 hash" in run_script("check", ini).stdout
    intent.write_text("databases:\n  a: {host: b}\nverbos: 2\n")
    assert (
        f"{intent}:3: error: The intent has no setting “verbos”; did you mean “verbose”?"
        in run_script("check", intent).stdout
    )
    intent.write_text("databases:\n  a: {host: b}\nverbose: 2\n")
    assert [run_script("check", intent, *more).returncode for more in ((), ("--strict",))] == [0, 1]


def test_script_renders_the_file_that_it_imported(tmp_path: Path) -> None:
    """With its comments, includes and users; only the owner may read the intent."""
    ini, more, users, intent = (tmp_path / name for name in ("a.ini", "more.ini", "userlist.txt", "intent.yml"))
    ini.write_text(FOUND["packaged"] + "%include more.ini\n")
    more.write_text("; as the provider asked\nmax_client_conn = 500\n")
    users.write_text('"shop" "a ""secret"""\n')
    assert run_script("import", ini, "--userlist", users, "--out", intent).returncode == 0
    assert stat.S_IMODE(intent.stat().st_mode) == 0o600
    assert "# as the provider asked\nmax_client_conn: 500\n" in intent.read_text()
    assert run_script("render", intent, "--out", tmp_path / "out").returncode == 0
    assert read_ini((tmp_path / "out" / "pgbouncer.ini").read_text()).pooler["max_client_conn"] == 500
    assert (tmp_path / "out" / "userlist.txt").read_text() == users.read_text()
    intent.write_text(intent.read_text().replace("listen_port: 6432", "listen_port: 6433"))
    assert (
        "listen_port: 6432 → 6433 (needs a restart)" in run_script("render", intent, "--out", tmp_path / "out").stdout
    )
    ini.write_text("[databases\n[pgbouncer]\nauth_type = any\n[peers]\n0 = host=a\n")
    assert run_script("import", ini).stderr.splitlines() == [
        f"{ini}:1: error: the section “[databases” has no closing “]”.",
        f"{ini}:5: error: the peer “0” must be a number from 1 to 16383.",
        "pgbouncer-config: nothing was imported; errors: 2.",
    ]


def test_imported_comments_stay_comments(tmp_path: Path) -> None:
    """Even with characters that end a line in YAML and not in PgBouncer, and below the last setting."""
    ini, intent = tmp_path / "a.ini", tmp_path / "intent.yml"
    strange = [f"; {mark}max_db_connections: 7" for mark in ("\u2028", "\u0085", "\r", "\f", "\x1b")]
    lines = ["[databases]", "; of none", "[pgbouncer]", *strange, "verbose = 1", "; again", "verbose = 0", "; the end"]
    ini.write_text("\n".join(lines), newline="")
    assert run_script("import", ini, "--out", intent).returncode == 0
    text = intent.read_text()
    assert yaml.safe_load(text) == {"defaults": "pgbouncer", "verbose": 0}
    assert [text.count(words) for words in ("# of none\n", "max_db_connections", "# again\n")] == [1, 5, 1]
    assert text.endswith("verbose: 0\n# the end\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("import", "a.ini", "--out", "nowhere/x.yml"),
            "There is no folder nowhere. Create it, or write another path.",
        ),
        (("import", "a.ini", "--out", "."), ". is a folder; write the path of a file."),
        (("check", "latin.ini"), "latin.ini is not text in UTF-8; see line 2. Save the file in UTF-8."),
    ],
)
def test_script_names_a_file_that_cannot_be_used(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    """As it was typed, in one line, with status 1."""
    (tmp_path / "a.ini").write_text("[pgbouncer]\n")
    (tmp_path / "latin.ini").write_bytes(b"[pgbouncer]\n; Gr\xfc\xdfe\n")
    refused = subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (refused.returncode, refused.stderr) == (1, f"pgbouncer-config: {message}\n")


def test_sizes_for_two_cores_are_the_roles_defaults() -> None:
    """The benchmarks ran on two cores (decision 0023); more cores get more workers, and given numbers are used."""
    app, pooler, database = (
        yaml.safe_load((ROOT / "roles" / role / "defaults" / "main.yml").read_text())
        for role in ("app", "pgbouncer", "database")
    )
    room = {"max_connections": database["database_max_connections"]}
    sizes = size(room)
    assert sizes.numbers == {
        "default_pool_size": pooler["pgbouncer_pool_size"],
        "reserve_pool_size": pooler["pgbouncer_reserve_pool_size"],
        "max_client_conn": pooler["pgbouncer_max_client_conn"],
    }
    assert f"2 slots × {app['app_workers']} workers × {app['app_threads']} threads" in sizes.why["default_pool_size"]
    assert "workers = 5: 4 cores + 1, of 4 threads each" in size({**room, "cores": 4}).lines[0]
    assert size({**room, "cores": 4, "workers": app["app_workers"]}).numbers == sizes.numbers


def test_script_prints_sizes_as_text_and_json() -> None:
    """Status 1 when PostgreSQL accepts too few connections."""
    numbers = ("size", "--cores", 2, "--max-connections")
    assert "default_pool_size = 20: " in run_script(*numbers, 60).stdout
    assert json.loads(run_script(*numbers, 60, "--json").stdout)["numbers"]["max_client_conn"] == 300
    assert run_script(*numbers, 12).returncode == 1


def test_script_prints_the_max_connections_that_it_assumes() -> None:
    """As text and as JSON; for a given number it prints nothing."""
    assumed = "max_connections = 100: PostgreSQL's default; give --max-connections if yours differs."
    sized = run_script("size", "--cores", 2)
    assert (sized.returncode, sized.stdout.splitlines()[0]) == (0, assumed)
    given = run_script("size", "--cores", 2, "--max-connections", 100)
    assert sized.stdout.splitlines()[1:] == given.stdout.splitlines()
    assert json.loads(run_script("size", "--json").stdout)["assumed"] == [assumed]
    assert json.loads(run_script("size", "--json", "--max-connections", 100).stdout)["assumed"] == []
    assert "100, PostgreSQL's own" in " ".join(run_script("size", "--help").stdout.split())


@pytest.mark.parametrize("verb", [("top", "--once"), ("diff", os.devnull)])
def test_console_that_does_not_answer_is_one_line(verb: tuple[str, ...]) -> None:
    """With status 1."""
    refused = run_script(*verb, "--connect", "host=127.0.0.1 port=1 user=a")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "PgBouncer's console cannot be reached" in refused.stderr


def test_module_writes_both_files_only_once(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> None:
    """With the right modes and a diff without secrets; check mode writes nothing."""
    arguments: dict[str, Any] = {
        "path": str(tmp_path),
        "intent": {"databases": {"a": {"host": "b"}}},
        "users": {"app": "canary"},
        "uid": os.getuid(),
    }
    assert run_module("pgbouncer_config", check_mode=True, **arguments)["changed"]
    assert list(tmp_path.iterdir()) == []
    first = run_module("pgbouncer_config", **arguments)
    assert first["changed"]
    assert "canary" not in json.dumps(first["diff"])
    assert first["diff"][1]["after"] == "app\n"
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == {"pgbouncer.ini": 0o640, "userlist.txt": 0o400}
    assert not run_module("pgbouncer_config", **arguments)["changed"]
    arguments["intent"]["listen_port"] = 6433
    second = run_module("pgbouncer_config", **arguments)
    assert (second["differences"], second["restart"]) == (["listen_port: 6432 → 6433 (needs a restart)"], True)
    arguments["users"] = {"app": ""}
    assert "password of “app”" in run_module("pgbouncer_config", **arguments)["msg"]
