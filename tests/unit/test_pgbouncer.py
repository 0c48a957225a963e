"""Rendering of pgbouncer.ini and userlist.txt, and the check of connection limits."""

from __future__ import annotations

import configparser
import json
import random
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.pgbouncer_config import (
    CAPACITY_NUMBERS,
    KEYS,
    PgbouncerConfigError,
    capacity,
    render_ini,
    render_userlist,
)

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "pgbouncer-config"

INTENT = {
    "listen_port": 6432,
    "databases": {
        "scratch4school": {"host": "/run/postgresql", "port": 5432},
        "archive": {"host": "127.0.0.1", "connect_query": "SELECT 'it''s'", "reserve_pool_size": 3},
    },
    "pool_mode": "transaction",
    "auth_type": "scram-sha-256",
    "default_pool_size": 20,
    "stats_users": ["scratch4school_monitor", "another"],
    "query_wait_timeout": 1.5,
    "log_connections": True,
}


def parsed(text: str) -> configparser.ConfigParser:
    """Read a rendered file with the standard library's parser."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=(";",))
    parser.read_string(text)
    return parser


def test_rendered_file_has_the_intents_values_and_the_defaults() -> None:
    """Values of the intent, and defaults for the settings that it lacks."""
    ini = parsed(render_ini(INTENT))
    assert ini["databases"]["scratch4school"] == "host=/run/postgresql port=5432"
    assert ini["databases"]["archive"] == "host=127.0.0.1 reserve_pool=3 connect_query='SELECT ''it''''s'''"
    assert ini["pgbouncer"]["auth_type"] == "scram-sha-256"
    assert ini["pgbouncer"]["stats_users"] == "another, scratch4school_monitor"
    assert ini["pgbouncer"]["query_wait_timeout"] == "1.5"
    assert ini["pgbouncer"]["log_connections"] == "1"
    assert ini["pgbouncer"]["unix_socket_dir"] == ""
    assert ini["pgbouncer"]["max_prepared_statements"] == "0"


def test_rendered_file_needs_no_writable_folder() -> None:
    """No logfile and no pidfile, because the container's file system is read-only."""
    assert not {"logfile", "pidfile"} & set(parsed(render_ini(INTENT))["pgbouncer"])


def test_order_of_the_intent_does_not_change_the_text() -> None:
    """Otherwise an unchanged inventory would reload PgBouncer."""
    names = list(INTENT)
    texts = set()
    for seed in range(5):
        random.Random(seed).shuffle(names)
        texts.add(render_ini({name: INTENT[name] for name in names}))
    assert len(texts) == 1


def test_every_rendered_setting_has_a_comment() -> None:
    """In the line above the setting."""
    section = render_ini(INTENT).split("[pgbouncer]\n")[1].splitlines()
    assert all(line.startswith("; ") for line in section[::2])
    assert not any(line.startswith(";") for line in section[1::2])


@pytest.mark.parametrize("name", KEYS)
def test_every_setting_of_pgbouncer_is_rendered(name: str) -> None:
    """With a valid value of its kind."""
    values = {"integer": 600, "seconds": 7, "boolean": True, "names": ["one"], "text": "/a/path", "octal": "0770"}
    if name.endswith(("_tls_protocols", "_tls_ciphers", "_tls_ecdhcurve")):
        values["text"] = str(KEYS[name].default)
    value = values.get(KEYS[name].kind) or KEYS[name].choices[0]
    value = min(value, int(KEYS[name].high)) if isinstance(value, int) else value
    tls = {f"client_tls_{part}_file": "/a/path" for part in ("cert", "key", "ca")}
    tls |= {f"server_tls_{part}_file": "/a/path" for part in ("cert", "key")}
    sizes = {"default_pool_size": 600, "client_tls_sslmode": "verify-full"}
    assert name in parsed(render_ini({**INTENT, **tls, **sizes, name: value}))["pgbouncer"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pool_mod": "x"}, "“pool_mod”; did you mean “pool_mode”?"),
        ({"xyzzy": "/x"}, "has no setting “xyzzy”; known are admin_users, "),
        ({"auth_typ": "trust"}, "“auth_typ”; did you mean “auth_type”?"),
        ({"auth_type": "scram-sha-265"}, "did you mean “scram-sha-256”?"),
        ({"pool_mode": "transactions"}, "must be one of session, transaction, statement"),
        ({"listen_port": "6432"}, "listen_port is “6432”, but it must be a whole number."),
        ({"listen_port": True}, "must be a whole number"),
        ({"listen_port": 70000}, "between 1 and 65535"),
        ({"default_pool_size": 2.5}, "must be a whole number"),
        ({"query_wait_timeout": -1}, "between 0 and"),
        ({"query_wait_timeout": "15s"}, "must be a number of seconds"),
        ({"log_connections": "yes"}, "must be true or false"),
        ({"stats_users": "monitor"}, "must be a list of names"),
        ({"stats_users": ["a, b"]}, "without blanks and commas"),
        ({"auth_file": "/x\nadmin_users = me"}, "text must be one line"),
        ({"auth_query": "SELECT 1 "}, "has blanks around it"),
        ({"client_tls_sslmode": "require"}, "needs client_tls_cert_file and client_tls_key_file"),
        ({"server_tls_sslmode": "verify-full"}, "needs server_tls_ca_file"),
        ({"databases": {}}, "needs “databases”"),
        ({"databases": {"pgbouncer": {}}}, "reserved for PgBouncer's console"),
        ({"databases": {"my school": {}}}, "must consist of letters"),
        ({"databases": {"a": "host=b"}}, "must be a mapping, not text"),
        ({"databases": {"a": {"prot": 1}}}, "“prot”; did you mean “port”?"),
        ({"databases": {"a": {"host": "b\n[pgbouncer]"}}}, "text must be one line"),
    ],
)
def test_wrong_setting_is_refused_with_its_name(wrong: dict[str, Any], message: str) -> None:
    """And with the most similar known name, if there is one."""
    with pytest.raises(PgbouncerConfigError) as refused:
        render_ini({**INTENT, **wrong})
    assert message in str(refused.value)


def test_userlist_doubles_quotation_marks() -> None:
    """Names are sorted; SCRAM secrets and blanks stay unchanged."""
    users = {"zoe": "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy", 'a"b': 'pass"word with blanks'}
    assert render_userlist(users) == (
        '"a""b" "pass""word with blanks"\n"zoe" "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy"\n'
    )


@pytest.mark.parametrize("users", [{"a": ""}, {"a": None}, {"": "canary"}, {"a": "canary\n"}, {"n" * 64: "canary"}])
def test_refusal_of_a_userlist_contains_no_secret(users: dict[str, Any]) -> None:
    """PgBouncer would truncate or misread these; the message may be written to a log."""
    with pytest.raises(PgbouncerConfigError) as refused:
        render_userlist(users)
    assert "canary" not in str(refused.value)


NUMBERS = {
    "slots": 2,
    "workers": 4,
    "threads": 8,
    "one_shots": 2,
    "admin": 3,
    "max_client_conn": 69,
    "pools": 25,
    "direct": 8,
    "max_connections": 36,
    "reserved": 3,
}


def test_sums_that_equal_their_limits_fit() -> None:
    """Both sums are written out."""
    result = capacity(NUMBERS)
    assert (result.clients, result.servers, result.problems) == (69, 33, [])
    assert "2 slots × 4 workers × 8 threads + 2 for one-shots + 3 for administrators = 69 clients" in result.lines[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_client_conn": 68}, "raise max_client_conn to 69"),
        ({"workers": 5}, "raise max_client_conn to 85"),
        ({"max_connections": 35}, "raise max_connections to 36"),
        ({"pools": 26}, "raise max_connections to 37"),
    ],
)
def test_sum_above_its_limit_is_refused_with_a_fitting_limit(change: dict[str, int], message: str) -> None:
    """The message names the limit to raise, and the smallest sufficient value."""
    (problem,) = capacity({**NUMBERS, **change}).problems
    assert message in problem


@pytest.mark.parametrize("name", CAPACITY_NUMBERS)
def test_missing_number_of_capacity_is_refused(name: str) -> None:
    """With its name and meaning."""
    with pytest.raises(PgbouncerConfigError, match=f"needs “{name}”: "):
        capacity({key: value for key, value in NUMBERS.items() if key != name})


def test_capacity_needs_a_mapping() -> None:
    """The error says what was given."""
    with pytest.raises(PgbouncerConfigError, match="needs a mapping"):
        capacity("nonsense")


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/pgbouncer-config with this Python."""
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)


def test_second_render_by_the_script_changes_nothing(tmp_path: Path) -> None:
    """The first one writes both files with the right texts and modes."""
    intent = tmp_path / "intent.yml"
    intent.write_text(yaml.safe_dump({**INTENT, "users": {"a": "b"}}))
    out = tmp_path / "out"
    first = run_script("render", str(intent), "--out", str(out))
    assert first.returncode == 0, first.stderr
    assert (out / "pgbouncer.ini").read_text() == render_ini(INTENT)
    assert (out / "userlist.txt").read_text() == '"a" "b"\n'
    assert stat.S_IMODE((out / "userlist.txt").stat().st_mode) == 0o400
    second = run_script("render", str(intent), "--out", str(out))
    assert second.stdout.count("unchanged") == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({"databases": {"a": {}}, "users": {"a": ""}}), "password of “a”"),
        ("a: [", "is not YAML"),
        ("- a", "contains no names of settings; write each line as `name: value`"),
    ],
)
def test_script_writes_nothing_for_a_refused_intent(tmp_path: Path, text: str, message: str) -> None:
    """Exit status 1, one line, no traceback, and neither of the two files."""
    intent = tmp_path / "intent.yml"
    intent.write_text(text)
    refused = run_script("render", str(intent), "--out", str(tmp_path / "out"))
    assert refused.returncode == 1
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
