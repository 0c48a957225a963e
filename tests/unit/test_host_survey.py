"""The survey of a host: what it reads from kernel, engine and application, and the recorded state of roles."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import host_survey

LISTENING = """\
LISTEN 0 4096         0.0.0.0:443        0.0.0.0:*    users:(("docker-proxy",pid=71,fd=4))
LISTEN 0 128          0.0.0.0:22         0.0.0.0:*    users:(("sshd",pid=12,fd=6))
LISTEN 0 128             [::]:8080          [::]:*
"""
CONTAINER = {
    "Id": "c1",
    "Name": "/scratch4school-proxy",
    "Image": "sha256:1",
    "Config": {"Image": "scratch4school/proxy:0123", "Labels": {"scratch4school.component": "proxy"}},
    "State": {
        "Status": "running",
        "Running": True,
        "Pid": 1,
        "StartedAt": "2026-11-24T13:00:00Z",
        "Health": {"Status": "healthy"},
    },
    "RestartCount": 0,
    "NetworkSettings": {"Ports": {"8443/tcp": [{"HostPort": "443"}, {"HostPort": "443"}], "9/tcp": None}},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('NAME="Debian GNU/Linux"\nVERSION_ID="13"\nID=debian\n', ("Debian", "13")),
        ('PRETTY_NAME="Ubuntu 24.04.1 LTS"\nNAME="Ubuntu"\nVERSION_ID="24.04"\n', ("Ubuntu", "24.04")),
        ("", ("an unknown system", "")),
    ],
)
def test_system_is_named_by_distribution_and_version(text: str, expected: tuple[str, str]) -> None:
    """Debian by its number, Ubuntu by year and month."""
    found = host_survey.system(text)
    assert (found["distribution"], found["version"]) == expected


def test_free_space_of_a_missing_folder_is_that_of_its_nearest_parent(tmp_path: Path) -> None:
    """Before the first deploy there is no folder of ours, but the free space must be known."""
    free = host_survey.free_mb(str(tmp_path / "not" / "yet"))
    assert free == pytest.approx(host_survey.free_mb(str(tmp_path)), abs=200)
    assert free > 0


def test_file_system_is_that_of_the_longest_mount(tmp_path: Path) -> None:
    """A network's disk below a local one is found, and a name that only begins alike is not taken for it."""
    (tmp_path / "rows").mkdir()
    mounts = f"/dev/vda / ext4 rw 0 0\nserver:/x {tmp_path}/rows nfs4 rw 0 0\nserver:/y {tmp_path}/ro cifs rw 0 0\n"
    assert host_survey.file_system(f"{tmp_path}/rows/database", mounts) == "nfs4"
    assert host_survey.file_system(f"{tmp_path}/r", mounts) == "ext4"


def test_size_of_a_folder_is_the_sum_of_its_files(tmp_path: Path) -> None:
    """In whole megabytes; what cannot be counted in time is not guessed."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(os.urandom(3 * 2**20))
    assert host_survey.size_mb(str(tmp_path), time.monotonic() + 600) == 3
    assert host_survey.size_mb(str(tmp_path), time.monotonic() - 1) is None
    assert host_survey.size_mb(str(tmp_path / "missing"), time.monotonic() + 600) == 0


def test_port_is_free_or_held_by_us_or_by_another_program() -> None:
    """Our own proxy is no reason to refuse; a program without a name is one."""
    own = host_survey.published(CONTAINER)
    holders = host_survey.port_holders(LISTENING, [443, 22, 8080, 80], own)
    assert holders == {"443": "ours", "22": "sshd", "8080": "another program", "80": ""}
    assert host_survey.published(None) == set()


def test_authorities_are_in_the_order_of_their_paths(tmp_path: Path) -> None:
    """The order decides the base image's tag, so it is fixed; only certificates count."""
    (tmp_path / "b").mkdir()
    for name, content in (("b/1.crt", b"one"), ("a.crt", b"two"), ("notes.txt", b"three")):
        (tmp_path / name).write_bytes(content)
    expected = [hashlib.sha1(content, usedforsecurity=False).hexdigest() for content in (b"two", b"one")]
    assert host_survey.authorities(str(tmp_path)) == expected
    assert host_survey.authorities(str(tmp_path / "missing")) == []


@pytest.fixture
def web() -> Iterator[Callable[[int, bytes], str]]:
    """A function that answers on a port of this machine with a status and a body; it returns the address.

    The status 0 is a server that takes the request and says nothing.
    """
    servers = []
    release = threading.Event()

    def start(status: int, body: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if not status:
                    release.wait(30)
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/jwk"

    yield start
    release.set()
    for server in servers:
        server.shutdown()
        server.server_close()


KEYS = b'{"keys": [{"kty": "RSA", "n": "1", "e": "AQAB"}, {"kty": "EC", "crv": "P-256"}]}'


@pytest.mark.parametrize(
    ("status", "body", "keys"),
    [
        (200, KEYS, 2),
        (200, b'{"keys": []}', 0),
        (200, b"<html>Log in</html>", 0),
        (404, KEYS, 0),
        (405, b"", 0),
        (500, b"oops", 0),
    ],
    ids=["key set", "no keys", "no JSON", "404", "405", "500"],
)
def test_provider_that_answers_is_described_by_status_and_keys(
    web: Callable[..., str], status: int, body: bytes, keys: int
) -> None:
    """Each answer counts as one, an error too; keys are those of an answer that is none."""
    url = web(status, body)
    assert host_survey.provider([url]) == {url: {"status": status, "problem": "", "keys": keys}}


def test_provider_without_an_answer_in_time_is_reported_as_timed_out(
    web: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes the request and does not answer is waited for, and then named with the cause."""
    monkeypatch.setattr(host_survey, "URL_PATIENCE", 0.2)
    url = web(0, b"")
    found = host_survey.provider([url])[url]
    assert (found["status"], found["keys"]) == (0, 0)
    assert "timed out" in found["problem"]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://127.0.0.1:1/token", "refused"),
        ("https://nowhere.invalid/token", "not known|resolution|No address"),
        ("my-school.example/token", "unknown url type"),
    ],
)
def test_provider_that_is_not_reached_is_named_with_the_cause(url: str, problem: str) -> None:
    """No server, no such name and no address are each said aloud, and none ends the survey."""
    found = host_survey.provider([url])[url]
    assert (found["status"], found["keys"]) == (0, 0)
    assert re.search(problem, found["problem"])


def test_provider_without_addresses_is_asked_nothing() -> None:
    """A verb that needs no provider hands over no address."""
    assert host_survey.provider([]) == {}


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (KEYS, 2),
        (b'{"keys": [{"kty": "RSA"}, {"kty": ""}, {"alg": "RS256"}, "RSA", null]}', 1),
        (b'{"keys": {"kty": "RSA"}}', 0),
        (b'{"keys": null}', 0),
        (b'{"issuer": "https://my-school.example"}', 0),
        (b"[1, 2]", 0),
        (b'"keys"', 0),
        (b"", 0),
        (b"\xff\xfe", 0),
    ],
)
def test_key_count_ignores_objects_without_a_key_type(body: bytes, count: int) -> None:
    """Only objects with a key type count (RFC 7517); whatever else an address answers holds none."""
    assert host_survey.key_count(body) == count


@pytest.fixture
def fake_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """A function that puts a shell script of a name before all other programs."""
    folder = tmp_path / "fake-bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(name: str, script: str) -> Path:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
        return folder / name

    return put


SYSTEMD_ANALYZE = """\
[ "$1 $2" = "calendar --" ] || exit 9
case "$3" in
  "*-*-* 02:15") echo "Next elapse: Wed 2026-11-25 02:15:00 CET" ;;
  silent) exit 1 ;;
  spoken) echo "Failed on the other stream"; exit 1 ;;
  *) echo "hint" >&2; echo "Failed to parse calendar specification '$3': Invalid argument" >&2; exit 1 ;;
esac"""


@pytest.mark.parametrize(
    ("hour", "error"),
    [
        ("*-*-* 02:15", ""),
        ("25:99", "Failed to parse calendar specification '25:99': Invalid argument"),
        ("--help", "Failed to parse calendar specification '--help': Invalid argument"),
        ("spoken", "Failed on the other stream"),
        ("silent", "it is none"),
    ],
)
def test_calendar_error_is_the_last_line_of_systemd(fake_program: Callable[..., Path], hour: str, error: str) -> None:
    """Its last line is handed on, and a text that begins with a dash is no option."""
    fake_program("systemd-analyze", SYSTEMD_ANALYZE)
    assert host_survey.calendar_error(hour) == error


def test_calendar_error_without_systemd_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where systemd cannot be asked, or takes too long, no hour is refused."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host_survey.calendar_error("25:99") == ""


def test_calendar_error_of_a_systemd_that_hangs_is_none(
    fake_program: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A survey must end."""
    fake_program("systemd-analyze", "exec sleep 30")
    monkeypatch.setattr(host_survey, "PATIENCE", 0.2)
    assert host_survey.calendar_error("25:99") == ""


def test_has_program_finds_what_the_shell_would_start(fake_program: Callable[..., Path]) -> None:
    """A program of the path, one by its whole path, and the shell's own commands; what cannot be started is none."""
    path = fake_program("tell-the-school", "true")
    assert host_survey.has_program("tell-the-school")
    assert host_survey.has_program(str(path))
    assert host_survey.has_program("cd")
    assert host_survey.has_program("-v") is False
    assert host_survey.has_program("no-such-program-anywhere") is False
    assert host_survey.has_program("x; true") is False
    assert host_survey.has_program(str(path.parent)) is False
    path.chmod(0o644)
    assert host_survey.has_program(str(path)) is False
    assert host_survey.has_program("tell-the-school") is False


def test_last_lines_of_a_long_file_are_whole(tmp_path: Path) -> None:
    """An audit log that only grows is not sent as a whole, nor is half a line of it."""
    (tmp_path / "log").write_text("".join(f'{{"n": {number}}}\n' for number in range(1000)))
    found = host_survey.text(tmp_path / "log", 100).splitlines()
    assert json.loads(found[-1]) == {"n": 999}
    assert all(json.loads(line) for line in found)
    assert host_survey.text(tmp_path / "missing") == ""


# ---- what is observed of a role


def observer(root: Path, **containers: Any) -> host_survey.Observer:
    """Looks below a folder in place of the host's root."""
    return host_survey.Observer(
        host_survey.Engine("/nowhere"), {f"scratch4school-{name}": one for name, one in containers.items()}, str(root)
    )


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """A role's folder of settings."""
    folder = tmp_path / "etc" / "proxy"
    folder.mkdir(parents=True)
    (folder / "nginx.conf").write_text("worker_processes 1;\n")
    (folder / "tls.key").write_text("secret\n")
    (folder / "tls.key").chmod(0o400)
    folder.chmod(0o750)
    return folder


def content(root: Path) -> dict[str, str]:
    """The facts of that folder with all that is in it."""
    return observer(root).facts({"contents": ["/etc/proxy"]})


def test_same_state_is_the_same_digest(tmp_path: Path, etc: Path) -> None:
    """Times do not count, nor what Python leaves beside a program."""
    before = content(tmp_path)
    assert set(before) == {"file /etc/proxy", "file /etc/proxy/nginx.conf", "file /etc/proxy/tls.key"}
    assert all(before.values())
    os.utime(etc / "nginx.conf", (0, 0))
    (etc / "__pycache__").mkdir()
    (etc / "__pycache__" / "program.pyc").write_bytes(b"compiled")
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("drift", "fact"),
    [
        (lambda etc: (etc / "nginx.conf").write_text("worker_processes 2;\n"), "/nginx.conf"),
        (lambda etc: (etc / "nginx.conf").unlink(), "/nginx.conf"),
        (lambda etc: (etc / "tls.key").chmod(0o644), "/tls.key"),
        (lambda etc: (etc / "extra.conf").write_text(""), "/extra.conf"),
        (lambda etc: (etc / "conf.d").mkdir(), "/conf.d"),
        (lambda etc: etc.chmod(0o777), ""),
        (lambda etc: ((etc / "nginx.conf").unlink(), (etc / "nginx.conf").symlink_to("/dev/null")), "/nginx.conf"),
    ],
    ids=["changed", "deleted", "mode", "added", "folder added", "folder's mode", "replaced by a link"],
)
def test_change_by_hand_changes_the_fact_of_that_file_only(
    tmp_path: Path, etc: Path, drift: Callable[[Path], Any], fact: str
) -> None:
    """A file deleted, changed, added, or opened to others is another fact, and the facts of the others stay."""
    before = content(tmp_path)
    drift(etc)
    after = content(tmp_path)
    differing = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert differing == {f"file /etc/proxy{fact}"}


def test_changed_file_in_a_subfolder_changes_its_fact(tmp_path: Path, etc: Path) -> None:
    """A role's folder counts with all that lies below it."""
    (etc / "conf.d").mkdir()
    (etc / "conf.d" / "one").write_text("1")
    before = content(tmp_path)
    (etc / "conf.d" / "one").write_text("2")
    assert before["file /etc/proxy/conf.d/one"] != content(tmp_path)["file /etc/proxy/conf.d/one"]
    assert before["file /etc/proxy/conf.d"]


def test_folder_listed_as_place_and_as_content_is_one_fact(tmp_path: Path, etc: Path) -> None:
    """A file that is named as a place besides is still seen when its content changes."""
    managed = {"contents": ["/etc/proxy"], "places": ["/etc/proxy", "/etc/proxy/nginx.conf"]}
    before = observer(tmp_path).facts(managed)
    assert before == content(tmp_path)
    (etc / "nginx.conf").write_text("other")
    assert observer(tmp_path).facts(managed) != before


def test_changed_target_of_a_link_changes_its_fact(tmp_path: Path, etc: Path) -> None:
    """It is not followed: what lies there belongs to another program."""
    (etc / "link").symlink_to("one")
    before = content(tmp_path)
    (etc / "link").unlink()
    (etc / "link").symlink_to("two")
    assert content(tmp_path) != before


def test_place_is_compared_without_its_content(tmp_path: Path, etc: Path) -> None:
    """Pupils' files are no settings; only who may look at them is the role's business."""
    place = {"places": ["/etc/proxy"]}
    before = observer(tmp_path).facts(place)
    (etc / "more").write_text("")
    assert observer(tmp_path).facts(place) == before
    etc.chmod(0o700)
    assert observer(tmp_path).facts(place) != before


@pytest.mark.parametrize(
    ("managed", "fact"),
    [
        ({"contents": ["/etc/missing"]}, "file /etc/missing"),
        ({"places": ["/etc/missing"]}, "file /etc/missing"),
        ({"containers": ["scratch4school-none"]}, "container scratch4school-none"),
        ({"containers": ["scratch4school-stopped"]}, "container scratch4school-stopped"),
        ({"containers": ["scratch4school-ill"]}, "container scratch4school-ill"),
        ({"loaded": ["scratch4school-none"]}, "loaded scratch4school-none"),
        ({"loaded": ["scratch4school-stopped"]}, "loaded scratch4school-stopped"),
        ({"networks": ["none"]}, "network none"),
        ({"units": ["scratch4school-no-such-unit"]}, "unit scratch4school-no-such-unit"),
        ({"unit_files": ["scratch4school-no-such.service"]}, "unit file scratch4school-no-such.service"),
        ({"asks": [{"container": "scratch4school-none", "argv": ["true"]}]}, "answer of scratch4school-none"),
        ({"asks": [{"what": "rights", "container": "scratch4school-none", "argv": ["true"]}]}, "rights"),
    ],
    ids=str,
)
def test_missing_stopped_or_unhealthy_fact_is_never_recorded(
    tmp_path: Path, managed: dict[str, Any], fact: str
) -> None:
    """No digest at all, so that no record can ever say that this is as it should be."""
    stopped = {**CONTAINER, "State": {**CONTAINER["State"], "Running": False}}
    ill = {**CONTAINER, "State": {**CONTAINER["State"], "Health": {"Status": "unhealthy"}}}
    facts = observer(tmp_path, stopped=stopped, ill=ill).facts(managed)
    assert facts == {fact: ""}
    assert host_survey.record(tmp_path / "recorded_state.json", {"role": "d"}, {"role": facts}) == {}


# ---- units of systemd

WELL = {
    "LoadState": "loaded",
    "UnitFileState": "enabled",
    "ActiveState": "active",
    "NeedDaemonReload": "no",
    "NextElapseUSecRealtime": "",
}
NEXT = "Wed 2026-11-25 02:15:00 CET"
TIMER = "scratch4school-backup.timer"


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that says what systemd answers of every unit; files of a timer and a service lie where they should."""
    folder = tmp_path / "etc" / "systemd" / "system"
    folder.mkdir(parents=True)
    for name in (TIMER, "scratch4school.service", "scratch4school-backup.service"):
        (folder / name).write_text(f"# {name}\n")

    def answer(**said: str) -> None:
        lines = "".join(f"{key}={value}\n" for key, value in {**WELL, **said}.items())
        state = dict(line.split("=", 1) for line in lines.splitlines())
        monkeypatch.setattr(host_survey, "unit_state", lambda name: state)

    answer()
    return answer


def unit(root: Path, name: str) -> str:
    """The fact of one unit."""
    return observer(root).facts({"units": [name]})[f"unit {name}"]


@pytest.mark.parametrize(("name", "upcoming"), [(TIMER, NEXT), ("scratch4school", ""), ("docker", "")])
def test_active_unit_has_the_same_fact_twice(
    tmp_path: Path, systemd: Callable[..., None], name: str, upcoming: str
) -> None:
    """A timer with a next run, a service of ours, and one that the distribution brought."""
    systemd(NextElapseUSecRealtime=upcoming)
    before = unit(tmp_path, name)
    assert before
    assert unit(tmp_path, name) == before


def test_timer_whose_service_is_running_is_recorded(tmp_path: Path, systemd: Callable[..., None]) -> None:
    """A nightly backup waits for a deploy; after its daemon-reload systemd learns the next hour when it has ended."""
    systemd(NextElapseUSecRealtime="", SubState="running")
    assert unit(tmp_path, TIMER)


@pytest.mark.parametrize(
    "said",
    [
        {"LoadState": "not-found"},
        {"UnitFileState": "disabled"},
        {"ActiveState": "inactive"},
        {"ActiveState": "failed"},
        {"NeedDaemonReload": "yes"},
        {"NextElapseUSecRealtime": ""},
    ],
    ids=str,
)
def test_unhealthy_unit_is_never_recorded(tmp_path: Path, systemd: Callable[..., None], said: dict[str, str]) -> None:
    """Not loaded, not enabled, not active, read before its file changed, or a timer that never runs again."""
    systemd(**{"NextElapseUSecRealtime": NEXT, **said})
    assert unit(tmp_path, TIMER) == ""


def test_next_run_of_a_timer_is_no_part_of_its_fact(tmp_path: Path, systemd: Callable[..., None]) -> None:
    """The folder changes every night, and that is no drift."""
    systemd(NextElapseUSecRealtime=NEXT)
    before = unit(tmp_path, TIMER)
    systemd(NextElapseUSecRealtime="Thu 2026-11-26 02:15:00 CET")
    assert unit(tmp_path, TIMER) == before


def test_changed_unit_file_changes_the_fact_of_our_units_only(tmp_path: Path, systemd: Callable[..., None]) -> None:
    """An hour that was changed by hand is another unit; the file of Docker's own unit is the distribution's."""
    systemd(NextElapseUSecRealtime=NEXT)
    before, docker = unit(tmp_path, TIMER), unit(tmp_path, "docker")
    folder = tmp_path / "etc" / "systemd" / "system"
    (folder / TIMER).write_text("# by hand\n")
    (folder / "docker.service").write_text("# by the distribution\n")
    assert unit(tmp_path, TIMER) not in ("", before)
    assert unit(tmp_path, "docker") == docker


def test_changed_file_of_an_inactive_unit_changes_its_fact(tmp_path: Path, systemd: Callable[..., None]) -> None:
    """A service that a timer starts is inactive most of the time; only its file is compared."""
    name = "scratch4school-backup.service"
    systemd(ActiveState="inactive", UnitFileState="static")
    before = observer(tmp_path).facts({"unit_files": [name]})
    assert list(before) == [f"unit file {name}"]
    assert all(before.values())
    (tmp_path / "etc" / "systemd" / "system" / name).write_text("# by hand\n")
    assert observer(tmp_path).facts({"unit_files": [name]}) != before


def test_unwanted_unit_is_a_fact_while_it_is_missing(tmp_path: Path, systemd: Callable[..., None]) -> None:
    """A timer whose hour is empty must not be there; one that is there again is something to do."""
    gone = observer(tmp_path).facts({"unwanted_units": ["scratch4school-backup-drill.timer"]})
    there = observer(tmp_path).facts({"unwanted_units": [TIMER]})
    assert all(gone.values())
    assert there == {f"unwanted unit {TIMER}": ""}


def test_container_is_compared_by_identity(tmp_path: Path) -> None:
    """A container that a sysadmin created again under the same name may differ; a restart is no difference."""
    managed = {"containers": ["scratch4school-proxy"]}
    before = observer(tmp_path, proxy=CONTAINER).facts(managed)
    restarted = {**CONTAINER, "State": {**CONTAINER["State"], "StartedAt": "2026-11-24T14:00:00Z", "Pid": 2}}
    assert list(before) == ["container scratch4school-proxy"]
    assert all(before.values())
    assert observer(tmp_path, proxy=restarted).facts(managed) == before
    for other in ({**CONTAINER, "Id": "c2"}, {**CONTAINER, "Image": "sha256:2"}):
        after = observer(tmp_path, proxy=other).facts(managed)
        assert all(after.values())
        assert after != before


def test_network_is_compared_by_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that was created again has other addresses."""
    answers: dict[str, Any] = {"/networks/scratch4school": {"Id": "n1", "Driver": "bridge"}}
    engine = host_survey.Engine("/nowhere")
    monkeypatch.setattr(engine, "get", answers.get)
    looks = host_survey.Observer(engine, {})
    before = looks.facts({"networks": ["scratch4school"]})
    assert all(before.values())
    assert looks.facts({"networks": ["scratch4school"]}) == before
    answers["/networks/scratch4school"] = {"Id": "n2", "Driver": "bridge"}
    assert looks.facts({"networks": ["scratch4school"]}) != before


def test_answer_of_a_container_is_a_fact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the name that the role gives it; the same answer is the same digest, another one is another."""
    asked = []

    def execute(command: list[str], _seconds: float) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, status, said, "")

    managed = {"asks": [{"what": "roles and rights", "container": "scratch4school-postgres", "argv": ["psql", "-c"]}]}
    monkeypatch.setattr(host_survey.docker, "execute", execute)
    status, said = 0, "app|t\n"
    before = observer(tmp_path).facts(managed)
    assert list(before) == ["roles and rights"]
    assert asked == [["docker", "exec", "scratch4school-postgres", "psql", "-c"]]
    assert observer(tmp_path).facts(managed) == before
    said = "app|f\n"
    assert observer(tmp_path).facts(managed) != before
    said = ""
    assert all(observer(tmp_path).facts(managed).values())
    status = 1
    assert not any(observer(tmp_path).facts(managed).values()), "the command failed"


def test_digest_of_a_secret_does_not_contain_the_secret() -> None:
    """Contents may be secrets; names of files may be of any bytes."""
    assert re.fullmatch("[0-9a-f]{16}", host_survey.digest("a secret"))
    assert host_survey.digest("a secret") != host_survey.digest("another")
    assert host_survey.digest(os.fsdecode(b"\xff"))


def test_observe_asks_every_role(tmp_path: Path) -> None:
    """Each role's facts by its name; one that manages nothing has none, and is never recorded."""
    observed = host_survey.observe(
        host_survey.Engine("/nowhere"), {}, {"host": {"places": [str(tmp_path)]}, "app": {"places": ["/none"]}, "x": {}}
    )
    assert {role: list(map(bool, facts.values())) for role, facts in observed.items()} == {
        "host": [True],
        "app": [False],
        "x": [],
    }
    recorded = host_survey.record(tmp_path / "recorded_state.json", {"host": "d", "app": "d", "x": "d"}, observed)
    assert list(recorded) == ["host"]


PROXY = {"container scratch4school-proxy": "01", "file /etc/proxy": "02"}
APP = {"file /etc/app": "03"}


def test_record_is_for_root_and_forgets_an_incomplete_role(tmp_path: Path) -> None:
    """The others' records stay; a role with something missing loses its own."""
    path = tmp_path / "change" / "recorded_state.json"
    host_survey.record(path, {"proxy": "d1", "app": "d2"}, {"proxy": PROXY, "app": APP})
    assert set(json.loads(path.read_text())) == {"proxy", "app"}
    host_survey.record(path, {"app": "d3"}, {"app": {**APP, "file /etc/app/key": ""}})
    assert json.loads(path.read_text()) == {"proxy": {"desired": "d1", "observed": PROXY}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["recorded_state.json"]


def test_record_of_a_role_that_was_not_observed_is_forgotten(tmp_path: Path) -> None:
    """Without a reading there is nothing that a later one could be compared with."""
    path = tmp_path / "recorded_state.json"
    host_survey.record(path, {"proxy": "d1"}, {"proxy": PROXY})
    assert host_survey.record(path, {"proxy": "d2"}, {}) == {}


def test_void_forgets_only_the_named_roles(tmp_path: Path) -> None:
    """A role that runs now has no record until it came to its end; the others' stay, and the file stays root's."""
    path = tmp_path / "recorded_state.json"
    host_survey.record(path, {"proxy": "d1", "app": "d2"}, {"proxy": PROXY, "app": APP})
    host_survey.forget(path, ["app", "never-there"])
    assert json.loads(path.read_text()) == {"proxy": {"desired": "d1", "observed": PROXY}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_void_of_an_unrecorded_role_writes_no_file(tmp_path: Path) -> None:
    """Before the first deploy there is neither file nor folder, and none is made for it."""
    host_survey.forget(tmp_path / "change" / "recorded_state.json", ["app"])
    assert list(tmp_path.iterdir()) == []
    host_survey.record(tmp_path / "recorded_state.json", {"proxy": "d1"}, {"proxy": PROXY})
    os.utime(tmp_path / "recorded_state.json", (0, 0))
    host_survey.forget(tmp_path / "recorded_state.json", ["app"])
    assert (tmp_path / "recorded_state.json").stat().st_mtime == 0


def test_void_of_a_torn_record_leaves_no_record(tmp_path: Path) -> None:
    """A record that a power failure tore says nothing of any role, and stays so."""
    (tmp_path / "recorded_state.json").write_text('{"proxy": {"des')
    host_survey.forget(tmp_path / "recorded_state.json", ["proxy"])
    assert host_survey.read_json(tmp_path / "recorded_state.json") == {}


def test_torn_record_is_read_as_no_record(tmp_path: Path) -> None:
    """After a power failure every role runs again."""
    (tmp_path / "recorded_state.json").write_text('{"proxy": {"des')
    assert host_survey.read_json(tmp_path / "recorded_state.json") == {}


def test_module_records_nothing_in_check_mode(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> None:
    """`--check` leaves no trace."""
    path = tmp_path / "recorded_state.json"
    arguments = {"path": str(path), "desired": {"host": "d"}, "managed": {"host": {"places": [str(tmp_path)]}}}
    assert run_module("host_state", check_mode=True, **arguments) == {"changed": False, "incomplete": []}
    assert not path.exists()
    run_module("host_state", **arguments)
    assert path.exists()
    written = path.read_bytes()
    run_module("host_state", check_mode=True, path=str(path), state="void", roles=["host"])
    assert path.read_bytes() == written


def test_module_voids_the_named_roles(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> None:
    """It reports no change, looks at nothing, and survives a host that never had a record."""
    path = tmp_path / "recorded_state.json"
    arguments = {"path": str(path), "desired": {"host": "d"}, "managed": {"host": {"places": [str(tmp_path)]}}}
    voids = {"path": str(path), "state": "void", "roles": ["host"]}
    assert run_module("host_state", **voids) == {"changed": False, "incomplete": []}
    assert not path.exists()
    run_module("host_state", **arguments)
    assert run_module("host_state", **voids) == {"changed": False, "incomplete": []}
    assert json.loads(path.read_text()) == {}


def test_module_names_roles_that_could_not_be_recorded(
    tmp_path: Path, run_module: Callable[..., dict[str, Any]]
) -> None:
    """A role that ran and left something missing is said, and has no record."""
    path = tmp_path / "recorded_state.json"
    managed = {"host": {"places": [str(tmp_path)]}, "app": {"places": [str(tmp_path / "none")]}}
    answer = run_module("host_state", path=str(path), desired={"host": "d", "app": "d"}, managed=managed)
    assert answer == {"changed": False, "incomplete": ["app"]}
    assert list(json.loads(path.read_text())) == ["host"]


def test_module_says_when_it_cannot_write(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> None:
    """A record that cannot be written is a message, not a traceback."""
    (tmp_path / "file").write_text("")
    arguments = {"path": str(tmp_path / "file" / "recorded_state.json"), "desired": {"host": "d"}}
    answer = run_module("host_state", **arguments, managed={"host": {"places": [str(tmp_path)]}})
    assert answer["failed"]
    assert answer["msg"].startswith(f"{tmp_path}/file/recorded_state.json could not be written: ")


NO_FOLDER = {"answers": False, "is_folder": False, "writable": False, "free_mb": 0, "on_data_disk": False}
# No user or group of the machine that runs the tests.
USER, GROUP = 54321, 54322

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask for another user")


def test_missing_folder_is_described_as_no_folder(tmp_path: Path) -> None:
    """Neither is a file of that name."""
    (tmp_path / "file").write_text("")
    for name in ("none", "file", "none/deeper"):
        found = host_survey.folder(str(tmp_path / name), USER, GROUP, str(tmp_path))
        assert found == {**NO_FOLDER, "answers": True}


@root_only
@pytest.mark.parametrize(
    ("owner", "group", "mode", "writable"),
    [
        (USER, 0, 0o700, True),
        (0, GROUP, 0o770, True),
        (0, 0, 0o777, True),
        (0, 0, 0o755, False),
        (USER, 0, 0o500, False),
        # Files are made in a folder only by who may enter it.
        (USER, 0, 0o600, False),
        (0, USER, 0o770, False),
    ],
)
def test_folder_is_writable_by_owner_group_or_everybody(
    tmp_path: Path, owner: int, group: int, mode: int, writable: bool
) -> None:
    """For that user and group alone; folders above it may be closed, because a bind mount passes by them."""
    path = tmp_path / "closed" / "repository"
    path.mkdir(parents=True)
    os.chown(path, owner, group)
    path.chmod(mode)
    path.parent.chmod(0o700)
    found = host_survey.folder(str(path), USER, GROUP, str(tmp_path))
    assert found["is_folder"] is found["answers"] is True
    assert found["writable"] is writable


def test_folder_on_the_disk_of_the_data_is_told_by_the_device(tmp_path: Path) -> None:
    """Also where the data's folder does not exist yet; /dev/shm is another file system on any Linux."""
    (tmp_path / "nas").mkdir()
    data = str(tmp_path / "data" / "not-yet")
    found = host_survey.folder(str(tmp_path / "nas"), USER, GROUP, data)
    assert found["on_data_disk"] is True
    assert found["free_mb"] == pytest.approx(host_survey.free_mb(str(tmp_path)), abs=200)
    assert host_survey.folder("/dev/shm", USER, GROUP, data)["on_data_disk"] is False


def test_folder_of_a_silent_share_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system whose server is off blocks each process that reads it; the survey continues."""
    (tmp_path / "test").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "test").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(host_survey, "PATIENCE", 0.2)
    assert host_survey.folder(str(tmp_path), USER, GROUP, str(tmp_path)) == NO_FOLDER


def test_observer_does_not_look_at_a_silent_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is missing then, and all else is observed."""
    nas, data = tmp_path / "nas", tmp_path / "data"
    nas.mkdir()
    data.mkdir()
    managed = {"backup": {"places": [str(nas), str(data)]}}
    engine = host_survey.Engine("/nowhere")
    whole = host_survey.observe(engine, {}, managed)["backup"]
    assert all(whole.values())
    assert host_survey.observe(engine, {}, managed, silent=[str(nas)])["backup"] == {**whole, f"file {nas}": ""}


def test_survey_of_an_empty_host_has_all_facts(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> None:
    """A fresh server has no engine, no folder and no ledger; but every question has an answer."""
    data = tmp_path / "data"
    answer = run_module(
        "host_survey",
        data_directory=str(data),
        socket_directory=str(data / "run"),
        ledger=str(data / "ledger"),
        change_directory=str(data / "change"),
        ports=[1],
        required_urls=["https://127.0.0.1:1/token"],
        questions={
            "files": [str(tmp_path / "none")],
            "sizes": [str(data)],
            "disks": [str(data)],
            "folders": [{"path": str(data), "user": 10005, "group": 10000}],
            "calendars": ["*-*-* 02:15"],
            "programs": ["cd", "no-such-program-anywhere"],
        },
        managed={
            "host": {"places": [str(data)], "files": [str(tmp_path)]},
            "backup": {"units": [TIMER, "scratch4school"]},
        },
    )
    survey = answer["survey"]
    assert answer["changed"] is False
    assert survey["observed"] == {
        "host": {f"file {data}": ""},
        "backup": {f"unit {TIMER}": "", "unit scratch4school": ""},
    }
    assert survey["files"] == {str(tmp_path / "none"): False, str(tmp_path): True}
    assert survey["folders"] == {str(data): {**NO_FOLDER, "answers": True}}
    assert survey["sizes"] == {str(data): 0}
    assert survey["disk"][str(data)] > 0
    assert survey["slot"] == survey["ledger"] == survey["audit_log"] == ""
    assert survey["lock"] == survey["recorded"] == survey["maintenance"] == {}
    assert survey["provider"]["https://127.0.0.1:1/token"]["status"] == 0
    assert survey["calendars"] == {"*-*-* 02:15": ""}
    assert survey["programs"] == {"cd": True, "no-such-program-anywhere": False}
    assert survey["ready"]["last_login"] == ""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", survey["time"])
    assert survey["zone"] == time.strftime("%Z")
    json.dumps(survey)
