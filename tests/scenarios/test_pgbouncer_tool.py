"""scripts/pgbouncer-config beside the packaged and the running PgBouncer: both agree on settings and errors."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from scratch4school_lab.checkout import MODULE_UTILS, SCRIPTS
from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.lab_hosts import LAB, on_host
from scratch4school_lab.scenarios.pgbouncer import CONTAINER, console, tunnel
from scratch4school_lab.scenarios.worker import HOST

sys.path.append(str(MODULE_UTILS))

from pgbouncer_config import (
    KEYS,
    SECTIONS,
    VERSION,
    changes,
    check,
    check_intent,
    intent_of,
    read_ini,
    render_ini,
    running,
)

# Starts PgBouncer with each file of a folder, and prints for each `up`, or its output.
TRY = r"""
cd /tmp && mkdir trial && tar -xC trial && cd trial || exit
printf '"a" "b"\n' > users
# A key, and a certificate that is its own authority.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=trial -days 2 \
  -keyout tls.key -out tls.crt 2> log || { cat log >&2; exit 1; }
for file in *.ini; do
  pgbouncer "$file" > log 2>&1 & process=$!
  for wait in $(seq 200); do
    grep -q 'process up' log && break
    kill -0 $process 2>/dev/null || break
    sleep 0.1
  done
  # It may end a moment later because of its configuration.
  sleep 0.1
  if grep -q 'process up' log && kill -0 $process; then echo "$file up"; else echo "$file $(cat log)"; fi
  kill -KILL $process
  wait $process
  rm -f pid
done
"""


def outcomes_of(files: dict[str, str]) -> dict[str, str]:
    """Start the packaged PgBouncer with each file, in a container of its image; `up`, or its output, by file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    image = on_host(f"sudo docker inspect --format '{{{{.Config.Image}}}}' {CONTAINER}").strip()
    command = (
        f"sudo docker run --rm --interactive --network none --entrypoint sh {image} -c \"$(cat <<'END'\n{TRY}\nEND\n)\""
    )
    ended = subprocess.run(
        [str(LAB), "ssh", HOST.name, command], input=packed.getvalue(), capture_output=True, check=False
    )
    printed = ended.stdout.decode()
    outcomes = {}
    for block in printed.split(".ini ")[1:]:
        outcomes[len(outcomes)] = block.split("\n", 1)[0] if block.startswith("up") else block
    assert len(outcomes) == len(files), printed + ended.stderr.decode()
    return dict(zip(sorted(files), outcomes.values(), strict=True))


def test_packaged_version_is_known(deployed: Host) -> None:
    """A newer package makes this test fail, so that its settings are added."""
    (row,) = console("SHOW VERSION")
    assert row["version"].startswith(f"PgBouncer {VERSION}."), row


def test_all_settings_of_pgbouncer_are_known(deployed: Host) -> None:
    """Names, defaults, and whether a RELOAD applies a setting, equal those of the packaged version."""
    rows = {row["key"]: (row["default"], row["changeable"] == "yes") for row in console("SHOW CONFIG")}
    known = {name: (key.default, key.reload) for name, key in KEYS.items()}
    assert rows == known


# Words for settings of TLS, some of which PgBouncer refuses; the script makes the files.
TLS_WORDS = {
    "key_file": ("/tmp/trial/tls.key",),
    "cert_file": ("/tmp/trial/tls.crt",),
    "ca_file": ("/tmp/trial/tls.crt",),
    "protocols": ("secure", "all", "tlsv1.2", "tlsv1.2,tlsv1.3", "legacy", "all:!tlsv1.0"),
    "ciphers": ("default", "all", "HIGH:!aNULL", "ALL", "nonsense"),
    "ecdhcurve": ("auto", "none", "secp384r1", "nonsense"),
}


def random_tls(chance: random.Random) -> dict[str, Any]:
    """Most settings of TLS for clients and servers, so that a mode often has the settings that it needs."""
    names = [name for name in KEYS if "_tls_" in name and chance.random() < 0.8]
    return {name: chance.choice(KEYS[name].choices or TLS_WORDS[name.split("_tls_")[1]]) for name in names}


def random_intent(chance: random.Random) -> dict[str, Any]:
    """An intent with values of the right kind for some settings, without those of users and networks."""
    elsewhere = {"user", "unix_socket_group", "conffile", "resolv_conf", "listen_addr", "unix_socket_dir", "peer_id"}
    elsewhere |= {"auth_hba_file", "auth_ident_file", "auth_type", "auth_file", "logfile", "pidfile", "listen_port"}
    elsewhere |= {name for name in KEYS if "_tls_" in name}

    def value(name: str, section: str = "pgbouncer") -> Any:
        key = SECTIONS[section][name]
        if key.kind in ("integer", "seconds"):
            return chance.choice([int(key.low), int(key.low) + 1, int(key.default or 7), min(int(key.high), 65536)])
        if key.kind == "boolean":
            return chance.random() < 0.5
        if key.kind == "octal":
            return "0700"
        if key.kind == "names":
            return chance.sample(["a", "extra_float_digits", "options"], 2)
        return chance.choice(key.choices) if key.choices else "a word"

    names = chance.sample(sorted(KEYS.keys() - elsewhere), 12)
    intent: dict[str, Any] = {name: value(name) for name in names}
    intent |= {"listen_addr": "127.0.0.1", "unix_socket_dir": "/tmp", "auth_file": "/tmp/trial/users"}
    intent |= random_tls(chance)
    intent["auth_type"] = chance.choice(["md5", "scram-sha-256", "trust", "plain", "cert"])
    intent["databases"] = {
        "a": {name: value(name, "databases") for name in chance.sample(sorted(SECTIONS["databases"]), 5)},
        "*": {"host": "/nowhere"},
    }
    intent["user_settings"] = {
        "a": {name: value(name, "users") for name in chance.sample(sorted(SECTIONS["users"]), 3)}
    }
    intent["peers"] = {1: {"host": "/nowhere", "port": 6433}}
    return intent


def test_configuration_without_errors_starts(deployed: Host) -> None:
    """Sixty random intents without an error start the packaged PgBouncer, and so do all defaults."""
    chance = random.Random(7)
    files: dict[str, str] = {}
    while len(files) < 60:
        intent = random_intent(chance)
        if not any(finding.error for finding in check_intent(intent, "i.yml", {})):
            files[f"{len(files):03}.ini"] = render_ini(intent)
    offered = {read_ini(text).pooler.get("client_tls_sslmode") for text in files.values()}
    assert offered >= set(KEYS["client_tls_sslmode"].choices)
    # Settings without a default are left out.
    settings = "".join(f"{name} = {key.default}\n" for name, key in KEYS.items() if key.default)
    files["defaults.ini"] = f"[databases]\n[pgbouncer]\nlisten_addr = 127.0.0.1\n{settings}"
    # Files of other people, which PgBouncer accepts.
    other = "".join(f"{name} = 2\n" for name, key in KEYS.items() if key.kind == "boolean")
    other += "verbose = 10\nmin_pool_size = 30\nauth_query = SELECT a,\tb FROM c\nauth_type = MD5\n; \u2028\r\n"
    files["other.ini"] = f"[databases]\na = min_pool_size=5 pool_size=3\n[pgbouncer]\nlisten_addr = 127.0.0.1\n{other}"
    assert [finding for finding in check(read_ini(files["other.ini"])) if finding.error] == []
    assert {name: outcome for name, outcome in outcomes_of(files).items() if outcome != "up"} == {}


def test_refused_configuration_does_not_start(deployed: Host) -> None:
    """PgBouncer refuses them too, so the test above can find an error."""
    files_of_tls = [f"client_tls_{name} = {TLS_WORDS[name][0]}\n" for name in ("key_file", "cert_file", "ca_file")]
    verify_ca = "".join(["client_tls_sslmode = verify-ca\n", *files_of_tls])
    files = {
        "unknown.ini": "[databases]\n[pgbouncer]\nlisten_addr = 127.0.0.1\npool_mod = session\n",
        "no-socket.ini": "[databases]\n[pgbouncer]\nunix_socket_dir =\n",
        "tls.ini": "[databases]\n[pgbouncer]\nlisten_addr = 127.0.0.1\nclient_tls_sslmode = require\n",
        "cert.ini": f"[databases]\n[pgbouncer]\nlisten_addr = 127.0.0.1\nauth_type = cert\n{verify_ca}",
        **{
            f"{name}.ini": f"[databases]\n[pgbouncer]\nlisten_addr = 127.0.0.1\nclient_tls_{name} = {word}\n"
            f"client_tls_sslmode = require\n{''.join(files_of_tls)}"
            for name, word in (("ciphers", "all"), ("protocols", "tlsv1.2,"), ("ecdhcurve", "X25519"))
        },
        "syntax.ini": "[databases]\n[pgbouncer]\nlisten_addr\n",
        "quoted.ini": '[databases]\n"a b" = host=c\n[pgbouncer]\nlisten_addr = 127.0.0.1\n',
        "comment.ini": "[databases]\n[pgbouncer]\nlisten_addr = 127.0.0.1   # all\n",
        "address.ini": '[databases]\n[pgbouncer]\nlisten_addr = "127.0.0.1"\n',
        "number.ini": "[databases]\n[pgbouncer]\nlisten_addr = 127.0.0.1\nmax_client_conn = 5 ; few\n",
        "blank.ini": "[databases]\n[pgbouncer]\nlisten_addr = 127.0.0.1\npool_mode = session\u00a0\n",
        "nothing.ini": "[databases]\na = host=b\n",
        "mark.ini": "\ufeff[databases]\n[pgbouncer]\nlisten_addr = 127.0.0.1\n",
        "glued.ini": "[databases]\na = connect_query='b'host=c\n[pgbouncer]\nlisten_addr = 127.0.0.1\n",
    }
    assert all(any(finding.error for finding in check(read_ini(text))) for text in files.values())
    assert {name for name, outcome in outcomes_of(files).items() if outcome == "up"} == set()


def test_configurations_of_debian_are_imported(deployed: Host) -> None:
    """From configuration to intent and back, no setting is lost."""
    inside = f"sudo docker exec {CONTAINER} sh -c 'find /etc/pgbouncer /usr/share/doc/pgbouncer -name \"*.ini\"'"
    found = on_host(inside).split()
    assert "/etc/pgbouncer/pgbouncer.ini" in found
    for file in found:
        configuration = read_ini(on_host(f"sudo docker cp {CONTAINER}:{file} - | tar -xO"), file)
        assert [finding for finding in configuration.findings if finding.error] == []
        assert read_ini(render_ini(intent_of(configuration))).values == configuration.values


def test_running_pgbouncer_equals_its_file(deployed: Host) -> None:
    """`diff` finds nothing on a deployed host, and finds a later change of the file."""
    text = on_host("sudo cat /etc/scratch4school/pgbouncer/pgbouncer.ini")
    rows = (console("SHOW CONFIG"), console("SHOW DATABASES"))
    file = read_ini(text)
    assert changes(running(*rows, file), file) == []
    file = read_ini(text.replace("query_wait_timeout = 15", "query_wait_timeout = 16"))
    assert [str(change) for change in changes(running(*rows, file), file)] == [
        "query_wait_timeout: 15 → 16 (needs a RELOAD)"
    ]


def test_diff_and_top_read_console(deployed: Host, tmp_path: Path) -> None:
    """With the monitor's login nothing differs, and the application's pool is shown as text and as JSON."""
    file = tmp_path / "pgbouncer.ini"
    file.write_text(on_host("sudo cat /etc/scratch4school/pgbouncer/pgbouncer.ini", deployed))
    password = on_host("sudo cat /etc/scratch4school/app/monitor_password", deployed).strip()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        login = f"{address} user=scratch4school_monitor"
        command = [sys.executable, str(SCRIPTS / "pgbouncer-config"), *arguments, "--connect", login]
        environment = {**os.environ, "PGPASSWORD": password}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    with tunnel(deployed) as address:
        same = run("diff", str(file))
        assert (same.returncode, same.stdout, same.stderr) == (0, "", "0 differences; 0 need a restart.\n")
        file.write_text(file.read_text().replace("listen_port = 6432", "listen_port = 6433"))
        other = run("diff", str(file))
        assert (other.returncode, other.stdout) == (1, "listen_port: 6432 → 6433 (needs a restart)\n")
        assert "scratch4school_app" in run("top", "--once").stdout
        (pool,) = json.loads(run("top", "--json").stdout)
        assert (pool["database"], pool["size"], pool["waiting"]) == ("scratch4school", 20, 0)
