"""Wrong settings and hosts are refused with a sentence that says what to type, before anything on the host changed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from shlex import quote

import pytest
import yaml
from conftest import HOST, ROOT, on_host, play

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
    "database_engine=mysql": "database_engine is “mysql”; write postgres or sqlite.",
    "database_engine=sqlite": "runs on postgres; its rows are in /var/lib/scratch4school/postgres",
    "images_base_source=internet": "images_base_source is “internet”; write auto or registry or bootstrap.",
    "pgbouncer_pool_size=100": "max_connections",
    "app_threads=200": "max_client_conn",
    "pgbouncer_query_wait_timeout=5": "pgbouncer_query_wait_timeout is 5; write at least 15",
    "backup_repository=rest:https://school:pass@nas/x": "backup_repository holds a password",
    "backup_password=short": "backup_password must have at least 16 characters",
    "app_sweep_grace_hours=0": "app_sweep_grace_hours is 0; it must be at least 1 and at most 9999.",
    "proxy_tls_certificate=/nowhere/school.crt": "there is no such file on this machine",
    "proxy_https_port=22": "is held by sshd",
    "host_free_disk_mb=99999999": "are free for /var/lib/scratch4school",
    "host_memory_mb=99999999": "of memory",
    "release_keep=many": "release_keep is “many”; write a whole number, such as 5.",
    "app_worker=5": "app_worker is no setting of Scratch4School. Did you mean app_workers?",
    "relase=0123456789ab": "relase is no setting of Scratch4School. Did you mean release?",
    '{"app_oidc_client_id": null}': "app_oidc_client_id is not set for",
    '{"backup_at": null}': "backup_at has no value. Write one behind the colon, or remove the line to get the default",
    '{"app_role_teacher": false}': "app_role_teacher is the YAML value false; if you mean the word, put it",
    '{"backup_environment": ["A=1"]}': "write a mapping, such as {NAME: value}.",
    "database_shared_buffers=4GB": "which leaves PostgreSQL no memory for connections",
    "backup_memory=lots": "backup_memory is “lots”; write an amount of memory as Docker does, such as 256m or 1g.",
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
    # The refusal is the end, and all of the run is short enough to be read.
    assert WRONG[wrong] in " ".join(run.output.rpartition("minutes\n")[2].split())
    assert len(run.output.splitlines()) <= 12


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


def test_silent_identity_provider_is_the_last_thing_that_is_read(deployed: str) -> None:
    """It may be back before the first lesson, so it refuses nothing; below the result it cannot be overlooked."""
    run = play("provision.yml", "--check", "--extra-vars", "app_oidc_token_url=https://127.0.0.1:1/token")
    assert run.status == 0
    last = run.output.rstrip().splitlines()[-1]
    assert last.startswith(f"Warning: {HOST} does not reach https://127.0.0.1:1/token (")
    assert last.endswith("; logins fail until it does.")


def provider(path: str) -> str:
    """An address of the lab's identity provider, as the host reaches it."""
    hosts = yaml.safe_load((ROOT / "inventories" / "lab" / "hosts.yml").read_text())
    return hosts["scratch4school"]["hosts"][HOST]["app_oidc_jwks_url"].rpartition("/oauth/")[0] + path


@pytest.mark.parametrize(
    ("setting", "path", "said"),
    [
        ("app_oidc_jwks_url", "/oauth/keys.json", "the identity provider answers 404: there is no such address."),
        ("app_oidc_jwks_url", "/.well-known/openid-configuration", "without any key."),
        ("app_oidc_token_url", "/oauth/tokens", "the identity provider answers 404: there is no such address."),
    ],
)
def test_wrong_address_of_the_provider_is_refused(deployed: str, setting: str, path: str, said: str) -> None:
    """Six checks would pass, and no pupil could log in."""
    url = provider(path)
    run = play("deploy.yml", "--extra-vars", f"{setting}={url}")
    assert (run.status, run.recap()["changed"]) == (2, 0)
    assert f"{setting} is {url}" in run.sentence
    assert said in run.sentence


def test_wrong_address_of_the_provider_is_a_warning_for_other_verbs(deployed: str) -> None:
    """A provider in trouble must not stand in the way of a rollback."""
    url = provider("/oauth/keys.json")
    run = play("provision.yml", "--check", "--extra-vars", f"app_oidc_jwks_url={url}")
    assert run.status == 0, run.output[-4000:]
    assert f"Warning: app_oidc_jwks_url is {url}" in run.output


def test_all_that_is_wrong_locally_is_said_at_once_and_without_ssh(deployed: str) -> None:
    """The host does not even answer here: settings and certificate are this machine's business."""
    wrong = {
        "ansible_port": 1,
        "app_worker": 5,
        "app_threads": 0,
        "app_oidc_client_id": "change-me",
        "backup_keep_daily": "seven",
        "backup_ssh_key": "ssh-ed25519 AAAA",
        "change_windows": ["always"],
        "proxy_tls_certificate": "/nowhere/school.crt",
        "release_confirm_seconds": 30,
    }
    run = play("deploy.yml", "--extra-vars", yaml.safe_dump(wrong, default_flow_style=True, width=10000).strip())
    assert run.status == 2
    said = run.output.rpartition("minutes\n")[2]
    assert [name for name in wrong if name not in said and name != "ansible_port"] == []
    assert "AAAA" not in run.output
    assert "SSH" not in said


def test_all_that_is_wrong_on_the_host_is_said_at_once(deployed: str) -> None:
    """Whoever corrects one thing must not meet the next one."""
    wrong = {
        "backup_at": "at night",
        "backup_drill_at": "Sunday, early",
        "backup_failure_command": "maill -s x admin@school.test",
        "proxy_frontend_directory": "/srv/none",
        "proxy_https_port": 22,
        "host_free_disk_mb": 99999999,
    }
    run = play("deploy.yml", "--extra-vars", yaml.safe_dump(wrong, default_flow_style=True, width=10000).strip())
    assert (run.status, run.recap()["changed"]) == (2, 0)
    said = run.output.rpartition("minutes\n")[2]
    for words in ("backup_at is", "backup_drill_at is", "“maill”", "no index.html", "Port 22", "MB are free"):
        assert words in said


def inventory(folder: Path, settings: str = "", host: str = "") -> Path:
    """The lab's inventory once more, with further lines of settings and of the first host."""
    shutil.copytree(ROOT / "inventories" / "lab", folder / "lab")
    hosts = (ROOT / "inventories" / "lab" / "hosts.yml").read_text()
    hosts = hosts.replace("{{ inventory_dir }}/../..", str(ROOT)).replace(f"{HOST}:\n", f"{HOST}:\n{host}", 1)
    (folder / "lab" / "hosts.yml").write_text(hosts)
    path = folder / "lab" / "group_vars" / "scratch4school" / "settings.yml"
    path.write_text(path.read_text() + settings)
    return folder / "lab"


def test_error_in_yaml_is_named_with_file_and_line(deployed: str, tmp_path: Path) -> None:
    """Ansible itself says only what it expected."""
    place = inventory(tmp_path, 'backup_keep_daily: "7\n')
    path = place / "group_vars" / "scratch4school" / "settings.yml"
    line = len(path.read_text().splitlines()) + 1
    run = play("deploy.yml", inventory=place)
    assert run.status != 0
    assert run.output.rstrip().splitlines()[-1].startswith(f"{path}, line {line}, column 1: this is not YAML")


def own_ssh(known_hosts: Path) -> str:
    """The setting with which a run makes a connection of its own; one that is open would be used otherwise."""
    options = f"-o UserKnownHostsFile={known_hosts} -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
    return f"ansible_ssh_common_args='{options} -o ControlPath=none'"


def test_unknown_host_key_is_answered_with_what_to_type(deployed: str, tmp_path: Path) -> None:
    """Keys and sudo have nothing to do with it."""
    run = play("deploy.yml", "--extra-vars", own_ssh(tmp_path / "none"))
    assert run.status == 2
    assert "Host key verification failed" in run.sentence
    assert "This machine does not know the server's host key. Type `ssh sysadmin@" in run.sentence
    assert "ssh-copy-id" not in run.sentence


def test_key_that_the_server_does_not_take_is_answered_with_what_to_type(deployed: str, tmp_path: Path) -> None:
    """Another user's key; the sentence does not speak of host keys."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    words = f"{own_ssh(ROOT / '.lab' / 'known_hosts')} ansible_ssh_private_key_file={tmp_path}/key"
    run = play("deploy.yml", "--extra-vars", words)
    assert run.status == 2
    assert "Permission denied" in run.sentence
    assert "The server does not accept your SSH key for that user. Type `ssh-copy-id sysadmin@" in run.sentence


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
