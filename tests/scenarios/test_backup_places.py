"""Backups that leave the host: by SFTP to another machine, to S3, and from there onto an empty host. And on SQLite."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from conftest import VERIFIED, Place, empty_host, hand_over_images, listens, on_host, play, status, wait_for
from lesson import Lesson
from pupils import create, read
from tables import Tables
from test_backups import PROGRAM, backed_up, restore

pytestmark = pytest.mark.long

Login = Callable[..., requests.Session]
# The lab's own network, as its hosts see this machine.
GATEWAY = "10.83.86.1"
S3_PORT = 18333
S3_SERVER = Path(__file__).with_name("s3-server.txt")


@dataclass(frozen=True)
class Away:
    """A place for backups, and the settings that lead there."""

    settings: Path
    host: str

    @property
    def arguments(self) -> tuple[str, str]:
        return ("-e", f"@{self.settings}")


@pytest.fixture(scope="module")
def sftp(small: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Away]:
    """A folder on the second host that a key of its own opens by SFTP and nothing else."""
    folder = tmp_path_factory.mktemp("sftp")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    public = (folder / "key.pub").read_text().strip()
    on_host(f"mkdir -p backups; echo 'restrict,command=\"internal-sftp\" {public}' >> .ssh/authorized_keys", small.name)
    known = on_host("cat /etc/ssh/ssh_host_ed25519_key.pub", small.name).split()
    settings = folder / "settings.json"
    settings.write_text(
        json.dumps(
            {
                "backup_repository": f"sftp:sysadmin@{small.address}:/home/sysadmin/backups",
                "backup_ssh_key": (folder / "key").read_text(),
                "backup_ssh_known_hosts": f"{small.address} {known[0]} {known[1]}",
            }
        )
    )
    yield Away(settings, small.name)
    assert play("provision.yml").status == 0
    on_host("sed -i '/internal-sftp/d' .ssh/authorized_keys; rm -rf backups", small.name)


def test_by_sftp_and_onto_an_empty_host(
    sftp: Away, login: Login, deployed: str, images: dict[str, str], tables: Tables
) -> None:
    """`provision` and `restore` on a host that has nothing: it asks there, too; then the school is back."""
    pupil = login("pupil34")
    project = create(pupil, deployed, "Umzug", 5)
    assert play("provision.yml", *sftp.arguments).status == 0
    backup = backed_up(play("backup.yml", *sftp.arguments))
    empty = empty_host()
    where = {"limit": f"{empty.name},localhost"}
    hand_over_images(empty.name, images)
    run = play("provision.yml", *sftp.arguments, **where)
    assert run.status == 0, run.output[-4000:]
    other_school = play("restore.yml", "-e", "backup=latest", *sftp.arguments, **where)
    assert (other_school.status, "adopt=true" in other_school.sentence) == (2, True)
    asked = play("restore.yml", "-e", "backup=latest", "-e", "adopt=true", *sftp.arguments, **where)
    assert (asked.status, asked.recap(empty.name)["changed"]) == (2, 0)
    assert f"{empty.name} is empty, and backup {backup} would be restored to it." in asked.sentence
    began = time.monotonic()
    confirmed = ("-e", "backup=latest", "-e", f"confirm={backup}", "-e", "adopt=true")
    run = play("restore.yml", *confirmed, *sftp.arguments, **where)
    seconds = time.monotonic() - began
    assert run.status == 0, run.output[-6000:]
    assert VERIFIED in run.output
    assert backup in run.output
    assert read(pupil, project.replace(deployed, empty.url)) == 5
    tables.add("Backups elsewhere", {"what": "restore onto an empty host, command to verified", "seconds": seconds})
    pupil.delete(project, timeout=60)


def test_who_is_away_is_said(sftp: Away, deployed: str) -> None:
    """A machine that does not answer fails the backup with a sentence, and pupils do not notice."""
    assert play("provision.yml", *sftp.arguments).status == 0
    settings = json.loads(sftp.settings.read_text())
    address = settings["backup_repository"].split("@")[1].split(":")[0]
    on_host(f"sudo iptables --insert FORWARD --destination {address} --jump REJECT")
    try:
        run = play("backup.yml", *sftp.arguments)
    finally:
        on_host(f"sudo iptables --delete FORWARD --destination {address} --jump REJECT")
    assert run.status == 2
    assert re.search(r"(Opening the repository|Removing old locks).* failed", run.sentence), run.output[-2000:]
    assert status() == 200
    backed_up(play("backup.yml", *sftp.arguments))


@pytest.fixture(scope="module")
def s3(deployed: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Away]:
    """SeaweedFS on the lab's network, with one account."""
    folder = tmp_path_factory.mktemp("s3")
    environment = folder / "tools"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip = [
        environment / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--require-hashes",
        "--requirement",
        S3_SERVER,
    ]
    subprocess.run(pip, check=True, stdout=subprocess.DEVNULL)
    account = {"accessKey": "school", "secretKey": "a-secret-of-the-test's-own"}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    (folder / "s3.json").write_text(
        json.dumps({"identities": [{"name": "school", "credentials": [account], "actions": actions}]})
    )
    weed = [environment / "bin" / "weed", "server", "-s3", f"-ip={GATEWAY}", f"-ip.bind={GATEWAY}", f"-dir={folder}"]
    weed += [
        f"-s3.port={S3_PORT}",
        f"-s3.config={folder / 's3.json'}",
        # As many as the disk has room for.
        "-master.volumeSizeLimitMB=512",
        "-volume.max=0",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(list(map(str, weed)), stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        wait_for(lambda: listens(S3_PORT, GATEWAY), seconds=60)
        # Its parts find each other some seconds after the door is open.
        time.sleep(8)
        settings = folder / "settings.json"
        settings.write_text(
            json.dumps(
                {
                    "backup_repository": f"s3:http://{GATEWAY}:{S3_PORT}/scratch4school",
                    "backup_environment": {
                        "AWS_ACCESS_KEY_ID": account["accessKey"],
                        "AWS_SECRET_ACCESS_KEY": account["secretKey"],
                    },
                }
            )
        )
        yield Away(settings, GATEWAY)
    finally:
        process.terminate()
        process.wait(timeout=30)
    assert play("provision.yml").status == 0


def test_to_s3_and_back(s3: Away, login: Login, deployed: str) -> None:
    """Made, proved, rehearsed and restored; its key stands in no container's settings."""
    pupil = login("pupil35")
    project = create(pupil, deployed, "Wolke", 9)
    run = play("provision.yml", *s3.arguments)
    assert run.status == 0, run.output[-4000:]
    backup = backed_up(play("backup.yml", *s3.arguments))
    assert play("drill.yml", *s3.arguments).status == 0
    assert pupil.delete(project, timeout=60).status_code == 200
    restore(backup, *s3.arguments)
    assert read(pupil, project) == 9
    pupil.delete(project, timeout=60)
    secret = json.loads(s3.settings.read_text())["backup_environment"]["AWS_SECRET_ACCESS_KEY"]
    assert secret not in on_host("sudo docker ps --all --quiet | xargs sudo docker inspect")
    assert secret not in run.output


def test_twenty_copies_of_sqlite_under_writes(small: Place, lesson: Callable[..., Lesson], tables: Tables) -> None:
    """Each is opened, whole by SQLite's own check, and read back, while a class saves."""
    # Writes are what matters here, not megabytes: with them the twenty would take longer than the lesson.
    load = lesson(small, "--users", "20", "--think", "0.5", "--large-share", "0", "--seconds", "1800")
    began = time.time()
    said = on_host(f"for n in $(seq 20); do {PROGRAM} take || exit 1; done", small.name)
    stretch = load.since(began)
    load.end()
    assert len(re.findall(r"is proved", said)) == 20
    assert (stretch.failed, stretch.lost) == (0, 0), stretch.explain()
    tables.add("Backups elsewhere", {"what": "20 of 20 copies of SQLite under writes", "seconds": stretch.seconds})
