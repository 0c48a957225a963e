"""What cannot work is refused with one sentence that says what to type instead, before anything on the host changed."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

import pytest
from conftest import HOST, on_host, play

# Extra variable -> a piece of the sentence that it is answered with.
WRONG = {
    "scratch4school_url=": "scratch4school_url is not set",
    "scratch4school_url=http://localhost:8443": "must be a whole address that begins with https://",
    "scratch4school_url=https://localhost:8443/scratch": "without a path or a slash",
    "app_oidc_client_id=change-me": "app_oidc_client_id is still a placeholder",
    "app_oidc_client_secret=": "app_oidc_client_secret is not set",
    "app_oidc_client_secret=short": "at least 8",
    "app_secret_key=too-short-a-key": "at least 32 characters",
    "app_oidc_token_url=token": "app_oidc_token_url is token; it must be a whole address",
    "database_app_password=short": "different and have at least 16 characters",
    "database_engine=mysql": "database_engine is mysql; it must be postgres or sqlite",
    "database_engine=sqlite": "runs on postgres; its rows are in /var/lib/scratch4school/postgres",
    "images_base_source=internet": "it must be auto, registry or bootstrap",
    "pgbouncer_pool_size=100": "max_connections",
    "app_threads=200": "max_client_conn",
    "pgbouncer_query_wait_timeout=5": "pgbouncer_query_wait_timeout is 5; write at least 15",
    "backup_repository=rest:https://school:pass@nas/x": "backup_repository holds a password",
    "backup_password=short": "backup_password must have at least 16 characters",
    "app_sweep_grace_hours=0": "it must be a whole number of hours from 1 to 9999",
    "proxy_tls_certificate=/nowhere/school.crt": "there is no such file on this machine",
    "proxy_https_port=22": "is held by sshd",
    "host_free_disk_mb=99999999": "are free for /var/lib/scratch4school",
    "host_memory_mb=99999999": "of memory",
    "release_keep=many": "release_keep",
    "release_confirm_seconds=30": "go back before anybody could confirm",
    "ansible_host=127.0.0.1 ansible_port=1": "cannot be reached by SSH",
    '{"change_windows": ["in the holidays"]}': "change_windows has “in the holidays”, which is no window",
    "change_windows=always": "it must be a list",
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.replace("/", "|"))
def test_wrong_setting_is_refused(deployed: str, wrong: str) -> None:
    """The play ends before the first change, with our sentence and without a traceback."""
    run = play("deploy.yml", "--extra-vars", wrong)
    assert run.status != 0
    assert WRONG[wrong] in run.sentence
    assert run.recap()["changed"] == 0
    assert "Traceback" not in run.output


def test_unsupported_system_is_refused_by_name(deployed: str) -> None:
    """The sentence says what the host runs and what we install on. The lab's Debian plays the stranger."""
    run = play("deploy.yml", "--extra-vars", '{"__host_systems_tested": ["Debian 99"]}')
    assert run.status != 0
    assert f"{HOST} runs Debian 13. Scratch4School is installed on Debian 99 (tested)" in run.sentence
    assert "Ubuntu 24.04 (accepted, untested)" in run.sentence
    assert run.recap()["changed"] == 0


def test_certificate_for_another_host_is_refused(deployed: str) -> None:
    """A certificate that browsers would refuse is refused before it is installed."""
    run = play("deploy.yml", "--extra-vars", "scratch4school_url=https://scratch.other-school.de")
    assert run.status != 0
    assert "and not for scratch.other-school.de" in run.sentence
    assert run.recap()["changed"] == 0


def test_change_outside_of_its_windows_is_refused_unless_forced(deployed: str) -> None:
    """No lesson is disturbed by somebody who did not look at the clock; who did may say so."""
    day = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"][(int(on_host("date +%u")) + 2) % 7]
    windows = ("--extra-vars", f'{{"change_windows": ["{day} 00:00-24:00"]}}')
    run = play("deploy.yml", *windows)
    assert run.status != 0
    assert (
        f"change_windows allows changes only at {day} 00:00-24:00. Wait, or say -e change_forced=true." in run.sentence
    )
    assert run.recap()["changed"] == 0
    assert play("provision.yml", "--check", *windows, "--extra-vars", "change_forced=true").status == 0


def test_silent_identity_provider_is_said_aloud(deployed: str) -> None:
    """It may be back before the first lesson, so it refuses nothing."""
    run = play("provision.yml", "--check", "--extra-vars", "app_oidc_token_url=https://127.0.0.1:1/token")
    assert run.status == 0
    assert f"{HOST} does not reach https://127.0.0.1:1/token" in run.sentence


def test_half_finished_change_to_another_release_is_refused(deployed: str) -> None:
    """Two releases half on a host are nobody's wish; the sentence offers the ways out."""
    line = '{"run": "by-hand", "verb": "deploy", "phase": "%s", "release": "0123456789ab", "by": "a@b", "at": "now"%s}'
    journal = "/var/lib/scratch4school/change/journal.jsonl"
    begun, ended = line % ("begin", ""), line % ("end", ', "outcome": "failed"')
    on_host(f"echo {quote(begun)} | sudo tee -a {journal}")
    try:
        run = play("deploy.yml")
    finally:
        on_host(f"echo {quote(ended)} | sudo tee -a {journal}")
    assert run.status != 0
    assert "An earlier deploy of release 0123456789ab by a@b" in run.sentence
    assert "-e release_abandon=true" in run.sentence
    assert run.recap()["changed"] == 0


@pytest.mark.parametrize(
    "playbook", ["deploy.yml", "verify.yml", "restart.yml", "migrate.yml", "provision.yml", "sweep.yml"]
)
def test_inventory_without_hosts_is_refused(tmp_path: Path, playbook: str) -> None:
    """A run that would do nothing does not end as a success."""
    empty = tmp_path / "hosts.yml"
    empty.write_text("---\nall:\n  hosts: {}\n")
    run = play(playbook, inventory=empty, limit="all,localhost")
    assert run.status != 0
    assert "names no host in the group scratch4school" in run.sentence


def test_registry_out_of_reach_is_refused_where_it_is_asked_for(deployed: str) -> None:
    """Who insists on a registry is told that it does not answer, and how to do without; the lab reaches none."""
    run = play("provision.yml", "--extra-vars", "images_base_source=registry")
    assert run.status != 0
    assert "cannot be pulled" in run.sentence
    assert "Set images_base_source to bootstrap" in run.sentence
    assert run.recap()["changed"] == 0
