"""The commands of slots, components and maintenance mode, against an engine that is a small script."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import PATIENCE, run_command, script, slots_settings, write_settings

from scratch4school_host import locking
from scratch4school_host.errors import LockHeldError
from scratch4school_host.settings import SlotsSettings
from scratch4school_host.slots import switching, unit
from scratch4school_host.slots.state import Slots

SOURCES = Path(locking.__file__).parents[1]

# Keeps its containers in a file, and a line for each command. What it cannot do it refuses loudly.
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

# systemd's tools only write down their commands; their answer is a file, if there is one.
SYSTEMD = """\
#!/bin/sh
echo "$(basename "$0") $*" >> {here}/told
cat {here}/jobs 2>/dev/null || true
"""


class Lab:
    """A host with two slots, and what a test asks of it afterwards."""

    def __init__(self, here: Path) -> None:
        self.here = here
        self.change, self.sockets = here / "change", here / "sockets"
        self.sockets.mkdir()
        self.marker = here / "marker"

    @property
    def slots(self) -> Slots:
        """The slots by the settings of this host."""
        return Slots(SlotsSettings.read(self.here / "settings"))

    def containers(self, **containers: dict[str, Any]) -> None:
        """Say which containers there are: blue, green, proxy, postgres, pgbouncer."""
        named = {f"scratch4school-{'app-' if name in ('blue', 'green') else ''}{name}": held
                 for name, held in containers.items()}  # fmt: skip
        (self.here / "containers.json").write_text(json.dumps(named))

    def state(self, name: str) -> str:
        """The state of a container now."""
        return json.loads((self.here / "containers.json").read_text())[f"scratch4school-{name}"]["state"]

    def point(self, slot: str) -> None:
        """Make a slot the live one."""
        (self.sockets / "current").symlink_to(slot)

    @property
    def current(self) -> str:
        """The slot that is live."""
        return os.readlink(self.sockets / "current")

    @property
    def told(self) -> list[str]:
        """The commands that changed something, in order: questions are left out."""
        asking = ("inspect", "logs", "exec scratch4school-proxy curl", "systemctl list-jobs", "systemctl stop")
        lines = (self.here / "told").read_text().splitlines() if (self.here / "told").exists() else []
        return [line for line in lines if not line.startswith(asking)]

    @property
    def phases(self) -> list[str]:
        """The phases in the audit log."""
        lines = (self.change / "audit.jsonl").read_text().splitlines()
        return [json.loads(line)["phase"] for line in lines]

    @property
    def maintenance(self) -> str:
        """Why maintenance mode is on; '' when it is not."""
        return locking.maintenance_reason(self.change)

    def lock(self, run: str = "r1") -> None:
        """Take the host's lock, as a deploy does before it calls the program."""
        locking.begin(self.change, run=run, verb="deploy", owner=locking.owner("anna@desk"))

    def run(self, *arguments: str) -> int:
        """Run a command; what it prints is in `output` and `errors`."""
        ended = run_command(self.here / "settings", *arguments)
        self.output, self.errors = ended.stdout, ended.stderr
        return ended.returncode


@pytest.fixture
def lab(tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A host whose engine and whose systemd are scripts."""
    script(tools / "docker", f"#!{sys.executable}\n" + ENGINE.format(here=str(tmp_path)))
    for name in ("systemctl", "systemd-run"):
        script(tools / name, SYSTEMD.format(here=tmp_path))
    (tmp_path / "releases").mkdir()
    write_settings(tmp_path / "settings", "slots", slots_settings(tmp_path))
    monkeypatch.setattr(unit, "MARKER", tmp_path / "marker")
    monkeypatch.setattr(switching, "POLL_SECONDS", 0.01)
    return Lab(tmp_path)


def live_host(**blue: Any) -> dict[str, dict[str, Any]]:
    """A host on which blue is live with release a, and everything that it depends on runs."""
    return {
        "postgres": {"state": "running"},
        "pgbouncer": {"state": "running"},
        "proxy": {"state": "running", "pid": os.getpid()},
        "blue": {"state": "running", "release": "a", **blue},
    }


def test_new_release_is_ready_before_the_switch(lab: Lab) -> None:
    """The link moves last, and the previous release runs until it is drained."""
    lab.containers(**live_host(), green={"state": "created", "release": "b"})
    lab.point("blue")
    lab.lock()
    assert lab.run("slots", "activate", "green", "--run", "r1") == 0
    assert (lab.current, lab.state("app-blue"), lab.state("app-green")) == ("green", "running", "running")
    assert lab.run("slots", "drain", "blue", "--run", "r1") == 0
    assert lab.told == ["start scratch4school-app-green", "stop scratch4school-app-blue"]
    assert lab.phases == ["begin", "start", "switch", "drain", "stop"]


@pytest.mark.parametrize("broken", ["start", "ready"])
def test_release_that_does_not_become_ready_is_not_activated(lab: Lab, broken: str) -> None:
    """The previous one stays live; cause and last lines are printed."""
    lab.containers(**live_host(), green={"state": "created", "release": "b", "broken": broken})
    lab.point("blue")
    lab.lock()
    assert lab.run("slots", "activate", "green", "--run", "r1", "--ready-seconds", "0.2") == 1
    assert (lab.current, lab.state("app-blue"), lab.state("app-green")) == ("blue", "running", "exited")
    assert ("no space left on device" if broken == "start" else "the database is behind") in lab.errors
    assert broken == "start" or "its last line" in lab.errors


def test_release_that_keeps_ending_is_given_up_early(lab: Lab) -> None:
    """It is asked once, and not again until its time has passed."""
    lab.containers(**live_host(), green={"state": "created", "release": "b", "broken": "ready", "restarts": 3})
    lab.point("blue")
    lab.lock()
    assert lab.run("slots", "activate", "green", "--run", "r1", "--ready-seconds", str(PATIENCE)) == 1
    assert "its process exits at once" in lab.errors
    assert (lab.here / "told").read_text().count("exec scratch4school-proxy curl") == 1


def test_previous_release_that_was_stopped_first_is_started_again(lab: Lab) -> None:
    """When the new one does not become ready."""
    lab.containers(**live_host(), green={"state": "created", "release": "b", "broken": "ready"})
    lab.point("blue")
    lab.lock()
    assert lab.run("slots", "activate", "green", "--run", "r1", "--stop-first", "--ready-seconds", "0.2") == 1
    assert (lab.current, lab.state("app-blue"), lab.state("app-green")) == ("blue", "running", "exited")
    assert lab.told[0] == "stop scratch4school-app-blue"


@pytest.mark.parametrize("stop_first", [[], ["--stop-first"]])
def test_link_that_was_not_moved_is_not_written(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, stop_first: list[str]
) -> None:
    """On a full disk the cause is printed, the new slot is stopped, and the previous one is live."""

    def full(host: object, slot: str) -> None:
        raise OSError(28, "No space left on device")

    lab.containers(**live_host(), green={"state": "created", "release": "b", "broken": "ready"})
    lab.point("blue")
    lab.lock()
    monkeypatch.setattr(Slots, "switch_to", full)
    assert lab.run("slots", "activate", "green", "--run", "r1", "--ready-seconds", "0.2", *stop_first) == 1
    assert "the database is behind" in lab.errors
    assert (lab.current, lab.state("app-blue"), lab.state("app-green")) == ("blue", "running", "exited")


@pytest.mark.parametrize("stop_first", [[], ["--stop-first"]])
def test_failure_after_the_switch_reverts_it(lab: Lab, monkeypatch: pytest.MonkeyPatch, stop_first: list[str]) -> None:
    """A disk that fills up at the last step leaves no stopped slot live."""

    def full(folder: object) -> None:
        raise OSError(28, "No space left on device")

    lab.containers(**live_host(), green={"state": "created", "release": "b"})
    lab.point("blue")
    lab.lock()
    monkeypatch.setattr(locking, "end_maintenance", full)
    assert lab.run("slots", "activate", "green", "--run", "r1", *stop_first) == 1
    assert (lab.current, lab.state("app-blue"), lab.state("app-green")) == ("blue", "running", "exited")


def test_maintenance_mode_is_refused_when_docker_does_not_answer(lab: Lab) -> None:
    """A slot may be live, and its data must not be replaced."""
    lab.containers(**live_host())
    lab.point("blue")
    lab.lock()
    (lab.here / "away").touch()
    assert lab.run("maintenance", "on", "--run", "r1", "--reason", "restore.yml is at work") == 1
    assert "`docker inspect` failed: Cannot connect" in lab.errors
    assert "Maintenance mode is on" not in lab.output
    assert lab.maintenance == ""


def test_revert_works_without_an_answer_of_docker(lab: Lab) -> None:
    """`docker inspect` failed. The program still starts and stops containers, and changes the link."""
    lab.containers(**live_host(), green={"state": "running", "release": "b"})
    lab.point("green")
    lab.lock()
    (lab.here / "mute").touch()
    assert lab.run("slots", "revert", "blue", "--run", "r1") == 0
    assert (lab.current, lab.told) == ("blue", ["start scratch4school-app-blue"])
    assert lab.run("slots", "stop") == 0
    assert {lab.state("app-blue"), lab.state("app-green"), lab.state("postgres")} == {"exited"}


def test_live_slot_that_is_activated_again_is_not_stopped(lab: Lab) -> None:
    """It may not be ready; stopping it would make that worse."""
    lab.containers(**live_host(broken="ready"))
    lab.point("blue")
    lab.lock()
    assert lab.run("slots", "activate", "blue", "--run", "r1", "--ready-seconds", "0.2") == 1
    assert lab.state("app-blue") == "running"


def test_run_without_the_lock_changes_nothing(lab: Lab) -> None:
    """As after `unlock.yml`."""
    lab.containers(**live_host(), green={"state": "created", "release": "b"})
    lab.point("blue")
    lab.lock("another")
    assert lab.run("slots", "activate", "green", "--run", "r1") == 1
    assert (lab.current, lab.told) == ("blue", [])
    assert "lost the lock" in lab.errors


def test_revert_to_a_running_slot_is_only_a_rename(lab: Lab) -> None:
    """The other slot is stopped after that."""
    lab.containers(**live_host(), green={"state": "running", "release": "b"})
    lab.point("green")
    lab.lock()
    assert lab.run("slots", "revert", "blue", "--run", "r1") == 0
    assert (lab.current, lab.told) == ("blue", ["stop scratch4school-app-green"])


def test_revert_starts_a_slot_that_was_stopped(lab: Lab) -> None:
    """It is live when it is ready."""
    lab.containers(**live_host(state="exited"), green={"state": "running", "release": "b"})
    lab.point("green")
    lab.lock()
    assert lab.run("slots", "revert", "blue", "--run", "r1") == 0
    assert (lab.current, lab.state("app-blue"), lab.state("app-green")) == ("blue", "running", "exited")


def test_unconfirmed_activation_is_reverted(lab: Lab) -> None:
    """systemd is asked before the switch, and the command that it runs writes the end of the change."""
    lab.containers(**live_host(), green={"state": "created", "release": "b"})
    lab.point("blue")
    lab.lock()
    assert lab.run("slots", "activate", "green", "--run", "r1", "--confirm-seconds", "600") == 0
    assert "--on-active=600s" in lab.told[-1]
    assert lab.run("slots", "revert", "blue", "--run", "r1", "--unconfirmed") == 0
    assert lab.current == "blue"
    assert locking.read_lock(lab.change) is None
    assert json.loads((lab.here / "releases" / "ledger.jsonl").read_text())["outcome"] == "reverted"


def test_late_timer_reverts_nothing(lab: Lab) -> None:
    """Its change is over, and another one may be under way."""
    lab.containers(**live_host(), green={"state": "running", "release": "b"})
    lab.point("green")
    lab.lock("another")
    assert lab.run("slots", "revert", "blue", "--run", "r1", "--unconfirmed") == 0
    assert lab.current == "green"


def test_live_slot_is_not_drained(lab: Lab) -> None:
    """A mistyped name must not stop the school."""
    lab.containers(**live_host())
    lab.point("blue")
    lab.lock()
    assert lab.run("slots", "drain", "blue", "--run", "r1") == 1
    assert "is live, so it is not drained" in lab.errors
    assert lab.told == []


def test_drained_live_slot_is_started_again_unless_another_is_activated(lab: Lab) -> None:
    """Before SQLite is migrated the live slot is stopped; its start is scheduled before that."""
    lab.containers(**live_host())
    lab.point("blue")
    lab.lock()
    assert lab.run("slots", "drain", "blue", "--run", "r1", "--confirm-seconds", "20") == 0
    assert lab.told[0].startswith("systemd-run --quiet --collect --unit=scratch4school-confirm --on-active=20s")
    assert lab.told[0].endswith("slots revert blue --run r1 --unconfirmed")
    assert lab.told[1:] == ["stop scratch4school-app-blue"]
    assert lab.run("slots", "revert", "blue", "--run", "r1", "--unconfirmed") == 0
    assert (lab.current, lab.state("app-blue"), lab.phases[-1]) == ("blue", "running", "end")
    assert not (lab.here / "releases" / "ledger.jsonl").exists(), (
        "nothing new had served, so there is nothing to revert"
    )


def test_reload_activates_the_standby_under_its_own_lock(lab: Lab) -> None:
    """The slot that it stops is the standby from then on."""
    lab.containers(**live_host(), green={"state": "created", "release": "a"})
    lab.point("blue")
    assert lab.run("slots", "restart") == 0
    assert (lab.current, lab.state("app-blue"), lab.state("app-green")) == ("green", "exited", "running")
    assert lab.phases == ["begin", "start", "switch", "drain", "stop", "end"]
    assert lab.run("slots", "restart") == 0
    assert lab.current == "blue"


def test_reload_is_refused_during_another_change(lab: Lab) -> None:
    """With the name of that change, and an exit status of its own."""
    lab.containers(**live_host(), green={"state": "created", "release": "a"})
    lab.point("blue")
    lab.lock()
    assert lab.run("slots", "restart") == LockHeldError.status
    assert (lab.current, lab.told) == ("blue", [])
    assert "deploy by anna@desk" in lab.errors


def test_reload_never_activates_another_release(lab: Lab) -> None:
    """The other slot may have the previous release, whose schema is another one."""
    lab.containers(**live_host(), green={"state": "exited", "release": "b"})
    lab.point("blue")
    assert lab.run("slots", "restart") == 1
    assert (lab.current, lab.told) == ("blue", [])
    assert "no standby" in lab.errors


def test_unit_starts_from_the_database_to_the_proxy(lab: Lab) -> None:
    """As after a reboot; the standby stays as it is."""
    down = {name: {**held, "state": "exited"} for name, held in live_host().items()}
    lab.containers(**down, green={"state": "created", "release": "a"})
    lab.point("blue")
    assert lab.run("slots", "start") == 0
    assert lab.told == [f"start scratch4school-{name}" for name in ("postgres", "pgbouncer", "app-blue", "proxy")]
    assert lab.state("app-green") == "created"


def test_unit_stops_from_the_proxy_to_the_database(lab: Lab) -> None:
    """First no new request, then no unfinished save."""
    lab.containers(**live_host(), green={"state": "created", "release": "a"})
    lab.point("blue")
    assert lab.run("slots", "stop") == 0
    assert [line.split("-", 1)[1] for line in lab.told] == ["proxy", "app-blue", "pgbouncer", "postgres"]


def test_restart_of_the_unit_activates_the_standby(lab: Lab) -> None:
    """To systemd it is a stop and a start; the first half only leaves a mark for the second."""
    lab.containers(**live_host(), green={"state": "created", "release": "a"})
    lab.point("blue")
    (lab.here / "jobs").write_text("431 scratch4school.service restart waiting\n")
    assert lab.run("slots", "stop") == 0
    assert (lab.told, lab.marker.exists()) == ([], True)
    assert lab.run("slots", "start") == 0
    assert (lab.current, lab.state("app-blue"), lab.marker.exists()) == ("green", "exited", False)


def test_restart_of_a_stopped_unit_starts_it(lab: Lab) -> None:
    """There is no live slot to replace."""
    lab.containers(**{name: {**held, "state": "exited"} for name, held in live_host().items()})
    lab.point("blue")
    (lab.here / "jobs").write_text("431 scratch4school.service restart waiting\n")
    assert lab.run("slots", "stop") == 0
    assert not lab.marker.exists()
    assert lab.run("slots", "start") == 0
    assert lab.state("app-blue") == "running"


def test_refused_restart_fails_and_leaves_the_unit_active(lab: Lab) -> None:
    """A failed unit would not be stopped at the next shutdown, so systemd is asked to start it again."""
    lab.containers(**live_host(), green={"state": "created", "release": "a"})
    lab.point("blue")
    lab.marker.touch()
    lab.lock()
    assert lab.run("slots", "start") == LockHeldError.status
    assert lab.current == "blue"
    assert lab.told[-1].endswith("systemctl start scratch4school.service")


def test_postgres_is_restarted_within_a_pause_that_ends_by_itself(lab: Lab) -> None:
    """Its end is scheduled before it begins, and cancelled at last."""
    lab.containers(**live_host())
    lab.lock()
    assert lab.run("component", "restart", "postgres", "--run", "r1") == 0
    steps = [word for line in lab.told for word in ("systemd-run", "PAUSE", "restart", "RESUME") if word in line]
    # The line that arms the pause's end names the end.
    assert steps == ["systemd-run", "RESUME", "PAUSE", "restart", "RESUME"]


def test_restart_is_refused_when_a_transaction_does_not_end(lab: Lab) -> None:
    """Clients go on, and the message says where to look."""
    lab.containers(**{**live_host(), "pgbouncer": {"state": "running", "pause": 124}})
    assert lab.run("component", "restart", "postgres") == 1
    assert not any(line.startswith("restart") for line in lab.told)
    assert "RESUME" in lab.told[-1]
    assert "did not end within 5 seconds" in lab.errors


def test_restart_of_a_missing_component_is_refused(lab: Lab) -> None:
    """With SQLite there is neither PostgreSQL nor PgBouncer."""
    write_settings(lab.here / "settings", "slots", {"dependencies": []})
    assert lab.run("component", "restart", "postgres") == 1
    assert lab.errors == "There is no postgres on this host, whose database is SQLite; use proxy.\n"


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


def test_requests_in_flight_are_counted_by_slot(lab: Lab, gunicorn: Callable[[str], tuple[int, Path]]) -> None:
    """Both slots' sockets have one name to the kernel; the processes that have them open tell them apart."""
    blue, path = gunicorn("blue")
    green, _ = gunicorn("green")
    lab.containers(
        proxy={"state": "running", "pid": os.getpid()},
        blue={"state": "running", "pid": blue},
        green={"state": "running", "pid": green},
    )
    host = lab.slots
    assert (host.in_flight("blue"), host.in_flight("green")) == (0, 0)
    with socket.socket(socket.AF_UNIX) as request:
        request.connect(str(path))
        assert switching.wait(lambda: host.in_flight("blue") == 1, PATIENCE)
        assert host.in_flight("green") == 0


def test_slot_with_an_open_request_is_stopped_after_drain_seconds(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not before; a request that never ends must not keep the slot."""
    lab.containers(**live_host(), green={"state": "running"})
    monkeypatch.setattr(Slots, "in_flight", lambda self, slot: 1)
    slots = lab.slots
    # A clock that only the waits of the drain move.
    waits: list[float] = []
    monkeypatch.setattr(switching, "time", SimpleNamespace(monotonic=lambda: sum(waits), sleep=waits.append))
    switching.drain_and_stop(slots, "green")
    assert slots.drain_seconds <= sum(waits) <= slots.drain_seconds + switching.POLL_SECONDS
    assert lab.told == ["stop scratch4school-app-green"]
    assert "Slot green is stopped with 1 open requests." in capsys.readouterr().out


def test_cut_connection_stops_nothing(lab: Lab) -> None:
    """The end of the session is a SIGHUP and a closed pipe; the command completes its step."""
    lab.containers(**live_host(), green={"state": "created", "release": "b"})
    lab.point("blue")
    lab.lock()
    program = (
        "import os, signal, sys; from scratch4school_host import cli; from scratch4school_host.slots import switching;"
        "ready = switching.start_ready;"
        "switching.start_ready = lambda *all: (os.kill(os.getpid(), signal.SIGHUP), ready(*all));"
        f"sys.exit(cli.main(['--settings', {str(lab.here / 'settings')!r},"
        "'slots', 'activate', 'green', '--run', 'r1']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-B", "-c", program], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(SOURCES)}
    )
    assert process.stdout
    process.stdout.close()
    process.wait(PATIENCE)
    assert lab.current == "green"


def test_maintenance_mode_lasts_until_a_slot_is_activated(lab: Lab) -> None:
    """Neither a boot nor systemd's unit starts a slot while data is replaced."""
    lab.containers(**live_host(), green={"state": "created", "release": "a"})
    lab.point("blue")
    lab.lock()
    assert lab.run("maintenance", "on", "--run", "r1", "--reason", "restore.yml is restoring 1a2b") == 0
    assert lab.state("app-blue") == "exited"
    assert lab.run("slots", "start") == 0
    assert (lab.state("app-blue"), lab.state("proxy")) == ("exited", "running")
    assert "because restore.yml is restoring 1a2b" in lab.output
    assert lab.run("slots", "restart", "--run", "r1") == 1
    assert "-e undo=true" in lab.errors
    assert lab.run("slots", "activate", "green", "--run", "r1") == 0
    assert (lab.current, lab.maintenance) == ("green", "")


@pytest.mark.parametrize("command", [("maintenance", "off"), ("slots", "revert", "blue")])
def test_maintenance_mode_is_ended_by_the_slot_that_was_live(lab: Lab, command: tuple[str, ...]) -> None:
    """It is live again, by both commands."""
    lab.containers(**live_host(), green={"state": "exited", "release": "a"})
    lab.point("blue")
    lab.lock()
    assert lab.run("maintenance", "on", "--run", "r1", "--reason", "x") == 0
    assert lab.run(*command, "--run", "r1") == 0
    assert (lab.current, lab.state("app-blue")) == ("blue", "running")
    assert lab.maintenance == ""


def test_maintenance_mode_stays_on_when_the_slot_does_not_become_ready(lab: Lab) -> None:
    """Its reason is kept; the setting limits how long the slot may take."""
    lab.containers(**live_host(broken="ready"))
    lab.point("blue")
    lab.lock()
    assert lab.run("maintenance", "on", "--run", "r1", "--reason", "x") == 0
    write_settings(lab.here / "settings", "slots", {"ready_seconds": 0.1})
    assert lab.run("maintenance", "off", "--run", "r1") == 1
    assert lab.maintenance == "x"
