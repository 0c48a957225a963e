"""The one look at a host: what it reads from kernel, engine and application, and when a role counts as settled."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socketserver
import stat
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
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


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """HTTP over a unix socket, as the engine and gunicorn speak it."""

    daemon_threads = True

    def get_request(self) -> tuple[Any, Any]:
        """The handler wants an address to log."""
        return super().get_request()[0], ("", 0)


@pytest.fixture
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path, dict[str, Any]], None]]:
    """A function that answers on a unix socket: path asked -> JSON, or (status, JSON); anything else is 404."""
    servers = []

    def start(path: Path, answers: dict[str, Any]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = answers.get(self.path, (404, {}))
                status, answer = found if isinstance(found, tuple) else (200, found)
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = UnixServer(str(path), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a short name: a unix socket's path may have 108 characters."""
    folder = Path("/tmp") / f"s4s-{os.getpid()}-{time.monotonic_ns() % 10**6}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('NAME="Debian GNU/Linux"\nVERSION_ID="13"\nID=debian\n', ("Debian", "13")),
        ('PRETTY_NAME="Ubuntu 24.04.1 LTS"\nNAME="Ubuntu"\nVERSION_ID="24.04"\n', ("Ubuntu", "24.04")),
        ("", ("an unknown system", "")),
    ],
)
def test_system_is_named_as_people_do(text: str, expected: tuple[str, str]) -> None:
    """Debian by its number, Ubuntu by year and month."""
    found = host_survey.system(text)
    assert (found["distribution"], found["version"]) == expected


def test_memory_is_in_megabytes() -> None:
    """What there is, and what a new process could have."""
    text = "MemTotal:        2048000 kB\nMemFree: 100 kB\nMemAvailable:    1024000 kB\n"
    assert host_survey.memory(text) == {"total_mb": 2000, "available_mb": 1000}


def test_disk_of_a_folder_that_will_be_made_is_that_of_the_nearest(tmp_path: Path) -> None:
    """Before the first deploy there is no folder of ours, and the room must be known all the same."""
    free = host_survey.free_mb(str(tmp_path / "not" / "yet"))
    assert free == pytest.approx(host_survey.free_mb(str(tmp_path)), abs=200)
    assert free > 0


def test_file_system_is_that_of_the_longest_mount(tmp_path: Path) -> None:
    """A network's disk below a local one is found, and a name that only begins alike is not taken for it."""
    (tmp_path / "rows").mkdir()
    mounts = f"/dev/vda / ext4 rw 0 0\nserver:/x {tmp_path}/rows nfs4 rw 0 0\nserver:/y {tmp_path}/ro cifs rw 0 0\n"
    assert host_survey.file_system(f"{tmp_path}/rows/database", mounts) == "nfs4"
    assert host_survey.file_system(f"{tmp_path}/r", mounts) == "ext4"


def test_size_is_that_of_all_files(tmp_path: Path) -> None:
    """In whole megabytes; what cannot be counted in time is not guessed."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(os.urandom(3 * 2**20))
    assert host_survey.size_mb(str(tmp_path), time.monotonic() + 5) == 3
    assert host_survey.size_mb(str(tmp_path), time.monotonic() - 1) is None
    assert host_survey.size_mb(str(tmp_path / "missing"), time.monotonic() + 5) == 0


def test_ports_are_held_by_somebody_by_us_or_by_nobody() -> None:
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


def test_engine_is_asked_over_its_socket(short: Path, serve: Callable[..., None]) -> None:
    """Only containers of ours are described; one that went meanwhile is left out."""
    serve(
        short / "docker.sock",
        {
            "/info": {"ServerVersion": "26"},
            "/containers/json?all=1": [
                {"Id": "c1", "Names": ["/scratch4school-proxy"]},
                {"Id": "c2", "Names": ["/scratch4school-app-blue"]},
                {"Id": "c3", "Names": ["/something-else"]},
            ],
            "/containers/c1/json": CONTAINER,
        },
    )
    engine = host_survey.Engine(str(short / "docker.sock"))
    assert engine.get("/info") == {"ServerVersion": "26"}
    assert engine.get("/networks/none") is None
    assert engine.containers() == {"scratch4school-proxy": CONTAINER}


def test_host_without_an_engine_is_a_host_too(tmp_path: Path) -> None:
    """Before the first deploy nobody listens there."""
    engine = host_survey.Engine(str(tmp_path / "docker.sock"))
    assert engine.get("/info") is None
    assert engine.containers() == {}


def test_serving_slot_is_asked_whether_it_is_ready(short: Path, serve: Callable[..., None]) -> None:
    """The link says which slot; its answer says release and schema also when it is not ready."""
    (short / "blue").mkdir()
    (short / "current").symlink_to("blue")
    answers: dict[str, Any] = {"/readyz": {"release": "r1", "schema": "0003", "status": "ready"}}
    serve(short / "blue" / "gunicorn.sock", answers)
    slot = host_survey.slot(str(short))
    assert slot == "blue"
    assert host_survey.ready(str(short), slot) == {"ok": True, "release": "r1", "schema": "0003", "error": ""}
    answers["/readyz"] = (503, {"release": "r1", "schema": None, "error": "database: gone"})
    assert host_survey.ready(str(short), slot) == {
        "ok": False,
        "release": "r1",
        "schema": "",
        "error": "database: gone",
    }


def test_no_slot_is_not_ready(tmp_path: Path) -> None:
    """Before the first release, and where nobody listens."""
    assert host_survey.slot(str(tmp_path)) == ""
    assert not host_survey.ready(str(tmp_path), "")["ok"]
    assert not host_survey.ready(str(tmp_path), "green")["ok"]


def test_address_that_does_not_answer_is_named_with_the_cause() -> None:
    """An identity provider that is down is said aloud."""
    found = host_survey.unreachable(["https://127.0.0.1:1/token"])
    assert "refused" in found["https://127.0.0.1:1/token"]
    assert host_survey.unreachable([]) == {}


def test_last_lines_of_a_long_file_are_whole(tmp_path: Path) -> None:
    """A journal that only grows is not sent as a whole, nor is half a line of it."""
    (tmp_path / "journal").write_text("".join(f'{{"n": {number}}}\n' for number in range(1000)))
    found = host_survey.text(tmp_path / "journal", 100).splitlines()
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


def content(root: Path) -> str:
    """The digest of that folder with all that is in it."""
    return observer(root).digest({"contents": ["/etc/proxy"]})


def test_same_state_is_the_same_digest(tmp_path: Path, etc: Path) -> None:
    """Times do not count, nor what Python leaves beside a program."""
    before = content(tmp_path)
    assert before
    os.utime(etc / "nginx.conf", (0, 0))
    (etc / "__pycache__").mkdir()
    (etc / "__pycache__" / "program.pyc").write_bytes(b"compiled")
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    "drift",
    [
        lambda etc: (etc / "nginx.conf").write_text("worker_processes 2;\n"),
        lambda etc: (etc / "nginx.conf").unlink(),
        lambda etc: (etc / "tls.key").chmod(0o644),
        lambda etc: (etc / "extra.conf").write_text(""),
        lambda etc: etc.chmod(0o777),
        lambda etc: ((etc / "nginx.conf").unlink(), (etc / "nginx.conf").symlink_to("/dev/null")),
    ],
    ids=["changed", "deleted", "mode", "added", "folder's mode", "replaced by a link"],
)
def test_whatever_was_done_by_hand_is_seen(tmp_path: Path, etc: Path, drift: Callable[[Path], Any]) -> None:
    """A file deleted, changed, added, or opened to others."""
    before = content(tmp_path)
    drift(etc)
    assert content(tmp_path) != before


def test_a_link_is_compared_by_where_it_leads(tmp_path: Path, etc: Path) -> None:
    """It is not followed: what lies there is somebody else's."""
    (etc / "link").symlink_to("one")
    before = content(tmp_path)
    (etc / "link").unlink()
    (etc / "link").symlink_to("two")
    assert content(tmp_path) != before


def test_a_place_is_compared_without_its_content(tmp_path: Path, etc: Path) -> None:
    """Pupils' files are no settings; only who may look at them is the role's business."""
    place = {"places": ["/etc/proxy"]}
    before = observer(tmp_path).digest(place)
    (etc / "more").write_text("")
    assert observer(tmp_path).digest(place) == before
    etc.chmod(0o700)
    assert observer(tmp_path).digest(place) != before


@pytest.mark.parametrize(
    "managed",
    [
        {"contents": ["/etc/missing"]},
        {"places": ["/etc/missing"]},
        {"containers": ["scratch4school-none"]},
        {"containers": ["scratch4school-stopped"]},
        {"containers": ["scratch4school-ill"]},
        {"loaded": ["scratch4school-stopped"]},
        {"networks": ["none"]},
        {"units": ["scratch4school-no-such-unit"]},
        {"asks": [{"container": "scratch4school-none", "argv": ["true"]}]},
    ],
    ids=str,
)
def test_what_is_missing_stopped_or_ill_is_never_settled(tmp_path: Path, managed: dict[str, Any]) -> None:
    """No digest at all, so that no stamp can ever say that this is as it should be."""
    stopped = {**CONTAINER, "State": {**CONTAINER["State"], "Running": False}}
    ill = {**CONTAINER, "State": {**CONTAINER["State"], "Health": {"Status": "unhealthy"}}}
    assert observer(tmp_path, stopped=stopped, ill=ill).digest(managed) == ""


def test_container_is_compared_by_identity(tmp_path: Path) -> None:
    """One that was made anew by hand under the same name may be made otherwise; a restart is no difference."""
    managed = {"containers": ["scratch4school-proxy"]}
    before = observer(tmp_path, proxy=CONTAINER).digest(managed)
    restarted = {**CONTAINER, "State": {**CONTAINER["State"], "StartedAt": "2026-11-24T14:00:00Z", "Pid": 2}}
    assert before
    assert observer(tmp_path, proxy=restarted).digest(managed) == before
    assert observer(tmp_path, proxy={**CONTAINER, "Id": "c2"}).digest(managed) != before


def test_stamp_is_for_root_and_forgets_what_is_not_settled(tmp_path: Path) -> None:
    """The others' stamps stay; a role with something missing loses its own."""
    path = tmp_path / "change" / "settled.json"
    host_survey.stamp(path, {"proxy": "d1", "app": "d2"}, {"proxy": "o1", "app": "o2"})
    host_survey.stamp(path, {"app": "d3"}, {"app": ""})
    assert json.loads(path.read_text()) == {"proxy": {"desired": "d1", "observed": "o1"}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["settled.json"]


def test_torn_stamp_is_none(tmp_path: Path) -> None:
    """After a power cut everything is looked at again."""
    (tmp_path / "settled.json").write_text('{"proxy": {"des')
    assert host_survey.loaded_json(tmp_path / "settled.json") == {}


def test_module_stamps_nothing_in_check_mode(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> None:
    """`--check` leaves no trace."""
    path = tmp_path / "settled.json"
    arguments = {"path": str(path), "desired": {"host": "d"}, "managed": {"host": {"places": [str(tmp_path)]}}}
    assert run_module("host_settled", check_mode=True, **arguments) == {"changed": False, "unsettled": []}
    assert not path.exists()
    run_module("host_settled", **arguments)
    assert path.exists()


def test_survey_answers_on_a_host_with_nothing(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> None:
    """A fresh server has no engine, no folder and no ledger; everything that is asked has an answer all the same."""
    data = tmp_path / "data"
    answer = run_module(
        "host_survey",
        data_directory=str(data),
        socket_directory=str(data / "run"),
        ledger=str(data / "ledger"),
        change_directory=str(data / "change"),
        ports=[1],
        managed={"host": {"places": [str(data)], "files": [str(tmp_path)], "sizes": [str(data)], "disks": [str(data)]}},
    )
    survey = answer["survey"]
    assert answer["changed"] is False
    assert survey["observed"] == {"host": ""}
    assert survey["files"] == {str(tmp_path): True}
    assert survey["sizes"] == {str(data): 0}
    assert survey["disk"][str(data)] > 0
    assert survey["slot"] == survey["ledger"] == survey["journal"] == ""
    assert survey["lock"] == survey["settled"] == {}
    json.dumps(survey)
