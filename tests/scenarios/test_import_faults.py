"""Faults during an import with adopt.yml: a broken source, a killed step, a source that is still in use, an undo."""

from __future__ import annotations

import itertools

import pytest

from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.existing_installations import (
    FOLDER,
    ExistingInstallation,
    adopt,
    as_dump,
    in_sqlite,
    prepare_host,
    put,
    succeed,
)
from scratch4school_lab.scenarios.faults import audit_log, kill_control_node
from scratch4school_lab.scenarios.lab_hosts import http_status, on_host
from scratch4school_lab.scenarios.playbooks import finish, play, start


@pytest.mark.long
@pytest.mark.parametrize("broken", ["torn", "cut off", "empty", "later"])
def test_broken_source_is_refused(bare_host: Host, broken: str) -> None:
    """A message says why, and the host is not changed."""
    installation = in_sqlite(prepare_host(bare_host))
    if broken == "later":
        installation.sql("CREATE TABLE collaborative_projects (id INTEGER);")
        arguments, message = installation.arguments, "since it has collaborative projects"
    else:
        installation = as_dump(bare_host)
        script = {
            "torn": "zcat dump.sql.gz | head -c 50000 > x",
            "cut off": "head -c 9000 dump.sql.gz > x",
            "empty": ": > x",
        }
        put(bare_host, f"cd {FOLDER} && {script[broken]}", b"")
        arguments = (*installation.arguments, "-e", f"adoption_database={FOLDER}/x")
        message = {"torn": "ends in the middle", "cut off": "is cut off or damaged", "empty": "is empty"}[broken]
    run = adopt(ExistingInstallation(bare_host, arguments), "inspect")
    assert run.status == 2
    assert message in run.one_line
    assert "Traceback" not in run.output
    assert on_host("sudo docker ps --all --format '{{.Names}}' | grep transfer || true", bare_host) == ""


@pytest.mark.long
@pytest.mark.parametrize("phase", ["rehearse", "import", "finish", "start", "verify"])
def test_killed_step_succeeds_when_run_again(bare_host: Host, phase: str) -> None:
    """Control node and program on the host are killed; the same command continues, and the result is complete."""
    installation = in_sqlite(prepare_host(bare_host))
    step = phase if phase in ("rehearse", "import") else "finish"
    if step == "finish":
        succeed(adopt(installation, "import"))
    with audit_log(bare_host) as lines:
        arguments = ("adopt.yml", "-e", f"step={step}", *installation.arguments, "-e", "stopped=true")
        process = start(*arguments, host=bare_host)
        lines.wait_for(phase, process)
        kill_control_node(process)
        on_host("sudo pkill -KILL -f '[s]bin/scratch4schoolctl import' || true", bare_host)
    for one in {"rehearse": ("rehearse", "import", "finish"), "import": ("import", "finish")}.get(step, ("finish",)):
        succeed(adopt(installation, one, "-e", "stopped=true"))
    assert http_status(bare_host) == 200
    assert on_host("sudo docker ps --all --format '{{.Names}}' | grep transfer || true", bare_host) == ""


@pytest.mark.long
def test_source_that_changes_during_finish_fails_comparison(bare_host: Host) -> None:
    """The message says that the source is still in use; after a stop the same command succeeds."""
    installation = in_sqlite(prepare_host(bare_host))
    succeed(adopt(installation, "import"))
    with audit_log(bare_host) as lines:
        arguments = ("adopt.yml", "-e", "step=finish", *installation.arguments, "-e", "stopped=true")
        process = start(*arguments, host=bare_host)
        lines.wait_for("maintenance on", process)
        # The source changes until the comparison has read it.
        for number in itertools.count():
            installation.sql(f"UPDATE projects SET name = 'immer noch {number}' WHERE id = 12;")
            if process.poll() is not None:
                break
        run = finish(process)
    assert run.status == 2
    assert "projects 12 differs in name" in run.one_line
    assert "If the old service still runs, stop it" in run.one_line
    succeed(adopt(installation, "finish", "-e", "stopped=true"))


@pytest.mark.long
def test_undone_import_leaves_empty_installation(bare_host: Host) -> None:
    """The imported data is removed, the source is unchanged, and another import can begin."""
    installation = in_sqlite(prepare_host(bare_host))
    before = on_host(f"sudo find {FOLDER} -type f -exec md5sum {{}} + | sort | md5sum", bare_host)
    succeed(adopt(installation, "import"))
    succeed(adopt(installation, "import", "-e", "undo=true"))
    assert before == on_host(f"sudo find {FOLDER} -type f -exec md5sum {{}} + | sort | md5sum", bare_host)
    assert on_host("sudo find /var/lib/scratch4school/uploads -type f | wc -l", bare_host).strip() == "0"
    succeed(play("deploy.yml", host=bare_host))
    succeed(adopt(installation, "import"))
    succeed(adopt(installation, "finish", "-e", "stopped=true"))
