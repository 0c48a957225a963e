"""House rules that no linter checks, as tests over the repository's files.

Each docstring has the reason of its rule. docs/glossary.md is the data of the rule about replaced words.
"""

from __future__ import annotations

import functools
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
ROLES = ROOT / "roles"

PLAYBOOKS = sorted(DEPLOY.glob("*.yml"))
ROLE_FOLDERS = sorted(folder for folder in ROLES.iterdir() if folder.is_dir())
TASK_FILES = sorted(ROLES.glob("*/tasks/**/*.yml"))
DOCKERFILES = sorted((ROOT / "docker").glob("*/Dockerfile"))
TRACKED_FILES = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    # A file that was removed and is not staged yet is still listed.
    if name and (ROOT / name).is_file()
]
TEST_FILES = [path for path in TRACKED_FILES if path.name.startswith("test_") and path.suffix == ".py"]

# Add a new role here, unless its name is a verb.
COMPONENTS = {
    "adoption",
    "app",
    "backup",
    "container",
    "database",
    "docker",
    "host",
    "images",
    "lock",
    "pgbouncer",
    "proxy",
    "release",
}

# Playbooks without preflight: two are read-only, and unlock.yml must work when all others are refused.
WITHOUT_PREFLIGHT = {"status", "unlock", "verify"}

# A task's name begins with one of these. Add a verb that says what the task does; "Handle", "Ensure" and "Let" do not.
TASK_VERBS = (
    "Abandon Acquire Activate Append Apply Ask Bootstrap Build Check Clear Commit Compare Complete "
    "Compute Configure Confirm Copy Create Cut Delete Describe Disable Drain Enable End Export Fail Fetch "
    "Find Grant Import Inspect Install Limit List Load Lock Migrate Open Pack Parse Pause Plan Print "
    "Provide Prune Pull Read Record Refuse Rehearse Release Reload Remove Rename Render Repeat Replace "
    "Require Resolve Restart Restore Resume Reverse Revert Revoke Run Save Send Set Start Stop Survey "
    "Sweep Switch Test Turn Undo Unlock Update Validate Verify Void Wait Warn Write"
)

# Files in which a replaced word may be: the glossary, this file, texts and data of others, and results of the past.
NOT_OUR_PROSE = re.compile(
    r"docs/glossary\.md|tests/unit/test_house_rules\.py|LICENSE|benchmarks/results/.*|docker/app/tests/legacy/.*"
    r"|(.*/)?requirements[^/]*\.(txt|lock)"
)
# Names of third parties in which a replaced word may be: SQLite's terms, Linux's user, Alembic's command.
NOT_OUR_NAME = re.compile(
    r"journal_(?:mode|size_limit)|\.db-journal|\"-journal\"|[Rr]ollback journal|journal mode"
    r"|USER nobody|nobody:nogroup|command\.stamp\("
)

# systemd needs root, and a lab host is never a production image.
IMAGES_WITH_ROOT = {"lab-host"}


def relative(path: Path) -> str:
    """A file's path from the repository's root, for a test's id."""
    return str(path.relative_to(ROOT))


def each(paths: list[Path]) -> pytest.MarkDecorator:
    """Run the test once per file, so that one failure does not hide another."""
    return pytest.mark.parametrize("path", paths, ids=relative)


def plays(playbook: Path) -> list[dict[str, Any]]:
    """Read a playbook."""
    return yaml.safe_load(playbook.read_text()) or []


def imported_playbook(play: dict[str, Any]) -> str | None:
    """The playbook that a play imports, if it is an import."""
    return play.get("ansible.builtin.import_playbook")


def role_calls(play: dict[str, Any]) -> list[dict[str, Any]]:
    """Every import_role or include_role of a play."""
    tasks = [task for section in ("pre_tasks", "tasks", "post_tasks") for task in play.get(section) or []]
    calls = [task.get("ansible.builtin.import_role") or task.get("ansible.builtin.include_role") for task in tasks]
    return [call for call in calls if call]


def tasks_of(path: Path) -> Iterator[dict[str, Any]]:
    """Every task of a task file, a file of handlers or a playbook, within blocks too."""
    left = list(yaml.safe_load(path.read_text()) or [])
    while left:
        one = left.pop(0)
        if "hosts" not in one and imported_playbook(one) is None:
            yield one
        for section in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers"):
            left += one.get(section) or []


def replaced_words() -> list[str]:
    """The words in code type in the third column of the glossary's tables."""
    rows = [line.split("|") for line in (ROOT / "docs" / "glossary.md").read_text().splitlines()]
    return sorted({word.lower() for cells in rows if len(cells) == 5 for word in re.findall(r"`([^`]+)`", cells[3])})


def word_pattern(word: str) -> re.Pattern[str]:
    """A pattern for a word, or several, that are whole or a part of a name in snake case."""
    written = r"[\s_-]+".join(map(re.escape, word.split()))
    return re.compile(rf"(?<![a-z0-9]){written}(?![a-z0-9])", re.IGNORECASE)


def our_lines(path: Path) -> list[str]:
    """A file's path and its lines without names of third parties; empty for a binary file."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return []
    return [relative(path), *NOT_OUR_NAME.sub("", text).split("\n")]


@functools.cache
def replaced_words_in_files() -> dict[str, list[str]]:
    """Every line with a replaced word, as file, number and text, by word; line 0 is the file's path."""
    found: dict[str, list[str]] = {word: [] for word in REPLACED_WORDS}
    patterns = {word: word_pattern(word) for word in REPLACED_WORDS}
    files = (path for path in TRACKED_FILES if not NOT_OUR_PROSE.fullmatch(relative(path)))
    for path in files:
        lines = our_lines(path)
        text = "\n".join(lines)
        for word in (word for word, pattern in patterns.items() if pattern.search(text)):
            found[word] += [
                f"{relative(path)}:{number}: {line.strip()[:100]}"
                for number, line in enumerate(lines)
                if patterns[word].search(line)
            ]
    return found


REPLACED_WORDS = replaced_words()


def test_files_for_the_rules_are_found() -> None:
    """In a moved folder every rule would find nothing and pass."""
    assert PLAYBOOKS
    assert ROLE_FOLDERS
    assert TASK_FILES
    assert DOCKERFILES
    assert len(TRACKED_FILES) > 300
    assert len(TEST_FILES) > 50
    assert {"journal", "nobody", "wish"} <= set(REPLACED_WORDS)


@each(PLAYBOOKS)
def test_playbook_begins_with_a_comment_of_one_sentence(path: Path) -> None:
    """It tells a sysadmin what the playbook does."""
    lines = path.read_text().splitlines()
    assert len(lines) <= 110, f"{len(lines)} lines"
    assert lines[0] == "---"
    assert re.match(r"# [A-Z][^.!?]*(\.\w[^.!?]*)*\.$", lines[1]), "the second line must be a comment of one sentence"
    assert not lines[2].startswith("#")


@each(PLAYBOOKS)
def test_playbook_only_calls_roles_or_imports_playbooks(path: Path) -> None:
    """Modules are called in roles, which have an interface and a check."""
    calling = {"ansible.builtin.import_role", "ansible.builtin.include_role"}
    for play in plays(path):
        if imported_playbook(play):
            assert set(play) <= {"name", "ansible.builtin.import_playbook", "vars", "when"}
            continue
        assert not {"roles", "pre_tasks", "post_tasks", "handlers"} & set(play)
        for task in play["tasks"]:
            assert calling & set(task), f"“{task.get('name')}” calls no role"
            assert set(task) <= {*calling, "name", "vars", "when", "tags"}


@each(PLAYBOOKS)
def test_first_failure_ends_a_play_for_all_hosts(path: Path) -> None:
    """ansible.cfg has no such setting; without it the run continues on a second host after the first one failed."""
    for play in plays(path):
        assert imported_playbook(play) or play.get("any_errors_fatal") is True, play.get("name")


@each([path for path in PLAYBOOKS if not path.name.startswith("_") and path.stem not in WITHOUT_PREFLIGHT])
def test_first_play_of_a_playbook_is_preflight(path: Path) -> None:
    """Wrong settings and unsuitable hosts are refused before the first change."""
    while path.name != "_preflight.yml":
        first = imported_playbook(plays(path)[0])
        assert first, f"{path.name} begins with a play of its own"
        path = DEPLOY / first


@each([*TASK_FILES, *PLAYBOOKS])
def test_task_file_of_a_role_is_no_variable(path: Path) -> None:
    """Ansible would use the first host's value for all hosts of the play."""
    assert not re.search(r"tasks_from:\s*[\"']?\{\{", path.read_text())


def test_pgbouncer_is_replaced_before_the_database_and_after_its_access_rules() -> None:
    """A new PgBouncer needs the new access rules; one that connects by address loses a replaced PostgreSQL."""
    calls = [call for play in plays(DEPLOY / "_apply_settings.yml") for call in role_calls(play)]
    steps = [(call["name"], call.get("tasks_from", "main")) for call in calls]
    assert [step for step in steps if step[0] in ("database", "pgbouncer")] == [
        ("database", "settings"),
        ("pgbouncer", "main"),
        ("database", "main"),
    ]


@each([*TASK_FILES, *PLAYBOOKS, *ROLES.glob("*/vars/main.yml"), *DEPLOY.glob("group_vars/all/*.yml")])
def test_no_decision_depends_on_the_name_of_the_playbook(path: Path) -> None:
    """A sysadmin's site.yml imports deploy.yml and must behave as deploy.yml: `lock_verb` is only for the audit log."""
    recording = {"roles/lock/tasks/acquire.yml", "roles/release/tasks/_record.yml"}
    assert "lock_verb" not in path.read_text() or relative(path) in recording
    assert "ansible_play_name" not in path.read_text()


def test_only_one_playbook_part_activates_a_release() -> None:
    """Deploy, rollback, restart and restore differ in the target only."""
    callers = {
        playbook.name
        for playbook in PLAYBOOKS
        for play in plays(playbook)
        for call in role_calls(play)
        if call.get("tasks_from") in ("activate", "activate.yml")
    }
    assert callers == {"_activate.yml"}
    roles = [relative(path) for path in TASK_FILES if re.search(r"tasks_from:\s*activate\b", path.read_text())]
    assert roles == []


@each(ROLE_FOLDERS)
def test_name_of_a_role_is_a_component(path: Path) -> None:
    """Verbs are names of playbooks; a role `rollback` would be a second implementation."""
    assert path.name in COMPONENTS


@each(ROLE_FOLDERS)
def test_role_has_main_check_specs_and_readme(path: Path) -> None:
    """`main` installs the component and `check` checks it, in every role."""
    for needed in ("tasks/main.yml", "tasks/check.yml", "meta/argument_specs.yml", "README.md"):
        assert (path / needed).is_file(), f"{needed} is missing"


def test_verify_calls_the_check_of_every_role() -> None:
    """Otherwise a broken component stays unnoticed."""
    calls = [call for play in plays(DEPLOY / "verify.yml") for call in role_calls(play)]
    checked = {call["name"] for call in calls if call.get("tasks_from") == "check"}
    # The checks of other roles call that of `container` for their containers.
    assert {path.name for path in ROLE_FOLDERS} - checked <= {"container"}


@each(TASK_FILES)
def test_task_file_is_not_too_long(path: Path) -> None:
    """main.yml has at most 60 lines, another file at most 100."""
    limit = 60 if path.name == "main.yml" else 100
    assert len(path.read_text().splitlines()) <= limit


@each(sorted(file for file in ROLES.rglob("*") if file.is_file()))
def test_role_does_not_use_groups_of_the_inventory(path: Path) -> None:
    """A group's name would tie the role to one inventory; hosts are passed as variables."""
    assert not re.search(r"\bgroups(\[|\.\w)", path.read_text(errors="replace"))


def test_path_on_the_host_is_in_one_role_only() -> None:
    """Two roles with the same path would differ after a change of one."""
    owners = defaultdict(set)
    for file in (file for file in ROLES.rglob("*") if file.is_file() and file.name != "README.md"):
        for path in re.findall(r"/(?:var/lib|etc)/scratch4school/[a-z_-]+", file.read_text(errors="replace")):
            owners[path].add(file.relative_to(ROLES).parts[0])
    assert {path: sorted(roles) for path, roles in owners.items() if len(roles) > 1} == {}


@each(
    [
        file
        for folder in ("deploy", "docker", "inventories", "lab", "roles", "scripts")
        for file in sorted((ROOT / folder).rglob("*"))
        if file.is_file()
        and not {".venv", "node_modules", "__pycache__", ".secrets", "tests"} & set(file.relative_to(ROOT).parts)
        # The lab may write this one between the collections of two workers.
        and file != ROOT / "inventories" / "lab" / "hosts.yml"
        and file.suffix in {"", ".yml", ".j2", ".py", ".toml", ".md"}
    ]
)
def test_no_image_has_the_tag_latest(path: Path) -> None:
    """The image behind `:latest` changes, so that the same release would not have the same content."""
    assert not re.search(r"[\w}]:latest\b", path.read_text(errors="replace"))


@each([path for path in DOCKERFILES if path.parent.name not in IMAGES_WITH_ROOT])
def test_last_user_of_an_image_is_not_root(path: Path) -> None:
    """A container that is started without `--user` must not run as root."""
    users = re.findall(r"^USER\s+(\S+)", path.read_text(), flags=re.MULTILINE)
    assert users, "no USER at all"
    assert users[-1].split(":")[0] not in ("root", "0")


def test_readme_has_at_most_800_words_and_names_every_playbook() -> None:
    """Four minutes at 200 words a minute; a sysadmin would not find a playbook that is not in it."""
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 800
    assert [path.name for path in PLAYBOOKS if not path.name.startswith("_") and f"`{path.name}" not in text] == []


def test_ansible_settings_of_deploy_are_a_symbolic_link() -> None:
    """Ansible reads only the ansible.cfg of the folder in which it is started; a copy would differ one day."""
    link = DEPLOY / "ansible.cfg"
    assert link.is_symlink()
    assert link.resolve() == ROOT / "ansible.cfg"


def test_one_shot_container_is_hardened_as_a_lasting_one() -> None:
    """Two tasks create containers; their options against intruders must be equal."""

    def made_by(path: str) -> dict[str, Any]:
        tasks = yaml.safe_load((ROOT / "roles" / "container" / "tasks" / path).read_text())
        found = [
            task["community.docker.docker_container"] for task in tasks if "community.docker.docker_container" in task
        ]
        assert len(found) == 1
        return found[0]

    stays, ends = made_by("_create.yml"), made_by("run_once.yml")
    alike = (
        "user",
        "groups",
        "read_only",
        "cap_drop",
        "security_opts",
        "memory",
        "memory_swap",
        "mounts",
        "tmpfs",
        "networks",
        "pull",
    )
    assert {name: ends[name] for name in alike} == {name: stays[name] for name in alike}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The journal is read.", True),
        ("host_journal = 1", True),
        ("JOURNAL", True),
        ("journalctl --unit docker", False),
        ("the journals of systemd", False),
    ],
)
def test_pattern_of_a_word_matches_whole_words_only(text: str, found: bool) -> None:
    """And parts of names in snake case."""
    assert bool(word_pattern("journal").search(text)) is found


@pytest.mark.parametrize("text", ["it comes over", "comes_over", "Comes-over"])
def test_pattern_of_two_words_matches_every_separator(text: str) -> None:
    """As in prose, in names and in paths."""
    assert word_pattern("comes over").search(text)


@pytest.mark.parametrize("text", ["PRAGMA journal_mode = DELETE", "main.db-journal", "USER nobody", "command.stamp(x)"])
def test_name_of_a_third_party_is_not_a_replaced_word(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the exact names; the words themselves are still found."""
    monkeypatch.setattr("test_house_rules.ROOT", tmp_path)
    file = tmp_path / "file"
    file.write_text(text)
    assert not [word for word in REPLACED_WORDS for line in our_lines(file) if word_pattern(word).search(line)]


@pytest.mark.parametrize("word", REPLACED_WORDS)
def test_replaced_word_is_in_no_file_and_no_path(word: str) -> None:
    """Two words for one thing make a reader look for a difference; docs/glossary.md has the word to use instead."""
    found = replaced_words_in_files()[word]
    assert not found, f"“{word}” in {len(found)} lines (line 0 is the path):\n" + "\n".join(found)


@each([*PLAYBOOKS, *TASK_FILES, *sorted(ROLES.glob("*/handlers/*.yml"))])
def test_name_of_a_task_is_an_imperative_verb_and_an_object(path: Path) -> None:
    """The output of a run shows the name alone, so that a pronoun has nothing to refer to."""
    names = [str(task.get("name", "")).rpartition(" | ")[2] for task in tasks_of(path)]
    named_well = re.compile(rf"({TASK_VERBS.replace(' ', '|')})\b.*\w+")
    pronoun = re.compile(r"\b(it|them|they|its$)(?!\w)")
    assert [name for name in names if not named_well.match(name) or " " not in name or pronoun.search(name)] == []


@each(TEST_FILES)
def test_name_of_a_test_is_subject_condition_and_result(path: Path) -> None:
    """The name is all that a failing run shows of a test: more than three words, and no pronoun as the subject."""
    names = re.findall(r"^\s*(?:async )?def (test_\w+)", path.read_text(), flags=re.MULTILINE)
    pronoun = re.compile(r"test_(?:what|who|whoever|whose|nobody|one_that)_")
    assert [name for name in names if len(name.split("_")) < 5 or pronoun.match(name)] == []
