"""Questions to kernel, Docker's engine, application and systemd, and how the program reads the answers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import script

from scratch4school_host import docker, machine, systemd
from scratch4school_host.docker import Engine
from scratch4school_host.errors import OperatorError
from scratch4school_host.processes import TIMED_OUT, execute
from scratch4school_host.slots import readiness
from scratch4school_host.slots.state import live_slot

PROXY = {"Id": "c1", "Name": "/scratch4school-proxy", "State": {"Status": "running"}}
TIMER = "scratch4school-backup.timer"


def test_memory_is_in_megabytes() -> None:
    """The total, and the memory that a new process could have."""
    text = "MemTotal:        2048000 kB\nMemFree: 100 kB\nMemAvailable:    1024000 kB\n"
    assert machine.memory(text) == {"total_mb": 2000, "available_mb": 1000}


def test_engine_is_asked_over_its_socket(short: Path, serve: Callable[..., None]) -> None:
    """Only containers with the prefix are described; one that was removed meanwhile is left out."""
    serve(
        short / "docker.sock",
        {
            "/info": {"ServerVersion": "26"},
            "/containers/json?all=1": [
                {"Id": "c1", "Names": ["/scratch4school-proxy"]},
                {"Id": "c2", "Names": ["/scratch4school-app-blue"]},
                {"Id": "c3", "Names": ["/something-else"]},
            ],
            "/containers/c1/json": PROXY,
        },
    )
    engine = Engine(str(short / "docker.sock"))
    assert engine.get("/info") == {"ServerVersion": "26"}
    assert engine.get("/networks/none") is None
    assert engine.containers("scratch4school-") == {"scratch4school-proxy": PROXY}


def test_host_without_an_engine_has_no_answers(tmp_path: Path) -> None:
    """Before the first deploy there is no socket."""
    engine = Engine(str(tmp_path / "docker.sock"))
    assert engine.get("/info") is None
    assert engine.containers("scratch4school-") == {}


def test_live_slot_is_asked_whether_it_is_ready(short: Path, serve: Callable[..., None]) -> None:
    """The link names the slot; its answer says release and schema also when it is not ready."""
    (short / "blue").mkdir()
    (short / "current").symlink_to("blue")
    answers: dict[str, Any] = {
        "/readyz": {"release": "r1", "schema": "0003", "status": "ready", "last_login": "2026-11-24T16:50:00Z"}
    }
    serve(short / "blue" / "gunicorn.sock", answers)
    slot = live_slot(short)
    assert slot == "blue"
    assert readiness.ask(str(short), slot) == {
        "ok": True,
        "release": "r1",
        "schema": "0003",
        "last_login": "2026-11-24T16:50:00Z",
        "error": "",
    }
    answers["/readyz"] = (503, {"release": "r1", "schema": None, "last_login": None, "error": "database: gone"})
    assert readiness.ask(str(short), slot) == {
        "ok": False,
        "release": "r1",
        "schema": "",
        "last_login": "",
        "error": "database: gone",
    }


def test_slot_that_does_not_name_a_login_is_ready(short: Path, serve: Callable[..., None]) -> None:
    """Before the first login there is none to name."""
    (short / "blue").mkdir()
    serve(short / "blue" / "gunicorn.sock", {"/readyz": {"release": "r1", "schema": "0003"}})
    found = readiness.ask(str(short), "blue")
    assert (found["ok"], found["last_login"]) == (True, "")


def test_missing_slot_is_not_ready(tmp_path: Path) -> None:
    """Before the first release, and where no process listens."""
    assert live_slot(tmp_path) == ""
    assert not readiness.ask(str(tmp_path), "")["ok"]
    assert not readiness.ask(str(tmp_path), "green")["ok"]


def test_unit_state_is_asked_by_name(tools: Path) -> None:
    """A value may contain an equals sign."""
    script(
        tools / "systemctl",
        f'#!/bin/sh\necho "$*" > {tools}/asked\nprintf "LoadState=loaded\\nNextElapseUSecRealtime=a=b\\n\\n"\n',
    )
    assert systemd.unit_state(TIMER) == {"LoadState": "loaded", "NextElapseUSecRealtime": "a=b"}
    asked = (tools / "asked").read_text().split()
    assert (asked[0], asked[-1]) == ("show", TIMER)
    assert "NextElapseUSecRealtime" in asked[1]


@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 1\n", None], ids=["fails", "missing"])
def test_unit_state_is_empty_when_systemd_does_not_answer(
    tools: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    """As in a container without systemd."""
    monkeypatch.setenv("PATH", str(tools))
    if text:
        script(tools / "systemctl", text)
    assert systemd.unit_state(TIMER) == {}


@pytest.mark.parametrize(
    ("state", "when"),
    [
        (
            {"NextElapseUSecRealtime": "Wed 2026-11-25 02:15:00 CET", "SubState": "waiting"},
            "Wed 2026-11-25 02:15:00 CET",
        ),
        ({"NextElapseUSecRealtime": "", "SubState": "running"}, "runs now"),
        ({"NextElapseUSecRealtime": "", "SubState": "elapsed"}, ""),
        ({}, ""),
    ],
)
def test_next_run_is_never_only_when_neither_time_nor_service_is_pending(state: dict[str, str], when: str) -> None:
    """While the timer's service runs, systemd may know no next time yet."""
    assert systemd.next_run(state) == when


def test_command_that_takes_too_long_is_cut_off() -> None:
    """With the status that timeout(1) has for it, and a message."""
    ended = execute([sys.executable, "-c", "import time; time.sleep(30)"], 0.2)
    assert (ended.returncode, "took more than 0.2 seconds" in ended.stderr) == (TIMED_OUT, True)


def test_failure_of_docker_is_passed_on_whole(tools: Path) -> None:
    """Its cause is in the first line, and the last one only names the container."""
    script(
        tools / "docker",
        "#!/bin/sh\necho 'Error response from daemon: no space' >&2\necho 'Error: failed' >&2\nexit 1\n",
    )
    with pytest.raises(OperatorError, match=r"`docker start app` failed: Error response from daemon: no space\nError"):
        docker.must("start", "app")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("psql: notice\nERROR:  relation missing\nLINE 1: x\n", "ERROR:  relation missing"),
        ("docker: Error response from daemon: no such image.\nSee 'docker run --help'.\n", None),
        (b"first\nlast\n", "last"),
        ("", "it printed nothing"),
    ],
)
def test_last_message_is_the_line_with_the_error(text: str | bytes, message: str | None) -> None:
    """Marked as an error by the program or by Docker; without such a line the last one."""
    assert docker.last_message(text) == (message or str(text).splitlines()[0])
