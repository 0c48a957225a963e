"""Backups run on a schedule, and only root and the backup user can read their secrets."""

import re
from typing import Any

import pytest

PROGRAM = "/usr/local/sbin/scratch4schoolctl"
SECRETS = "/etc/scratch4school/backup"


@pytest.mark.parametrize("name", ["backup", "backup-prune", "backup-check", "backup-drill"])
def test_timer_has_a_next_run_unless_it_is_turned_off(host: Any, settings: dict[str, Any], name: str) -> None:
    """A timer with an empty schedule does not exist."""
    timer = f"scratch4school-{name}.timer"
    scheduled = name not in settings["unwanted_timers"]
    assert host.file(f"/etc/systemd/system/{timer}").exists is scheduled
    assert host.service(timer).is_running is scheduled
    assert host.service(timer).is_enabled is scheduled
    # A timer with an invalid schedule is active too, but has no next run. While its job runs, it may have none yet.
    shown = host.run(f"systemctl show --property=NextElapseUSecRealtime --property=SubState {timer}").stdout
    assert bool(re.search(r"NextElapseUSecRealtime=.|SubState=running", shown)) is scheduled


@pytest.mark.parametrize("name", ["backup", "backup-prune", "backup-check", "backup-drill"])
def test_failure_of_a_backup_job_is_reported(host: Any, name: str) -> None:
    """Each service starts the service that reports a failure."""
    unit = host.file(f"/etc/systemd/system/scratch4school-{name}.service").content_string
    assert "OnFailure=scratch4school-failed@%N.service" in unit


def test_only_the_backup_user_can_read_the_secrets(host: Any) -> None:
    """The folder belongs to root, and each file to the container's user with mode 0400."""
    assert host.file(SECRETS).mode == 0o700
    for name in host.file(SECRETS).listdir():
        file = host.file(f"{SECRETS}/{name}")
        assert (file.mode, file.uid) == (0o400, 10005), name


def test_only_root_can_read_the_backup_settings(host: Any) -> None:
    """They contain the repository and the sysadmin's failure command."""
    settings = host.file("/etc/scratch4school/host/backup.json")
    assert (settings.mode, settings.user) == (0o600, "root")


def test_only_the_backup_user_can_read_repository_and_cache(host: Any) -> None:
    """Although the repository is encrypted."""
    for name in ("repository", "cache"):
        folder = host.file(f"/var/lib/scratch4school/backup/{name}")
        assert (folder.mode, folder.uid) == (0o700, 10005), name


def test_scratch4schoolctl_reports_the_state_of_backups(host: Any) -> None:
    """As status.yml and verify.yml read it."""
    assert host.run(f"{PROGRAM} backup status --json").rc == 0
