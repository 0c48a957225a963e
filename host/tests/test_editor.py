"""The editor's files on the host: complete folders, and old files as long as a release names them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from conftest import run_command, script, write_settings

from scratch4school_host import editor
from scratch4school_host.errors import OperatorError

# Copies what a folder of this name has, as `docker cp` does from a container of the image.
ENGINE = """\
import json, shutil, sys
from pathlib import Path
here, words = Path({here!r}), sys.argv[1:]
with (here / "told").open("a") as told:
    told.write(json.dumps(words) + "\\n")
if words[0] == "create":
    (here / "image").write_text(words[3])
elif words[0] == "cp":
    if (here / "full").exists():
        sys.exit("no space left on device")
    shutil.copytree(here / (here / "image").read_text().rpartition(":")[2], words[2], dirs_exist_ok=True)
"""


@pytest.fixture
def folder(tmp_path: Path, tools: Path) -> Path:
    """An empty folder of the editor, beside the files of two images."""
    script(tools / "docker", f"#!{sys.executable}\n{ENGINE.format(here=str(tmp_path))}")
    for tag, names in {"one": ["code/a.1.js", "static/x.svg"], "two": ["code/a.2.js", "static/x.svg"]}.items():
        for name in [*names, "index.html"]:
            path = tmp_path / tag / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{name} of {tag}")
    made = tmp_path / "editor"
    made.mkdir()
    return made


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def told(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder.parent / "told").read_text().splitlines()]


def test_files_of_image_are_copied_once(folder: Path) -> None:
    """The container that was created for it is removed."""
    assert editor.provide(folder, "scratch4school/editor:one") is True
    assert {"one/index.html", "one/code/a.1.js", "all/code/a.1.js", "all/static/x.svg"} <= files(folder)
    assert told(folder)[-1] == ["rm", "--force", editor.CONTAINER]
    asked = len(told(folder))
    assert editor.provide(folder, "scratch4school/editor:one") is False
    assert len(told(folder)) == asked


def test_failed_copy_leaves_no_folder_of_image(folder: Path) -> None:
    """The next run copies again."""
    (folder.parent / "full").touch()
    with pytest.raises(OperatorError, match="no space left on device"):
        editor.provide(folder, "scratch4school/editor:one")
    assert not (folder / "one").exists()
    (folder.parent / "full").unlink()
    assert editor.provide(folder, "scratch4school/editor:one") is True


def test_code_of_old_release_stays_as_long_as_it_is_kept(folder: Path) -> None:
    """A tab that was opened before a deploy asks for it."""
    editor.provide(folder, "scratch4school/editor:one")
    editor.provide(folder, "scratch4school/editor:two")
    assert {"all/code/a.1.js", "all/code/a.2.js"} <= files(folder)
    assert editor.prune(folder, ["scratch4school/editor:two", "scratch4school/editor:one"]) == []
    assert editor.prune(folder, ["scratch4school/editor:two"]) == ["one"]
    assert "all/code/a.1.js" not in files(folder)
    assert {"all/code/a.2.js", "two/index.html"} <= files(folder)


def test_commands_print_what_they_did(folder: Path, tmp_path: Path) -> None:
    """As playbooks call them; another user, nginx, can read the files."""
    write_settings(tmp_path, "editor", {"directory": str(folder), "library": "none"})
    image = "scratch4school/editor:one"
    assert run_command(tmp_path, "editor", "provide", image).stdout == f"The files of {image} were copied.\n"
    assert run_command(tmp_path, "editor", "provide", image).stdout == f"The files of {image} are there.\n"
    folders = [path for path in folder.rglob("*") if path.is_dir()]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o755}
    other = "scratch4school/editor:two"
    assert run_command(tmp_path, "editor", "prune", other).stdout == "Removed: one.\n"
    assert run_command(tmp_path, "editor", "prune", other).stdout == "Nothing was removed.\n"
