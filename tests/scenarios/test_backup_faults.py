"""Whatever goes wrong in the middle of a backup or a restore: pupils have the former school or the restored, whole."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from conftest import HOST, Place, on_host, play, start, status, wait_for
from faults import full_disk, journal, kill_controller
from lesson import Lesson, lessons
from pupils import create, numbered, read
from tables import Tables
from test_backups import PROGRAM, backed_up, restore

pytestmark = pytest.mark.long

FOLDER = "/var/lib/scratch4school/backup"
# Busier than any class, and yet a machine of two cores has time left for what goes wrong.
CLASS = ["--users", "20", "--think", "3", "--devices", "10", "--seconds", "3600", "--allow-failures"]
# Not the shell in which this stands.
KILL = "sudo pkill -KILL -f '[s]cratch4school-backup/backups'"
SAID = "/tmp/backup-in-the-background"
TITLE = "Backups: what went wrong"


@pytest.fixture(scope="module")
def load(deployed: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lesson]:
    """One class that goes on all the time."""
    with lessons(tmp_path_factory.mktemp("lesson")) as begin:
        yield begin(Place(HOST, deployed), *CLASS)


@pytest.fixture
def kept(login: Callable[..., requests.Session], deployed: str) -> Iterator[tuple[requests.Session, str, str]]:
    """A pupil, her project with the number 1 in it, and a backup of that moment; since then it has the number 2."""
    pupil = login("pupil33")
    address = create(pupil, deployed, "Zustand", 1)
    backup = backed_up(play("backup.yml"))
    assert pupil.put(address, files={"project_file": ("p.sb3", numbered("Zustand", 2))}, timeout=60).status_code == 200
    yield pupil, address, backup
    pupil.delete(address, timeout=60)


def taken(*arguments: str) -> str:
    """A backup on the host that has to succeed; returns what it said."""
    return on_host(f"{PROGRAM} take {shlex.join(arguments)}")


def refused(command: str = "take") -> str:
    """What the program says when it has to fail."""
    said = on_host(f"{PROGRAM} {command} 2>&1 >/dev/null && echo UNEXPECTED || true")
    assert "UNEXPECTED" not in said
    assert "Traceback" not in said
    return " ".join(said.split())


def begin_on_host() -> None:
    """A backup in the background of the host."""
    on_host(f"sudo systemd-run --quiet --collect sh -c '{PROGRAM.removeprefix('sudo ')} take > {SAID} 2>&1'")


def said_on_host() -> str:
    """What it has said so far."""
    return on_host(f"sudo cat {SAID} 2>/dev/null || true")


def backups() -> list[str]:
    """What counts as a backup on the host."""
    return [one["id"] for one in json.loads(on_host(f"{PROGRAM} list --json"))]


@pytest.mark.parametrize("phase", ["database", "files", "store", "read back"])
def test_a_backup_that_is_killed_is_none_and_the_next_one_is(load: Lesson, tables: Tables, phase: str) -> None:
    """SIGKILL in each phase: nothing half is listed, no lock stays for long, and the same command mends it."""
    before = backups()
    # What is known of the files is forgotten, so that each phase lasts.
    on_host(f"sudo rm -f {FOLDER}/files.json")
    begin_on_host()
    wait_for(lambda: f"] {phase}" in said_on_host(), seconds=60)
    on_host(KILL)
    assert backups() == before
    assert "is proved" in taken()
    assert len(backups()) == len(before) + 1
    assert on_host("sudo docker ps --quiet --filter label=scratch4school.backup").strip() == ""
    tables.add(TITLE, {"fault": f"backup killed in “{phase}”", "then": "the next one is proved"})


def disturbed(phase: str, command: str) -> str:
    """What a backup says that is disturbed at the very beginning of a phase, before restic has been started in it."""
    program = PROGRAM.removeprefix("sudo ")
    on_host(
        f"sudo sh -c 'rm -f {SAID}; {program} take > {SAID} 2>&1 & "
        f'until grep -qF "] {phase}" {SAID} 2>/dev/null; do :; done; {command}; wait\''
    )
    return said_on_host().splitlines()[-1]


def test_a_dump_that_is_cut_off_is_no_backup(load: Lesson, tables: Tables) -> None:
    """It was whole when it was hashed, and is not when it is stored."""
    before = backups()
    said = disturbed("files", f"truncate --size=-1000 {FOLDER}/work/database.dump")
    assert "The database in the repository is not the one that was dumped" in said
    assert backups() == before
    assert "is proved" in taken()
    tables.add(TITLE, {"fault": "dump cut off before it is stored", "then": said[:80]})


def test_a_file_that_is_removed_under_it_is_missed(
    load: Lesson, kept: tuple[requests.Session, str, str], tables: Tables
) -> None:
    """Somebody tidies up in the uploads' folder meanwhile; with the file back the next one is proved."""
    number = kept[1].rpartition("/")[2]
    psql = "sudo docker exec scratch4school-postgres psql -U postgres -d scratch4school -Atc"
    path = on_host(f'{psql} "SELECT sb3_file_path FROM projects WHERE id = {number}"').strip()
    file = f"/var/lib/scratch4school/uploads/{path}"
    before = backups()
    try:
        said = disturbed("store", f"mv {file} /root/removed")
    finally:
        on_host(f"sudo mv /root/removed {file}")
    assert f"{path} went while the backup was made" in said
    assert backups() == before
    assert "is proved" in taken()
    tables.add(TITLE, {"fault": "file removed under a backup", "then": said[:80]})


def test_a_full_disk_in_the_place_of_the_dump(load: Lesson, tables: Tables) -> None:
    """It is said, and with room again the next one is proved."""
    on_host(f"sudo mkdir -p {FOLDER}/work")
    with full_disk(Place(HOST, ""), f"{FOLDER}/work"):
        said = refused()
    assert "space" in said or "dumped" in said, said
    assert "is proved" in taken()
    tables.add(TITLE, {"fault": "disk full where the dump is written", "then": said[:80]})


def test_a_full_disk_in_the_repository(load: Lesson, tables: Tables) -> None:
    """What does not fit is refused before; what fills up meanwhile fails, and nothing half is taken for a backup."""
    mount = f"sudo mount -t tmpfs -o mode=0700,uid=10005,size={{}} tmpfs {FOLDER}/repository"
    on_host(mount.format("600k"))
    try:
        on_host(f"{PROGRAM} make")
        assert "have to stay free" in refused()
    finally:
        on_host(f"sudo umount {FOLDER}/repository")
    on_host(mount.format("4g"))
    try:
        on_host(f"{PROGRAM} make")
        begin_on_host()
        wait_for(lambda: "[3/4]" in said_on_host(), seconds=60)
        on_host(f"sudo dd if=/dev/zero of={FOLDER}/repository/fill bs=4M status=none || true")
        wait_for(lambda: "failed" in said_on_host(), seconds=120)
        said = said_on_host().splitlines()[-1]
        assert backups() == []
    finally:
        on_host(f"sudo umount {FOLDER}/repository")
    assert "no space left" in said
    assert "is proved" in taken()
    tables.add(TITLE, {"fault": "disk full in the repository", "then": said[:80]})


def test_a_bit_that_flips_in_the_repository_is_found(load: Lesson, tables: Tables) -> None:
    """By the check, by the drill, and by a backup that reads back what it did not read before."""
    taken()
    settings = "/usr/local/lib/scratch4school-backup/settings.json"
    on_host(
        f"""sudo sh -c 'sed -i "s/\\"read_percent\\": [0-9]*/\\"read_percent\\": 100/" {settings}
        cp -a {FOLDER}/repository {FOLDER}/repository.whole
        for pack in $(find {FOLDER}/repository/data -type f -size +200k); do
          chmod u+w $pack; printf "\\377\\376\\375" | dd of=$pack bs=1 seek=4242 conv=notrunc status=none; done
        cp {FOLDER}/files.json {FOLDER}/files.json.whole; rm {FOLDER}/files.json; rm -rf {FOLDER}/cache/*'"""
    )
    try:
        found = {"check": refused("check"), "drill": refused("drill"), "read back": refused("take")}
    finally:
        put_back = f"rm -rf {FOLDER}/repository; mv {FOLDER}/repository.whole {FOLDER}/repository; "
        put_back += f"mv {FOLDER}/files.json.whole {FOLDER}/files.json; "
        put_back += f'sed -i "s/\\"read_percent\\": 100/\\"read_percent\\": 10/" {settings}'
        on_host(f"sudo sh -c '{put_back}'")
    assert all(found.values())
    assert "is proved" in taken()
    on_host(f"{PROGRAM} drill && {PROGRAM} check")
    for way, said in found.items():
        tables.add(TITLE, {"fault": f"bits flipped in the repository, found by {way}", "then": said[:80]})


def test_another_password_is_refused_before_anything_changes(load: Lesson, tables: Tables) -> None:
    """A colleague's checkout without .secrets would have made a new one; the backups would have had two keys."""
    others = {name: f"another-one-that-is-long-enough-{name}" for name in ("backup_password", "database_app_password")}
    run = play("deploy.yml", *(word for one in others.items() for word in ("-e", "=".join(one))))
    assert (run.status, run.recap()["changed"]) == (2, 0)
    assert "is not the one with which the backups of" in run.sentence
    # Not even the lock was taken.
    assert play("deploy.yml").recap()["changed"] == 0
    tables.add(TITLE, {"fault": "another backup_password", "then": "refused"})


def test_old_backups_fail_the_verification(load: Lesson) -> None:
    """The role's own check says so, with the verb to run."""
    run = play("verify.yml", "-e", "backup_max_age=0")
    assert run.status == 2
    assert "Run backup.yml" in run.sentence


@pytest.mark.parametrize("phase", ["fetch", "swap", "close", "start", "switch", "verify"])
def test_a_restore_that_is_killed_and_run_again(
    load: Lesson, kept: tuple[requests.Session, str, str], tables: Tables, phase: str
) -> None:
    """Controller and the program on the host die in each phase; the same command brings the backup's school."""
    pupil, address, backup = kept
    killed_at(phase, backup)
    restore(backup)
    assert read(pupil, address) == 1
    assert play("deploy.yml").recap()["changed"] == 0
    tables.add(TITLE, {"fault": f"restore killed in “{phase}”, run again", "then": "the backup's school"})


def test_what_pupils_saved_in_a_restored_school_is_not_thrown_away(
    load: Lesson, kept: tuple[requests.Session, str, str], tables: Tables
) -> None:
    """Cut short when they were let in already: no other verb builds on it, and to take it back is asked for twice."""
    pupil, address, backup = kept
    taken()
    killed_at("verify", backup)
    wait_for(lambda: status() == 200, seconds=60)
    files = {"project_file": ("p.sb3", numbered("Sicherung", 3))}
    assert pupil.put(address, files=files, timeout=60).status_code == 200
    older = next(one for one in backups() if one != backup)
    for verb, *words in (
        ("restart.yml",),
        ("restore.yml", "-e", "undo=true"),
        ("restore.yml", "-e", f"backup={older}", "-e", f"confirm={older}"),
    ):
        refused = play(verb, *words)
        assert (refused.status, refused.recap()["changed"]) == (2, 0), verb
        assert backup in refused.sentence, refused.sentence
    assert read(pupil, address) == 3
    restore(backup)
    assert read(pupil, address) == 3
    tables.add(TITLE, {"fault": "restore killed when pupils were in, one saved", "then": "kept; undo refused"})


@pytest.mark.parametrize("phase", ["fetch", "close", "switch"])
def test_a_restore_that_is_killed_and_taken_back(
    load: Lesson, kept: tuple[requests.Session, str, str], tables: Tables, phase: str
) -> None:
    """With undo the school is the one from before, and every other verb was refused until then."""
    pupil, address, backup = kept
    killed_at(phase, backup)
    if phase == "close":
        refusal = play("deploy.yml")
        assert (refusal.status, "undo=true" in refusal.sentence) == (2, True)
    # Who was let in for a moment may have saved.
    run = play("restore.yml", "-e", "undo=true", *(["-e", f"confirm={backup}"] if phase == "switch" else []))
    assert run.status == 0, run.output[-4000:]
    assert status() == 200
    assert read(pupil, address) == 2
    assert play("deploy.yml").recap()["changed"] == 0
    tables.add(TITLE, {"fault": f"restore killed in “{phase}”, taken back", "then": "the school from before"})


def killed_at(phase: str, backup: str) -> None:
    """A restore whose controller is killed when it comes to a phase, and what it runs on the host likewise."""
    arguments: tuple[Any, ...] = ("-e", f"backup={backup}", "-e", f"confirm={backup}", "-e", "backup_skip=true")
    with journal(Place(HOST, "")) as lines:
        process = start("restore.yml", *arguments)
        lines.wait_for(phase, process)
        if phase == "fetch":
            # It looks whether the backup can be restored at all before it begins.
            wait_for(lambda: '"step"' in on_host(f"{PROGRAM} status"), seconds=60)
        kill_controller(process)
        on_host(f"{KILL} || true")
