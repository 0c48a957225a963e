"""Backups in a repository on another server, by SFTP and S3, and restored to an empty host; backups of SQLite."""

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

from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.background_class import BackgroundClass
from scratch4school_lab.scenarios.backups import PROGRAM, backup_id, restore
from scratch4school_lab.scenarios.lab_hosts import http_status, listens, on_host, remove_installation, wait_for
from scratch4school_lab.scenarios.playbooks import VERIFIED, play
from scratch4school_lab.scenarios.pupils import create, read
from scratch4school_lab.tables import Tables

pytestmark = pytest.mark.long

Login = Callable[..., requests.Session]
# This machine, as lab hosts reach it.
GATEWAY = "10.83.86.1"
S3_PORT = 18333
MASTER_PORT = 19333
S3_SERVER = Path(__file__).with_name("s3-server.txt")


@dataclass(frozen=True)
class RemoteRepository:
    """A repository on another server: the file with its settings."""

    settings: Path

    @property
    def arguments(self) -> tuple[str, str]:
        """The arguments of a playbook that uses it."""
        return ("-e", f"@{self.settings}")


@pytest.fixture(scope="module")
def sftp(sqlite_host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteRepository]:
    """A folder on the host with SQLite, which a key of its own opens by SFTP only."""
    folder = tmp_path_factory.mktemp("sftp")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    public = (folder / "key.pub").read_text().strip()
    on_host(
        f"mkdir -p backups; echo 'restrict,command=\"internal-sftp\" {public}' >> .ssh/authorized_keys", sqlite_host
    )
    known = on_host("cat /etc/ssh/ssh_host_ed25519_key.pub", sqlite_host).split()
    settings = folder / "settings.json"
    settings.write_text(
        json.dumps(
            {
                "backup_repository": f"sftp:sysadmin@{sqlite_host.address}:/home/sysadmin/backups",
                "backup_ssh_key": (folder / "key").read_text(),
                "backup_ssh_known_hosts": f"{sqlite_host.address} {known[0]} {known[1]}",
            }
        )
    )
    yield RemoteRepository(settings)
    assert play("provision.yml").status == 0
    on_host("sed -i '/internal-sftp/d' .ssh/authorized_keys; rm -rf backups", sqlite_host)


def test_sftp_backup_is_restored_to_empty_host(
    sftp: RemoteRepository, login: Login, deployed: Host, bare_host: Host, tables: Tables
) -> None:
    """Provision and restore on an empty host: the restore needs a confirmation there, too."""
    pupil = login("pupil34")
    project = create(pupil, deployed, "Umzug", 5)
    assert play("provision.yml", *sftp.arguments).status == 0
    backup = backup_id(play("backup.yml", *sftp.arguments))
    empty = bare_host
    remove_installation(empty)
    run = play("provision.yml", *sftp.arguments, host=empty)
    assert run.status == 0, run.output[-4000:]
    foreign = play("restore.yml", "-e", "backup=latest", *sftp.arguments, host=empty)
    assert (foreign.status, "allow_foreign=true" in foreign.one_line) == (2, True)
    asked = play("restore.yml", "-e", "backup=latest", "-e", "allow_foreign=true", *sftp.arguments, host=empty)
    assert (asked.status, asked.recap(empty)["changed"]) == (2, 0)
    assert f"{empty.name} is empty, and backup {backup} would be restored to it." in asked.one_line
    began = time.monotonic()
    confirmed = ("-e", "backup=latest", "-e", f"confirm={backup}", "-e", "allow_foreign=true")
    run = play("restore.yml", *confirmed, *sftp.arguments, host=empty)
    seconds = time.monotonic() - began
    assert run.status == 0, run.output[-6000:]
    assert VERIFIED in run.output
    assert backup in run.output
    assert read(pupil, project.replace(deployed.url, empty.url)) == 5
    tables.add("Remote backups", {"what": "restore to an empty host, command to verified", "seconds": seconds})
    pupil.delete(project, timeout=60)


def test_unreachable_sftp_server_fails_backup(sftp: RemoteRepository, deployed: Host) -> None:
    """The message says so, and the installation still answers."""
    assert play("provision.yml", *sftp.arguments).status == 0
    settings = json.loads(sftp.settings.read_text())
    address = settings["backup_repository"].split("@")[1].split(":")[0]
    on_host(f"sudo iptables --insert FORWARD --destination {address} --jump REJECT")
    try:
        run = play("backup.yml", *sftp.arguments)
    finally:
        on_host(f"sudo iptables --delete FORWARD --destination {address} --jump REJECT")
    assert run.status == 2
    assert re.search(r"(Opening the repository|Removing old locks).* failed", run.one_line), run.output[-2000:]
    assert http_status() == 200
    backup_id(play("backup.yml", *sftp.arguments))


def can_store() -> bool:
    """Whether SeaweedFS's parts have found each other: only then does the master assign a place for a file."""
    browser = requests.Session()
    # A proxy of the environment does not reach the lab's network.
    browser.trust_env = False
    try:
        return "fid" in browser.get(f"http://{GATEWAY}:{MASTER_PORT}/dir/assign", timeout=60).json()
    except (requests.RequestException, ValueError):
        return False


@pytest.fixture(scope="module")
def s3(deployed: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteRepository]:
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
        f"-master.port={MASTER_PORT}",
        f"-s3.config={folder / 's3.json'}",
        # As many as fit on the disk.
        "-master.volumeSizeLimitMB=512",
        "-volume.max=0",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(list(map(str, weed)), stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        wait_for(lambda: listens(S3_PORT, GATEWAY) and can_store())
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
        yield RemoteRepository(settings)
    finally:
        process.terminate()
        process.wait()
    assert play("provision.yml").status == 0


def test_s3_backup_is_restored(s3: RemoteRepository, login: Login, deployed: Host) -> None:
    """Backup, drill and restore succeed, and no container's settings contain the key."""
    pupil = login("pupil35")
    project = create(pupil, deployed, "Wolke", 9)
    run = play("provision.yml", *s3.arguments)
    assert run.status == 0, run.output[-4000:]
    backup = backup_id(play("backup.yml", *s3.arguments))
    assert play("drill.yml", *s3.arguments).status == 0
    assert pupil.delete(project, timeout=60).status_code == 200
    restore(backup, *s3.arguments)
    assert read(pupil, project) == 9
    pupil.delete(project, timeout=60)
    secret = json.loads(s3.settings.read_text())["backup_environment"]["AWS_SECRET_ACCESS_KEY"]
    assert secret not in on_host("sudo docker ps --all --quiet | xargs sudo docker inspect")
    assert secret not in run.output


def test_twenty_sqlite_backups_under_writes_are_complete(
    sqlite_host: Host, start_class: Callable[..., BackgroundClass], tables: Tables
) -> None:
    """Each backup passes SQLite's own check and is read back, while a class saves."""
    # Many small writes; large projects would only make the twenty backups slow.
    load = start_class(sqlite_host, "--users", "20", "--think", "0.5", "--large-share", "0")
    began = time.time()
    printed = on_host(f"for n in $(seq 20); do {PROGRAM} backup create || exit 1; done", sqlite_host)
    interval = load.since(began)
    load.end()
    assert len(re.findall(r"is verified", printed)) == 20
    assert (interval.failed, interval.lost) == (0, 0), interval.explain()
    tables.add("Remote backups", {"what": "20 of 20 copies of SQLite under writes", "seconds": interval.seconds})
