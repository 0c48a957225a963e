"""Existing installations on lab hosts, to be imported: database and files in the forms in which a school has them."""

from __future__ import annotations

import gzip
import lzma
import shlex
import sqlite3
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ..checkout import ROOT
from ..hosts.plan import Host
from .lab_hosts import LAB, on_host, remove_installation
from .playbooks import Run, play

# The tests of the application's migrations use the same databases; two copies would diverge.
DATABASES = ROOT / "docker" / "app" / "tests" / "legacy"
UPLOADS = Path(__file__).with_name("legacy")
FOLDER = "/srv/old"
NEW_FOLDER = f"sudo rm -rf {FOLDER} && sudo mkdir -p {FOLDER}/db"
COMPOSE = """\
services:
  old-postgres:
    image: {image}
  backend:
    env_file: [backend.env]
    environment:
      DATABASE_URI: postgresql://scratch:${{DB_PASSWORD}}@old-postgres:5432/scratch
      OAUTH_CLIENT_ID: scratch-client
      ROLE_TEACHER: lehrer
    volumes: ["./data/uploads:/app/uploads"]
"""
# Ends without closing the file: to close it would move the log's pages into it.
WRITE = """
import os, sqlite3, sys
old = sqlite3.connect(sys.argv[1])
old.execute("PRAGMA journal_mode = WAL")
old.execute("PRAGMA wal_autocheckpoint = 0")
old.executescript(sys.stdin.read())
os._exit(0)
"""
SHIFT = 100_000
# One more copy of the first installation's rows.
COPIES = (
    "INSERT INTO users SELECT id || :mark, username, email, role, created_at, last_login, user_data FROM users "
    "WHERE rowid <= 60",
    "INSERT INTO groups SELECT id + :shift, name, external_id || :mark, description, created_at FROM groups "
    f"WHERE id < {SHIFT}",
    "INSERT INTO user_groups SELECT user_id || :mark, group_id + :shift, joined_at FROM user_groups "
    f"WHERE group_id < {SHIFT}",
    "INSERT INTO projects SELECT id + :shift, name, description, "
    "replace(sb3_file_path, '/projects/', '/projects/' || substr(:mark, 2) || '-'), "
    "replace(thumbnail_path, '/thumbnails/', '/thumbnails/' || substr(:mark, 2) || '-'), "
    f"owner_id || :mark, created_at, updated_at, is_published FROM projects WHERE id < {SHIFT}",
    "INSERT INTO project_groups SELECT project_id + :shift, group_id + :shift, published_at FROM project_groups "
    f"WHERE project_id < {SHIFT}",
)
# A server as Compose starts it: known by its service's name, on no published port. Run as root.
OLD_SERVER = """
set -e
image=$(docker image ls --format '{{.Repository}}:{{.Tag}}' scratch4school/postgres | head -1)
docker rm -f old-postgres >/dev/null 2>&1 || true
docker run --detach --name old-postgres --label com.docker.compose.service=old-postgres --user 10002:10002 \\
  --tmpfs /run/postgresql:mode=1777 --tmpfs /data:uid=10002,mode=0700 --entrypoint sh "$image" -c '
    initdb -D /data/17 -U postgres >/dev/null && echo "host all all all scram-sha-256" >> /data/17/pg_hba.conf &&
    exec postgres -D /data/17 -c listen_addresses="*"' >/dev/null
psql="old-postgres psql --quiet --username postgres --set ON_ERROR_STOP=1"
for _ in $(seq 60); do docker exec old-postgres pg_isready -q -U postgres && break; sleep 0.5; done
docker exec $psql -c "CREATE ROLE scratch LOGIN PASSWORD 'alt & lang'" -c "CREATE DATABASE scratch OWNER scratch"
docker exec -i $psql --dbname scratch >/dev/null
docker exec $psql --dbname scratch -c "GRANT ALL ON ALL TABLES IN SCHEMA public TO scratch" \\
  -c "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO scratch"
"""


@dataclass(frozen=True)
class ExistingInstallation:
    """An installation on a host, and the arguments with which a sysadmin names it to adopt.yml."""

    host: Host
    arguments: tuple[str, ...]

    def sql(self, script: str) -> None:
        """Write to the SQLite file as the running service does: the rows are still in the log beside the file."""
        put(self.host, f"python3 -c {shlex.quote(WRITE)} {FOLDER}/db/main.db", script.encode())


def put(host: Host, command: str, content: bytes) -> None:
    """Run a command as root on the host, with the content as its input."""
    line = [str(LAB), "ssh", host.name, f"sudo sh -c {shlex.quote(command)}"]
    subprocess.run(line, input=content, check=True, stdout=subprocess.DEVNULL)


def put_files(host: Host, name: str) -> None:
    """Unpack the folder of files."""
    put(host, f"tar -C {FOLDER} -x", lzma.decompress((UPLOADS / f"{name}-uploads.tar.xz").read_bytes()))


def in_sqlite(host: Host) -> ExistingInstallation:
    """A SQLite file and a folder."""
    put(host, f"gunzip > {FOLDER}/db/main.db", (DATABASES / "before-sqlite.db.gz").read_bytes())
    put_files(host, "before")
    return ExistingInstallation(
        host, ("-e", f"adoption_database={FOLDER}/db/main.db", "-e", f"adoption_uploads={FOLDER}/uploads")
    )


def as_dump(host: Host) -> ExistingInstallation:
    """A compressed dump of PostgreSQL, and an archive of the files."""
    put(host, f"cat > {FOLDER}/dump.sql.gz", (DATABASES / "before-postgres.sql.gz").read_bytes())
    put(host, f"cat > {FOLDER}/uploads.tar.xz", (UPLOADS / "before-uploads.tar.xz").read_bytes())
    dump, files = f"adoption_database={FOLDER}/dump.sql.gz", f"adoption_uploads={FOLDER}/uploads.tar.xz"
    return ExistingInstallation(host, ("-e", dump, "-e", files))


def by_compose(host: Host) -> ExistingInstallation:
    """A running PostgreSQL that the compose file names, and its folder of files."""
    put(host, OLD_SERVER, gzip.decompress((DATABASES / "after-postgres.sql.gz").read_bytes()))
    put(host, f"cat > {FOLDER}/docker-compose.yml", COMPOSE.format(image="postgres:15-alpine").encode())
    put(host, f"cat > {FOLDER}/.env", b"DB_PASSWORD=alt%20%26%20lang\n")
    put_files(host, "after")
    put(host, f"cat > {FOLDER}/backend.env", b"OAUTH_CLIENT_SECRET=another-secret-than-the-labs\n")
    put(host, f"mkdir -p {FOLDER}/data && mv {FOLDER}/uploads {FOLDER}/data", b"")
    return ExistingInstallation(host, ("-e", f"adoption_compose={FOLDER}/docker-compose.yml"))


def larger(host: Host, times: int, folder: Path) -> ExistingInstallation:
    """The first installation `times` times in one SQLite file, each copy with its own names, numbers and files."""
    installation = in_sqlite(host)
    file = folder / "larger.db"
    file.write_bytes(gzip.decompress((DATABASES / "before-sqlite.db.gz").read_bytes()))
    database = sqlite3.connect(file)
    for number in range(1, times):
        for statement in COPIES:
            database.execute(statement, {"mark": f"-{number}", "shift": number * SHIFT})
    database.commit()
    database.close()
    put(host, f"cat > {FOLDER}/db/main.db", file.read_bytes())
    kept = (
        "mv projects one && mv thumbnails two && mkdir projects thumbnails && cp one/* projects && cp two/* thumbnails"
    )
    loop = "for f in one/*; do cp $f projects/$n-${f#*/}; done; for f in two/*; do cp $f thumbnails/$n-${f#*/}; done"
    put(host, f"cd {FOLDER}/uploads && {kept} && for n in $(seq {times - 1}); do {loop}; done; rm -r one two", b"")
    return installation


def prepare_host(host: Host) -> Host:
    """Provision a host without an installation, and make the folder for the existing one."""
    remove_installation(host)
    on_host(NEW_FOLDER, host)
    succeed(play("provision.yml", host=host))
    return host


def adopt(installation: ExistingInstallation, step: str, *more: str) -> Run:
    """Run a step of adopt.yml on the host of the installation."""
    return play("adopt.yml", "-e", f"step={step}", *installation.arguments, *more, host=installation.host)


def succeed(run: Run) -> Run:
    """Check that a playbook succeeded."""
    assert run.status == 0, run.output[-6000:]
    return run
