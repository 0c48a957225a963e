"""Inspects the source's files, copies them into the uploads folder, and compares both sides.

A file is hashed while it is copied, read back, and gets the name that its row has. A later run does not read a copied
file again, unless its size, times or inode have changed at the source.
"""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
import shutil
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ..containers import APPLICATION_USER, FILES_GROUP
from ..errors import OperatorError
from ..files import read_json, sha256, sync_folder, write_json
from ..progress import megabytes
from ..settings import TransferSettings
from ..uploads import walk

Tell = Callable[[str], None]
# By relative path: `kind`, `by` (the rows that name the file), and if the row has them `size` in bytes and `md5`.
Named = dict[str, dict[str, Any]]

# The school's default thumbnail. The application shows it for projects without one, although no row names it.
DEFAULT_PICTURE = "thumbnails/default.png"
FILE_MODE = 0o640
FOLDER_MODE = 0o2750
PART = ".importing"
# Exceptions that zipfile may raise for a damaged file.
UNREADABLE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, ValueError, NotImplementedError,
    RuntimeError,
)  # fmt: skip


@contextmanager
def source_folder(settings: TransferSettings) -> Iterator[Path]:
    """Yield the folder with the source's uploads; an archive is unpacked into the work folder."""
    place = Path(settings.source_uploads)
    if place.is_dir():
        yield place
        return
    if not place.is_file():
        raise OperatorError(f"There is no {place}. adoption_uploads is the old folder uploads, or an archive of it.")
    folder = settings.work / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    settings.require_room(folder, 2 * place.stat().st_size, "The unpacked archive")
    try:
        _unpack(place, folder)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as problem:
        raise OperatorError(f"{place} cannot be unpacked; it may have been cut off: {problem}") from problem
    # The archive may contain the folder `uploads`, or only its content.
    yield folder / "uploads" if (folder / "uploads").is_dir() else folder


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack regular files only, and none outside of the folder, whatever paths the archive has."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for member in packed.infolist():
                if not member.is_dir():
                    with packed.open(member) as source:
                        path = _put(source, folder, member.filename)
                    moment = time.mktime((*member.date_time, 0, 0, -1))
                    os.utime(path, (moment, moment))
        return
    with tarfile.open(archive) as packed:
        for entry in packed:
            source = packed.extractfile(entry) if entry.isfile() or entry.islnk() else None
            if source is not None:
                with source:
                    path = _put(source, folder, entry.name)
                os.utime(path, (entry.mtime, entry.mtime))


def _put(source: IO[bytes], folder: Path, name: str) -> Path:
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", ".", "..")]
    path = folder.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    return path


def inspect(root: Path, named: Named, tell: Tell) -> dict[str, Any]:
    """Report which files are missing, torn, or named by no row; all named files are read.

    :param tell: called with the progress, as text.
    :raises OperatorError: when none of the named files exists.
    """
    there, _, orphans = _sorted_out(root, named)
    _refuse_empty_folder(root, named, there)
    total = sum(there[path].st_size for path in named if path in there)
    torn: dict[str, dict[str, Any]] = {}
    done = 0
    for path, what in named.items():
        if path in there:
            why = ""
            # The old service may remove one meanwhile; the next inspection finds it missing.
            with contextlib.suppress(FileNotFoundError):
                why = _torn(root / path, what)
            if why:
                torn[path] = {"why": why, "by": what["by"]}
            done += there[path].st_size
            tell(f"{100 * done / max(total, 1):.0f} %, {megabytes(done)} of {megabytes(total)} read")
    return {
        "named": len(named),
        "there": sum(path in there for path in named),
        "bytes": total,
        "missing": {path: {"by": what["by"]} for path, what in sorted(named.items()) if path not in there},
        "torn": dict(sorted(torn.items())),
        "orphans": orphans,
        "orphan_bytes": sum(there[path].st_size for path in orphans),
        "default_picture": DEFAULT_PICTURE in there,
    }


def _torn(path: Path, what: dict[str, Any]) -> str:
    """The fault of a file: damaged, or other than its row says; '' when there is none."""
    size = path.stat().st_size
    if what.get("size") not in (None, size):
        return f"{size} bytes instead of {what['size']}"
    if "md5" in what and _md5(path) != what["md5"]:
        return "not the content that its row names"
    if what["kind"] == "project":
        try:
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
        except UNREADABLE as problem:
            return f"no zip that could be opened ({problem})"
        return f"{broken} in it is damaged" if broken else ""
    return "" if size else "empty"


def _md5(path: Path) -> str:
    total = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            total.update(chunk)
    return total.hexdigest()


def transfer(settings: TransferSettings, root: Path, named: Named, tell: Tell) -> dict[str, int]:
    """Copy the files that rows name into the uploads folder, and all others into the folder of orphans.

    :param tell: called with the progress, as text.
    :returns: numbers of files by result: `copied`, `unchanged`, `gone` (removed on this host) and `orphans`.
    :raises OperatorError: for too little disk space, and when none of the named files exists.
    """
    there, imported, orphans = _sorted_out(root, named)
    _refuse_empty_folder(root, named, there)
    uploads = Path(settings.uploads)
    known = _Known(settings, settings.files_file, uploads)
    todo = [path for path in imported if not known.has(path, there[path], root)]
    size = sum(there[path].st_size for path in todo)
    settings.require_room(uploads, size, "The old files")
    done = 0
    try:
        for path in todo:
            # The old service may remove one meanwhile; the next inspection finds it missing.
            with contextlib.suppress(FileNotFoundError):
                known.note(path, *_copy(root / path, uploads / path))
            done += there[path].st_size
            tell(f"{100 * done / max(size, 1):.0f} %, {megabytes(done)} of {megabytes(size)} copied")
        # No slot is live until the import is finished, so other files come from an earlier run. Files that rows name
        # stay, even if the source has lost them.
        gone = [path for path, _ in walk(uploads) if path not in named and path not in imported]
        known.forget(gone)
    finally:
        known.write()
    _set_aside(settings, root, there, orphans)
    return {"copied": len(todo), "unchanged": len(imported) - len(todo), "gone": len(gone), "orphans": len(orphans)}


def compare(settings: TransferSettings, root: Path, named: Named) -> tuple[int, list[str]]:
    """Compare the files of both sides; returns how many are the same, and a message for each other one.

    `transfer` read the copies back. So this compares only sizes and times: the source's must be those of the copying.
    """
    there, imported, _ = _sorted_out(root, named)
    uploads = Path(settings.uploads)
    known = _Known(settings, settings.files_file, uploads)
    changed = [path for path in imported if not known.has(path, there[path], root)]
    differences = [f"the file {path} has changed there, or is not here" for path in changed]
    strangers = [path for path, _ in walk(uploads) if path not in named and path not in imported]
    differences += [f"the file {path} is not from the source" for path in sorted(strangers)]
    return len(imported) - len(changed), differences


def _refuse_empty_folder(root: Path, named: Named, there: dict[str, os.stat_result]) -> None:
    """OperatorError when no named file exists, as on a disk that is not mounted."""
    if named and not any(path in there for path in named):
        raise OperatorError(
            f"Not one of the {len(named):,} files that rows name is in {root}. Is it the right folder, and is its disk "
            "mounted?"
        )


def _sorted_out(root: Path, named: Named) -> tuple[dict[str, os.stat_result], list[str], list[str]]:
    """All files of the source, the paths to import, and the paths of orphans."""
    there = dict(walk(root))
    imported = [path for path in dict.fromkeys([*named, DEFAULT_PICTURE]) if path in there]
    return there, imported, sorted(set(there) - set(imported))


class _Known:
    """The list of copied files, with size and times at the source, and hash of each."""

    def __init__(self, settings: TransferSettings, list_file: Path, copies: Path) -> None:
        self._file, self._copies = list_file, copies
        self._is_archive = not Path(settings.source_uploads).is_dir()
        self.entries: dict[str, list[Any]] = read_json(list_file)

    def has(self, path: str, found: os.stat_result, root: Path) -> bool:
        """Whether a file is unchanged since it was copied, and its copy exists."""
        entry = self.entries.get(path)
        if not entry or entry[:4] != self._marks(found):
            return False
        # A file of an archive is unpacked in each run, and an archive's times are coarse, so its hash is compared too.
        if self._is_archive and sha256(root / path) != entry[4]:
            return False
        try:
            return os.lstat(self._copies / path).st_size == found.st_size
        except FileNotFoundError:
            return False

    def note(self, path: str, found: os.stat_result, digest: str) -> None:
        """Add a copied file to the list."""
        self.entries[path] = [*self._marks(found), digest]

    def forget(self, paths: Iterable[str]) -> None:
        """Remove copies, and their entries in the list."""
        for path in paths:
            (self._copies / path).unlink(missing_ok=True)
            self.entries.pop(path, None)

    def write(self) -> None:
        os.sync()
        write_json(self._file, self.entries)

    def _marks(self, found: os.stat_result) -> list[int]:
        # ctime too: the original application overwrites files in place, and a copying program may set mtime back.
        own = [0, 0] if self._is_archive else [found.st_ctime_ns, found.st_ino]
        return [found.st_size, found.st_mtime_ns, *own]


def _copy(source: Path, target: Path) -> tuple[os.stat_result, str]:
    """Copy one file, read the copy back, and rename it to its path.

    :returns: `stat` of the source before the copying, and the hash of the content.
    :raises OperatorError: when the copy differs.
    """
    _make_folder(target.parent)
    part = target.with_name(f"{target.name}{PART}")
    total = hashlib.sha256()
    with source.open("rb") as reading, part.open("wb") as writing:
        before = os.fstat(reading.fileno())
        while chunk := reading.read(1 << 20):
            total.update(chunk)
            writing.write(chunk)
        os.fchmod(writing.fileno(), FILE_MODE)
        if os.geteuid() == 0:
            os.fchown(writing.fileno(), APPLICATION_USER, FILES_GROUP)
    if sha256(part) != total.hexdigest():
        part.unlink()
        raise OperatorError(f"{target} differs from the file that was copied; check the disk for errors.")
    os.utime(part, ns=(before.st_atime_ns, before.st_mtime_ns))
    part.replace(target)
    return before, total.hexdigest()


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, APPLICATION_USER, FILES_GROUP)
    folder.chmod(FOLDER_MODE)
    sync_folder(folder.parent)


def _set_aside(settings: TransferSettings, root: Path, there: dict[str, os.stat_result], orphans: list[str]) -> None:
    """Copy orphans into their folder, with a list; remove copies of files that are no longer orphans."""
    known = _Known(settings, settings.orphans / "list.json", settings.orphans)
    known.forget(set(known.entries) - set(orphans))
    for path in orphans:
        if not known.has(path, there[path], root):
            target = settings.orphans / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                shutil.copy2(root / path, target)
                known.note(path, there[path], sha256(target))
    known.write()
