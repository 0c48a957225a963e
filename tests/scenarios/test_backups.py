"""Backups on a deployed host: proved when they are made, and brought back whole, also those made under load."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator

import pytest
import requests
from conftest import HOST, VERIFIED, Place, Run, on_host, play, status, wait_for
from lesson import Lesson
from pupils import Writers, create, read
from tables import Tables

Login = Callable[..., requests.Session]
Begin = Callable[..., Lesson]
PROGRAM = "sudo /usr/local/lib/scratch4school-backup/backups"


def backed_up(run: Run) -> str:
    """The id of the backup that a run made and proved."""
    assert run.status == 0, run.output[-4000:]
    return re.findall(r"Backup ([0-9a-f]{8}) of \S+ is proved", run.output)[-1]


def restore(backup: str, *more: str, **where: str) -> Run:
    """Restore a backup over a school that lives."""
    run = play("restore.yml", "-e", f"backup={backup}", "-e", f"confirm={backup}", *more, **where)
    assert run.status == 0, run.output[-6000:]
    assert VERIFIED in run.output
    return run


@pytest.fixture
def pupil(login: Login, deployed: str) -> requests.Session:
    """Somebody who is logged in before anything is backed up."""
    return login("pupil21")


def test_a_backup_is_made_proved_and_known(deployed: str) -> None:
    """It tells how far it is, and status and verify rely on it."""
    run = play("backup.yml")
    backup = backed_up(run)
    for phase in ("database", "files", "store", "read back"):
        assert re.search(rf"{HOST}: \[\d/4\] {phase} .*\(\d+\.\d s\)", run.output), phase
    assert f"backup {backup} (manual) 0.0 hours ago" in play("status.yml").sentence


def test_a_restore_is_asked_for_twice_and_brings_back_what_was(pupil: requests.Session, deployed: str) -> None:
    """Without an id it lists; without confirm it says what would be lost; then the school is the backup's."""
    kept = create(pupil, deployed, "Katze & Übung 🐱", 7)
    backup = backed_up(play("backup.yml"))
    lost = create(pupil, deployed, "nach der Sicherung")
    assert pupil.delete(kept, timeout=30).status_code == 200
    listed = play("restore.yml")
    assert (listed.status, listed.recap()["changed"], backup in listed.output) == (0, 0, True)
    assert "type restore.yml -e backup=latest" in listed.output.rstrip().splitlines()[-1]
    asked = play("restore.yml", "-e", f"backup={backup}")
    assert asked.status == 2
    assert "nach der Sicherung" in asked.output
    assert asked.output.rstrip().endswith(f"-e backup={backup} -e confirm={backup}.")
    assert read(pupil, lost) == 0, "nothing was changed"
    run = restore(backup)
    assert re.search(r"Backup [0-9a-f]{8} of \S+ is proved", run.output), "what is live was backed up before"
    assert read(pupil, kept) == 7
    assert read(pupil, lost) is None
    assert pupil.delete(kept, timeout=30).status_code == 200
    second = play("deploy.yml")
    assert (second.status, second.recap()["changed"]) == (0, 0), second.output[-3000:]


def test_what_cannot_be_restored_is_refused_with_a_sentence(deployed: str) -> None:
    """An id that there is not, an undo of nothing, two wishes at once."""
    if on_host(f"{PROGRAM} list --json").strip() == "[]":
        backed_up(play("backup.yml"))
    for arguments, sentence in (
        (("-e", "backup=0000"), "No backup begins with “0000”"),
        (("-e", "undo=true"), "nothing to take back"),
        (("-e", "undo=true", "-e", "backup=latest"), "Say either"),
    ):
        run = play("restore.yml", *arguments)
        assert (run.status, sentence in run.sentence) == (2, True), run.output[-2000:]
    assert status() == 200


def test_a_drill_restores_migrates_and_opens_a_project(pupil: requests.Session, deployed: str) -> None:
    """In a place of its own, timed, and nothing of it is left."""
    project = create(pupil, deployed, "Probe")
    backup = backed_up(play("backup.yml"))
    run = play("drill.yml")
    assert run.status == 0, run.output[-4000:]
    assert f"Backup {backup} can be restored" in run.output
    assert "1 sprites and stages" in run.output
    assert f"restored {backup} in" in play("status.yml").output
    left = on_host("sudo ls /var/lib/scratch4school/backup; sudo docker ps --all --format '{{.Names}}'")
    assert "drill" not in left
    assert pupil.delete(project, timeout=30).status_code == 200


def test_what_comes_by_itself_is_a_backup_and_a_rehearsal(deployed: str) -> None:
    """As systemd starts it at night: the four kinds of work succeed one after the other, and the host knows so."""
    before = json.loads(on_host(f"{PROGRAM} status"))
    for work in ("backup", "backup-prune", "backup-check", "backup-drill"):
        on_host(f"sudo systemctl start scratch4school-{work}.service")
    known = json.loads(on_host(f"{PROGRAM} status"))
    assert known["backup"]["kind"] == "nightly"
    assert (known["drill"]["ok"], known["drill"]["backup"]) == (True, known["backup"]["id"])
    for work in ("backup", "prune", "check", "drill"):
        assert known[work]["at"] > (before.get(work) or {"at": ""})["at"], work
    assert json.loads(on_host(f"{PROGRAM} list --json"))[-1]["kind"] == "nightly"


def test_a_night_without_a_backup_is_told(deployed: str) -> None:
    """What fails by itself reaches the sysadmin's own command, with the reason, and verify."""
    settings, folder = "/usr/local/lib/scratch4school-backup/settings.json", "/var/lib/scratch4school/backup"
    on_host(
        f"sudo cp -a {settings} {settings}.kept && sudo mv {folder}/repository {folder}/repository.kept && "
        f'sudo sed -i \'s#"failure_command": ""#"failure_command": "cat > {folder}/told"#\' {settings}'
    )
    try:
        on_host("sudo systemctl start scratch4school-backup.service || true")
        wait_for(
            lambda: f"scratch4school-backup.service failed on {HOST}" in on_host(f"sudo cat {folder}/told || true"), 30
        )
        told = on_host(f"sudo cat {folder}/told")
    finally:
        on_host(
            f"sudo sh -c 'mv {settings}.kept {settings}; rm -rf {folder}/told {folder}/repository; "
            f"mv {folder}/repository.kept {folder}/repository; systemctl reset-failed scratch4school-backup.service'"
        )
    assert f"{folder}/repository" in told, told
    assert "the last try failed" in play("status.yml").sentence
    on_host(f"{PROGRAM} take")


@pytest.fixture
def writers(login: Login, deployed: str) -> Iterator[Writers]:
    """Ten pupils who save without a pause."""
    found = Writers(deployed, {f"pupil{number}": login(f"pupil{number}") for number in range(22, 32)})
    yield found
    found.stop()
    found.delete()


# Six minutes, most of them the class's own reading back.
@pytest.mark.long
def test_what_was_acknowledged_before_a_backup_under_load_is_in_it(
    writers: Writers, lesson: Begin, large: Place, tables: Tables
) -> None:
    """A class saves all the while; no request fails because of the backup, and none of its work is missing in it."""
    load = lesson(large, "--users", "40", "--seconds", "600", "--large-share", "0.02")
    began = time.time()
    before = writers.acknowledged()
    backup = backed_up(play("backup.yml"))
    stretch = load.since(began)
    load.end()
    writers.stop()
    assert (stretch.failed, stretch.lost) == (0, 0), stretch.explain()
    restore(backup)
    there = writers.there()
    behind = {address: (before[address], found) for address, found in there.items() if (found or -1) < before[address]}
    assert behind == {}
    assert sum(before.values()) > 20, "there was something to lose"
    tables.add(
        "Backup under load",
        {
            "engine": "postgres",
            "saves_before": sum(before.values()),
            "lost": 0,
            "requests": stretch.requests,
            "failed": 0,
        },
    )


@pytest.mark.long
def test_rows_in_a_file_are_brought_back_too(small: Place, login: Login) -> None:
    """SQLite: the same verbs, and a file with its log changes places as a unit."""
    where = f"{small.name},localhost"
    pupil = login("pupil32", small.url)
    kept = create(pupil, small.url, "Datei", 3)
    backup = backed_up(play("backup.yml", limit=where))
    lost = create(pupil, small.url, "danach")
    assert pupil.delete(kept, timeout=30).status_code == 200
    restore(backup, limit=where)
    assert (read(pupil, kept), read(pupil, lost)) == (3, None)
    drill = play("drill.yml", limit=where)
    assert drill.status == 0, drill.output[-4000:]
    assert pupil.delete(kept, timeout=30).status_code == 200
