"""Lists, digests and packs the files of a Docker build context; image tags depend on the digest."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

# Docker sends these two even if .dockerignore names them, because the builder reads them.
ALWAYS_SENT = frozenset({"Dockerfile", ".dockerignore"})


class BuildContextError(ValueError):
    """The build context cannot be read; the text is a message for the sysadmin."""


def ignore_rules(text: str) -> list[re.Pattern[str]]:
    """Translate the text of a .dockerignore to patterns for paths relative to the context, with `/` between the parts.

    Supported are comments (`#`), plain paths, and the globs `*`, `?`, `[…]` and `**`. As in Docker, a pattern is
    anchored at the context: `*.pyc` matches in the top folder, `**/*.pyc` in all folders. A pattern that matches a
    folder excludes all files below it.

    :raises BuildContextError: for `!` exceptions. Their meaning depends on the order of the lines and on the parent
        folders. If the digest read them differently from Docker, a changed file could leave the tag unchanged.
    """
    rules = []
    for number, line in enumerate(text.splitlines(), start=1):
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        if pattern.startswith("!"):
            raise BuildContextError(
                f".dockerignore line {number} is the exception “{pattern}”, which is not supported here; "
                "list what to leave out instead."
            )
        parts = [part for part in pattern.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise BuildContextError(f".dockerignore line {number}, “{pattern}”, points outside the build context.")
        if parts:
            rules.append(_compile(parts))
    return rules


def _compile(parts: list[str]) -> re.Pattern[str]:
    """Translate the parts of one pattern. Not with fnmatch, because its `*` matches slashes."""
    expression = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            expression += ".+" if last else "(?:[^/]+/)*"
        else:
            expression += _compile_part(part) + ("" if last else "/")
    return re.compile(f"{expression}(?:/.*)?\\Z", re.DOTALL)


def _compile_part(part: str) -> str:
    expression = ""
    position = 0
    while position < len(part):
        character = part[position]
        closing = part.find("]", position + 2) if character == "[" else -1
        if character == "*":
            expression += "[^/]*"
        elif character == "?":
            expression += "[^/]"
        elif closing > 0:
            expression += "[" + part[position + 1 : closing].replace("\\", "\\\\") + "]"
            position = closing
        else:
            expression += re.escape(character)
        position += 1
    return expression


def context_files(path: str | os.PathLike[str]) -> list[str]:
    """Return the relative paths of the files that Docker sends, sorted by code point, independent of the locale.

    Symbolic links are listed as links and are not followed. Empty folders are not listed, as in git.

    :raises BuildContextError: when the folder or its Dockerfile is missing, or an entry is no file, folder or link.
    """
    root = Path(path)
    if not root.is_dir():
        raise BuildContextError(f"The build context {root} is not a folder.")
    if not (root / "Dockerfile").is_file():
        raise BuildContextError(f"The build context {root} has no Dockerfile.")
    ignore_file = root / ".dockerignore"
    rules = ignore_rules(ignore_file.read_text(encoding="utf-8")) if ignore_file.is_file() else []
    return sorted(_walk(root, "", rules))


def _walk(root: Path, below: str, rules: list[re.Pattern[str]]) -> Iterator[str]:
    for entry in os.scandir(root / below):
        name = below + entry.name
        if name not in ALWAYS_SENT and any(rule.match(name) for rule in rules):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, name + "/", rules)
        elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
            yield name
        else:
            raise BuildContextError(f"{root / name} is neither a file, a folder nor a symbolic link.")


def digest(path: str | os.PathLike[str], extra: Iterable[str] = ()) -> str:
    """Return 12 hexadecimal digits that depend on names, executable bits and contents of the files, and on `extra`.

    Owners, times and the other mode bits are excluded, because they differ between two checkouts of the same commit.
    """
    root = Path(path)
    total = hashlib.sha256()
    files = context_files(root)
    _feed(total, str(len(files)).encode())
    for name in files:
        kind, content = _kind_and_content(root / name)
        _feed(total, name.encode(), kind, content)
    for text in extra:
        _feed(total, text.encode())
    return total.hexdigest()[:12]


def _feed(total: hashlib._Hash, *fields: bytes) -> None:
    """Add fields with their lengths, so that a byte that moves from one field to the next changes the digest."""
    for field in fields:
        total.update(f"{len(field)}:".encode())
        total.update(field)


def _kind_and_content(file: Path) -> tuple[bytes, bytes]:
    mode = file.lstat().st_mode
    if stat.S_ISLNK(mode):
        return b"link", os.fsencode(file.readlink())
    return (b"program" if mode & stat.S_IXUSR else b"file"), file.read_bytes()


def archive(path: str | os.PathLike[str], *, compress: bool) -> bytes:
    """Return a tar archive of the context, with the same bytes for the same files: owner root, time 0, 0755 or 0644."""
    root = Path(path)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder_or_file in _with_folders(context_files(root)):
            member = tarfile.TarInfo(folder_or_file)
            if folder_or_file.endswith("/"):
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(member)
                continue
            kind, content = _kind_and_content(root / folder_or_file)
            if kind == b"link":
                member.type, member.linkname = tarfile.SYMTYPE, os.fsdecode(content)
                tar.addfile(member)
                continue
            member.mode = 0o755 if kind == b"program" else 0o644
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0) if compress else buffer.getvalue()


def _with_folders(files: list[str]) -> Iterator[str]:
    """Yield each folder, with a trailing slash, before the first file in it, so that the archive sets its mode."""
    seen: set[str] = set()
    for file in files:
        for folder in reversed(PurePosixPath(file).parents[:-1]):
            name = f"{folder}/"
            if name not in seen:
                seen.add(name)
                yield name
        yield file
