"""Promises of the documents: links lead to files and headings that exist, and a run prints each quoted message."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "roles").glob("*/README.md"),
        *(ROOT / "inventories").glob("*/README.md"),
    ]
)
PAGES = [ROOT / "docs" / f"{name}.md" for name in ("install", "operate", "backup-and-restore", "import", "inspect")]
PAGES.append(ROOT / "docs" / "troubleshoot.md")
PAGES.append(ROOT / "docs" / "development.md")

# Messages of a run whose text is Ansible's or is put together from numbers.
NOT_OURS = {"no vault secrets found", "Decryption failed", "Results: 5 passed, 1 failed"}
SOURCES = ("deploy", "docker/app/src", "docker/proxy", "host", "plugins", "roles", "tests/health")
TEXTS = {"", ".html", ".j2", ".py", ".yml"}

FENCE = re.compile(r"^ *```.*?^ *```", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def relative(path: Path) -> str:
    """Name a file as seen from the root, for the test's id."""
    return str(path.relative_to(ROOT))


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub derives them."""
    headings = re.findall(r"^#+ +(.+)$", FENCE.sub("", document.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    """A page that was split or renamed leaves links behind, and no linter follows them."""
    broken = []
    for target in LINK.findall(FENCE.sub("", document.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_page_opens_with_its_commands(page: Path) -> None:
    """A sysadmin who knows what to do copies the command; the explanation is for all others."""
    opening = page.read_text().partition("\n## ")[0]
    assert "```sh\n" in opening


def source_text() -> str:
    """All files that print messages, with the line breaks and quotation marks between parts of a text taken out."""
    files = [
        path
        for folder in SOURCES
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file() and path.suffix in TEXTS and not {".venv", "__pycache__"} & set(path.parts)
    ]
    text = " ".join(path.read_text(errors="replace") for path in files)
    return re.sub(r"\s+", " ", re.sub(r"[\"']\s*(?:~\s*)?f?[\"']", "", text))


def test_message_to_search_for_is_one_that_a_run_prints() -> None:
    """A message that was rewritten is not found by a sysadmin who searches for it."""
    page = (ROOT / "docs" / "troubleshoot.md").read_text()
    table = page.partition("## Messages of a run")[2].partition("\n\nOther")[0]
    rows = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `")]
    quoted = {message for row in rows for message in re.findall(r"`([^`]+)`", row) if not message.endswith(".yml")}
    assert len(quoted) > 15
    source = source_text()
    assert sorted(message for message in quoted - NOT_OURS if message not in source) == []


def test_sample_of_the_status_screen_has_every_line() -> None:
    """A sysadmin looks there for what a line means."""
    source = (ROOT / "host" / "src" / "scratch4school_host" / "status.py").read_text()
    printed = set(re.findall(r'f"([a-z ]{4,11}?) {2,}\{', source))
    assert len(printed) >= 10
    sample = re.search(r"^```text\n(.*?)^```", (ROOT / "docs" / "operate.md").read_text(), re.DOTALL | re.MULTILINE)
    assert sample
    shown = {line[:12].strip() for line in sample[1].splitlines()}
    assert printed <= shown
