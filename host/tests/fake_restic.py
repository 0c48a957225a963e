"""Stands for Docker with restic and the copier of SQLite in containers, in the tests of backups.

Run as `docker`: `docker run OPTIONS IMAGE PROGRAM …` runs the program here, with the places of the container
replaced by those that are mounted there. The repository is a folder of whole files. A test
injects a fault by a file in the folder FAKE_FOLDER. The file contains a shell command, and is named after restic's
command, such as `before-backup`.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

FAKE = Path(os.environ["FAKE_FOLDER"])


def main() -> int:
    """Do what Docker would."""
    words = sys.argv[1:]
    with (FAKE / "told").open("a") as told:
        told.write(" ".join(words) + "\n")
    if words[:2] == ["inspect", "--type=container"]:
        # No process runs, and one slot is live.
        print("0" if words[2].startswith("--format") else json.dumps([slot("blue", "r1")]))
    if words[0] != "run":
        return 0
    mounts, index = [], 1
    while words[index].startswith("-"):
        if words[index].startswith("--mount="):
            parts = dict(part.partition("=")[::2] for part in words[index].removeprefix("--mount=").split(","))
            mounts.append((parts["target"], parts["source"]))
        index += 1
    program = words[index + 1 :]
    if program[0] == "nice":
        program = program[3:]
    if program[0] == "sqlite-copy":
        copier = Path(__file__).resolve().parents[2] / "docker" / "backup" / "sqlite-copy"
        return subprocess.run([sys.executable, copier, *(outside(word, mounts) for word in program[1:])]).returncode
    if program[0] == "db":
        print("The schema is at head.")
        return 0
    assert program[0] == "restic", program
    return Restic(mounts).run(program[1:])


def slot(name: str, release: str) -> dict[str, Any]:
    """The container of a slot that is live, as Docker describes it."""
    return {
        "Name": f"/scratch4school-app-{name}",
        "RestartCount": 0,
        "Config": {"Labels": {"scratch4school.release": release}, "Image": "app:1"},
        "State": {"Status": "running", "StartedAt": "", "Pid": 0},
    }


def outside(path: str, mounts: list[tuple[str, str]]) -> str:
    """A place of the container as a place of this machine."""
    for target, source in sorted(mounts, key=lambda mount: -len(mount[0])):
        if path == target or path.startswith(f"{target}/"):
            return source + path.removeprefix(target)
    return path


class Restic:
    """As much of restic as the program asks for; exit statuses are restic's own."""

    def __init__(self, mounts: list[tuple[str, str]]) -> None:
        self.mounts = mounts
        self.folder = Path(outside("/repository", mounts))

    def run(self, words: list[str]) -> int:
        """One command."""
        flags = [word for word in words if word.startswith("-")]
        names = [word for word in words if not word.startswith("-")]
        command = names.pop(0)
        complaint = FAKE / f"complaint-{command}"
        if complaint.exists():
            print(complaint.read_text(), file=sys.stderr)
        # Its words would keep our own output open when we are ended.
        quiet = subprocess.DEVNULL
        for moment in ("before", "after"):
            if moment == "after":
                status = self.act(command, names, flags)
            hook = FAKE / f"{moment}-{command}"
            if hook.exists():
                subprocess.run(["sh", "-c", hook.read_text()], cwd=self.folder, check=True, stdout=quiet, stderr=quiet)
        return status

    def act(self, command: str, names: list[str], flags: list[str]) -> int:
        """Do it, or say why not."""
        config = self.folder / "config"
        password = Path(outside("/run/secrets/password", self.mounts)).read_text()
        if command == "init":
            if config.exists():
                return self.refuse(1, "create repository at /repository failed: config file already exists")
            for name in ("snapshots", "blobs"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            config.write_text(json.dumps({"id": hashlib.sha256(os.urandom(8)).hexdigest(), "password": password}))
            return 0
        if not config.exists():
            return self.refuse(10, "repository does not exist")
        if json.loads(config.read_text())["password"] != password:
            return self.refuse(12, "wrong password or no key found")
        answer = getattr(self, f"do_{command}")(names, flags)
        return int(answer or 0)

    @staticmethod
    def refuse(status: int, why: str) -> int:
        """Fail as restic does."""
        print(f"Fatal: {why}", file=sys.stderr)
        return status

    def all(self) -> list[dict[str, Any]]:
        """Every snapshot, oldest first."""
        found = [json.loads(path.read_text()) for path in (self.folder / "snapshots").iterdir()]
        return sorted(found, key=lambda one: one["time"])

    def one(self, name: str) -> dict[str, Any]:
        """The snapshot of that id."""
        return json.loads((self.folder / "snapshots" / name).read_text())

    def keep(self, snapshot: dict[str, Any]) -> str:
        """Write a snapshot under an id of its own."""
        name = hashlib.sha256(os.urandom(8)).hexdigest()
        (self.folder / "snapshots" / name).write_text(json.dumps({**snapshot, "id": name}))
        return name

    def do_cat(self, names: list[str], flags: list[str]) -> None:
        """`cat config`."""
        print((self.folder / "config").read_text())

    def do_snapshots(self, names: list[str], flags: list[str]) -> None:
        """`snapshots --json`."""
        print(json.dumps([{key: one[key] for key in ("id", "time", "hostname", "tags")} for one in self.all()]))

    def do_unlock(self, names: list[str], flags: list[str]) -> None:
        """A test's folder is never locked."""

    def do_forget(self, names: list[str], flags: list[str]) -> None:
        """Remove by name."""
        for name in names:
            (self.folder / "snapshots" / name).unlink()

    def do_check(self, names: list[str], flags: list[str]) -> int:
        """Every content is what its name says."""
        broken = [
            blob.name
            for blob in (self.folder / "blobs").iterdir()
            if hashlib.sha256(blob.read_bytes()).hexdigest() != blob.name
        ]
        return self.refuse(1, f"pack {broken[0]} is damaged") if broken else 0

    def do_backup(self, names: list[str], flags: list[str]) -> None:
        """Take in files; those of the top folder that begin with a dot are left out, as we ask."""
        files = {}
        for target, source in self.mounts:
            if not target.startswith("/backup/"):
                continue
            root = Path(source)
            for path in [root] if root.is_file() else sorted(root.rglob("*")):
                if path.is_file() and not (root.is_dir() and path.relative_to(root).parts[0].startswith(".")):
                    inside = target.removeprefix("/backup/") + str(path).removeprefix(source)
                    files[inside] = self.blob(path.read_bytes())
        tags = [flag.removeprefix("--tag=") for flag in flags if flag.startswith("--tag=")]
        host = next(flag.removeprefix("--host=") for flag in flags if flag.startswith("--host="))
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.monotonic_ns():020}Z"
        name = self.keep({"time": moment, "hostname": host, "tags": tags, "files": files})
        print(json.dumps({"message_type": "status", "percent_done": 0.5, "bytes_done": 1}))
        print(json.dumps({"message_type": "summary", "snapshot_id": name, "data_added_packed": 1}))

    def blob(self, content: bytes) -> str:
        """Keep a content under its hash."""
        name = hashlib.sha256(content).hexdigest()
        path = self.folder / "blobs" / name
        if not path.exists():
            path.write_bytes(content)
        return name

    def content(self, name: str) -> bytes:
        """The stored content for a hash, damaged or not."""
        return (self.folder / "blobs" / name).read_bytes()

    def do_tag(self, names: list[str], flags: list[str]) -> None:
        """A snapshot with a tag more is another snapshot."""
        before = self.one(names[0])
        added = [flag.removeprefix("--add=") for flag in flags if flag.startswith("--add=")]
        new = self.keep({**before, "tags": [*before["tags"], *added]})
        (self.folder / "snapshots" / names[0]).unlink()
        print(json.dumps({"message_type": "changed", "old_snapshot_id": names[0], "new_snapshot_id": new}))

    def do_ls(self, names: list[str], flags: list[str]) -> None:
        """Every file with its size."""
        for path, blob in self.one(names[0])["files"].items():
            print(json.dumps({"type": "file", "path": f"/{path}", "size": len(self.content(blob))}))

    def do_dump(self, names: list[str], flags: list[str]) -> int:
        """One file, or a folder as an archive."""
        files = self.one(names[0])["files"]
        path = names[1].lstrip("/")
        if path in files:
            sys.stdout.buffer.write(self.content(files[path]))
            return 0
        if "--archive=tar" not in flags:
            return self.refuse(1, f"path {path} does not exist in snapshot")
        with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
            for inside, blob in files.items():
                if inside.startswith(f"{path}/"):
                    member = tarfile.TarInfo(inside)
                    member.size = len(self.content(blob))
                    archive.addfile(member, io.BytesIO(self.content(blob)))
        return 0

    def do_restore(self, names: list[str], flags: list[str]) -> None:
        """All files, those of a folder, or those that a list names."""
        name, _, folder = names[0].partition(":")
        target = Path(outside("/target", self.mounts))
        listed = Path(outside("/includes", self.mounts))
        patterns = listed.read_text().splitlines() if "--include-file=/includes" in flags else None
        for path, blob in self.one(name)["files"].items():
            inside = f"/{path}".removeprefix(folder) if f"/{path}".startswith(folder) else None
            if inside is None or (patterns is not None and not any(matches(inside, one) for one in patterns)):
                continue
            place = target / inside.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(self.content(blob))


def matches(path: str, pattern: str) -> bool:
    """Whether a pattern of ours means the path; a backslash takes the meaning from what follows."""
    plain = re.sub(r"\\(.)", r"\1", pattern.replace("$$", "$"))
    return path == plain or (not re.search(r"\\", pattern) and fnmatch.fnmatchcase(path, pattern))


if __name__ == "__main__":
    sys.exit(main())
