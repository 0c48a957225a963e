"""The program that switches slots, against an engine that is a small script: what it does, in which order."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Keeps its containers in a file, and a line for everything that it was told. What it cannot do it refuses loudly.
ENGINE = """\
import json, sys
from pathlib import Path
here, words = Path({here!r}), sys.argv[1:]
state = json.loads((here / "containers.json").read_text())
if (here / "away").exists():
    sys.exit("Cannot connect to the Docker daemon")
if (here / "mute").exists() and words[0] == "inspect" and "--format={{{{.State.Pid}}}}" not in words:
    sys.exit("it takes too long")
names = [word for word in words if word in state]
with (here / "told").open("a") as told:
    told.write(" ".join(word for word in words if not word.startswith("-")).replace("\\n", " ") + "\\n")
if words[0] == "inspect" and "--format={{{{.State.Pid}}}}" in words:
    pid = state.get(words[-1], {{}}).get("pid", 0)
    print(pid) if words[-1] in state else sys.exit("no such container")
elif words[0] == "inspect":
    print(json.dumps([
        {{"Name": "/" + name, "RestartCount": state[name].get("restarts", 0),
          "Config": {{"Labels": {{"scratch4school.release": state[name].get("release", "")}}, "Image": "app:1"}},
          "State": {{"Status": state[name]["state"], "StartedAt": "", "Pid": 0}}}} for name in names]))
elif words[0] in ("start", "restart"):
    if state[names[0]].get("broken") == "start":
        sys.exit("no space left on device")
    state[names[0]]["state"] = "running"
elif words[0] == "stop":
    state[names[0]]["state"] = "exited"
elif words[0] == "logs":
    print("its last line")
elif "PAUSE scratch4school" in words:
    sys.exit(state["scratch4school-pgbouncer"].get("pause", 0))
elif words[0] == "exec" and "curl" in words:
    slot = next(word for word in words if "gunicorn.sock" in word).split("/")[3]
    broken = state["scratch4school-app-" + slot].get("broken")
    print("the database is behind\\n503" if broken else "ready\\n200", end="")
elif words[0] == "exec" and "scratch4school.probe" in words:
    sys.exit(1 if state[names[0]].get("broken") else 0)
elif words[0] != "exec":
    sys.exit("the test's engine does not know " + " ".join(words))
(here / "containers.json").write_text(json.dumps(state))
"""

# systemd's tools only write down what they were told; what they answer is a file, if there is one.
SYSTEMD = """\
#!/bin/sh
echo "$(basename "$0") $*" >> {here}/told
cat {here}/jobs 2>/dev/null || true
"""


class Lab:
    """A host with two slots, and what it takes to look at it afterwards."""

    def __init__(self, here: Path, slots: ModuleType) -> None:
        self.here, self.slots = here, slots
        self.change, self.sockets = here / "change", here / "sockets"
        self.sockets.mkdir()
        self.marker = here / "marker"

    def containers(self, **containers: dict[str, Any]) -> None:
        """Say which containers there are: blue, green, proxy, postgres, pgbouncer."""
        named = {f"scratch4school-{'app-' if name in ('blue', 'green') else ''}{name}": held
                 for name, held in containers.items()}  # fmt: skip
        (self.here / "containers.json").write_text(json.dumps(named))

    def state(self, name: str) -> str:
        """What a container does now."""
        return json.loads((self.here / "containers.json").read_text())[f"scratch4school-{name}"]["state"]

    def point(self, slot: str) -> None:
        """Let a slot serve."""
        (self.sockets / "current").symlink_to(slot)

    @property
    def current(self) -> str:
        """The slot that serves."""
        return os.readlink(self.sockets / "current")

    @property
    def told(self) -> list[str]:
        """What changed something, in order: the questions are left out."""
        asking = ("inspect", "logs", "exec scratch4school-proxy curl", "systemctl list-jobs", "systemctl stop")
        lines = (self.here / "told").read_text().splitlines() if (self.here / "told").exists() else []
        return [line for line in lines if not line.startswith(asking)]

    @property
    def phases(self) -> list[str]:
        """What the journal says."""
        lines = (self.change / "journal.jsonl").read_text().splitlines()
        return [json.loads(line)["phase"] for line in lines]

    def lock(self, run: str = "r1") -> None:
        """Take the host's lock, as a deploy does before it calls the program."""
        changes = self.slots.host_change
        changes.begin(self.change, run=run, verb="deploy", owner=changes.whoami("anna@desk"))

    def run(self, *words: str) -> int:
        """Call the program."""
        return self.slots.main(words)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A host whose engine and whose systemd are scripts."""
    monkeypatch.syspath_prepend(str(ROOT / "plugins" / "module_utils"))
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "docker").write_text(f"#!{sys.executable}\n" + ENGINE.format(here=str(tmp_path)))
    for name in ("systemctl", "systemd-run"):
        (tools / name).write_text(SYSTEMD.format(here=tmp_path))
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    loader = SourceFileLoader("slots", str(ROOT / "roles" / "release" / "files" / "slots"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec = importlib.util.spec_from_loader("slots", loader)
    assert spec
    slots = importlib.util.module_from_spec(spec)
    loader.exec_module(slots)
    lab = Lab(tmp_path, slots)
    (tmp_path / "settings.json").write_text(
        json.dumps({
            "foundation": ["scratch4school-postgres", "scratch4school-pgbouncer"],
            "socket_directory": str(lab.sockets),
            "change_directory": str(lab.change),
            "ledger": str(tmp_path / "ledger.jsonl"),
        })
    )  # fmt: skip
    monkeypatch.setattr(slots, "SETTINGS", tmp_path / "settings.json")
    monkeypatch.setattr(slots, "MARKER", lab.marker)
    monkeypatch.setattr(slots, "POLL_SECONDS", 0.01)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGPIPE)}
    yield lab
    for number, handler in handlers.items():
        signal.signal(number, handler)


def serving(**blue: Any) -> dict[str, dict[str, Any]]:
    """A host on which blue serves release a, with everything below it."""
    return {
        "postgres": {"state": "running"},
        "pgbouncer": {"state": "running"},
        "proxy": {"state": "running", "pid": os.getpid()},
        "blue": {"state": "running", "release": "a", **blue},
    }


def test_the_new_release_is_ready_before_it_is_let_in(lab: Lab) -> None:
    """The link moves last, and the former release runs on until it is left."""
    lab.containers(**serving(), green={"state": "created", "release": "b"})
    lab.point("blue")
    lab.lock()
    assert lab.run("enter", "green", "--run", "r1") == 0
    assert (lab.current, lab.state("app-blue"), lab.state("app-green")) == ("green", "running", "running")
    assert lab.run("leave", "blue", "--run", "r1") == 0
    assert lab.told == ["start scratch4school-app-green", "stop 75 scratch4school-app-blue"]
    assert lab.phases == ["begin", "start", "switch", "drain", "stop"]


@pytest.mark.parametrize("broken", ["start", "ready"])
def test_one_that_cannot_serve_is_not_let_in(lab: Lab, capsys: pytest.CaptureFixture[str], broken: str) -> None:
    """The former one serves on, and the cause and its last lines are told."""
    lab.containers(**serving(), green={"state": "created", "release": "b", "broken": broken})
    lab.point("blue")
    lab.lock()
    assert lab.run("enter", "green", "--run", "r1", "--ready-seconds", "0.2") == 1
    assert (lab.current, lab.state("app-blue"), lab.state("app-green")) == ("blue", "running", "exited")
    said = capsys.readouterr().err
    assert ("no space left on device" if broken == "start" else "the database is behind") in said
    assert broken == "start" or "its last line" in said


def test_one_that_keeps_dying_is_given_up_early(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody waits a minute for what ends as soon as it is started."""
    lab.containers(**serving(), green={"state": "created", "release": "b", "broken": "ready", "restarts": 3})
    lab.point("blue")
    lab.lock()
    began = time.monotonic()
    assert lab.run("enter", "green", "--run", "r1", "--ready-seconds", "60") == 1
    assert time.monotonic() - began < 20
    assert "it ends as soon as it is started" in capsys.readouterr().err


def test_without_room_the_former_one_is_stopped_first_and_comes_back(lab: Lab) -> None:
    """It is started again when the new one cannot serve."""
    lab.containers(**serving(), green={"state": "created", "release": "b", "broken": "ready"})
    lab.point("blue")
    lab.lock()
    assert lab.run("enter", "green", "--run", "r1", "--stop-first", "--ready-seconds", "0.2") == 1
    assert (lab.current, lab.state("app-blue"), lab.state("app-green")) == ("blue", "running", "exited")
    assert lab.told[0] == "stop 75 scratch4school-app-blue"


@pytest.mark.parametrize("stop_first", [[], ["--stop-first"]])
def test_a_link_that_was_not_moved_is_not_written(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stop_first: list[str]
) -> None:
    """On a full disk the cause is told, the new slot is stopped, and the former one serves."""

    def full(host: object, slot: str) -> None:
        raise OSError(28, "No space left on device")

    lab.containers(**serving(), green={"state": "created", "release": "b", "broken": "ready"})
    lab.point("blue")
    lab.lock()
    monkeypatch.setattr(lab.slots.Host, "point", full)
    assert lab.run("enter", "green", "--run", "r1", "--ready-seconds", "0.2", *stop_first) == 1
    assert "the database is behind" in capsys.readouterr().err
    assert (lab.current, lab.state("app-blue"), lab.state("app-green")) == ("blue", "running", "exited")


@pytest.mark.parametrize("stop_first", [[], ["--stop-first"]])
def test_what_fails_after_the_switch_takes_pupils_back(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, stop_first: list[str]
) -> None:
    """A disk that fills at the last step leaves nobody at a slot that is stopped."""

    def full(folder: object) -> None:
        raise OSError(28, "No space left on device")

    lab.containers(**serving(), green={"state": "created", "release": "b"})
    lab.point("blue")
    lab.lock()
    monkeypatch.setattr(lab.slots.host_change, "release_hold", full)
    assert lab.run("enter", "green", "--run", "r1", *stop_first) == 1
    assert (lab.current, lab.state("app-blue"), lab.state("app-green")) == ("blue", "running", "exited")


def test_an_engine_that_does_not_answer_is_no_engine_without_containers(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows are not swapped under a release that serves on and that nobody could see."""
    lab.containers(**serving())
    lab.point("blue")
    lab.lock()
    (lab.here / "away").touch()
    assert lab.run("close", "--run", "r1", "--reason", "restore.yml is at work") == 1
    said = capsys.readouterr()
    assert ("Docker does not say what runs: Cannot connect" in said.err, "Nobody is served" in said.out) == (
        True,
        False,
    )
    assert lab.slots.host_change.read_hold(lab.change) == ""


def test_the_way_back_needs_no_answer(lab: Lab) -> None:
    """An engine that is slow to say what runs is told to start and to stop, and the link is moved."""
    lab.containers(**serving(), green={"state": "running", "release": "b"})
    lab.point("green")
    lab.lock()
    (lab.here / "mute").touch()
    assert lab.run("back", "blue", "--run", "r1") == 0
    assert (lab.current, lab.told) == ("blue", ["start scratch4school-app-blue"])
    assert lab.run("stop") == 0
    assert {lab.state("app-blue"), lab.state("app-green"), lab.state("postgres")} == {"exited"}


def test_a_slot_that_served_is_not_stopped_for_a_question(lab: Lab) -> None:
    """To enter where one is already may find the release unwell, and does not make that worse."""
    lab.containers(**serving(broken="ready"))
    lab.point("blue")
    lab.lock()
    assert lab.run("enter", "blue", "--run", "r1", "--ready-seconds", "0.2") == 1
    assert lab.state("app-blue") == "running"


def test_a_run_without_the_lock_changes_nothing(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """After `unlock.yml` the run whose lock was broken must not go on."""
    lab.containers(**serving(), green={"state": "created", "release": "b"})
    lab.point("blue")
    lab.lock("another")
    assert lab.run("enter", "green", "--run", "r1") == 1
    assert (lab.current, lab.told) == ("blue", [])
    assert "lost the lock" in capsys.readouterr().err


def test_back_is_a_rename_and_nothing_before_it(lab: Lab) -> None:
    """The warm slot serves again at once; the other one is stopped after that."""
    lab.containers(**serving(), green={"state": "running", "release": "b"})
    lab.point("green")
    lab.lock()
    assert lab.run("back", "blue", "--run", "r1") == 0
    assert (lab.current, lab.told) == ("blue", ["stop 75 scratch4school-app-green"])


def test_back_starts_a_former_release_that_was_stopped(lab: Lab) -> None:
    """It is let in when it is ready."""
    lab.containers(**serving(state="exited"), green={"state": "running", "release": "b"})
    lab.point("green")
    lab.lock()
    assert lab.run("back", "blue", "--run", "r1") == 0
    assert (lab.current, lab.state("app-blue"), lab.state("app-green")) == ("blue", "running", "exited")


def test_what_nobody_confirms_is_taken_back(lab: Lab) -> None:
    """systemd is asked before the switch, and what it runs writes the end of the change."""
    lab.containers(**serving(), green={"state": "created", "release": "b"})
    lab.point("blue")
    lab.lock()
    assert lab.run("enter", "green", "--run", "r1", "--confirm-seconds", "600") == 0
    assert "--on-active=600s" in lab.told[-1]
    assert lab.run("back", "blue", "--run", "r1", "--unconfirmed") == 0
    assert lab.current == "blue"
    assert lab.slots.host_change.read_lock(lab.change) is None
    assert json.loads((lab.here / "ledger.jsonl").read_text())["outcome"] == "reverted"


def test_a_late_timer_takes_nothing_back(lab: Lab) -> None:
    """The change that armed it is over, and another one may be under way."""
    lab.containers(**serving(), green={"state": "running", "release": "b"})
    lab.point("green")
    lab.lock("another")
    assert lab.run("back", "blue", "--run", "r1", "--unconfirmed") == 0
    assert lab.current == "green"


def test_the_slot_that_serves_is_not_left(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever mixes up the names does not stop the school."""
    lab.containers(**serving())
    lab.point("blue")
    lab.lock()
    assert lab.run("leave", "blue", "--run", "r1") == 1
    assert "serves the pupils" in capsys.readouterr().err
    assert lab.told == []


def test_a_writer_that_makes_way_comes_back_unless_another_is_let_in(lab: Lab) -> None:
    """Before SQLite is migrated the slot that serves is stopped, and what starts it again is armed first."""
    lab.containers(**serving())
    lab.point("blue")
    lab.lock()
    assert lab.run("leave", "blue", "--run", "r1", "--confirm-seconds", "20") == 0
    assert lab.told[0].startswith("systemd-run --quiet --collect --unit=scratch4school-confirm --on-active=20s")
    assert lab.told[0].endswith("back blue --run r1 --unconfirmed")
    assert lab.told[1:] == ["stop 75 scratch4school-app-blue"]
    assert lab.run("back", "blue", "--run", "r1", "--unconfirmed") == 0
    assert (lab.current, lab.state("app-blue"), lab.phases[-1]) == ("blue", "running", "end")
    assert not (lab.here / "ledger.jsonl").exists(), "nothing new had served, so there is nothing to revert"


def test_a_reload_swaps_with_the_spare_under_its_own_lock(lab: Lab) -> None:
    """And what it stops is the spare from then on."""
    lab.containers(**serving(), green={"state": "created", "release": "a"})
    lab.point("blue")
    assert lab.run("restart") == 0
    assert (lab.current, lab.state("app-blue"), lab.state("app-green")) == ("green", "exited", "running")
    assert lab.phases == ["begin", "start", "switch", "drain", "stop", "end"]
    assert lab.run("restart") == 0
    assert lab.current == "blue"


def test_a_reload_is_refused_while_somebody_changes_the_host(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """With who it is."""
    lab.containers(**serving(), green={"state": "created", "release": "a"})
    lab.point("blue")
    lab.lock()
    assert lab.run("restart") == 1
    assert (lab.current, lab.told) == ("blue", [])
    assert "deploy by anna@desk" in capsys.readouterr().err


def test_a_reload_never_brings_in_another_release(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the one that serves there may be the one before it, whose schema is another."""
    lab.containers(**serving(), green={"state": "exited", "release": "b"})
    lab.point("blue")
    assert lab.run("restart") == 1
    assert (lab.current, lab.told) == ("blue", [])
    assert "no spare" in capsys.readouterr().err


def test_the_unit_starts_from_the_database_outwards_and_no_spare(lab: Lab) -> None:
    """As after a reboot."""
    down = {name: {**held, "state": "exited"} for name, held in serving().items()}
    lab.containers(**down, green={"state": "created", "release": "a"})
    lab.point("blue")
    assert lab.run("start") == 0
    assert lab.told == [f"start scratch4school-{name}" for name in ("postgres", "pgbouncer", "app-blue", "proxy")]
    assert lab.state("app-green") == "created"


def test_the_unit_stops_from_the_pupils_inwards(lab: Lab) -> None:
    """The proxy first: no new request, then no unfinished save."""
    lab.containers(**serving(), green={"state": "created", "release": "a"})
    lab.point("blue")
    assert lab.run("stop") == 0
    assert [line.split("-", 1)[1] for line in lab.told] == ["proxy", "app-blue", "pgbouncer", "postgres"]


def test_a_restart_of_the_unit_stops_nothing_and_swaps(lab: Lab) -> None:
    """To systemd it is a stop and a start; the first half only leaves a mark for the second."""
    lab.containers(**serving(), green={"state": "created", "release": "a"})
    lab.point("blue")
    (lab.here / "jobs").write_text("431 scratch4school.service restart waiting\n")
    assert lab.run("stop") == 0
    assert (lab.told, lab.marker.exists()) == ([], True)
    assert lab.run("start") == 0
    assert (lab.current, lab.state("app-blue"), lab.marker.exists()) == ("green", "exited", False)


def test_a_restart_of_a_unit_that_is_down_starts_it(lab: Lab) -> None:
    """Then there is nothing to swap."""
    lab.containers(**{name: {**held, "state": "exited"} for name, held in serving().items()})
    lab.point("blue")
    (lab.here / "jobs").write_text("431 scratch4school.service restart waiting\n")
    assert lab.run("stop") == 0
    assert not lab.marker.exists()
    assert lab.run("start") == 0
    assert lab.state("app-blue") == "running"


def test_a_refused_restart_fails_and_leaves_the_unit_active(lab: Lab) -> None:
    """A failed unit would not be stopped at the next shutdown, so systemd is asked to start it once more."""
    lab.containers(**serving(), green={"state": "created", "release": "a"})
    lab.point("blue")
    lab.marker.touch()
    lab.lock()
    assert lab.run("start") == 1
    assert lab.current == "blue"
    assert lab.told[-1].endswith("systemctl start scratch4school.service")


def test_postgres_is_restarted_inside_a_pause_that_ends_by_itself(lab: Lab) -> None:
    """Its end is armed before it begins, and disarmed at last."""
    lab.containers(**serving())
    lab.lock()
    assert lab.run("component", "postgres", "--run", "r1") == 0
    steps = [word for line in lab.told for word in ("systemd-run", "PAUSE", "restart", "RESUME") if word in line]
    # The line that arms the pause's end names the end.
    assert steps == ["systemd-run", "RESUME", "PAUSE", "restart", "RESUME"]


def test_a_transaction_that_does_not_end_refuses_the_restart(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """Pupils go on, and the sentence says where to look."""
    lab.containers(**{**serving(), "pgbouncer": {"state": "running", "pause": 124}})
    assert lab.run("component", "postgres") == 1
    assert not any(line.startswith("restart") for line in lab.told)
    assert "RESUME" in lab.told[-1]
    assert "did not end within 5 seconds" in capsys.readouterr().err


def test_what_is_not_on_the_host_cannot_be_restarted(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """With SQLite there is neither server nor pooler."""
    settings = json.loads((lab.here / "settings.json").read_text())
    (lab.here / "settings.json").write_text(json.dumps({**settings, "foundation": []}))
    assert lab.run("component", "postgres") == 1
    assert capsys.readouterr().err == "There is no postgres on this host.\n"


@pytest.fixture
def gunicorn(tmp_path: Path) -> Iterator[Callable[[str], tuple[int, Path]]]:
    """Starts a process that accepts and never answers; returns its number and its socket."""
    running = []

    def begin(slot: str) -> tuple[int, Path]:
        path = tmp_path / slot / "gunicorn.sock"
        path.parent.mkdir()
        listening = (
            "import socket,sys; s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print(flush=True);"
        )
        holding = "held=[];\nwhile True: held.append(s.accept()); print(flush=True)"
        process = subprocess.Popen([sys.executable, "-c", listening + holding, str(path)], stdout=subprocess.PIPE)
        running.append(process)
        assert process.stdout
        process.stdout.readline()
        return process.pid, path

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def test_requests_in_flight_are_told_apart_by_slot(lab: Lab, gunicorn: Callable[[str], tuple[int, Path]]) -> None:
    """Both slots' sockets have one name to the kernel; whose they are say the processes that hold them open."""
    blue, path = gunicorn("blue")
    green, _ = gunicorn("green")
    lab.containers(
        proxy={"state": "running", "pid": os.getpid()},
        blue={"state": "running", "pid": blue},
        green={"state": "running", "pid": green},
    )
    host = lab.slots.Host(json.loads((lab.here / "settings.json").read_text()))
    assert (host.in_flight("blue"), host.in_flight("green")) == (0, 0)
    with socket.socket(socket.AF_UNIX) as request:
        request.connect(str(path))
        assert lab.slots.wait(lambda: host.in_flight("blue") == 1, 5)
        assert host.in_flight("green") == 0


def test_a_controller_that_is_gone_stops_nothing(lab: Lab) -> None:
    """A cut connection is a SIGHUP and a closed pipe; the program goes on to the end of its step."""
    lab.containers(**serving(), green={"state": "created", "release": "b"})
    lab.point("blue")
    lab.lock()
    program = (
        "import os, signal, sys; from importlib.machinery import SourceFileLoader; from pathlib import Path;"
        f"slots = SourceFileLoader('slots', {str(ROOT / 'roles/release/files/slots')!r}).load_module();"
        f"slots.SETTINGS = Path({str(lab.here / 'settings.json')!r});"
        "ready = slots.become_ready;"
        "slots.become_ready = lambda *all: (os.kill(os.getpid(), signal.SIGHUP), ready(*all));"
        "sys.exit(slots.main(['enter', 'green', '--run', 'r1']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-B", "-W", "ignore", "-c", program],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "plugins" / "module_utils")},
    )
    assert process.stdout
    process.stdout.close()
    process.wait(30)
    assert lab.current == "green"


def test_closed_nobody_gets_in_until_a_slot_is_entered(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a boot nor systemd's unit lets pupils at rows and files that are changing places."""
    lab.containers(**serving(), green={"state": "created", "release": "a"})
    lab.point("blue")
    lab.lock()
    assert lab.run("close", "--run", "r1", "--reason", "restore.yml is bringing back 1a2b") == 0
    assert lab.state("app-blue") == "exited"
    assert lab.run("start") == 0
    assert (lab.state("app-blue"), lab.state("proxy")) == ("exited", "running")
    assert "because restore.yml is bringing back 1a2b" in capsys.readouterr().out
    assert lab.run("restart", "--run", "r1") == 1
    assert "-e undo=true" in capsys.readouterr().err
    assert lab.run("enter", "green", "--run", "r1") == 0
    assert (lab.current, lab.slots.host_change.read_hold(lab.change)) == ("green", "")


@pytest.mark.parametrize("command", [("open",), ("back", "blue")])
def test_closed_and_let_in_again(lab: Lab, command: tuple[str, ...]) -> None:
    """The slot that served before serves again, and nothing is held any more."""
    lab.containers(**serving(), green={"state": "exited", "release": "a"})
    lab.point("blue")
    lab.lock()
    assert lab.run("close", "--run", "r1", "--reason", "x") == 0
    assert lab.run(*command, "--run", "r1") == 0
    assert (lab.current, lab.state("app-blue")) == ("blue", "running")
    assert lab.slots.host_change.read_hold(lab.change) == ""


def test_what_cannot_be_let_in_stays_closed(lab: Lab) -> None:
    """A slot that does not become ready is no reason to forget that nobody is served."""
    lab.containers(**serving(broken="ready"))
    lab.point("blue")
    lab.lock()
    assert lab.run("close", "--run", "r1", "--reason", "x") == 0
    lab.slots.COMPONENT_SECONDS = 0.1
    assert lab.run("open", "--run", "r1") == 1
    assert lab.slots.host_change.read_hold(lab.change) == "x"
