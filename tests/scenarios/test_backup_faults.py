"""Faults during a backup or a restore: pupils have the previous data or the restored data, and nothing in between."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.background_class import BackgroundClass, background_classes
from scratch4school_lab.scenarios.backups import PROGRAM, backup_id, restore
from scratch4school_lab.scenarios.faults import audit_log, full_disk, kill_control_node
from scratch4school_lab.scenarios.lab_hosts import http_status, on_host, wait_for
from scratch4school_lab.scenarios.playbooks import play, start
from scratch4school_lab.scenarios.pupils import create, numbered, read
from scratch4school_lab.scenarios.worker import HOST
from scratch4school_lab.tables import Tables

pytestmark = pytest.mark.long

FOLDER = "/var/lib/scratch4school/backup"
# Busier than a real class, and yet it leaves a machine of two cores time for the playbooks.
CLASS = ["--users", "20", "--think", "3", "--devices", "10", "--allow-failures"]
# The brackets keep pkill from its own shell.
KILL = "sudo pkill -KILL -f '[s]bin/scratch4schoolctl (backup|restore|drill)'"
OUTPUT = "/tmp/backup-in-the-background"
TITLE = "Backups: what went wrong"


@pytest.fixture(scope="module")
def load(deployed: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundClass]:
    """Deploy this checkout, also where an earlier release is live, and let a class work during all tests."""
    run = play("deploy.yml")
    assert run.status == 0, run.output[-4000:]
    with background_classes(tmp_path_factory.mktemp("class")) as start:
        yield start(deployed, *CLASS)


@pytest.fixture
def kept(login: Callable[..., requests.Session], deployed: Host) -> Iterator[tuple[requests.Session, str, str]]:
    """A pupil, her project, and a backup in which it has the number 1; now it has the number 2."""
    pupil = login("pupil33")
    address = create(pupil, deployed, "Zustand", 1)
    backup = backup_id(play("backup.yml"))
    assert pupil.put(address, files={"project_file": ("p.sb3", numbered("Zustand", 2))}, timeout=60).status_code == 200
    yield pupil, address, backup
    pupil.delete(address, timeout=60)


def taken(*arguments: str) -> str:
    """Make a backup on the host, which has to succeed; returns its output."""
    return on_host(f"{PROGRAM} backup create {shlex.join(arguments)}")


def refused(command: str = "backup create") -> str:
    """Run the program, which has to fail; returns its error."""
    message = on_host(f"{PROGRAM} {command} 2>&1 >/dev/null && echo UNEXPECTED || true")
    assert "UNEXPECTED" not in message
    assert "Traceback" not in message
    return " ".join(message.split())


def start_backup_on_host() -> None:
    """Start a backup in the background of the host."""
    on_host(f"sudo systemd-run --quiet --collect sh -c '{PROGRAM.removeprefix('sudo ')} backup create > {OUTPUT} 2>&1'")


def output_on_host() -> str:
    """Its output so far."""
    return on_host(f"sudo cat {OUTPUT} 2>/dev/null || true")


def backups() -> list[str]:
    """The ids of the backups on the host."""
    return [one["id"] for one in json.loads(on_host(f"{PROGRAM} backup list --json"))]


@pytest.mark.parametrize("phase", ["database", "files", "store", "read back"])
def test_killed_backup_is_not_listed_and_next_one_succeeds(load: BackgroundClass, tables: Tables, phase: str) -> None:
    """After SIGKILL in each phase no incomplete backup is listed, no lock blocks, and the same command succeeds."""
    before = backups()
    # Without the list of known files, each phase takes longer.
    on_host(f"sudo rm -f {FOLDER}/files.json")
    start_backup_on_host()
    wait_for(lambda: f"] {phase}" in output_on_host(), pause=0.1)
    on_host(KILL)
    assert backups() == before
    assert "is verified" in taken()
    assert len(backups()) == len(before) + 1
    assert on_host("sudo docker ps --quiet --filter label=scratch4school.backup").strip() == ""
    tables.add(TITLE, {"fault": f"backup killed in “{phase}”", "then": "the next one is verified"})


def disturbed(phase: str, command: str) -> str:
    """Run a command at the very beginning of a phase of a backup, before restic is started; returns the last line."""
    program = PROGRAM.removeprefix("sudo ")
    on_host(
        f"sudo sh -c 'rm -f {OUTPUT}; {program} backup create > {OUTPUT} 2>&1 & "
        f'until grep -qF "] {phase}" {OUTPUT} 2>/dev/null; do :; done; {command}; wait\''
    )
    return output_on_host().splitlines()[-1]


def test_truncated_dump_fails_backup(load: BackgroundClass, tables: Tables) -> None:
    """The dump is complete when it is hashed, and truncated when it is stored."""
    before = backups()
    message = disturbed("files", f"truncate --size=-1000 {FOLDER}/work/database.dump")
    assert "The database in the repository is not the one that was dumped" in message
    assert backups() == before
    assert "is verified" in taken()
    tables.add(TITLE, {"fault": "dump cut off before it is stored", "then": message[:80]})


def test_file_removed_during_backup_fails_backup(
    load: BackgroundClass, kept: tuple[requests.Session, str, str], tables: Tables
) -> None:
    """With the file back in place the next backup succeeds."""
    number = kept[1].rpartition("/")[2]
    psql = "sudo docker exec scratch4school-postgres psql -U postgres -d scratch4school -Atc"
    path = on_host(f'{psql} "SELECT sb3_file_path FROM projects WHERE id = {number}"').strip()
    file = f"/var/lib/scratch4school/uploads/{path}"
    before = backups()
    try:
        message = disturbed("store", f"mv {file} /root/removed")
    finally:
        on_host(f"sudo mv /root/removed {file}")
    assert f"{path} disappeared or changed during the backup" in message
    assert backups() == before
    assert "is verified" in taken()
    tables.add(TITLE, {"fault": "file removed under a backup", "then": message[:80]})


def test_full_disk_for_dump_fails_backup(load: BackgroundClass, tables: Tables) -> None:
    """The message names the cause, and with space again the next backup succeeds."""
    on_host(f"sudo mkdir -p {FOLDER}/work")
    with full_disk(HOST, f"{FOLDER}/work"):
        message = refused()
    assert "space" in message or "dumped" in message, message
    assert "is verified" in taken()
    tables.add(TITLE, {"fault": "disk full where the dump is written", "then": message[:80]})


def test_full_disk_in_repository_fails_backup(load: BackgroundClass, tables: Tables) -> None:
    """Too little space is refused before; a disk that fills up meanwhile fails the backup, and none is listed."""
    mount = f"sudo mount -t tmpfs -o mode=0700,uid=10005,size={{}} tmpfs {FOLDER}/repository"
    on_host(mount.format("600k"))
    try:
        on_host(f"{PROGRAM} backup init")
        assert "must stay free" in refused()
    finally:
        on_host(f"sudo umount {FOLDER}/repository")
    on_host(mount.format("4g"))
    try:
        on_host(f"{PROGRAM} backup init")
        start_backup_on_host()
        wait_for(lambda: "[3/4]" in output_on_host(), pause=0.1)
        on_host(f"sudo dd if=/dev/zero of={FOLDER}/repository/fill bs=4M status=none || true")
        wait_for(lambda: "failed" in output_on_host())
        message = output_on_host().splitlines()[-1]
        assert backups() == []
    finally:
        on_host(f"sudo umount {FOLDER}/repository")
    assert "no space left" in message
    assert "is verified" in taken()
    tables.add(TITLE, {"fault": "disk full in the repository", "then": message[:80]})


def test_flipped_bits_in_repository_are_found(load: BackgroundClass, tables: Tables) -> None:
    """The check, the drill and the next backup, which reads everything back, find them."""
    taken()
    settings = "/etc/scratch4school/host/backup.json"
    on_host(
        f"""sudo sh -c 'sed -i "s/\\"read_percent\\": [0-9]*/\\"read_percent\\": 100/" {settings}
        cp -a {FOLDER}/repository {FOLDER}/repository.whole
        for pack in $(find {FOLDER}/repository/data -type f -size +200k); do
          chmod u+w $pack; printf "\\377\\376\\375" | dd of=$pack bs=1 seek=4242 conv=notrunc status=none; done
        cp {FOLDER}/files.json {FOLDER}/files.json.whole; rm {FOLDER}/files.json; rm -rf {FOLDER}/cache/*'"""
    )
    try:
        found = {"check": refused("backup check"), "drill": refused("drill"), "read back": refused()}
    finally:
        put_back = f"rm -rf {FOLDER}/repository; mv {FOLDER}/repository.whole {FOLDER}/repository; "
        put_back += f"mv {FOLDER}/files.json.whole {FOLDER}/files.json; "
        put_back += f'sed -i "s/\\"read_percent\\": 100/\\"read_percent\\": 10/" {settings}'
        on_host(f"sudo sh -c '{put_back}'")
    assert all(found.values())
    assert "is verified" in taken()
    on_host(f"{PROGRAM} drill && {PROGRAM} backup check")
    for step, message in found.items():
        tables.add(TITLE, {"fault": f"bits flipped in the repository, found by {step}", "then": message[:80]})


def test_other_backup_password_is_refused(load: BackgroundClass, tables: Tables) -> None:
    """A checkout without .secrets would make a new password, and the repository would have two."""
    others = {name: f"another-one-that-is-long-enough-{name}" for name in ("backup_password", "database_app_password")}
    run = play("deploy.yml", *(word for one in others.items() for word in ("-e", "=".join(one))))
    assert (run.status, run.recap()["changed"]) == (2, 0)
    assert "is not the password with which the backups of" in run.one_line
    # The refused run did not even take the lock.
    assert play("deploy.yml").recap()["changed"] == 0
    tables.add(TITLE, {"fault": "another backup_password", "then": "refused"})


def test_old_backup_fails_verification(load: BackgroundClass) -> None:
    """The message names the playbook to run."""
    run = play("verify.yml", "-e", "backup_max_age=0")
    assert run.status == 2
    assert "Run backup.yml" in run.one_line


@pytest.mark.parametrize("phase", ["fetch", "cutover", "maintenance on", "start", "switch", "verify"])
def test_killed_restore_succeeds_when_run_again(
    load: BackgroundClass, kept: tuple[requests.Session, str, str], tables: Tables, phase: str
) -> None:
    """Control node and program on the host are killed in each phase; the same command restores the backup."""
    pupil, address, backup = kept
    killed_at(phase, backup)
    restore(backup)
    assert read(pupil, address) == 1
    assert play("deploy.yml").recap()["changed"] == 0
    tables.add(TITLE, {"fault": f"restore killed in “{phase}”, run again", "then": "the backup's data"})


def test_saves_after_killed_restore_are_kept(
    load: BackgroundClass, kept: tuple[requests.Session, str, str], tables: Tables
) -> None:
    """The restore is killed after maintenance mode: other playbooks are refused, and an undo needs a confirmation."""
    pupil, address, backup = kept
    taken()
    killed_at("verify", backup)
    wait_for(lambda: http_status() == 200)
    files = {"project_file": ("p.sb3", numbered("Sicherung", 3))}
    assert pupil.put(address, files=files, timeout=60).status_code == 200
    older = next(one for one in backups() if one != backup)
    for playbook, *words in (
        ("restart.yml",),
        ("restore.yml", "-e", "undo=true"),
        ("restore.yml", "-e", f"backup={older}", "-e", f"confirm={older}"),
    ):
        refused = play(playbook, *words)
        assert (refused.status, refused.recap()["changed"]) == (2, 0), playbook
        assert backup in refused.one_line, refused.one_line
    assert read(pupil, address) == 3
    restore(backup)
    assert read(pupil, address) == 3
    tables.add(TITLE, {"fault": "restore killed after maintenance mode, a pupil saved", "then": "kept; undo refused"})


@pytest.mark.parametrize("phase", ["fetch", "maintenance on", "switch"])
def test_killed_restore_is_undone(
    load: BackgroundClass, kept: tuple[requests.Session, str, str], tables: Tables, phase: str
) -> None:
    """The undo brings back the data from before the restore; a deploy is refused until then."""
    pupil, address, backup = kept
    killed_at(phase, backup)
    if phase == "maintenance on":
        refusal = play("deploy.yml")
        assert (refusal.status, "undo=true" in refusal.one_line) == (2, True)
    # After the switch pupils may have saved, so the undo needs a confirmation.
    run = play("restore.yml", "-e", "undo=true", *(["-e", f"confirm={backup}"] if phase == "switch" else []))
    assert run.status == 0, run.output[-4000:]
    assert http_status() == 200
    assert read(pupil, address) == 2
    assert play("deploy.yml").recap()["changed"] == 0
    tables.add(TITLE, {"fault": f"restore killed in “{phase}”, undone", "then": "the data from before"})


def killed_at(phase: str, backup: str) -> None:
    """Start a restore, and kill the control node and the program on the host when it reaches a phase."""
    arguments: tuple[Any, ...] = ("-e", f"backup={backup}", "-e", f"confirm={backup}", "-e", "backup_skip=true")
    with audit_log(HOST) as lines:
        process = start("restore.yml", *arguments)
        lines.wait_for(phase, process)
        if phase == "fetch":
            # The program first checks whether the backup can be restored.
            wait_for(lambda: '"step"' in on_host(f"{PROGRAM} backup status --json"), pause=0.1)
        kill_control_node(process)
        on_host(f"{KILL} || true")
