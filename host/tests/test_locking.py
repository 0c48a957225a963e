"""The lock of a host and its audit log: one change at a time, taken over only by rule, and every phase on record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from scratch4school_host import audit_log, locking
from scratch4school_host.errors import LockHeldError, OperatorError
from scratch4school_host.files import write_json
from scratch4school_host.times import readable

SOURCES = Path(locking.__file__).parents[1]

ANNA = {"by": "anna@desk", "node": "desk/boot-1/0", "pid": 4711, "started": 99}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder of lock and audit log; the first change makes it."""
    return tmp_path / "change"


def begin(folder: Path, run: str = "r1", **more: Any) -> str:
    """Take the lock as Anna, from another machine."""
    return locking.begin(folder, **{"run": run, "verb": "deploy", "owner": ANNA, "release": "aaa", **more})


def rewrite(folder: Path, **fields: object) -> None:
    """Change the lock as time or another machine would have."""
    lock = locking.read_lock(folder)
    assert lock
    (folder / "lock.json").write_text(json.dumps({**lock, **fields}))


def test_change_is_in_the_audit_log_from_first_to_last_phase(folder: Path) -> None:
    """The lock is there in between, and the audit log afterwards."""
    assert begin(folder) == ""
    locking.phase(folder, run="r1", name="switch", release="bbb")
    assert locking.read_lock(folder)["phase"] == "switch"
    locking.end(folder, run="r1", outcome="done")
    assert locking.read_lock(folder) is None
    (run,) = audit_log.runs(audit_log.read(folder))
    assert (run.verb, run.by, run.release, run.phases, run.outcome) == (
        "deploy",
        "anna@desk",
        "bbb",
        ["begin", "switch", "end"],
        "done",
    )


def test_second_change_is_refused_with_owner_and_time(folder: Path) -> None:
    """The message also says what to do."""
    begin(folder)
    since = locking.read_lock(folder)["since"]
    with pytest.raises(LockHeldError) as refused:
        begin(folder, run="r2")
    assert "deploy by anna@desk" in str(refused.value)
    assert f"since {readable(since)} is changing this host now" in str(refused.value)
    assert "unlock.yml" in str(refused.value)
    assert locking.read_lock(folder)["run"] == "r1"


def test_same_run_may_begin_again(folder: Path) -> None:
    """A task that Ansible repeats after a lost connection must not refuse itself."""
    begin(folder)
    assert begin(folder) == ""


@pytest.mark.parametrize(
    ("fields", "dead_run", "why"),
    [
        ({"host": "here/boot-0/0"}, None, "restarted"),
        ({}, "r1", "process 4711 on desk no longer exists"),
        ({"heartbeat": "2026-11-24T06:00:00.000Z"}, None, "had no heartbeat for"),
    ],
)
def test_stale_lock_is_taken_over_with_a_message(folder: Path, fields: dict[str, str], dead_run: str, why: str) -> None:
    """When the server was restarted, the owner is known to be dead, or the last heartbeat is old."""
    begin(folder)
    rewrite(folder, **fields)
    message = begin(folder, run="r2", dead_run=dead_run)
    assert why in message
    assert "anna@desk" in message
    assert locking.read_lock(folder)["run"] == "r2"
    assert audit_log.runs(audit_log.read(folder))[0].phases == ["begin", "lost"]


def test_lock_says_itself_when_its_heartbeat_is_too_old(folder: Path) -> None:
    """The setting of the playbook that has the lock counts for each other change, and for the status screen."""
    begin(folder, stale_seconds=3600.0)
    heartbeat = (datetime.now(UTC) - timedelta(seconds=2000)).isoformat()
    rewrite(folder, heartbeat=heartbeat)
    assert locking.why_stale(locking.read_lock(folder), None) == ""
    rewrite(folder, stale_seconds=1800.0)
    assert locking.why_stale(locking.read_lock(folder), None) == "it had no heartbeat for 33 minutes"


def test_owner_on_this_machine_is_owner_dead_when_its_process_ended(folder: Path) -> None:
    """The number of the process is not enough: another process may have it now."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    mine = {"by": "me", "node": locking.node(), "pid": ended.pid, "started": locking.started(ended.pid)}
    begin(folder, owner=mine)
    ended.wait()
    assert locking.is_owner_dead(locking.read_lock(folder))
    rewrite(folder, pid=os.getpid())
    assert locking.is_owner_dead(locking.read_lock(folder))
    rewrite(folder, pid=os.getpid(), started=locking.started(os.getpid()))
    assert not locking.is_owner_dead(locking.read_lock(folder))
    rewrite(folder, node="elsewhere/boot/0")
    assert not locking.is_owner_dead(locking.read_lock(folder))


def test_run_without_its_lock_stops(folder: Path) -> None:
    """After unlock.yml another change may have begun."""
    begin(folder)
    held = locking.unlock(folder, by="ben@desk", reason="her notebook was stolen")
    assert "anna@desk" in held
    begin(folder, run="r2")
    with pytest.raises(OperatorError, match="has lost the lock"):
        locking.phase(folder, run="r1", name="switch")
    locking.end(folder, run="r1", outcome="failed")
    assert locking.read_lock(folder)["run"] == "r2"
    broken, _ = audit_log.runs(audit_log.read(folder))
    assert (broken.outcome, broken.reason) == ("broken", "her notebook was stolen")


def test_unlock_without_a_reason_is_refused(folder: Path) -> None:
    """The audit log must be able to say why."""
    begin(folder)
    with pytest.raises(OperatorError, match="-e reason="):
        locking.unlock(folder, by="ben", reason=" ")
    locking.end(folder, run="r1", outcome="done")
    assert locking.unlock(folder, by="ben", reason="tidy") == ""


def test_torn_files_do_not_stop_the_next_change(folder: Path) -> None:
    """A power failure may come in the middle of a write."""
    begin(folder)
    (folder / "lock.json").write_text('{"run": "r')
    with (folder / "audit.jsonl").open("a") as log:
        log.write('{"at": "2026')
    assert begin(folder, run="r2") == ""
    assert [run.run for run in audit_log.runs(audit_log.read(folder))] == ["r1", "r2"]


def test_phase_that_does_not_fit_on_the_disk_stops_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write to a full disk may take a part and succeed; the run must not go on without its audit log."""
    locking.begin(folder, run="r1", verb="deploy", owner=locking.owner())
    write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))
        with pytest.raises(OSError, match="is the disk full"):
            locking.phase(folder, run="r1", name="migrate")
    # With space again it goes on, on a line of its own.
    locking.phase(folder, run="r1", name="activate")
    assert audit_log.runs(audit_log.read(folder))[0].phases == ["begin", "activate"]


def test_one_of_many_processes_takes_the_lock(folder: Path) -> None:
    """Of eight that begin at the same moment."""
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCES)!r}); from scratch4school_host import locking\n"
        f"locking.begin({str(folder)!r}, run=sys.argv[1], verb='deploy', owner={{**locking.owner(), 'pid': 1,"
        " 'started': locking.started(1)})"
    )
    racing = [
        subprocess.Popen([sys.executable, "-c", code, f"r{number}"], stderr=subprocess.DEVNULL) for number in range(8)
    ]
    assert sorted(one.wait() for one in racing) == [0] + [1] * 7


def test_another_release_is_refused_after_an_interrupted_change(folder: Path) -> None:
    """The same release may go on where it stopped; a change that has ended, well or not, refuses none."""
    begin(folder)
    locking.phase(folder, run="r1", name="switch")
    log = audit_log.read(folder)
    assert audit_log.interrupted_refusal(log, "aaa") == ""
    assert audit_log.interrupted_refusal(log, None) == ""
    refusal = audit_log.interrupted_refusal(log, "bbb")
    assert "release aaa" in refusal
    assert "“switch”" in refusal
    assert "release_abandon=true" in refusal
    locking.end(folder, run="r1", outcome="failed")
    assert audit_log.interrupted_refusal(audit_log.read(folder), "bbb") == ""


def test_broken_change_is_refused_when_only_its_last_line_is_left() -> None:
    """A survey reads only the end of the audit log."""
    line = {
        "run": "r1",
        "verb": "deploy",
        "by": "anna",
        "at": "2026",
        "release": "aaa",
        "phase": "end",
        "outcome": "broken",
    }
    assert "“begin”" in audit_log.interrupted_refusal(json.dumps(line), "bbb")


def test_change_of_this_program_is_in_the_audit_log_with_its_outcome(folder: Path) -> None:
    """Also when an exception ended it."""
    with locking.change(folder, run="r1", verb="restart"):
        locking.phase(folder, run="r1", name="switch")
    with pytest.raises(OSError, match="away"), locking.change(folder, run="r2", verb="restart"):
        raise OSError("away")
    ended = [(run.outcome, run.reason) for run in audit_log.runs(audit_log.read(folder))]
    assert ended == [("done", None), ("failed", "away")]


def test_heartbeat_renews_the_lock_in_a_long_phase(folder: Path) -> None:
    """It fails when the lock was taken from the run."""
    begin(folder)
    lock = locking.read_lock(folder)
    assert lock
    write_json(folder / "lock.json", {**lock, "heartbeat": "2026-01-01T00:00:00Z"})
    locking.heartbeat(folder, run="r1")
    after = locking.read_lock(folder)
    assert after
    assert after["heartbeat"] > lock["heartbeat"]
    assert len(audit_log.runs(audit_log.read(folder))[0].phases) == 1
    locking.unlock(folder, by="anna@desk", reason="tidy")
    with pytest.raises(OperatorError, match="has lost the lock"):
        locking.heartbeat(folder, run="r1")


def test_maintenance_mode_outlives_its_change(folder: Path) -> None:
    """It is a file of its own, and a torn one still counts."""
    begin(folder)
    assert locking.maintenance_reason(folder) == ""
    locking.start_maintenance(folder, run="r1", reason="a backup is restored")
    locking.end(folder, run="r1", outcome="failed")
    assert locking.maintenance_reason(folder) == "a backup is restored"
    (folder / locking.MAINTENANCE).write_text("{")
    assert locking.maintenance_reason(folder)
    locking.end_maintenance(folder)
    assert locking.maintenance_reason(folder) == ""


def test_waiting_change_begins_when_the_lock_is_given_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A nightly backup may meet a deploy; a caller without patience is refused at once."""
    begin(folder)
    with pytest.raises(LockHeldError), locking.change(folder, run="r2", verb="backup"):
        pass
    # The first change ends when the second one waits for it.
    monkeypatch.setattr(locking.time, "sleep", lambda _: locking.end(folder, run="r1", outcome="done"))
    with locking.change(folder, run="r2", verb="backup", deadline=float("inf")):
        assert locking.read_lock(folder)["run"] == "r2"


def test_command_of_a_named_run_takes_no_lock(folder: Path) -> None:
    """A command within a playbook's change takes no lock of its own; alone it does, and gives it back."""
    begin(folder)
    with locking.change_of(folder, run="r1", verb="restart") as run:
        assert run == "r1"
    assert locking.read_lock(folder)["run"] == "r1"
    locking.end(folder, run="r1", outcome="done")
    with locking.change_of(folder, run="", verb="restart") as run:
        assert locking.read_lock(folder)["run"] == run
    assert locking.read_lock(folder) is None


def test_exclusive_section_is_refused_after_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has it; the message is the caller's."""
    monkeypatch.setattr(locking, "RETRY_SECONDS", 0.05)
    mutex = tmp_path / "mutex"
    with (
        locking.exclusive(mutex),
        pytest.raises(OperatorError, match="busy"),
        locking.exclusive(mutex, time.monotonic() + 0.1, "busy"),
    ):
        pass
    with locking.exclusive(mutex, time.monotonic(), "busy"):
        pass
