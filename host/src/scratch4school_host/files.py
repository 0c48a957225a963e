"""Reads, writes and hashes files; a power failure never leaves half a file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object from a file; {} when the file is missing, or torn by a power failure."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any], mode: int = 0o640) -> None:
    """Replace a file by a JSON object; after a power failure it has the previous or the new content, never a mix."""
    path = Path(path)
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    # The mode is set before the content is written, so that other users can never read a file with secrets.
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        json.dump(content, file, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync_folder(path.parent)


def append_json_line(path: str | os.PathLike[str], entry: Mapping[str, Any], mode: int = 0o640) -> None:
    """Append one line with a single write, and sync it to the disk before returning.

    After a torn last line, the entry begins on a new line.

    :raises OSError: also when only a part of the line was written, as on a full disk.
    """
    line = json.dumps(entry, ensure_ascii=False) + "\n"
    is_new = not os.path.exists(path)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = "\n" + line
        data = line.encode()
        if os.write(descriptor, data) != len(data):
            raise OSError(f"only a part of the line was written to {path}; is the disk full?")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        sync_folder(os.path.dirname(os.path.abspath(path)))


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Sync a folder to the disk, so that new names and renames in it survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def empty_folder(folder: Path, owner: int | None = None, mode: int = 0o700) -> Path:
    """Make a folder, or empty it. An existing folder is not replaced, because a disk may be mounted there."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    folder.chmod(mode)
    if owner is not None and os.geteuid() == 0:
        os.chown(folder, owner, 0)
    return folder


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's content."""
    total = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            total.update(chunk)
    return total.hexdigest()


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of a folder, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
