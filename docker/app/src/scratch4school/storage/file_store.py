"""The uploads folder: each file is written once, under a name that is never used again, and never changed.

A save is: temporary file, fsync, rename, fsync of the folder, then the commit of the row that names the file. A crash
in between leaves a file that no row names, never a row without its file, and a reader never sees half a file. Files
that rows no longer name are removed by the sweep, not here: a backup may still be reading them.
"""

import contextlib
import hashlib
import io
import os
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

INCOMING = ".incoming"
PROJECTS = "projects"
THUMBNAILS = "thumbnails"
ASSETS = "assets"
# The school's own picture for projects without a thumbnail; no row names it.
DEFAULT_THUMBNAIL = f"{THUMBNAILS}/default.png"
# The original keeps assets in one folder for each type of its front end.
LEGACY_FOLDERS = ("costume", "sound", "sprite", "script", "thumbnail", "unknown")
OWNED_KINDS = (PROJECTS, THUMBNAILS)
_FILE_MODE = 0o640
_FOLDER_MODE = 0o750
_INCOMING_AGE_SECONDS = 24 * 3600


class IncomingFile(io.FileIO):
    """A body part that is being received: a temporary file, removed on `close` unless it was moved to its final name.

    It is in the uploads folder from the first byte, because only inside one file system is the move a rename.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
        super().__init__(descriptor, "r+b")
        self._path: Path | None = path

    def write(self, data: Any) -> int:
        """Write all of `data`; a plain FileIO may write less when the disk fills up, which its callers do not check."""
        rest = memoryview(data)
        while rest:
            rest = rest[super().write(rest) :]
        return len(data)

    @property
    def size(self) -> int:
        """Length in bytes of what has been received."""
        return os.fstat(self.fileno()).st_size

    def digest(self, algorithm: str) -> str:
        """The hexadecimal hash of the whole content."""
        self.seek(0)
        return hashlib.file_digest(self, algorithm).hexdigest()

    def move_to(self, target: Path) -> None:
        """Make the content durable, then rename it to `target`; after that `close` does not remove it."""
        if self._path is None:
            raise ValueError("this file was moved already")
        os.fsync(self.fileno())
        self._path.replace(target)
        self._path = None
        sync_folder(target.parent)

    def close(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None
        super().close()


class FileStore:
    """Files below one root, named by the relative paths of the rows."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._incoming = self.root / INCOMING

    def receive(self) -> IncomingFile:
        """A new, empty file to write a body part into; OSError when the folder cannot be written."""
        path = self._incoming / f"{uuid.uuid4().hex}.part"
        try:
            return IncomingFile(path)
        except FileNotFoundError:
            self._incoming.mkdir(mode=_FOLDER_MODE, exist_ok=True)
            return IncomingFile(path)

    def keep_new(self, incoming: IncomingFile, kind: str, owner_id: str, suffix: str) -> str:
        """Store `incoming` under a name never used before; returns the relative path for the row.

        Each owner has a folder, so that no folder grows with the whole school. Its name is a hash, because user ids of
        an identity provider may contain any character.
        """
        return self._keep(incoming, f"{kind}/{owner_folder(owner_id)}/{uuid.uuid4().hex}{suffix}")

    def keep_asset(self, incoming: IncomingFile, asset_type: str, md5: str, data_format: str) -> str:
        """Store an asset under a name never used before; the name begins with its hash, for people who read the folder.

        `asset_type` and `data_format` become parts of the path unchanged.
        """
        suffix = f".{data_format}" if data_format else ""
        return self._keep(incoming, f"{ASSETS}/{asset_type}/{md5}.{uuid.uuid4().hex}{suffix}")

    def discard(self, relative: str | None) -> None:
        """Remove a file that no row names."""
        path = self.find(relative)
        if path is not None:
            path.unlink(missing_ok=True)

    def find(self, stored: str | None) -> Path | None:
        """The existing file that a row's path names; None when it does not exist or is outside the root."""
        relative = self.relative(stored)
        if relative is None:
            return None
        path = self.root / relative
        # Resolving follows links, so a link that leads out of the folder is refused as such a path is.
        return path if path.is_file() and path.resolve().is_relative_to(self.root) else None

    @staticmethod
    def relative(stored: str | None) -> str | None:
        """A row's path below the root, or None. Imported rows may be absolute: /app/app/../uploads/projects/1_x.sb3."""
        if not stored or "\0" in stored:
            return None
        if stored.startswith("/"):
            _, found, stored = stored.rpartition("/uploads/")
            if not found:
                return None
        path = PurePosixPath(stored)
        if path.is_absolute() or not path.parts or ".." in path.parts or path.parts[0] == INCOMING:
            return None
        return str(path)

    def files_of(self, owner_id: str) -> list[Path]:
        """All files in an owner's folders, whether a row names them or not."""
        folder = owner_folder(owner_id)
        return [path for kind in OWNED_KINDS for path in (self.root / kind / folder).glob("*") if path.is_file()]

    def written_before(self, moment: float) -> Iterator[str]:
        """The relative paths of all stored files last written before `moment`, in seconds since the epoch.

        Links are left out, and so are folders in which neither this application nor the original stores files.
        """
        for top in (PROJECTS, THUMBNAILS, ASSETS, *LEGACY_FOLDERS):
            for folder, _, names in os.walk(self.root / top):
                for path in (Path(folder) / name for name in names):
                    relative = str(path.relative_to(self.root))
                    with contextlib.suppress(FileNotFoundError):
                        status = path.lstat()
                        if stat.S_ISREG(status.st_mode) and status.st_mtime < moment and relative != DEFAULT_THUMBNAIL:
                            yield relative

    def remove_owner(self, owner_id: str) -> None:
        """Remove every file of an owner, and the folders that held them."""
        for path in self.files_of(owner_id):
            path.unlink(missing_ok=True)
        for kind in OWNED_KINDS:
            with contextlib.suppress(FileNotFoundError):
                (self.root / kind / owner_folder(owner_id)).rmdir()

    def check_writable(self) -> None:
        """OSError when a save could not be written now."""
        self.receive().close()

    def clear_stale_incoming(self) -> None:
        """Remove half-received files of killed processes; no upload lasts as long as a day."""
        if self._incoming.is_dir():
            for path in self._incoming.glob("*.part"):
                try:
                    if time.time() - path.stat().st_mtime > _INCOMING_AGE_SECONDS:
                        path.unlink()
                except FileNotFoundError:
                    continue

    def _keep(self, incoming: IncomingFile, relative: str) -> str:
        target = self.root / relative
        if not target.parent.is_dir():
            self._make_folder(target.parent)
        incoming.move_to(target)
        return relative

    def _make_folder(self, folder: Path) -> None:
        if folder == self.root or folder.is_dir():
            return
        self._make_folder(folder.parent)
        folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
        sync_folder(folder.parent)


def owner_folder(owner_id: str) -> str:
    """The folder name of one owner: the same for the same id, and safe for any id."""
    return hashlib.sha256(owner_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def sync_folder(folder: Path) -> None:
    """Make a rename or a new entry in `folder` survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
