"""The lock of a host and its journal: one change at a time, taken over only by rule, and every phase on record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import host_change
from ansible.module_utils.host_change import ChangeError

ANNA = {"by": "anna@desk", "node": "desk/boot-1/0", "pid": 4711, "started": 99}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where lock and journal would lie on a host; it is made by the first change."""
    return tmp_path / "change"


def begin(folder: Path, run: str = "r1", **more: Any) -> str:
    """Take the lock as Anna, from a machine that is not this one."""
    return host_change.begin(folder, **{"run": run, "verb": "deploy", "owner": ANNA, "release": "aaa", **more})


def rewrite(folder: Path, **fields: object) -> None:
    """Change the lock as time or another machine would have."""
    lock = host_change.read_lock(folder)
    assert lock
    (folder / "lock.json").write_text(json.dumps({**lock, **fields}))


def test_a_change_is_on_record_from_its_first_phase_to_its_last(folder: Path) -> None:
    """The lock is there in between, and the journal afterwards."""
    assert begin(folder) == ""
    host_change.phase(folder, run="r1", name="switch", release="bbb")
    assert host_change.read_lock(folder)["phase"] == "switch"
    host_change.end(folder, run="r1", outcome="done")
    assert host_change.read_lock(folder) is None
    (run,) = host_change.runs(host_change.read_journal(folder))
    assert (run.verb, run.by, run.release, run.phases, run.outcome) == (
        "deploy",
        "anna@desk",
        "bbb",
        ["begin", "switch", "end"],
        "done",
    )


def test_a_second_change_is_refused_with_who_and_since_when(folder: Path) -> None:
    """And it learns what it can do about it."""
    begin(folder)
    since = host_change.read_lock(folder)["since"]
    with pytest.raises(ChangeError) as refused:
        begin(folder, run="r2")
    assert "deploy by anna@desk" in str(refused.value)
    assert f"since {host_change.readable(since)} is changing this host now" in str(refused.value)
    assert "unlock.yml" in str(refused.value)
    assert host_change.read_lock(folder)["run"] == "r1"


def test_the_same_run_may_begin_again(folder: Path) -> None:
    """A task that Ansible repeats after a lost connection must not meet itself."""
    begin(folder)
    assert begin(folder) == ""


@pytest.mark.parametrize(
    ("fields", "gone", "why"),
    [
        ({"host": "here/boot-0/0"}, None, "started anew"),
        ({}, "r1", "process 4711 on desk is no more"),
        ({"heartbeat": "2026-11-24T06:00:00.000Z"}, None, "not been heard of for"),
    ],
)
def test_a_stale_lock_is_taken_over_and_explained(folder: Path, fields: dict[str, str], gone: str, why: str) -> None:
    """By three rules: the server was started anew, the holder is known to be dead, or nothing was heard for long."""
    begin(folder)
    rewrite(folder, **fields)
    said = begin(folder, run="r2", gone=gone)
    assert why in said
    assert "anna@desk" in said
    assert host_change.read_lock(folder)["run"] == "r2"
    assert host_change.runs(host_change.read_journal(folder))[0].phases == ["begin", "lost"]


def test_a_holder_on_this_machine_is_gone_when_its_process_is(folder: Path) -> None:
    """The number of the process is not enough: it may have been given to another one."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    mine = {"by": "me", "node": host_change.node(), "pid": ended.pid, "started": host_change.started(ended.pid)}
    begin(folder, owner=mine)
    ended.wait()
    assert host_change.is_gone(host_change.read_lock(folder))
    rewrite(folder, pid=os.getpid())
    assert host_change.is_gone(host_change.read_lock(folder))
    rewrite(folder, pid=os.getpid(), started=host_change.started(os.getpid()))
    assert not host_change.is_gone(host_change.read_lock(folder))
    rewrite(folder, node="elsewhere/boot/0")
    assert not host_change.is_gone(host_change.read_lock(folder))


def test_a_run_that_lost_its_lock_stops(folder: Path) -> None:
    """After unlock.yml and another one's begin it must not go on beside that one."""
    begin(folder)
    said = host_change.unlock(folder, by="ben@desk", reason="her notebook was stolen")
    assert "anna@desk" in said
    begin(folder, run="r2")
    with pytest.raises(ChangeError, match="has lost the lock"):
        host_change.phase(folder, run="r1", name="switch")
    host_change.end(folder, run="r1", outcome="failed")
    assert host_change.read_lock(folder)["run"] == "r2"
    broken, _ = host_change.runs(host_change.read_journal(folder))
    assert (broken.outcome, broken.reason) == ("broken", "her notebook was stolen")


def test_a_lock_is_broken_with_a_reason_or_not_at_all(folder: Path) -> None:
    """The journal must be able to say why."""
    begin(folder)
    with pytest.raises(ChangeError, match="-e reason="):
        host_change.unlock(folder, by="ben", reason=" ")
    host_change.end(folder, run="r1", outcome="done")
    assert host_change.unlock(folder, by="ben", reason="tidy") == ""


def test_torn_files_are_nobodys(folder: Path) -> None:
    """A power cut in the middle of a write must not stop the next run."""
    begin(folder)
    (folder / "lock.json").write_text('{"run": "r')
    with (folder / "journal.jsonl").open("a") as journal:
        journal.write('{"at": "2026')
    assert begin(folder, run="r2") == ""
    assert [run.run for run in host_change.runs(host_change.read_journal(folder))] == ["r1", "r2"]


def test_a_phase_that_does_not_fit_on_the_disk_is_not_passed_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write to a disk that fills up may take a part and succeed; the run must not go on without its journal."""
    host_change.begin(folder, run="r1", verb="deploy", owner=host_change.whoami())
    write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))
        with pytest.raises(OSError, match="is the disk full"):
            host_change.phase(folder, run="r1", name="migrate")
    # With space again it goes on, on a line of its own.
    host_change.phase(folder, run="r1", name="activate")
    assert host_change.runs(host_change.read_journal(folder))[0].phases == ["begin", "activate"]


def test_two_processes_cannot_both_take_it(folder: Path) -> None:
    """Of many that begin at the same moment one gets it."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(host_change.__file__).parent)!r}); import host_change\n"
        f"host_change.begin({str(folder)!r}, run=sys.argv[1], verb='deploy', owner={{**host_change.whoami(), 'pid': 1,"
        " 'started': host_change.started(1)})"
    )
    racing = [
        subprocess.Popen([sys.executable, "-c", code, f"r{number}"], stderr=subprocess.DEVNULL) for number in range(8)
    ]
    assert sorted(one.wait() for one in racing) == [0] + [1] * 7


def test_half_finished_change_of_another_release_is_refused(folder: Path) -> None:
    """The same one may go on where it stopped; one that was ended, well or not, stands in nobody's way."""
    begin(folder)
    host_change.phase(folder, run="r1", name="switch")
    journal = host_change.read_journal(folder)
    assert host_change.half_finished(journal, "aaa") == ""
    assert host_change.half_finished(journal, None) == ""
    said = host_change.half_finished(journal, "bbb")
    assert "release aaa" in said
    assert "“switch”" in said
    assert "release_abandon=true" in said
    host_change.end(folder, run="r1", outcome="failed")
    assert host_change.half_finished(host_change.read_journal(folder), "bbb") == ""


def test_of_a_journal_that_is_cut_off_the_last_line_is_enough() -> None:
    """A survey reads its end alone, and an end may be all that is left of a change."""
    line = {
        "run": "r1",
        "verb": "deploy",
        "by": "anna",
        "at": "2026",
        "release": "aaa",
        "phase": "end",
        "outcome": "broken",
    }
    assert "“begin”" in host_change.half_finished(json.dumps(line), "bbb")


@pytest.mark.parametrize(
    ("result", "task", "cause"),
    [
        ({"msg": "It is full.\nReally."}, "x", "It is full."),
        ({"msg": "non-zero return code", "stderr": "\nNo room.\n"}, "x", "No room."),
        ({"msg": "non-zero return code", "stderr": ""}, "x", "non-zero return code"),
        ({"msg": ""}, "release : _enter | Start it", "release : _enter | Start it"),
        ({}, "", "Another host failed."),
    ],
)
def test_a_cause_is_never_nothing(
    filters: dict[str, Callable[..., Any]], result: dict[str, str], task: str, cause: str
) -> None:
    """Ledger and journal keep its first line, and a run that fails says all of it."""
    assert filters["first_line"](filters["cause_of"](result, task)) == cause
    assert filters["first_line"](" \n") == "It was not said why."


def test_held_ends_as_it_went(folder: Path) -> None:
    """What the program on the host does by itself is locked and on record like everything else."""
    with host_change.held(folder, run="r1", verb="restart") as note:
        note("switch")
    with pytest.raises(OSError, match="away"), host_change.held(folder, run="r2", verb="restart"):
        raise OSError("away")
    assert [run.outcome for run in host_change.runs(host_change.read_journal(folder))] == ["done", "failed"]


def test_module_takes_notes_and_gives_back(folder: Path, run_module: Callable[..., dict[str, Any]]) -> None:
    """What playbooks see; in check mode nothing is taken, and a held lock is refused all the same."""
    taken = run_module("host_change", path=str(folder), state="begin", run="r1", verb="deploy", owner=ANNA)
    assert not taken["changed"]
    run_module("host_change", path=str(folder), state="phase", run="r1", phase="switch")
    tried = run_module(
        "host_change", check_mode=True, path=str(folder), state="begin", run="r2", verb="deploy", owner=ANNA
    )
    assert "anna@desk" in tried["msg"]
    assert run_module("host_change", path=str(folder))["lock"]["phase"] == "switch"
    run_module("host_change", path=str(folder), state="end", run="r1", outcome="done")
    assert run_module("host_change", path=str(folder))["lock"] is None
    assert run_module("host_change", path=str(folder), state="unlocked", reason="tidy", owner=ANNA)["said"] == ""


def test_a_beat_says_that_a_long_phase_lives(folder: Path) -> None:
    """Work of hours is not taken for dead; and it hears when the lock was taken from it."""
    begin(folder)
    lock = host_change.read_lock(folder)
    assert lock
    host_change._write_lock(folder, {**lock, "heartbeat": "2026-01-01T00:00:00Z"})
    host_change.beat(folder, run="r1")
    after = host_change.read_lock(folder)
    assert after
    assert after["heartbeat"] > lock["heartbeat"]
    assert len(host_change.runs(host_change.read_journal(folder))[0].phases) == 1
    host_change.unlock(folder, by="anna@desk", reason="tidy")
    with pytest.raises(host_change.ChangeError, match="has lost the lock"):
        host_change.beat(folder, run="r1")


def test_a_hold_outlives_who_said_it(folder: Path) -> None:
    """It is a file of its own, and one that is torn still holds."""
    begin(folder)
    assert host_change.read_hold(folder) == ""
    host_change.hold(folder, run="r1", reason="rows are changing places")
    host_change.end(folder, run="r1", outcome="failed")
    assert host_change.read_hold(folder) == "rows are changing places"
    (folder / host_change.HOLD).write_text("{")
    assert host_change.read_hold(folder)
    host_change.release_hold(folder)
    assert host_change.read_hold(folder) == ""


# ---- what is not as the last deploy left it


def drift(filters: dict[str, Callable[..., Any]], now: dict[str, str], before: dict[str, str]) -> list[str]:
    """The sentences for one role of which these facts were recorded."""
    return filters["state_drift"]({"proxy": now}, {"proxy": {"desired": "d", "observed": before}}, "server")


FACTS = [
    "file /etc/scratch4school/proxy/nginx.conf",
    "unit file scratch4school-backup.service",
    "network scratch4school",
    "container scratch4school-proxy",
    "loaded scratch4school-proxy",
    "unit scratch4school-backup.timer",
    "unwanted unit scratch4school-backup-drill.timer",
    "roles and rights in PostgreSQL",
    "answer of scratch4school-postgres",
]


def test_state_without_drift_has_no_sentence(filters: dict[str, Callable[..., Any]]) -> None:
    """What is as it was recorded is not said."""
    facts = dict.fromkeys(FACTS, "01")
    assert drift(filters, facts, facts) == []
    assert filters["state_drift"]({}, {"proxy": {"observed": facts}}, "server") == []


@pytest.mark.parametrize(
    ("fact", "missing", "changed", "added"),
    [
        (FACTS[0], "The file {} on server is missing.", "The file {} on server was changed.",
         "The file {} on server was added."),
        (FACTS[1], "The unit file {} on server is missing.", "The unit file {} on server was changed.",
         "The unit file {} on server was added."),
        (FACTS[2], "The network {} on server is missing.", "The network {} on server was changed.",
         "The network {} on server was added."),
        (FACTS[3], "The container {} on server is missing, is not running, or is unhealthy.",
         "The container {} on server is another one.", "The container {} on server is another one."),
        (FACTS[4], *["The container {} on server has not loaded the files that are there."] * 3),
        (FACTS[5], "The unit {} on server is not enabled, is not active, or has no next run.",
         "The unit {} on server was changed.", "The unit {} on server was changed."),
        (FACTS[6], *["The unit {} is there on server, and is not wanted."] * 3),
        (FACTS[7], "Roles and rights in PostgreSQL on server are not as they must be.",
         *["Roles and rights in PostgreSQL on server were changed."] * 2),
    ],
    ids=[fact.rpartition(" ")[0] for fact in FACTS[:8]],
)  # fmt: skip
def test_state_drift_is_one_sentence_for_each_fact(
    filters: dict[str, Callable[..., Any]], fact: str, missing: str, changed: str, added: str
) -> None:
    """Missing now, another one than recorded, and there in addition; each names the thing and the host."""
    name = fact.rpartition(" ")[2]
    assert drift(filters, {fact: ""}, {fact: "01"}) == [missing.format(name)]
    assert drift(filters, {fact: "02"}, {fact: "01"}) == [changed.format(name)]
    assert drift(filters, {fact: "02"}, {}) == [added.format(name)]


def test_state_that_is_no_longer_managed_is_missing(filters: dict[str, Callable[..., Any]]) -> None:
    """A file in a role's folder that is gone is no fact of today; what was recorded of it still is."""
    assert drift(filters, {}, {FACTS[0]: "01"}) == [
        "The file /etc/scratch4school/proxy/nginx.conf on server is missing."
    ]


def test_state_that_is_ill_is_said_although_it_was_recorded_so(filters: dict[str, Callable[..., Any]]) -> None:
    """An empty digest is never as it should be."""
    assert drift(filters, {FACTS[3]: ""}, {FACTS[3]: ""}) != []


def test_state_of_a_name_with_spaces_is_named_whole(filters: dict[str, Callable[..., Any]]) -> None:
    """A file that was put there by hand may have any name."""
    (said,) = drift(filters, {"file /etc/scratch4school/proxy/my notes.txt": "01"}, {})
    assert said == "The file /etc/scratch4school/proxy/my notes.txt on server was added."


def test_state_that_a_former_version_recorded_is_no_record(filters: dict[str, Callable[..., Any]]) -> None:
    """One digest for all facts cannot be compared with them; the next deploy writes a record that can."""
    recorded = {"proxy": {"desired": "d", "observed": "0a1b"}}
    said = filters["state_drift"]({"proxy": {"network a": "01"}}, recorded, "server")
    assert said == ["The role proxy was not brought to its end on server."]


def test_state_of_a_role_without_a_record_is_said_as_such(filters: dict[str, Callable[..., Any]]) -> None:
    """A deploy that was cut short left nothing to compare with; the other roles are compared all the same."""
    recorded = {"proxy": {"desired": "d", "observed": {"network a": "01"}}}
    said = filters["state_drift"]({"app": {"file /etc/app": "01"}, "proxy": {"network a": "02"}}, recorded, "server")
    assert said == [
        "The role app was not brought to its end on server.",
        "The network a on server was changed.",
    ]
