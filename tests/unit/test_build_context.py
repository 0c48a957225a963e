"""Build contexts: with too many files, unchanged images are rebuilt; with too few, changed ones are not."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible.module_utils.build_context import BuildContextError, archive, context_files, digest, ignore_rules

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A small build context with a program, a nested folder, and files that .dockerignore excludes."""
    root = tmp_path / "app"
    for name, text in {
        "Dockerfile": "FROM scratch\n",
        ".dockerignore": "# made by tools\n.venv/\n**/__pycache__\n*.md\n",
        "start": "#!/bin/sh\n",
        "src/main.py": "print()\n",
        "src/notes.md": "kept: the pattern is about the top folder only\n",
        "src/__pycache__/main.pyc": "x",
        ".venv/bin/python": "x",
        "README.md": "x",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "start").chmod(0o755)
    return root


def test_listed_files_are_those_that_docker_sends(context: Path) -> None:
    """Sorted, without those that .dockerignore excludes."""
    assert context_files(context) == [".dockerignore", "Dockerfile", "src/main.py", "src/notes.md", "start"]


@pytest.mark.parametrize(
    ("pattern", "path", "ignored"),
    [
        ("tests", "tests/unit/test_a.py", True),
        ("tests", "src/tests/a.py", False),
        ("/tests/", "tests/a.py", True),
        ("**/tests", "src/deep/tests/a.py", True),
        ("**/tests", "tests/a.py", True),
        ("**/*.pyc", "a.pyc", True),
        ("*.pyc", "src/a.pyc", False),
        ("src/*/cache", "src/one/cache/x", True),
        ("src/*/cache", "src/one/two/cache", False),
        ("src/**", "src/one/two", True),
        ("src/**", "source", False),
        ("src/**/z", "src/a/b/z", True),
        ("src/**/z", "src/z", True),
        ("?.txt", "a.txt", True),
        ("?.txt", "ab.txt", False),
        ("[ab].txt", "b.txt", True),
        ("[^ab].txt", "b.txt", False),
        ("a.b", "aXb", False),
        ("./a", "a", True),
        ("#a", "#a", False),
    ],
)
def test_pattern_matches_the_same_paths_as_in_docker(pattern: str, path: str, ignored: bool) -> None:
    """One case per rule of the supported subset."""
    assert any(rule.match(path) for rule in ignore_rules(pattern)) is ignored


@pytest.mark.parametrize(("text", "word"), [("a\n!a/b\n", "line 2"), ("../a", "outside")])
def test_unsupported_pattern_is_refused(text: str, word: str) -> None:
    """A misread exception would exclude files from the digest, and a changed image would keep its tag."""
    with pytest.raises(BuildContextError, match=word):
        ignore_rules(text)


def test_dockerfile_is_listed_even_when_ignored(context: Path) -> None:
    """Docker sends it even then, so that a change must change the digest."""
    (context / ".dockerignore").write_text("Dockerfile\n.dockerignore\nsrc\nstart\n.venv\nREADME.md\n")
    assert context_files(context) == [".dockerignore", "Dockerfile"]


def test_digest_is_the_same_in_two_checkouts_of_one_commit(context: Path) -> None:
    """Times, umask and ignored files differ between them."""
    before = digest(context)
    os.utime(context / "start", (1, 1))
    (context / "src/main.py").chmod(0o600)
    (context / "README.md").write_text("other")
    (context / "empty").mkdir()
    assert digest(context) == before
    assert len(before) == 12


def change_content(context: Path) -> None:
    (context / "src/main.py").write_text("print(1)\n")


def change_mode(context: Path) -> None:
    (context / "start").chmod(0o644)


def change_name(context: Path) -> None:
    (context / "start").rename(context / "begin")


def change_to_link(context: Path) -> None:
    (context / "src/main.py").unlink()
    (context / "src/main.py").symlink_to("notes.md")


def change_rules(context: Path) -> None:
    (context / ".dockerignore").write_text(".venv\n**/__pycache__\n*.md\n")


@pytest.mark.parametrize("change", [change_content, change_mode, change_name, change_to_link, change_rules])
def test_change_of_the_image_changes_the_digest(context: Path, change: Callable[[Path], None]) -> None:
    """Of content, mode, name, kind and ignored files."""
    before = digest(context)
    change(context)
    assert digest(context) != before


def test_digest_separates_the_extra_strings(context: Path) -> None:
    """A character that moves from one string to the next is a change, and so is another order."""
    digests = {digest(context, extra) for extra in ([], [""], ["ab", "c"], ["a", "bc"], ["c", "ab"])}
    assert len(digests) == 5


def test_archive_is_the_same_for_the_same_files(context: Path) -> None:
    """Owner root, time 0, folders before their files; otherwise every run would copy the context again."""
    first = archive(context, compress=True)
    os.utime(context / "start", (1, 1))
    assert archive(context, compress=True) == first
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        members = {member.name: member for member in tar.getmembers()}
    assert list(members) == [".dockerignore", "Dockerfile", "src", "src/main.py", "src/notes.md", "start"]
    assert {(member.uid, member.gid, member.mtime) for member in members.values()} == {(0, 0, 0)}
    assert members["start"].mode == 0o755
    assert members["Dockerfile"].mode == 0o644


def test_context_without_a_dockerfile_is_refused(context: Path) -> None:
    """A mistyped path must not get the digest of no files."""
    (context / "Dockerfile").unlink()
    with pytest.raises(BuildContextError, match="has no Dockerfile"):
        digest(context)


def test_filter_and_module_give_the_same_digest(context: Path, filters: dict[str, Callable[..., Any]]) -> None:
    """The filter makes tags and the module makes archives, of the same files."""
    assert filters["build_context_digest"](str(context), ["base"]) == digest(context, ["base"])
    with pytest.raises(AnsibleFilterError, match="is not a folder"):
        filters["build_context_digest"](str(context / "nowhere"))


def test_module_writes_the_archive_only_when_it_differs(
    context: Path, tmp_path: Path, run_module: Callable[..., dict[str, Any]]
) -> None:
    """In the first run and after a change; check mode writes nothing."""
    dest = tmp_path / "context.tar.gz"
    arguments = {"path": str(context), "dest": str(dest), "extra": ["base"]}
    planned = run_module("build_context", check_mode=True, **arguments)
    assert planned["changed"]
    assert not dest.exists()
    written = run_module("build_context", **arguments)
    assert written["changed"]
    assert written["digest"] == digest(context, ["base"])
    assert dest.read_bytes() == archive(context, compress=True)
    assert not run_module("build_context", **arguments)["changed"]
    change_content(context)
    assert run_module("build_context", **arguments)["changed"]
    assert list(tmp_path.glob(".context*")) == []


def test_module_refuses_an_archive_inside_the_context(context: Path, run_module: Callable[..., dict[str, Any]]) -> None:
    """The archive would contain itself and grow with every run."""
    answer = run_module("build_context", path=str(context), dest=str(context / "context.tar"))
    assert answer["failed"]
    assert "pack itself" in answer["msg"]


@pytest.mark.parametrize("image", sorted(path.parent.name for path in ROOT.glob("docker/*/Dockerfile")))
def test_docker_ignores_all_files_that_git_ignores(image: str) -> None:
    """A checkout in which tests have run is the same release as a new one."""
    folder = ROOT / "docker" / image
    ignored, rules = (
        (folder / name).read_text() if (folder / name).is_file() else "" for name in (".gitignore", ".dockerignore")
    )
    names = [
        line.rstrip("/").replace("*", "some") for line in ignored.splitlines() if line and not line.startswith("#")
    ]
    assert [name for name in names if not any(rule.match(name) for rule in ignore_rules(rules))] == []


def test_folder_of_hypothesis_is_in_gitignore() -> None:
    """Hypothesis hides its folder from git itself, so that a missing line would not show."""
    assert ".hypothesis/" in (ROOT / "docker" / "app" / ".gitignore").read_text().splitlines()
