"""The status screen and its facts as JSON, also on a host with faults."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from conftest import PATIENCE, run_command, script, slots_settings, write_settings
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from scratch4school_host import audit_log, certificates, docker, ledger, locking, status, systemd
from scratch4school_host.processes import execute
from scratch4school_host.slots import state

POOLS = """database|user|cl_active|cl_waiting|sv_active|sv_idle|sv_used|maxwait
pgbouncer|pgbouncer|1|0|0|0|0|0
scratch4school|scratch4school_app|12|3|20|1|2|4
scratch4school|scratch4school_monitor|1|0|0|1|0|0
(3 rows)
"""
DOCKER = """\
import json, sys
words = sys.argv[1:]
if "SHOW POOLS" in words:
    print({pools!r}, end="")
elif words[:2] == ["inspect", "--type=container"]:
    print(json.dumps([
        {{"Name": "/scratch4school-app-" + name, "RestartCount": 0,
          "Config": {{"Labels": {{"scratch4school.release": "r2"}}, "Image": "app:1"}},
          "State": {{"Status": one, "StartedAt": "", "Pid": 1}}}}
        for name, one in (("blue", "running"), ("green", "exited"))]))
"""
SYSTEMCTL = """\
#!/bin/sh
case "$*" in *drill*) next= ;; *) next="Wed 2026-11-25 02:15:00 CET" ;; esac
echo "NextElapseUSecRealtime=$next"
"""


def certificate(days: int) -> str:
    """A certificate that ends in so many days and an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "scratch.example")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=400))
        .not_valid_after(now + timedelta(days=days, hours=1))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize("days", [90, 0, -3, 365 * 40])
def test_days_left_are_counted_until_the_certificate_expires(days: int) -> None:
    """Negative after that; from 2050 on, a certificate has its time in another format."""
    assert certificates.days_left(certificate(days)) == days


@pytest.mark.parametrize("text", ["", "-----BEGIN", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"])
def test_file_that_is_no_certificate_is_refused(text: str) -> None:
    """With a message, also when it is cut off."""
    with pytest.raises(ValueError, match="certificate"):
        certificates.days_left(text)


@pytest.mark.parametrize("cut", [0.3, 0.6])
def test_certificate_that_is_cut_off_is_refused(cut: float) -> None:
    """As an interrupted copy leaves it."""
    lines = certificate(90).splitlines()
    kept = lines[: int(len(lines) * cut)]
    with pytest.raises(ValueError, match="certificate"):
        certificates.days_left("\n".join([*kept, lines[-1]]))


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (POOLS, "13 clients active, 3 waiting; servers 20 active, 4 idle; longest wait 4 s"),
        ("\n".join(POOLS.splitlines()[:2]), "not used yet"),
        ("psql: error: connection refused", "PgBouncer does not answer"),
        ("", "PgBouncer does not answer"),
    ],
)
def test_pools_of_the_database_are_summed_up_in_one_line(answer: str, line: str) -> None:
    """Pools of all users of the database, and none of the console's own."""
    assert status.pool_line(answer) == line


def test_timers_are_listed_with_their_next_run() -> None:
    """In the order of their names under one heading; one that never runs again says what to type."""
    lines = status.timer_lines(
        {"scratch4school-drill.timer": "", "scratch4school-backup.timer": "Wed 2026-11-25 02:15:00 CET"}
    )
    assert lines == [
        "timers       scratch4school-backup: Wed 2026-11-25 02:15:00 CET",
        "             scratch4school-drill: NEVER; run deploy.yml",
    ]
    assert status.timer_lines({}) == []


class Host:
    """A host with a live release, backups and timers; everything that it is asked is a script."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / "settings"

    def screen(self, *arguments: str) -> list[str]:
        """The lines of the screen."""
        ended = run_command(self.settings, "status", *arguments)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.splitlines()

    def line(self, name: str, *arguments: str) -> str:
        """The line of the screen that begins so, without its name."""
        return next(line for line in self.screen(*arguments) if line.startswith(name))[13:]

    def facts(self) -> dict[str, Any]:
        """The facts for a monitor."""
        ended = run_command(self.settings, "status", "--json")
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)


@pytest.fixture
def host(tmp_path: Path, tools: Path, short: Path, serve: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Host:
    """Blue is live with release r2, which was verified; green is its standby."""
    # The stand-ins are programs that a slow machine may start slowly.
    for module in (docker, systemd):
        monkeypatch.setattr(module, "execute", lambda command, _seconds: execute(command, PATIENCE))
    script(tools / "docker", f"#!{sys.executable}\n" + DOCKER.format(pools=POOLS))
    script(tools / "systemctl", SYSTEMCTL)
    for name in ("change", "releases", "backup"):
        (tmp_path / name).mkdir()
    (short / "blue").mkdir()
    (short / "current").symlink_to("blue")
    serve(short / "blue" / "gunicorn.sock", {"/readyz": {"release": "r2", "schema": "0004"}})
    write_settings(tmp_path / "settings", "slots", slots_settings(tmp_path, socket_directory=str(short)))
    write_settings(tmp_path / "settings", "backup", backup_settings(tmp_path))
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    known = {"backup": {"at": moment, "id": "a1b2c3d4", "kind": "manual", "seconds": 3.0}}
    (tmp_path / "backup" / "state.json").write_text(json.dumps(known))
    (tmp_path / "tls.crt").write_text(certificate(42))
    for release, outcome in (("r1", "activated"), ("r2", "activated"), ("r2", "verified")):
        entry = ledger.make_entry(release=release, by="anna@desk", verb="deploy", outcome=outcome)
        ledger.append(tmp_path / "releases" / "ledger.jsonl", {**entry, "at": "2026-11-24T16:50:01Z"})
        (tmp_path / "releases" / f"{release}.json").write_text(json.dumps({"id": release}))
    audit = {"run": "x", "verb": "deploy", "by": "anna@desk", "phase": "end", "outcome": "done"}
    audit_log.append(tmp_path / "change", audit)
    return Host(tmp_path)


def backup_settings(folder: Path) -> dict[str, Any]:
    """Settings of the backups, as far as the screen needs them."""
    texts = ("host", "engine", "image", "network", "postgres_container", "postgres_image", "sqlite_directory",
             "uploads", "secrets", "change_directory", "memory", "school", "repository",
             "failure_command")  # fmt: skip
    numbers = ("min_free_mb", "niceness", "upload_kib", "download_kib", "read_percent")
    return {
        **dict.fromkeys(texts, ""),
        **dict.fromkeys(numbers, 0),
        "directory": str(folder / "backup"),
        "database_roles": [],
        "configuration": [],
        "keep": {},
        "timers": ["scratch4school-backup.timer", "scratch4school-backup-drill.timer"],
    }


def test_screen_shows_the_whole_installation(host: Host) -> None:
    """A line for each part, the host and its address first, and the warnings last."""
    lines = host.screen()
    assert lines[0] == "server  https://scratch.example"
    assert lines[1:] == [
        "release      r2, verified 2026-11-24 16:50 UTC",
        "previous     r1 (kept: r2, r1)",
        "slots        blue: r2 running <- live; green: r2 exited",
        "ready        yes",
        "database     postgres, schema revision 0004",
        "pool         13 clients active, 3 waiting; servers 20 active, 4 idle; longest wait 4 s",
        "backup       a1b2c3d4 (manual) 0.0 hours ago, took 3 s",
        "drill        none yet",
        "timers       scratch4school-backup-drill: NEVER; run deploy.yml",
        "             scratch4school-backup: Wed 2026-11-25 02:15:00 CET",
        "certificate  42 days left",
        lines[12],
        "lock         free",
        lines[14],
        "Warning: scratch4school-backup-drill.timer has no next run; run deploy.yml.",
    ]
    assert lines[12].startswith("free         ")
    assert lines[14].startswith("last change  deploy by anna@desk at ")
    assert lines[14].endswith(" UTC: done")


def test_json_has_the_facts_of_the_screen(host: Host) -> None:
    """For a monitor, which compares numbers and names."""
    facts = host.facts()
    assert facts["slots"]["containers"]["blue"]["release"] == "r2"
    assert facts["certificate"] == {"days_left": 42, "error": ""}
    assert facts["warnings"] == ["scratch4school-backup-drill.timer has no next run; run deploy.yml."]
    assert facts["lock"] is None
    assert facts["releases"]["previous"] == "r1"
    assert facts["disk_free_mb"] > 0


def test_lock_of_a_change_is_shown_with_its_phase(host: Host) -> None:
    """A change whose process has ended was interrupted; only the control node may know that."""
    owner = {"by": "anna@desk", "node": "desk/boot/0", "pid": 4711, "started": 99}
    locking.begin(host.folder / "change", run="r", verb="deploy", owner=owner)
    assert host.line("lock").endswith(", phase begin")
    assert ", interrupted: process 4711 on desk no longer exists" in host.line("lock", "--dead-run", "r")
    assert host.line("last change").endswith("stopped in its phase “begin”")


def test_maintenance_mode_is_shown_with_its_reason(host: Host) -> None:
    """Only while it is on."""
    assert not [line for line in host.screen() if line.startswith("maintenance")]
    locking.start_maintenance(host.folder / "change", run="r", reason="restore.yml is restoring 1a2b")
    assert host.line("maintenance") == "on, because restore.yml is restoring 1a2b"


def test_slot_that_does_not_answer_is_not_ready(host: Host, short: Path) -> None:
    """The reason is on the screen, and the rest of it is, too."""
    (short / "blue" / "gunicorn.sock").unlink()
    assert host.line("ready").startswith("NO: ")
    assert host.line("database") == "postgres, schema revision unknown"


def test_unreadable_certificate_is_shown(host: Host) -> None:
    """It is no reason to show nothing."""
    (host.folder / "tls.crt").unlink()
    assert host.line("certificate") == f"{host.folder}/tls.crt: No such file or directory"


def test_host_with_sqlite_has_no_pool(host: Host) -> None:
    """And one without settings of backups has none yet."""
    write_settings(host.settings, "slots", {"engine": "sqlite"})
    (host.settings / "backup.json").unlink()
    lines = host.screen()
    assert not [line for line in lines if line.startswith("pool")]
    assert "backup       none yet" in lines


def test_engine_that_does_not_answer_is_an_error(host: Host, tools: Path) -> None:
    """Which slot runs would be a guess."""
    script(tools / "docker", "#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2; exit 1\n")
    ended = run_command(host.settings, "status")
    assert (ended.returncode, "`docker inspect` failed" in ended.stderr) == (1, True)


def test_questions_are_asked_side_by_side(host: Host, tools: Path) -> None:
    """Each program here ends when all of them have begun; one after the other they would never end well."""
    waiting = (
        f"touch {tools}/begun-$$; n=0; until [ $(ls {tools} | grep -c begun-) -ge 4 ]; "
        f"do n=$((n+1)); [ $n -lt {20 * PATIENCE} ] || exit 1; sleep 0.05; done"
    )
    script(tools / "systemctl", f"#!/bin/sh\n{waiting}\necho NextElapseUSecRealtime=soon\n")
    script(tools / "docker", f'#!/bin/sh\n{waiting}\nexec {sys.executable} {tools / "fake"} "$@"\n')
    script(tools / "fake", DOCKER.format(pools=POOLS))
    assert host.line("release").startswith("r2")


def test_live_slot_of_a_host_without_a_release_is_none(tmp_path: Path) -> None:
    """There is no link yet."""
    assert state.live_slot(tmp_path) == ""
