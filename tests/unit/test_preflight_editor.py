"""Refusals of preflight for the role `editor`: its logo and its library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from preflight import editor

SETTINGS: dict[str, Any] = {"editor_logo": "", "editor_library": "internet"}


@pytest.mark.parametrize(
    "source", ["internet", "none", "https://mirror.school.de/library", "https://mirror.school.de/a.tar"]
)
def test_library_that_is_no_file_is_accepted(source: str) -> None:
    """The server asks for it later; a deploy does not depend on it."""
    assert list(editor.library({**SETTINGS, "editor_library": source})) == []


def test_archive_that_is_missing_is_refused_with_program_that_makes_it(tmp_path: Path) -> None:
    """The path is one of the control node."""
    archive = tmp_path / "library.tar"
    (said,) = editor.library({**SETTINGS, "editor_library": str(archive)})
    assert said.startswith(f"editor_library names {archive}, and there is no such file on the control node.")
    assert "scripts/editor-library" in said
    archive.touch()
    assert list(editor.library({**SETTINGS, "editor_library": str(archive)})) == []


def test_logo_that_is_missing_or_large_is_refused(tmp_path: Path) -> None:
    """With the path, and the size."""
    logo = tmp_path / "logo.svg"
    (missing,) = editor.logo({**SETTINGS, "editor_logo": str(logo)})
    assert "no such file on the control node" in missing
    logo.write_bytes(b"x" * 300_000)
    (large,) = editor.logo({**SETTINGS, "editor_logo": str(logo)})
    assert "which has 300 kB" in large
    logo.write_bytes(b"<svg/>")
    assert list(editor.logo({**SETTINGS, "editor_logo": str(logo)})) == []
    assert list(editor.logo(SETTINGS)) == []
