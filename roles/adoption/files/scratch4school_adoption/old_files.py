"""The old files: which of them rows name, which are whole, and how they come over and are compared.

A file is copied under the name that its row has, hashed while it is read, and read back. What was copied once and has
not changed there (size, times, inode) is not read again, so a second time costs only what changed meanwhile.
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

from scratch4school_backup.base import Problem, megabytes, need_room, read_json, sha256, sync_folder, write_json
from scratch4school_backup.containers import APPLICATION_USER, FILES_GROUP
from scratch4school_backup.uploads import walk

from .settings import Settings

Tell = Callable[[str], None]
Named = dict[str, dict[str, Any]]

# The school's own picture for projects without one; no row names it, and the application shows it all the same.
DEFAULT_PICTURE = "thumbnails/default.png"
FILE_MODE = 0o640
FOLDER_MODE = 0o2750
PART = ".adopting"
# What a damaged zip may bring zipfile to say.
UNREADABLE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, ValueError, NotImplementedError,
    RuntimeError,
)  # fmt: skip


@contextmanager
def old_folder(settings: Settings) -> Iterator[Path]:
    """The old uploads as a folder; an archive is unpacked for as long as that takes."""
    place = Path(settings.old_uploads)
    if place.is_dir():
        yield place
        return
    if not place.is_file():
        raise Problem(f"There is no {place}. adoption_uploads is the old folder uploads, or an archive of it.")
    folder = settings.work / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    need_room(settings, folder, 2 * place.stat().st_size, "The unpacked archive")
    try:
        _unpack(place, folder)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as problem:
        raise Problem(f"{place} cannot be unpacked; it may have been cut off: {problem}") from problem
    # An archive of the folder holds it under its name, one of its content does not.
    yield folder / "uploads" if (folder / "uploads").is_dir() else folder


def _unpack(archive: Path, folder: Path) -> None:
    """Files alone, and none outside of the folder, whatever an archive says."""
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


def look(root: Path, named: Named, tell: Tell) -> dict[str, Any]:
    """Which files there are, and what is wrong with them: missing, torn, named by nobody. All named ones are read."""
    there, _, orphans = _sorted_out(root, named)
    _refuse_an_empty_place(root, named, there)
    total = sum(there[path].st_size for path in named if path in there)
    torn: dict[str, dict[str, Any]] = {}
    done = 0
    for path, what in named.items():
        if path in there:
            why = ""
            # The old service may remove one meanwhile; the next look finds it missing.
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
    """Why a file is not what its row says; '' when it is."""
    size = path.stat().st_size
    if what.get("size") not in (None, size):
        return f"{size} bytes in place of {what['size']}"
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


def transfer(settings: Settings, root: Path, named: Named, tell: Tell) -> dict[str, int]:
    """Make our uploads those files that rows name, and the folder of orphans all others; returns what was done."""
    there, wanted, orphans = _sorted_out(root, named)
    _refuse_an_empty_place(root, named, there)
    uploads = Path(settings.uploads)
    known = _Known(settings, settings.files_file, uploads)
    todo = [path for path in wanted if not known.has(path, there[path], root)]
    size = sum(there[path].st_size for path in todo)
    need_room(settings, uploads, size, "The old files")
    done = 0
    try:
        for path in todo:
            # The old service may remove one meanwhile; the next time it is missing, and that is said.
            with contextlib.suppress(FileNotFoundError):
                known.note(path, *_copy(root / path, uploads / path))
            done += there[path].st_size
            tell(f"{100 * done / max(size, 1):.0f} %, {megabytes(done)} of {megabytes(size)} copied")
        # Nobody else writes here until it is finished. What rows name stays, also where the old place has lost it.
        gone = [path for path, _ in walk(uploads) if path not in named and path not in wanted]
        known.forget(gone)
    finally:
        known.write()
    _set_aside(settings, root, there, orphans)
    return {"copied": len(todo), "unchanged": len(wanted) - len(todo), "gone": len(gone), "orphans": len(orphans)}


def compare(settings: Settings, root: Path, named: Named) -> tuple[int, list[str]]:
    """How many files are the same on both sides, and in words which are not.

    What was copied was read back then; here both sides are looked at once more, and the old one must be what it was.
    """
    there, wanted, _ = _sorted_out(root, named)
    uploads = Path(settings.uploads)
    known = _Known(settings, settings.files_file, uploads)
    changed = [path for path in wanted if not known.has(path, there[path], root)]
    differences = [f"the file {path} has changed there, or is not here" for path in changed]
    strangers = [path for path, _ in walk(uploads) if path not in named and path not in wanted]
    differences += [f"the file {path} did not come from the old place" for path in sorted(strangers)]
    return len(wanted) - len(changed), differences


def _refuse_an_empty_place(root: Path, named: Named, there: dict[str, os.stat_result]) -> None:
    """A disk that is not mounted looks like a school that has lost everything."""
    if named and not any(path in there for path in named):
        raise Problem(
            f"Not one of the {len(named):,} files that rows name is in {root}. Is it the right folder, and is its disk "
            "there?"
        )


def _sorted_out(root: Path, named: Named) -> tuple[dict[str, os.stat_result], list[str], list[str]]:
    """All files that are there, those of them that come over, and those that no row names."""
    there = dict(walk(root))
    wanted = [path for path in dict.fromkeys([*named, DEFAULT_PICTURE]) if path in there]
    return there, wanted, sorted(set(there) - set(wanted))


class _Known:
    """What is known of files that were copied before: what they were there, and their hash."""

    def __init__(self, settings: Settings, list_file: Path, copies: Path) -> None:
        self._file, self._copies = list_file, copies
        self._is_archive = not Path(settings.old_uploads).is_dir()
        self.entries: dict[str, list[Any]] = read_json(list_file)

    def has(self, path: str, found: os.stat_result, root: Path) -> bool:
        """Whether a file is still what was copied, and its copy is there."""
        entry = self.entries.get(path)
        if not entry or entry[:4] != self._marks(found):
            return False
        # What comes out of an archive is made anew each time, and the time that the archive says is a coarse one.
        if self._is_archive and sha256(root / path) != entry[4]:
            return False
        try:
            return os.lstat(self._copies / path).st_size == found.st_size
        except FileNotFoundError:
            return False

    def note(self, path: str, found: os.stat_result, digest: str) -> None:
        """Remember a file that was copied."""
        self.entries[path] = [*self._marks(found), digest]

    def forget(self, paths: Iterable[str]) -> None:
        """Remove copies of what is not wanted any more."""
        for path in paths:
            (self._copies / path).unlink(missing_ok=True)
            self.entries.pop(path, None)

    def write(self) -> None:
        os.sync()
        write_json(self._file, self.entries)

    def _marks(self, found: os.stat_result) -> list[int]:
        # The time of change too: the original overwrites in place, and a copying program may set the other one back.
        own = [0, 0] if self._is_archive else [found.st_ctime_ns, found.st_ino]
        return [found.st_size, found.st_mtime_ns, *own]


def _copy(source: Path, target: Path) -> tuple[os.stat_result, str]:
    """Copy one file whole, read it back, and give it its name; returns what the source was, and its hash."""
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
        raise Problem(f"{target} is not what was copied to it; look at the disk.")
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


def _set_aside(settings: Settings, root: Path, there: dict[str, os.stat_result], orphans: list[str]) -> None:
    """Keep files that no row names, with a list; those of a former time that are named now go."""
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
