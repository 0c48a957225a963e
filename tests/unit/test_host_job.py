"""A long program on a host: started by systemd, read while it runs, and ended with its own message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import PLUGINS, load

SYSTEMCTL = '#!/bin/sh\n[ "$1" != is-active ] || cat {here}/runs 2>/dev/null || {{ echo inactive; exit 3; }}\n'
# As systemd would, but at once: what stands after its own options is run.
SYSTEMD_RUN = '#!/bin/sh\nwhile [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"\n'


@pytest.fixture
def job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_module: Callable[..., Any]
) -> Callable[..., dict[str, Any]]:
    """Run the module with a systemd that is two scripts."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("systemctl", SYSTEMCTL.format(here=tmp_path)), ("systemd-run", SYSTEMD_RUN)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    module = load(PLUGINS / "modules" / "host_job.py")
    monkeypatch.setattr(module, "FOLDER", str(tmp_path / "jobs"))
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.1)
    monkeypatch.setitem(run_module.__globals__, "load", lambda path: module)
    return lambda *argv, offset=-1: run_module("host_job", name="backup", argv=[*argv], offset=offset)


def test_job_is_started_and_read_to_its_end(job: Callable[..., dict[str, Any]]) -> None:
    """All its output, where to go on, and how it ended."""
    first = job("sh", "-c", "echo one; echo two; echo why >&2; exit 3")
    assert (first["text"], first["offset"], first["rc"], first["stderr"]) == ("one\ntwo\n", 8, 3, "why")
    rest = job("ignored", offset=4)
    assert (rest["text"], rest["rc"]) == ("two\n", 3)


def test_output_of_an_earlier_job_is_forgotten(job: Callable[..., dict[str, Any]]) -> None:
    """A second job of a name does not begin with the first one's output."""
    job("echo", "first")
    assert job("echo", "second")["text"] == "second\n"


def test_second_job_of_a_name_is_refused(job: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """It would write over the first one's output."""
    (tmp_path / "runs").write_text("active\n")
    assert "backup runs already on this host" in job("echo")["msg"]


def test_silent_job_is_still_running(job: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """A job that runs and prints nothing has neither ended nor failed."""
    job("echo", "x")
    (tmp_path / "jobs" / "backup" / "status").unlink()
    (tmp_path / "runs").write_text("active\n")
    answer = job("ignored", offset=2)
    assert (answer["text"], "rc" in answer) == ("", False)


def test_exiting_job_is_still_running(job: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """A playbook must not undo what a job still does."""
    job("echo", "x")
    (tmp_path / "jobs" / "backup" / "status").unlink()
    (tmp_path / "bin" / "systemctl").write_text("#!/bin/sh\necho deactivating\nexit 3\n")
    assert "rc" not in job("ignored", offset=2)


def test_last_output_of_a_job_is_read(
    job: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It prints and ends between the last reading and the question whether it runs."""
    job("echo", "x")
    folder = tmp_path / "jobs" / "backup"
    (folder / "status").unlink()
    speak = f"#!/bin/sh\necho last >> {folder}/said; echo 0 > {folder}/status; echo inactive; exit 3\n"
    (tmp_path / "bin" / "systemctl").write_text(speak)
    answer = job("ignored", offset=2)
    assert (answer["text"], answer["rc"]) == ("last\n", 0)


def test_job_that_was_ended_from_outside_has_failed(job: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """Stopped by hand, killed for want of memory, or gone with the machine."""
    job("sh", "-c", "echo x; echo why >&2")
    (tmp_path / "jobs" / "backup" / "status").unlink()
    assert job("ignored", offset=0)["text"] == "x\n"
    answer = job("ignored", offset=2)
    assert (answer["rc"], answer["stderr"].splitlines()[0]) == (1, "why")
    assert "scratch4school-backup-job was ended from outside" in answer["stderr"]
