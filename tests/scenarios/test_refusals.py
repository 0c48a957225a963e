"""Wrong settings and hosts are refused before anything on the host changes; each refusal says what to type."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from shlex import quote

import pytest
import yaml

from scratch4school_lab.checkout import LAB_INVENTORY, ROOT
from scratch4school_lab.hosts.plan import KNOWN_HOSTS, Host
from scratch4school_lab.scenarios.faults import AUDIT_LOG
from scratch4school_lab.scenarios.lab_hosts import on_host
from scratch4school_lab.scenarios.playbooks import play
from scratch4school_lab.scenarios.worker import HOST

# An unknown engine hides what is wrong with the settings of PostgreSQL.
POSTGRES: dict[str, object] = {"database_engine": "postgres"}
# Setting and wrong value -> a part of the refusal. The first ones are refused on the control node, without SSH.
WRONG_SETTINGS: list[tuple[dict[str, object], str]] = [
    ({"scratch4school_url": ""}, "scratch4school_url is not set"),
    ({"scratch4school_url": "http://localhost:8443"}, "must be a whole address that begins with https://"),
    ({"scratch4school_url": "https://localhost:8443/scratch"}, "without a path or a slash"),
    ({"app_oidc_client_id": "change-me"}, "app_oidc_client_id is still a placeholder"),
    ({"app_oidc_client_id": None}, "app_oidc_client_id is not set for"),
    ({"app_oidc_client_secret": ""}, "app_oidc_client_secret is not set"),
    ({"app_oidc_client_secret": "short"}, "at least 8"),
    ({"app_secret_key": "too-short-a-key"}, "at least 32 characters"),
    ({"app_oidc_token_url": "token"}, "app_oidc_token_url is “token”; it must be a whole address"),
    ({"app_role_teacher": False}, "app_role_teacher is the YAML value false; if you mean the word, put it"),
    ({"app_sweep_grace_hours": 0}, "app_sweep_grace_hours is 0; it must be at least 1 and at most 9999."),
    ({"app_threads": 200, **POSTGRES}, "max_client_conn"),
    ({"app_threads": 0}, "app_threads is 0"),
    ({"app_worker": 5}, "app_worker is no setting of Scratch4School. Did you mean app_workers?"),
    ({"backup_environment": ["A=1"]}, "write a mapping, such as {NAME: value}."),
    (
        {"backup_memory": "lots"},
        "backup_memory is “lots”; write an amount of memory as Docker does, such as 256m or 1g.",
    ),
    ({"backup_keep_daily": "seven"}, "backup_keep_daily is “seven”"),
    ({"backup_ssh_key": "ssh-ed25519 AAAA"}, "backup_ssh_key"),
    ({"backup_password": "short"}, "backup_password must have at least 16 characters"),
    ({"backup_repository": "rest:https://school:pass@nas/x"}, "backup_repository contains a password"),
    (
        {"backup_schedule": None},
        "backup_schedule has no value. Write one after the colon, or remove the line to get the default",
    ),
    ({"change_windows": "always"}, "it must be a list"),
    ({"change_windows": ["in the holidays"]}, "change_windows has “in the holidays”, which is no window"),
    (
        {"database_app_password": "short", **POSTGRES},
        "database_app_password must be one line of at least 16 characters",
    ),
    ({"database_engine": "mysql"}, "database_engine is “mysql”; write postgres or sqlite."),
    ({"database_shared_buffers": "4GB", **POSTGRES}, "which leaves PostgreSQL no memory for connections"),
    ({"images_base_source": "internet"}, "images_base_source is “internet”; write auto or registry or bootstrap."),
    ({"pgbouncer_pool_size": 100, **POSTGRES}, "max_connections"),
    ({"pgbouncer_query_wait_timeout": 5, **POSTGRES}, "pgbouncer_query_wait_timeout is 5; write at least 15"),
    ({"proxy_tls_certificate": "/nowhere/school.crt"}, "there is no such file on the control node"),
    ({"relase": "0123456789ab"}, "relase is no setting of Scratch4School. Did you mean release?"),
    ({"release_confirm_seconds": 30}, "would revert before the run could confirm the release"),
    ({"release_keep": "many"}, "release_keep is “many”; write a whole number, such as 5."),
]
WRONG_FOR_HOST: list[tuple[dict[str, object], str]] = [
    ({"backup_drill_schedule": "Sunday, early"}, "backup_drill_schedule is"),
    ({"backup_failure_command": "maill -s x admin@school.test"}, "“maill”"),
    ({"backup_schedule": "at night"}, "backup_schedule is"),
    ({"database_engine": "sqlite"}, "runs on postgres; its database is in /var/lib/scratch4school/postgres"),
    ({"host_memory_mb": 99999999}, "of memory"),
    ({"host_min_free_mb": 99999999}, "are free for /var/lib/scratch4school"),
    ({"proxy_frontend_directory": "/srv/none"}, "no index.html"),
    ({"proxy_https_port": 22}, "is held by sshd"),
]


def rounds(wrong: list[tuple[dict[str, object], str]]) -> list[dict[str, object]]:
    """As few sets of settings as possible that have every wrong value: a setting has one value in a run."""
    found: list[dict[str, object]] = []
    for setting, _ in wrong:
        fitting = next(
            (one for one in found if all(one.get(name, value) == value for name, value in setting.items())), None
        )
        if fitting is None:
            fitting = {}
            found.append(fitting)
        fitting.update(setting)
    return found


def refused(settings: dict[str, object], wrong: list[tuple[dict[str, object], str]]) -> str:
    """Deploy with all these settings: one run names each of them, and ends before the first change."""
    run = play("deploy.yml", "--extra-vars", yaml.safe_dump(settings, default_flow_style=True, width=10000).strip())
    assert run.status == 2
    # At the end of the output, and nothing hides it.
    refusal = " ".join(run.output.rpartition("minutes\n")[2].split())
    expected = [words for setting, words in wrong if settings.items() >= setting.items()]
    assert [words for words in expected if words not in refusal] == []
    assert run.recap()["changed"] == 0
    assert "Traceback" not in run.output
    assert len(run.output.splitlines()) <= 11 + len(expected)
    return run.output


@pytest.mark.parametrize("number", range(len(rounds(WRONG_SETTINGS))))
def test_all_wrong_settings_are_refused_at_once_without_ssh(deployed: Host, number: int) -> None:
    """The host does not answer here: settings and certificate are checked on the control node."""
    output = refused(rounds(WRONG_SETTINGS)[number] | {"ansible_port": 1}, WRONG_SETTINGS)
    assert "SSH" not in output
    # A part of a secret.
    assert "AAAA" not in output


def test_all_problems_of_host_are_refused_at_once(deployed: Host) -> None:
    """After one correction there is no second refusal."""
    (settings,) = rounds(WRONG_FOR_HOST)
    refused(settings, WRONG_FOR_HOST)


@pytest.mark.parametrize("wrong", ["host_min_free_mb=99999999", "ansible_host=127.0.0.1 ansible_port=1"])
def test_single_refusal_is_short(deployed: Host, wrong: str) -> None:
    """The whole output fits on a screen, whichever phase ends it."""
    run = play("deploy.yml", "--extra-vars", wrong)
    assert run.status != 0
    assert ("cannot be reached by SSH" if "port" in wrong else "are free for /var/lib/scratch4school") in run.one_line
    assert len(run.output.splitlines()) <= 12


def test_unsupported_system_is_refused(deployed: Host) -> None:
    """The refusal names the host's system and the supported ones; here the lab's Debian is unsupported."""
    run = play("deploy.yml", "--extra-vars", '{"__host_systems_tested": ["Debian 99"]}')
    assert run.status != 0
    assert f"{HOST.name} runs Debian 13, which is not supported. Use a server with Debian 99 (tested)" in run.one_line
    assert "Ubuntu 24.04 (accepted, untested)" in run.one_line
    assert run.recap()["changed"] == 0


def test_certificate_for_another_host_is_refused(deployed: Host) -> None:
    """Browsers would refuse it."""
    run = play("deploy.yml", "--extra-vars", "scratch4school_url=https://scratch.other-school.de")
    assert run.status != 0
    assert "and not for scratch.other-school.de" in run.one_line
    assert run.recap()["changed"] == 0


def test_change_outside_windows_is_refused_unless_forced(deployed: Host) -> None:
    """The refusal names the windows, and the option that forces the change."""
    day = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"][(int(on_host("date +%u")) + 2) % 7]
    windows = ("--extra-vars", f'{{"change_windows": ["{day} 00:00-24:00"]}}')
    run = play("deploy.yml", *windows)
    assert run.status != 0
    assert (
        f"change_windows allows changes only at {day} 00:00-24:00. Wait, or add -e change_forced=true." in run.one_line
    )
    assert run.recap()["changed"] == 0
    assert play("provision.yml", "--check", *windows, "--extra-vars", "change_forced=true").status == 0


def test_unreachable_identity_provider_is_last_line(deployed: Host) -> None:
    """It may answer again before pupils log in, so it is a warning, and the last line of the output."""
    run = play("provision.yml", "--check", "--extra-vars", "app_oidc_token_url=https://127.0.0.1:1/token")
    assert run.status == 0
    last = run.output.rstrip().splitlines()[-1]
    assert last.startswith(f"Warning: {HOST.name} does not reach https://127.0.0.1:1/token (")
    assert last.endswith("; logins fail until it does.")


def provider(path: str) -> str:
    """An address of the lab's identity provider, as the host reaches it."""
    hosts = yaml.safe_load((LAB_INVENTORY / "hosts.yml").read_text())
    return hosts["scratch4school"]["hosts"][HOST.name]["app_oidc_jwks_url"].rpartition("/oauth/")[0] + path


@pytest.mark.parametrize(
    ("setting", "path", "reason"),
    [
        ("app_oidc_jwks_url", "/oauth/keys.json", "the identity provider answers 404: there is no such address."),
        ("app_oidc_jwks_url", "/.well-known/openid-configuration", "without any key."),
        ("app_oidc_token_url", "/oauth/tokens", "the identity provider answers 404: there is no such address."),
    ],
)
def test_wrong_provider_address_is_refused(deployed: Host, setting: str, path: str, reason: str) -> None:
    """The six checks would pass, and no pupil could log in."""
    url = provider(path)
    run = play("deploy.yml", "--extra-vars", f"{setting}={url}")
    assert (run.status, run.recap()["changed"]) == (2, 0)
    assert f"{setting} is {url}" in run.one_line
    assert reason in run.one_line


def test_wrong_provider_address_is_warning_for_other_playbooks(deployed: Host) -> None:
    """A provider that fails must not prevent a rollback."""
    url = provider("/oauth/keys.json")
    run = play("provision.yml", "--check", "--extra-vars", f"app_oidc_jwks_url={url}")
    assert run.status == 0, run.output[-4000:]
    assert f"Warning: app_oidc_jwks_url is {url}" in run.output


def inventory(folder: Path, settings: str = "", host: str = "") -> Path:
    """A copy of the lab's inventory, with further lines of settings and of the host."""
    shutil.copytree(LAB_INVENTORY, folder / "lab")
    hosts = (LAB_INVENTORY / "hosts.yml").read_text()
    hosts = hosts.replace("{{ inventory_dir }}/../..", str(ROOT)).replace(f"{HOST.name}:\n", f"{HOST.name}:\n{host}", 1)
    (folder / "lab" / "hosts.yml").write_text(hosts)
    path = folder / "lab" / "group_vars" / "scratch4school" / "settings.yml"
    path.write_text(path.read_text() + settings)
    return folder / "lab"


def test_yaml_error_is_refused_with_file_and_line(deployed: Host, tmp_path: Path) -> None:
    """Ansible itself prints only what it expected."""
    copy = inventory(tmp_path, 'backup_keep_daily: "7\n')
    path = copy / "group_vars" / "scratch4school" / "settings.yml"
    line = len(path.read_text().splitlines()) + 1
    run = play("deploy.yml", inventory=copy)
    assert run.status != 0
    assert run.output.rstrip().splitlines()[-1].startswith(f"{path}, line {line}, column 1: this is not YAML")


def own_ssh(known_hosts: Path) -> str:
    """The setting for a new SSH connection; otherwise Ansible uses an open one."""
    options = f"-o UserKnownHostsFile={known_hosts} -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
    return f"ansible_ssh_common_args='{options} -o ControlPath=none'"


def test_unknown_host_key_is_refused_with_command(deployed: Host, tmp_path: Path) -> None:
    """The refusal is not about keys and sudo."""
    run = play("deploy.yml", "--extra-vars", own_ssh(tmp_path / "none"))
    assert run.status == 2
    assert "Host key verification failed" in run.one_line
    assert "The control node does not know the server's host key. Type `ssh sysadmin@" in run.one_line
    assert "ssh-copy-id" not in run.one_line


def test_rejected_ssh_key_is_refused_with_command(deployed: Host, tmp_path: Path) -> None:
    """The refusal of another user's key is not about host keys."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    settings = f"{own_ssh(KNOWN_HOSTS)} ansible_ssh_private_key_file={tmp_path}/key"
    run = play("deploy.yml", "--extra-vars", settings)
    assert run.status == 2
    assert "Permission denied" in run.one_line
    assert "The server does not accept your SSH key for that user. Type `ssh-copy-id sysadmin@" in run.one_line


def test_interrupted_change_to_other_release_is_refused(deployed: Host) -> None:
    """The refusal names the interrupted release, and the options to continue or to abandon it."""
    line = '{"run": "by-hand", "verb": "deploy", "phase": "%s", "release": "0123456789ab", "by": "a@b", "at": "now"%s}'
    begun, ended = line % ("begin", ""), line % ("end", ', "outcome": "failed"')
    on_host(f"echo {quote(begun)} | sudo tee -a {AUDIT_LOG}")
    try:
        run = play("deploy.yml")
    finally:
        on_host(f"echo {quote(ended)} | sudo tee -a {AUDIT_LOG}")
    assert run.status != 0
    assert "An earlier deploy of release 0123456789ab by a@b" in run.one_line
    assert "-e release_abandon=true" in run.one_line
    assert run.recap()["changed"] == 0


@pytest.mark.parametrize("playbook", ["deploy.yml", "verify.yml"])
def test_inventory_without_hosts_is_refused(tmp_path: Path, playbook: str) -> None:
    """A run that does nothing must not succeed."""
    empty = tmp_path / "hosts.yml"
    empty.write_text("---\nall:\n  hosts: {}\n")
    run = play(playbook, inventory=empty, limit="all,localhost")
    assert run.status != 0
    assert "names no host in the group scratch4school" in run.one_line


def test_unreachable_registry_is_refused_where_required(deployed: Host) -> None:
    """The refusal names the setting that does without a registry; the lab reaches none."""
    run = play("provision.yml", "--extra-vars", "images_base_source=registry")
    assert run.status != 0
    assert "cannot be pulled" in run.one_line
    assert "Set images_base_source to bootstrap" in run.one_line
    assert run.recap()["changed"] == 0
