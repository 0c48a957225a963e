"""Backups happen by themselves, and nobody but root and their own user can read what opens them."""

import re
from typing import Any

import pytest

PROGRAM = "/usr/local/lib/scratch4school-backup/backups"
SECRETS = "/etc/scratch4school/backup"


@pytest.mark.parametrize("name", ["backup", "backup-prune", "backup-check", "backup-drill"])
def test_timer_waits_for_its_hour(host: Any, settings: dict[str, Any], name: str) -> None:
    """systemd starts it and knows its next run; one that the sysadmin does not want is not there at all."""
    timer = f"scratch4school-{name}.timer"
    wanted = name not in settings["unwanted_timers"]
    assert host.file(f"/etc/systemd/system/{timer}").exists is wanted
    assert host.service(timer).is_running is wanted
    assert host.service(timer).is_enabled is wanted
    # With an hour that systemd cannot read a timer is active all the same.
    # While its work is under way systemd may know no hour yet.
    said = host.run(f"systemctl show --property=NextElapseUSecRealtime --property=SubState {timer}").stdout
    assert bool(re.search(r"NextElapseUSecRealtime=.|SubState=running", said)) is wanted


@pytest.mark.parametrize("name", ["backup", "backup-prune", "backup-check", "backup-drill"])
def test_failure_is_told(host: Any, name: str) -> None:
    """Each has somebody to tell when it fails."""
    unit = host.file(f"/etc/systemd/system/scratch4school-{name}.service").content_string
    assert "OnFailure=scratch4school-failed@%N.service" in unit


def test_secrets_are_for_the_backups_user_alone(host: Any) -> None:
    """The folder is root's, each file 0400 for the user in the container."""
    assert host.file(SECRETS).mode == 0o700
    for name in host.file(SECRETS).listdir():
        file = host.file(f"{SECRETS}/{name}")
        assert (file.mode, file.uid) == (0o400, 10005), name


def test_settings_are_for_root(host: Any) -> None:
    """They name places and the sysadmin's own command."""
    settings = host.file("/usr/local/lib/scratch4school-backup/settings.json")
    assert (settings.mode, settings.user) == (0o600, "root")


def test_what_lies_in_backups_is_not_for_everybody(host: Any) -> None:
    """The repository is encrypted; its folder is closed all the same."""
    for name in ("repository", "cache"):
        folder = host.file(f"/var/lib/scratch4school/backup/{name}")
        assert (folder.mode, folder.uid) == (0o700, 10005), name


def test_the_program_answers(host: Any) -> None:
    """What status and verify ask."""
    assert host.run(f"{PROGRAM} status --json").rc == 0
