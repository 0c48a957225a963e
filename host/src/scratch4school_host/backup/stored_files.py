"""Hashes the pupils' files for a backup, and compares the repository's copies with the hashes.

The application never changes a file. So a stored hash is still right while size, time and inode are the same. The
hashes are stored in a file, with the id of the repository from which the files were read back. A later backup does not
read these files back again; a drill does.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from ..containers import USER
from ..errors import OperatorError
from ..files import empty_folder, read_json, sha256, write_json
from ..progress import megabytes
from ..uploads import walk
from .repository import Repository

# Files are read back in portions of about this size, so that a first backup needs little scratch space.
PORTION_BYTES = 512_000_000
# Above this share of all bytes, or this number of files, streaming the whole backup once is faster.
STREAM_SHARE = 0.3
STREAM_FILES = 4000

# Size and SHA-256 by relative path.
Files = dict[str, tuple[int, str]]


class Hashes:
    """Hashes of files, and which of them were read back, from earlier backups."""

    def __init__(self, path: Path) -> None:
        self._path = path
        known = read_json(path)
        self._repository = str(known.get("repository", ""))
        self._files: dict[str, list[Any]] = known.get("files", {})
        self._seen: dict[str, list[Any]] = {}

    def known(self, path: str, found: os.stat_result) -> str:
        """The stored hash of a file whose size, time and inode are unchanged; '' when there is none."""
        entry = self._files.get(path)
        return str(entry[3]) if entry and entry[:3] == _marks(found) else ""

    def note(self, path: str, found: os.stat_result, sha: str) -> None:
        """Add the hash of a file of this backup."""
        self._seen[path] = [*_marks(found), sha]

    def unverified(self, repository: str, files: Files) -> Files:
        """The files that were never read back from this repository."""
        if self._repository != repository:
            return dict(files)
        return {
            path: what for path, what in files.items() if path not in self._files or self._files[path][3] != what[1]
        }

    def keep(self, repository: str) -> None:
        """Store the hashes of this backup, whose files were all read back from this repository."""
        write_json(self._path, {"repository": repository, "files": self._seen})


def _marks(found: os.stat_result) -> list[int]:
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def hashed(root: Path, hashes: Hashes, tell: Callable[[str], None]) -> Files:
    """Size and hash of all files; files with a stored hash are not read."""
    files: Files = {}
    new: list[tuple[str, os.stat_result]] = []
    for path, found in walk(root):
        sha = hashes.known(path, found)
        if sha:
            files[path] = (found.st_size, sha)
            hashes.note(path, found, sha)
        else:
            new.append((path, found))
    done, total = 0, sum(found.st_size for _, found in new)
    for path, found, sha in _each_hash(root, new):
        done += found.st_size
        if sha:
            files[path] = (found.st_size, sha)
            hashes.note(path, found, sha)
        tell(f"{100 * done / max(total, 1):.0f} %, {megabytes(done)} of {megabytes(total)} read")
    return files


def _each_hash(root: Path, files: Iterable[tuple[str, os.stat_result]]) -> Iterator[tuple[str, os.stat_result, str]]:
    def work(item: tuple[str, os.stat_result]) -> tuple[str, os.stat_result, str]:
        try:
            return (*item, sha256(root / item[0]))
        except FileNotFoundError:
            return (*item, "")

    with ThreadPoolExecutor(max_workers=2) as pool:
        yield from pool.map(work, files)


def verify_folder(root: Path, files: Files, tell: Callable[[str], None]) -> None:
    """Compare files in a folder with their hashes; OperatorError when one is missing or differs."""
    sizes = {path: os.lstat(root / path) if (root / path).is_file() else None for path in files}
    missing = [path for path, found in sizes.items() if found is None]
    if missing:
        raise OperatorError(_broken("is missing", missing))
    done, total = 0, sum(size for size, _ in files.values())
    there = [(path, found) for path, found in sizes.items() if found is not None]
    for path, _, sha in _each_hash(root, there):
        if sha != files[path][1]:
            raise OperatorError(_broken("is not what was backed up", [path]))
        done += files[path][0]
        tell(f"{100 * done / max(total, 1):.0f} %, {megabytes(done)} of {megabytes(total)} compared")


def read_back(
    repository: Repository, snapshot: str, files: Files, of_all: Files, scratch: Path, tell: Callable[[str], None]
) -> None:
    """Read files from the repository and compare them; OperatorError when one is missing or differs.

    :param of_all: all files of the snapshot, from which the faster method is chosen.
    :param scratch: a folder for unpacked files, which is emptied.
    """
    size = sum(size for size, _ in files.values())
    total = sum(size for size, _ in of_all.values())
    if len(files) > STREAM_FILES or size > STREAM_SHARE * total:
        with repository.reading(
            "dump", "--no-lock", "--archive=tar", snapshot, "/uploads", doing="Reading the backup back"
        ) as archive:
            _compare_stream(archive, files, tell)
        return
    done = 0
    for portion in _portions(files):
        folder = empty_folder(scratch, owner=USER)
        includes = scratch.with_name(f"{scratch.name}.list")
        write_patterns(includes, (f"uploads/{path}" for path in portion))
        repository.unpack(snapshot, folder, includes)
        verify_folder(folder / "uploads", portion, lambda _: None)
        shutil.rmtree(folder)
        done += sum(size for size, _ in portion.values())
        tell(f"{100 * done / max(size, 1):.0f} %, {megabytes(done)} of {megabytes(size)} read back")


def _compare_stream(archive: IO[bytes], files: Files, tell: Callable[[str], None]) -> None:
    left = dict(files)
    done, total = 0, sum(size for size, _ in files.values())
    with tarfile.open(fileobj=archive, mode="r|", errorlevel=1) as members:
        for member in members:
            path = member.name.lstrip("/").removeprefix("uploads/")
            expected = left.pop(path, None)
            content = members.extractfile(member) if expected and member.isfile() else None
            if not expected or content is None:
                continue
            found = hashlib.sha256()
            while chunk := content.read(1 << 20):
                found.update(chunk)
            if found.hexdigest() != expected[1]:
                raise OperatorError(_broken("is not what was backed up", [path]))
            done += expected[0]
            tell(f"{100 * done / max(total, 1):.0f} %, {megabytes(done)} of {megabytes(total)} read back")
    # Read the pipe to its end, or restic would wait for ever.
    while archive.read(1 << 20):
        pass
    if left:
        raise OperatorError(_broken("is missing", sorted(left)))


def _portions(files: Files) -> Iterator[Files]:
    portion: Files = {}
    size = 0
    for path, what in files.items():
        if portion and size + what[0] > PORTION_BYTES:
            yield portion
            portion, size = {}, 0
        portion[path] = what
        size += what[0]
    if portion:
        yield portion


def write_patterns(file: Path, paths: Iterable[str]) -> None:
    """Write a list of paths for restic, with its special characters escaped: `[`, `*`, `?`, the backslash and `$`."""
    escaped = ("".join(f"\\{letter}" if letter in "\\*?[" else letter for letter in path) for path in paths)
    file.write_text("".join(f"/{path.replace('$', '$$')}\n" for path in escaped))
    # The container's user reads the file; other users of the host cannot enter its folder.
    file.chmod(0o644)


def _broken(what: str, paths: list[str]) -> str:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{paths[0]}{more} {what}."
