"""Backups on a deployed host: verified when they are made, and restored completely, also those made under load."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator

import pytest
import requests

from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.background_class import BackgroundClass
from scratch4school_lab.scenarios.backups import PROGRAM, backup_id, restore
from scratch4school_lab.scenarios.lab_hosts import http_status, on_host, wait_for
from scratch4school_lab.scenarios.playbooks import play
from scratch4school_lab.scenarios.pupils import Writers, create, read
from scratch4school_lab.scenarios.worker import HOST
from scratch4school_lab.tables import Tables

Login = Callable[..., requests.Session]
Begin = Callable[..., BackgroundClass]


@pytest.fixture
def pupil(login: Login, deployed: Host) -> requests.Session:
    """A pupil who is logged in before a backup is made."""
    return login("pupil21")


def test_restore_needs_confirmation_and_brings_data_back(pupil: requests.Session, deployed: Host) -> None:
    """Without an id it lists backups; without `confirm` it names what would be lost; with both it restores."""
    kept = create(pupil, deployed, "Katze & Übung 🐱", 7)
    backup = backup_id(play("backup.yml"))
    lost = create(pupil, deployed, "nach der Sicherung")
    assert pupil.delete(kept, timeout=60).status_code == 200
    listed = play("restore.yml")
    assert (listed.status, listed.recap()["changed"], backup in listed.output) == (0, 0, True)
    assert "type restore.yml -e backup=latest" in listed.output.rstrip().splitlines()[-1]
    asked = play("restore.yml", "-e", f"backup={backup}")
    assert asked.status == 2
    assert "nach der Sicherung" in asked.output
    assert asked.output.rstrip().endswith(f"-e backup={backup} -e confirm={backup}.")
    assert read(pupil, lost) == 0, "nothing was changed"
    run = restore(backup)
    assert re.search(r"Backup [0-9a-f]{8} of \S+ is verified", run.output), "the live data was backed up before"
    assert read(pupil, kept) == 7
    assert read(pupil, lost) is None
    assert pupil.delete(kept, timeout=60).status_code == 200
    second = play("deploy.yml")
    assert (second.status, second.recap()["changed"]) == (0, 0), second.output[-3000:]


def test_restore_of_unknown_backup_is_refused(deployed: Host) -> None:
    """An unknown id; test_preflight_backup.py has the refusals that need no repository."""
    if on_host(f"{PROGRAM} backup list --json").strip() == "[]":
        backup_id(play("backup.yml"))
    run = play("restore.yml", "-e", "backup=0000")
    assert (run.status, "No backup begins with “0000”" in run.one_line) == (2, True), run.output[-2000:]
    assert http_status() == 200


def test_backup_reports_phases_and_drill_opens_project(pupil: requests.Session, deployed: Host) -> None:
    """A drill works in a scratch folder and leaves nothing behind; status shows backup and drill."""
    project = create(pupil, deployed, "Probe")
    made = play("backup.yml")
    backup = backup_id(made)
    for phase in ("database", "files", "store", "read back"):
        assert re.search(rf"{HOST.name}: \[\d/4\] {phase} .*\(\d+\.\d s\)", made.output), phase
    run = play("drill.yml")
    assert run.status == 0, run.output[-4000:]
    assert f"Backup {backup} can be restored" in run.output
    # Any project of the backup; other tests save some without a sprite.
    assert re.search(r"\.sb3: \d+ sprites and stages", run.output)
    status = play("status.yml")
    assert f"backup {backup} (manual) 0.0 hours ago" in status.one_line
    assert f"restored {backup} in" in status.output
    left = on_host("sudo ls /var/lib/scratch4school/backup; sudo docker ps --all --format '{{.Names}}'")
    assert "drill" not in left
    assert pupil.delete(project, timeout=60).status_code == 200


def test_systemd_services_make_backup_and_drill(deployed: Host) -> None:
    """systemd starts the four services one after the other, as at night; the host records each success."""
    before = json.loads(on_host(f"{PROGRAM} backup status --json"))
    for work in ("backup", "backup-prune", "backup-check", "backup-drill"):
        on_host(f"sudo systemctl start scratch4school-{work}.service")
    known = json.loads(on_host(f"{PROGRAM} backup status --json"))
    assert known["backup"]["kind"] == "nightly"
    assert (known["drill"]["ok"], known["drill"]["backup"]) == (True, known["backup"]["id"])
    for work in ("backup", "prune", "check", "drill"):
        assert known[work]["at"] > (before.get(work) or {"at": ""})["at"], work
    assert json.loads(on_host(f"{PROGRAM} backup list --json"))[-1]["kind"] == "nightly"


def test_failed_nightly_backup_runs_failure_command(deployed: Host) -> None:
    """The sysadmin's command gets the reason, and status shows the failure."""
    settings, folder = "/etc/scratch4school/host/backup.json", "/var/lib/scratch4school/backup"
    on_host(
        f"sudo cp -a {settings} {settings}.kept && sudo mv {folder}/repository {folder}/repository.kept && "
        f'sudo sed -i \'s#"failure_command": ""#"failure_command": "cat > {folder}/told"#\' {settings}'
    )
    try:
        on_host("sudo systemctl start scratch4school-backup.service || true")
        wait_for(
            lambda: f"scratch4school-backup.service failed on {HOST.name}" in on_host(f"sudo cat {folder}/told || true")
        )
        told = on_host(f"sudo cat {folder}/told")
    finally:
        on_host(
            f"sudo sh -c 'mv {settings}.kept {settings}; rm -rf {folder}/told {folder}/repository; "
            f"mv {folder}/repository.kept {folder}/repository; systemctl reset-failed scratch4school-backup.service'"
        )
    assert f"{folder}/repository" in told, told
    assert "the last try failed" in play("status.yml").one_line
    on_host(f"{PROGRAM} backup create")


MOUNTED = ("-e", "backup_repository=/mnt/nas")


@pytest.fixture
def mounted_disk(deployed: Host) -> Iterator[None]:
    """A disk in /mnt/nas, to which only the user of the backups can write; afterwards the default repository."""
    on_host("sudo mkdir -p /mnt/nas && sudo mount -t tmpfs -o size=1200m,mode=0700,uid=10005 none /mnt/nas", deployed)
    yield
    on_host("mountpoint -q /mnt/nas && sudo umount /mnt/nas; sudo rmdir /mnt/nas", deployed)
    assert play("provision.yml").status == 0


@pytest.mark.usefixtures("mounted_disk")
def test_backups_on_mounted_disk_are_refused_while_it_is_not_mounted(deployed: Host) -> None:
    """A mounted disk is a folder like the default one. Without the disk no backup fills the host's own one."""
    run = play("provision.yml", *MOUNTED)
    assert run.status == 0, run.output[-4000:]
    assert "same disk" not in run.one_line
    backup = backup_id(play("backup.yml", *MOUNTED))
    assert [each["id"] for each in json.loads(on_host(f"{PROGRAM} backup list --json"))] == [backup]
    on_host("sudo umount /mnt/nas", deployed)
    refused = play("provision.yml", *MOUNTED)
    assert (refused.status, refused.recap()["changed"]) == (2, 0)
    assert "backup_repository is /mnt/nas, and the user 10005, as which backups are written, cannot" in refused.one_line
    assert "If a disk is to be mounted there, mount it." in refused.one_line
    # A rollback must not fail over it.
    assert "Warning: backup_repository is /mnt/nas" in play("restart.yml", *MOUNTED, "--check").one_line


@pytest.fixture
def writers(login: Login, deployed: Host) -> Iterator[Writers]:
    """Ten pupils who save without a pause."""
    found = Writers(deployed, {f"pupil{number}": login(f"pupil{number}") for number in range(22, 32)})
    yield found
    found.stop()
    found.delete()


# Nine minutes, most of which the class needs to read everything back.
@pytest.mark.long
def test_backup_under_load_has_every_acknowledged_save(
    writers: Writers, start_class: Begin, deployed: Host, tables: Tables
) -> None:
    """A class saves meanwhile: no request fails, and the restored data has every save from before the backup."""
    load = start_class(deployed, "--users", "40", "--large-share", "0.02")
    began = time.time()
    wait_for(lambda: sum(writers.acknowledged().values()) > 20)
    before = writers.acknowledged()
    backup = backup_id(play("backup.yml"))
    interval = load.since(began)
    load.end()
    writers.stop()
    assert (interval.failed, interval.lost) == (0, 0), interval.explain()
    restore(backup)
    stored = writers.stored()
    behind = {address: (before[address], found) for address, found in stored.items() if (found or -1) < before[address]}
    assert behind == {}
    tables.add(
        "Backup under load",
        {
            "engine": "postgres",
            "saves_before": sum(before.values()),
            "lost": 0,
            "requests": interval.requests,
            "failed": 0,
        },
    )
