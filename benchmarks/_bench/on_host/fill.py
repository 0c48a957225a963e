#!/usr/bin/python3
"""Fills a deployed host with a school's rows and files up to a given size; runs on the host, as root.

Every project is a zip that Scratch can open, with random bytes in place of sounds. So restic deduplicates nothing and
compresses little, as with real projects. Standard library only.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import os
import random
import subprocess
import time
import uuid
import zipfile
from pathlib import Path

UPLOADS = Path("/var/lib/scratch4school/uploads")
USER, GROUP = 10001, 10000
PUPILS = 2000
MEAN_BYTES = 190_000
THUMBNAIL_BYTES = 4_000
PSQL = [
    *("docker", "exec", "--interactive", "scratch4school-postgres", "psql", "--quiet", "--no-psqlrc", "--tuples-only"),
    *("--no-align", "--set=ON_ERROR_STOP=1", "--username=postgres", "--dbname=scratch4school"),
]


def sql(statement: str) -> str:
    """The answer of statements."""
    return subprocess.run(PSQL, input=statement, text=True, check=True, stdout=subprocess.PIPE).stdout.strip()


def project(size: int) -> bytes:
    """A project of about that size."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("project.json", json.dumps({"targets": [{"name": "Stage"}], "made": uuid.uuid4().hex}))
        archive.writestr(f"{uuid.uuid4().hex}.wav", os.urandom(size))
    return content.getvalue()


def write(relative: str, content: bytes) -> None:
    """Write a file as the application does."""
    path = UPLOADS / relative
    for folder in (path.parent.parent, path.parent):
        if not folder.is_dir():
            folder.mkdir()
            os.chown(folder, USER, GROUP)
            folder.chmod(0o2750)
    path.write_bytes(content)
    os.chown(path, USER, GROUP)
    path.chmod(0o640)


def copy(table: str, columns: str, lines: list[str]) -> None:
    """Insert rows in PostgreSQL's text format."""
    command = [*PSQL, f"--command=COPY {table} ({columns}) FROM STDIN"]
    subprocess.run(command, input="".join(f"{line}\n" for line in lines), text=True, check=True)


def add_pupils() -> None:
    """Add the owners of everything, where they do not exist yet."""
    values = ", ".join(
        f"('bench-{number}', 'Kind {number}', 'student', now(), '{json.dumps({'sub': number, 'class': number % 60})}')"
        for number in range(PUPILS)
    )
    sql(f"INSERT INTO users (id, username, role, created_at, user_data) VALUES {values} ON CONFLICT DO NOTHING")


def add_projects(megabytes: float) -> int:
    """Add projects with thumbnails up to that size; returns how many."""
    first = int(sql("SELECT coalesce(max(id), 0) + 1 FROM projects"))
    projects, revisions, written, number = [], [], 0, first
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    while written < megabytes * 1e6:
        owner = f"bench-{random.randrange(PUPILS)}"
        folder = hashlib.sha256(owner.encode()).hexdigest()[:16]
        content = project(min(15_000_000, int(random.lognormvariate(0, 1) * MEAN_BYTES / 1.65)))
        path, picture = (f"{kind}/{folder}/{uuid.uuid4().hex}" for kind in ("projects", "thumbnails"))
        write(f"{path}.sb3", content)
        write(f"{picture}.png", os.urandom(THUMBNAIL_BYTES))
        projects.append(f"{number}\tSpiel {number}\t{path}.sb3\t{picture}.png\t1\t{owner}\t{moment}\t{moment}\tf")
        digest = hashlib.sha256(content).hexdigest()
        revisions.append(f"{number}\t1\t{path}.sb3\t{len(content)}\t{digest}\t{owner}\t{moment}")
        written += len(content) + THUMBNAIL_BYTES
        number += 1
    copy(
        "projects",
        "id, name, sb3_file_path, thumbnail_path, version, owner_id, created_at, updated_at, is_published",
        projects,
    )
    copy("project_revisions", "project_id, version, file_path, size, sha256, saved_by, created_at", revisions)
    sql("SELECT setval('projects_id_seq', (SELECT max(id) FROM projects))")
    return number - first


def add_sessions(megabytes: float) -> int:
    """Add old logins, whose tokens make a school's database large; returns how many."""
    made = 0
    while int(sql("SELECT pg_database_size('scratch4school')")) < megabytes * 1e6:
        lines = []
        for _ in range(20_000):
            token, refresh = (base64.b64encode(os.urandom(size)).decode() for size in (750, 270))
            lines.append(
                f"{uuid.uuid4()}\tbench-{random.randrange(PUPILS)}\t{token}\t{refresh}\t2026-01-01\t2026-01-01"
            )
        copy("oauth_sessions", "id, user_id, access_token, refresh_token, expires_at, created_at", lines)
        made += len(lines)
    return made


def main() -> None:
    """Fill the host, and print what was added."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows-megabytes", type=float, default=0, help="size of the database afterwards")
    parser.add_argument("--files-megabytes", type=float, default=0, help="size of the files to add")
    options = parser.parse_args()
    began = time.monotonic()
    add_pupils()
    made = {"projects": add_projects(options.files_megabytes), "sessions": add_sessions(options.rows_megabytes)}
    print(json.dumps({**made, "seconds": round(time.monotonic() - began, 1)}))


if __name__ == "__main__":
    main()
