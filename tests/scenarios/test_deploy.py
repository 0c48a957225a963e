"""Deploys on a host: again, interrupted, restarted, rebooted, and with a release that does not start."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from shlex import quote

import pytest
import requests

from scratch4school_lab.checkout import LAB_INVENTORY, ROOT
from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.faults import AUDIT_LOG, audit_log
from scratch4school_lab.scenarios.lab_hosts import http_status, on_host, running_containers, wait_for
from scratch4school_lab.scenarios.playbooks import VERIFIED, Run, finish, interrupt, play, start
from scratch4school_lab.scenarios.worker import HOST


def ledger() -> list[dict]:
    """The host's ledger of releases, oldest first."""
    return [json.loads(line) for line in on_host("sudo cat /var/lib/scratch4school/releases/ledger.jsonl").splitlines()]


def assert_switched(before: dict[str, str], after: dict[str, str]) -> None:
    """The application runs in the other slot; the containers of database, PgBouncer and proxy are the same."""
    assert set(before) ^ set(after) == {"scratch4school-app-blue", "scratch4school-app-green"}
    assert {name: after[name] for name in before if "-app-" not in name} == {
        name: started for name, started in before.items() if "-app-" not in name
    }


@pytest.fixture(scope="module", autouse=True)
def deployed_by_site(deployed: Host, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Deploy this checkout, also where an earlier release is live, by a playbook that imports deploy.yml."""
    site = tmp_path_factory.mktemp("playbooks") / "site.yml"
    site.write_text(f"---\n- name: Deploy\n  ansible.builtin.import_playbook: {ROOT}/deploy/deploy.yml\n")
    run = play(str(site))
    assert run.status == 0, run.output[-4000:]
    return run


def test_playbook_that_imports_deploy_verifies_release(deployed_by_site: Run) -> None:
    """It ends as deploy.yml does; the next test finds that deploy.yml has nothing to change."""
    assert VERIFIED in deployed_by_site.output


def test_deploy_again_changes_nothing(deployed: Host, login: Callable[..., requests.Session]) -> None:
    """The second run, in deploy/, has changed=0, restarts no container, verifies, and prints at most 30 lines."""
    # Until a person has logged in, the run requests a login after its result.
    login("pupil101")
    before = running_containers()
    run = play("deploy.yml", folder=ROOT / "deploy")
    assert run.status == 0, run.output[-4000:]
    assert run.recap()["changed"] == 0
    assert running_containers() == before
    assert VERIFIED in run.output
    assert run.output.rstrip().endswith(VERIFIED)
    assert len(run.output.splitlines()) <= 30


def test_no_secret_is_printed(deployed: Host) -> None:
    """Not even with -vvv."""
    secrets = [path.read_text().strip() for path in (LAB_INVENTORY / ".secrets").iterdir()]
    assert len(secrets) >= 6
    run = play("provision.yml", "-vvv", "--diff")
    assert run.status == 0, run.output[-4000:]
    assert not [number for number, secret in enumerate(secrets) if secret in run.output]


def test_check_mode_reports_no_change(deployed: Host) -> None:
    """`--check --diff` on a deployed host finds nothing to do."""
    run = play("deploy.yml", "--check", "--diff")
    assert run.status == 0, run.output[-4000:]
    assert run.recap()["changed"] == 0


def test_missed_reload_is_made_by_next_run(deployed: Host) -> None:
    """After a run that died before the reload, the next one reloads nginx, and does not restart it."""
    before = running_containers()
    on_host("sudo docker exec scratch4school-proxy rm /tmp/loaded")
    run = play("provision.yml")
    assert run.status == 0, run.output[-4000:]
    assert run.recap()["changed"] == 1
    assert running_containers() == before
    assert play("provision.yml").recap()["changed"] == 0


def test_restart_switches_slot_and_refuses_second_change(deployed: Host) -> None:
    """The current release starts in the free slot. A second run is refused with the holder of the lock and its time."""
    before = running_containers()
    with audit_log(deployed) as lines:
        first = start("restart.yml")
        lines.wait_for("start", first)
        second = play("deploy.yml")
    assert second.status != 0
    assert re.search(r"restart by \S+ since \S+ \S+ UTC is changing this host now", second.one_line)
    assert "unlock.yml" in second.one_line
    assert second.recap()["changed"] == 0
    run = finish(first)
    assert run.status == 0, run.output[-4000:]
    assert_switched(before, running_containers())
    assert [(entry["verb"], entry["outcome"]) for entry in ledger()[-2:]] == [
        ("restart", "activated"),
        ("restart", "verified"),
    ]


def test_release_that_does_not_start_leaves_current_one_live(deployed: Host) -> None:
    """The deploy fails and prints why; the installation still answers."""
    before = running_containers()
    run = play("deploy.yml", "--extra-vars", "app_url=nowhere")
    assert run.status != 0
    assert "SCRATCH4SCHOOL_PUBLIC_URL" in run.output
    assert "SCRATCH4SCHOOL_PUBLIC_URL" in run.output.rpartition("minutes\n")[2], "the last lines have the reason"
    assert "stays live" in run.one_line
    assert running_containers() == before
    assert http_status() == 200
    assert ledger()[-1]["outcome"] == "failed"


def test_unknown_release_is_refused(deployed: Host) -> None:
    """The refusal lists the known releases."""
    run = play("rollback.yml", "--extra-vars", "release=0123456789ab")
    assert run.status != 0
    activated = [entry["release"] for entry in ledger() if entry["outcome"] == "activated"]
    assert f"{activated[-1]} (current)" in run.one_line
    assert run.recap()["changed"] == 0


def test_unit_stops_starts_and_restarts_installation(deployed: Host) -> None:
    """`systemctl stop` stops all containers, `start` starts them, `restart` replaces only the application."""
    on_host("sudo systemctl stop scratch4school")
    assert running_containers() == {}
    assert http_status() != 200
    on_host("sudo systemctl start scratch4school")
    before = running_containers()
    assert len(before) == 4
    on_host("sudo systemctl restart scratch4school")
    assert_switched(before, running_containers())
    run = play("verify.yml")
    assert run.status == 0, run.output[-4000:]
    assert run.recap()["changed"] == 0


def test_reboot_starts_installation_in_same_slot(deployed: Host) -> None:
    """No command is needed after the boot."""
    before = running_containers()
    subprocess.run(["docker", "restart", HOST.name], check=True, capture_output=True)
    wait_for(lambda: http_status() == 200)
    assert set(running_containers()) == set(before)


def read_until(words: str, process: subprocess.Popen[str]) -> None:
    """Read the output of a playbook until it contains the words; fail when it ends before."""
    assert process.stdout
    assert any(words in line for line in iter(process.stdout.readline, ""))


def test_interrupted_change_prints_state_of_host(deployed: Host) -> None:
    """Ctrl-C prints the holder of the lock, the live release, and what to type; the same command then succeeds."""
    process = start("restart.yml")
    read_until("Health tests: ", process)
    run = interrupt(process)
    assert run.status == 99
    assert "Interrupted." in run.output
    last = run.output.rstrip().splitlines()[-1]
    assert last.startswith(f"{HOST.name}: the restart was interrupted in its phase “verify” and holds the host's lock.")
    assert "Run the same command again; it continues from there." in last
    assert "The new release is live and not verified" in last
    assert "interrupted" in play("status.yml").one_line
    again = play("restart.yml")
    assert again.status == 0, again.output[-4000:]
    assert play("deploy.yml").recap()["changed"] == 0


def test_interrupted_preflight_prints_that_nothing_changed(deployed: Host) -> None:
    """Before the lock nothing was changed."""
    process = start("deploy.yml", "--extra-vars", "app_oidc_token_url=https://192.0.2.1/token")
    read_until(" Preflight", process)
    assert interrupt(process).output.rstrip().endswith(f"{HOST.name}: nothing was changed.")


def test_status_after_interrupted_first_deploy_names_it(deployed: Host) -> None:
    """An audit log with a deploy that stopped, and an empty ledger in place of the host's."""
    line = '{"run": "first", "verb": "deploy", "phase": "%s", "by": "anna@desk", "at": "2026-11-27T15:50:00.000Z"%s}'
    begun, ended = line % ("start", ""), line % ("end", ', "outcome": "failed"')
    on_host(f"echo {quote(begun)} | sudo tee -a {AUDIT_LOG}")
    try:
        run = play("status.yml", "--extra-vars", "release_directory=/var/lib/scratch4school/none")
    finally:
        on_host(f"echo {quote(ended)} | sudo tee -a {AUDIT_LOG}")
    assert run.status == 2
    assert run.output.rstrip().splitlines()[-1] == (
        f"No release is live on {HOST.name} yet: the deploy by anna@desk, begun at 2026-11-27 15:50 UTC, stopped in "
        "its phase “start”, or is still under way. If it is not, run deploy.yml again; it continues from there."
    )
