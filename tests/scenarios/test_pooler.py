"""PgBouncer as it is packaged: what our tool says of its configuration, and how saves go when the pool is exhausted."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from conftest import LAB, ROOT, Place, lab, on_host, wait_for
from faults import address_of
from pupils import create, numbered, read

sys.path.append(str(ROOT / "plugins" / "module_utils"))

from pgbouncer_config import (
    KEYS,
    SECTIONS,
    changes,
    check,
    check_intent,
    intent_of,
    pools_of,
    read_ini,
    render_ini,
    running,
)

POOLER = "scratch4school-pgbouncer"
TUNNEL_PORT = 18432
# As PgBouncer's own user, which may do everything from the socket in its container.
CONSOLE = f"sudo docker exec {POOLER} psql --host /tmp --port 6432 --username pgbouncer --dbname pgbouncer --csv -c "
# Starts PgBouncer with each file of a folder, and says of each whether it came up; what it said otherwise follows.
TRY = r"""
cd /tmp && mkdir trial && tar -xC trial && cd trial
printf '"a" "b"\n' > users
for file in *.ini; do
  pgbouncer "$file" > log 2>&1 & process=$!
  for wait in $(seq 200); do
    grep -q 'process up' log && break
    kill -0 $process 2>/dev/null || break
    sleep 0.1
  done
  # With what it is told it might end itself a moment later.
  sleep 0.1
  if grep -q 'process up' log && kill -0 $process; then echo "$file up"; else echo "$file $(cat log)"; fi
  kill -KILL $process
  wait $process
  rm -f pid
done
"""

# Transactions as the application's own user, through the pooler, that do nothing.
HELD_SECONDS = 30
HOLD = f"""
docker exec -i {POOLER} sh -c 'read -r PGPASSWORD; export PGPASSWORD; for one in $(seq %(connections)s); do
  (echo "BEGIN; SELECT 1;"; sleep %(seconds)s) | psql --quiet --host 127.0.0.1 --port 6432 \\
    --username scratch4school_app --dbname scratch4school >/dev/null & done; wait
' < /etc/scratch4school/app/database_password
"""


def console(command: str) -> list[dict[str, str]]:
    """What the console answers, row by row."""
    return list(csv.DictReader(io.StringIO(on_host(f'{CONSOLE}"{command}"'))))


def tried(files: dict[str, str]) -> dict[str, str]:
    """Start the packaged PgBouncer with each of these files, in a container like its own; `up`, or what it said."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    image = on_host(f"sudo docker inspect --format '{{{{.Config.Image}}}}' {POOLER}").strip()
    command = (
        f"sudo docker run --rm --interactive --network none --entrypoint sh {image} -c \"$(cat <<'END'\n{TRY}\nEND\n)\""
    )
    ended = subprocess.run(
        [str(LAB), "ssh", "scratch4school-lab-1", command], input=packed.getvalue(), capture_output=True, check=False
    )
    said = ended.stdout.decode()
    outcomes = {}
    for block in said.split(".ini ")[1:]:
        outcomes[len(outcomes)] = block.split("\n", 1)[0] if block.startswith("up") else block
    assert len(outcomes) == len(files), said + ended.stderr.decode()
    return dict(zip(sorted(files), outcomes.values(), strict=True))


def test_every_setting_is_known(deployed: str) -> None:
    """Names, defaults, and what a RELOAD takes in are those of the packaged version, by its own word."""
    rows = {row["key"]: (row["default"], row["changeable"] == "yes") for row in console("SHOW CONFIG")}
    known = {name: (key.default, key.reload) for name, key in KEYS.items()}
    assert rows == known


def chosen(chance: random.Random) -> dict[str, Any]:
    """Say something of the right kind about some settings, and nothing about files, users and networks elsewhere."""
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
    intent["auth_type"] = chance.choice(["md5", "scram-sha-256", "trust", "plain"])
    intent["databases"] = {
        "a": {name: value(name, "databases") for name in chance.sample(sorted(SECTIONS["databases"]), 5)},
        "*": {"host": "/nowhere"},
    }
    intent["user_settings"] = {
        "a": {name: value(name, "users") for name in chance.sample(sorted(SECTIONS["users"]), 3)}
    }
    intent["peers"] = {1: {"host": "/nowhere", "port": 6433}}
    return intent


def test_what_passes_the_check_starts(deployed: str) -> None:
    """Of many intents that have no error, each brings the packaged PgBouncer up; so do all their defaults."""
    chance = random.Random(7)
    files: dict[str, str] = {}
    while len(files) < 60:
        intent = chosen(chance)
        if not any(finding.error for finding in check_intent(intent, "i.yml", {})):
            files[f"{len(files):03}.ini"] = render_ini(intent)
    # Those without a default are not set at all; and of two names for one thing one is enough.
    settings = "".join(
        f"{name} = {key.default}\n" for name, key in KEYS.items() if key.default and name != "service_name"
    )
    files["defaults.ini"] = f"[databases]\n[pgbouncer]\nlisten_addr = 127.0.0.1\n{settings}"
    assert {name: outcome for name, outcome in tried(files).items() if outcome != "up"} == {}


def test_what_the_check_refuses_does_not_start(deployed: str) -> None:
    """The trial itself can tell: these PgBouncer refuses, as the check does."""
    files = {
        "unknown.ini": "[databases]\n[pgbouncer]\nlisten_addr = 127.0.0.1\npool_mod = session\n",
        "nobody.ini": "[databases]\n[pgbouncer]\nunix_socket_dir =\n",
        "tls.ini": "[databases]\n[pgbouncer]\nlisten_addr = 127.0.0.1\nclient_tls_sslmode = require\n",
        "syntax.ini": "[databases]\n[pgbouncer]\nlisten_addr\n",
        "quoted.ini": '[databases]\n"a b" = host=c\n[pgbouncer]\nlisten_addr = 127.0.0.1\n',
    }
    assert all(any(finding.error for finding in check(read_ini(text))) for text in files.values())
    assert {name for name, outcome in tried(files).items() if outcome == "up"} == set()


def test_what_debian_ships_is_imported_whole(deployed: str) -> None:
    """Its configuration and its examples: to an intent and back nothing is lost."""
    inside = f"sudo docker exec {POOLER} sh -c 'find /etc/pgbouncer /usr/share/doc/pgbouncer -name \"*.ini\"'"
    found = on_host(inside).split()
    assert "/etc/pgbouncer/pgbouncer.ini" in found
    for file in found:
        configuration = read_ini(on_host(f"sudo docker cp {POOLER}:{file} - | tar -xO"), file)
        assert [finding for finding in configuration.findings if finding.error] == []
        assert read_ini(render_ini(intent_of(configuration))).values == configuration.values


def test_the_running_one_is_what_its_file_says(deployed: str) -> None:
    """`diff` finds nothing on a deployed host, and finds what somebody changed in the file since."""
    text = on_host("sudo cat /etc/scratch4school/pgbouncer/pgbouncer.ini")
    rows = (console("SHOW CONFIG"), console("SHOW DATABASES"))
    file = read_ini(text)
    assert changes(running(*rows, file), file) == []
    file = read_ini(text.replace("query_wait_timeout = 15", "query_wait_timeout = 16"))
    assert [str(change) for change in changes(running(*rows, file), file)] == [
        "query_wait_timeout: 15 → 16 (a RELOAD takes it in)"
    ]


@contextmanager
def tunnel(place: Place) -> Iterator[str]:
    """The pooler's port of a lab host on this machine; gives what libpq has to be told."""
    address = re.findall(rf"^{place.name} .* (10\.[0-9.]+),", lab("status"), flags=re.MULTILINE)[0]
    known = f"UserKnownHostsFile={ROOT / '.lab' / 'known_hosts'}"
    to = f"127.0.0.1:{TUNNEL_PORT}:{address_of(place, POOLER)}:6432"
    options = [
        "-o",
        known,
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "ExitOnForwardFailure=yes",
        "-i",
        str(ROOT / ".lab" / "ssh_key"),
    ]
    process = subprocess.Popen(["ssh", *options, "-N", "-L", to, f"sysadmin@{address}"])
    try:
        wait_for(lambda: _listens(TUNNEL_PORT), seconds=20)
        yield f"host=127.0.0.1 port={TUNNEL_PORT} user=scratch4school_monitor"
    finally:
        process.terminate()
        process.wait(timeout=10)


def _listens(port: int) -> bool:
    with socket.socket() as door:
        return door.connect_ex(("127.0.0.1", port)) == 0


def test_diff_and_top_reach_the_console(large: Place, tmp_path: Path) -> None:
    """With the login that may look: nothing differs, and the application's pool is shown, to people and to programs."""
    file = tmp_path / "pgbouncer.ini"
    file.write_text(on_host("sudo cat /etc/scratch4school/pgbouncer/pgbouncer.ini", large.name))
    password = on_host("sudo cat /etc/scratch4school/app/monitor_password", large.name).strip()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "scripts" / "pgbouncer-config"), *arguments, "--connect", address]
        environment = {**os.environ, "PGPASSWORD": password}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    with tunnel(large) as address:
        same = run("diff", str(file))
        assert (same.returncode, same.stdout, same.stderr) == (0, "", "0 differences; 0 need a restart.\n")
        file.write_text(file.read_text().replace("listen_port = 6432", "listen_port = 6433"))
        other = run("diff", str(file))
        assert (other.returncode, other.stdout) == (1, "listen_port: 6432 → 6433 (needs a restart)\n")
        assert "scratch4school_app" in run("top", "--once").stdout
        (pool,) = json.loads(run("top", "--json").stdout)
        assert (pool["database"], pool["size"], pool["waiting"]) == ("scratch4school", 20, 0)


def test_an_exhausted_pool_is_told_and_recovers(large: Place, login: Callable[..., requests.Session]) -> None:
    """While others hold every server connection a save waits, then is told 503 and when; afterwards it goes through."""
    pupil = login("pupil108", large.url)
    address = create(pupil, large.url, "Geduld", 1)
    pool = console("SHOW DATABASES")[-1]
    all_of_it = int(pool["pool_size"]) + int(pool["reserve_pool_size"])

    def save(number: int) -> requests.Response:
        return pupil.put(address, files={"project_file": ("p.sb3", numbered("Geduld", number))}, timeout=60)

    with held(large, all_of_it):
        wait_for(lambda: sum(pool.busy for pool in pools()) == all_of_it, seconds=20)
        asked = time.monotonic()
        refused = save(2)
        waited = time.monotonic() - asked
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert "try again" in refused.json()["error"]
    assert waited > 5
    assert (save(3).status_code, read(pupil, address)) == (200, 3)
    pupil.delete(address, timeout=60)


@contextmanager
def held(place: Place, connections: int) -> Iterator[None]:
    """So many server connections are in somebody's transaction for a while, and are given back at the end."""
    script = HOLD % {"connections": connections, "seconds": HELD_SECONDS}
    holding = subprocess.Popen([str(LAB), "ssh", place.name, "sudo bash -s"], stdin=subprocess.PIPE, text=True)
    assert holding.stdin
    holding.stdin.write(script)
    holding.stdin.close()
    try:
        yield
    finally:
        holding.wait(timeout=2 * HELD_SECONDS)


def pools() -> list[Any]:
    """The pools of the moment, as `top` shows them."""
    return pools_of(console("SHOW POOLS"), console("SHOW STATS"), console("SHOW DATABASES"))


def test_an_operators_pause_makes_saves_wait(
    large: Place, login: Callable[..., requests.Session], tmp_path: Path
) -> None:
    """Somebody pauses the pooler by hand and resumes it: a save takes that much longer, and does not fail."""
    pupil = login("pupil109", large.url)
    address = create(pupil, large.url, "Pause", 1)
    console("PAUSE")
    try:
        resume = subprocess.Popen([str(LAB), "ssh", large.name, f'sleep 5; {CONSOLE}"RESUME"'])
        asked = time.monotonic()
        answer = pupil.put(address, files={"project_file": ("p.sb3", numbered("Pause", 2))}, timeout=60)
        waited = time.monotonic() - asked
        assert resume.wait(timeout=30) == 0
    finally:
        if any(row["paused"] == "1" for row in console("SHOW DATABASES")):
            console("RESUME")
    assert (answer.status_code, waited > 3) == (200, True)
    assert read(pupil, address) == 2
    pupil.delete(address, timeout=60)
