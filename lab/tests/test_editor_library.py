"""The archive of the editor's library: complete, or none."""

from __future__ import annotations

import hashlib
import json
import sys
import tarfile
from pathlib import Path

import pytest

from scratch4school_lab.checkout import ROOT

sys.path.append(str(ROOT / "host" / "src"))

from scratch4school_lab.commands import editor_library

CONTENTS = [b"<svg/>", b"RIFF"]
NAMES = sorted(f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}.svg" for content in CONTENTS)


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A folder with the files."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    for content in CONTENTS:
        name = f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}.svg"
        (folder / name).write_bytes(content)
    (tmp_path / "library.json").write_text(json.dumps(NAMES))
    return folder


def run(tmp_path: Path, mirror: Path, archive: str = "library.tar") -> int:
    names = str(tmp_path / "library.json")
    return editor_library.main([str(tmp_path / archive), "--source", mirror.as_uri(), "--list", names])


def test_archive_has_all_files_of_library(tmp_path: Path, mirror: Path) -> None:
    """As the server unpacks them."""
    assert run(tmp_path, mirror) == 0
    with tarfile.open(tmp_path / "library.tar") as archive:
        assert sorted(archive.getnames()) == [f"library/{name}" for name in NAMES]


def test_incomplete_library_makes_no_archive(tmp_path: Path, mirror: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The next run continues."""
    (mirror / NAMES[0]).write_bytes(b"another")
    assert run(tmp_path, mirror) == 1
    assert "1 of 2 files" in capsys.readouterr().err
    assert not (tmp_path / "library.tar").exists()


def test_archive_with_another_ending_is_refused(tmp_path: Path, mirror: Path) -> None:
    """editor_library would refuse it."""
    with pytest.raises(SystemExit):
        run(tmp_path, mirror, "library.zip")


def test_list_in_checkout_has_files_of_scratch() -> None:
    """The build of the image compares it with the package."""
    names = json.loads(editor_library.LIST.read_text())
    assert len(names) == 1347
    assert names == sorted(names)
