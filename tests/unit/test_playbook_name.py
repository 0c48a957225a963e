"""No branch depends on the playbook's name: a sysadmin's site.yml that imports deploy.yml behaves as deploy.yml."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

SOURCES = sorted(
    path
    for folder in ("deploy", "roles", "plugins")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".yml", ".j2", ".py")
)
PROGRAMS = [*SOURCES, *sorted((ROOT / "host" / "src").rglob("*.py"))]
# Ansible's variables that tell which playbook or play runs.
OF_THE_PLAYBOOK = re.compile(r"\b(playbook_dir|ansible_play_name|ansible_play_role_names|ansible_parent_play\w*)\b")
# The verb is the playbook's name; these tasks write it into the lock, the audit log and the ledger.
RECORDING = {
    "roles/lock/tasks/acquire.yml": ['lock_verb: "{{ __lock_owner.verb }}"', 'verb: "{{ lock_verb }}"'],
    "roles/release/tasks/_record.yml": ['verb: "{{ lock_verb }}"'],
}


def name_of(path: Path) -> str:
    """The path relative to the checkout."""
    return str(path.relative_to(ROOT))


def code_of(path: Path) -> str:
    """The text of a file; of a plugin without the documentation, whose examples are of other people's playbooks."""
    text = path.read_text()
    if path.suffix != ".py":
        return text
    nodes = [
        node
        for node in ast.parse(text).body
        if not (isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in ("DOCUMENTATION", "EXAMPLES"))
    ]
    return "\n".join(ast.unparse(node) for node in nodes)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_source_reads_no_name_or_folder_of_the_playbook(path: Path) -> None:
    """Variables of Ansible that have it."""
    assert OF_THE_PLAYBOOK.findall(code_of(path)) == []


@pytest.mark.parametrize("path", [path for path in SOURCES if path.suffix != ".py"], ids=name_of)
def test_verb_of_the_lock_is_only_recorded(path: Path) -> None:
    """No condition and no template uses it; argument specs describe it."""
    if path.parent.name == "meta":
        return
    used = [line.strip() for line in path.read_text().splitlines() if re.search(r"lock_verb|__lock_owner\.verb", line)]
    assert used == RECORDING.get(name_of(path), [])


@pytest.mark.parametrize("path", [path for path in PROGRAMS if path.suffix == ".py"], ids=name_of)
def test_program_compares_no_verb(path: Path) -> None:
    """The callback and scratch4schoolctl print it; the same change has another one in a sysadmin's site.yml."""
    assert re.findall(r"\bverb(?:\"\])? (?:==|!=|in|not in) .*", code_of(path)) == []


def test_typed_playbook_is_read_only_for_the_verb() -> None:
    """Plugins read the command line's playbook in one place."""
    readers = [name_of(path) for path in SOURCES if re.search(r"CLIARGS.*[\"']args[\"']", path.read_text())]
    assert readers == ["plugins/lookup/lock_owner.py"]


def test_deploy_tells_release_that_it_follows_a_migration() -> None:
    """By a variable of the play itself, which is the same in a playbook that imports deploy.yml."""
    plays = yaml.safe_load((ROOT / "deploy" / "deploy.yml").read_text())
    given = [play["vars"] for play in plays if "release_follows_migration" in play.get("vars", {})]
    assert [each["release_follows_migration"] for each in given] == [True]
