"""Copies the finished files of the editor from their images to this host, where nginx reads them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from . import docker
from .files import sync_folder

# The files in the image, and the container that is created to copy them; it is never started.
IN_IMAGE = "/srv/editor/."
CONTAINER = "scratch4school-editor-copy"
# Folder with the files of all releases on the host. A tab that was opened before a deploy finds its files there. The
# files of these folders have a digest of their content in their names, so a name means the same file in each release.
ALL = "all"
SHARED = ("code", "static", "chunks")
# Folders that belong to no release; the role and library.py write the other two.
NO_RELEASES = (ALL, "branding", "library")


def folder_name(image: str) -> str:
    """The folder of an image's files: its tag, which is the digest of its content."""
    return image.rpartition(":")[2]


def provide(folder: Path, image: str) -> bool:
    """Copy an image's files, unless they are there; returns whether they were copied.

    A folder with the name of a tag is complete: the files are copied beside it, and it is renamed at the end.

    :raises OperatorError: when Docker cannot copy the files.
    """
    final = folder / folder_name(image)
    if final.exists():
        return False
    part = folder / f"{final.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    # nginx, another user, reads the files; the command's own umask would hide the folders.
    os.umask(0o022)
    part.mkdir()
    docker.run("rm", "--force", CONTAINER)
    docker.must("create", "--name", CONTAINER, image, "none")
    try:
        docker.must("cp", f"{CONTAINER}:{IN_IMAGE}", str(part))
    finally:
        docker.run("rm", "--force", CONTAINER)
    _share(part, folder / ALL)
    part.rename(final)
    sync_folder(folder)
    return True


def prune(folder: Path, kept: Iterable[str]) -> list[str]:
    """Remove the files of all images but `kept`; returns the names of the removed folders."""
    names = {*map(folder_name, kept), *NO_RELEASES}
    old = sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in names)
    for path in old:
        shutil.rmtree(path)
    # A shared file is a second link to that of its release, so one without another link belongs to no release.
    for path in (folder / ALL).rglob("*"):
        if path.is_file() and path.stat().st_nlink == 1:
            path.unlink()
    return [path.name for path in old]


def _share(release: Path, shared: Path) -> None:
    for name in SHARED:
        for path in (release / name).rglob("*"):
            link = shared / path.relative_to(release)
            if path.is_file() and not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                os.link(path, link)
