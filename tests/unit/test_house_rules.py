"""The house rules that lint cannot see, as tests over the files they speak of.

ansible-lint has no rule for any of these, and a paragraph in a style guide holds nothing. Each docstring gives the
rule's reason, so that whoever breaks it learns why before deciding that the rule is wrong.
"""

from __future__ import annotations

import re
from collections import defaultdict
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

# Roles are things. A new one is added here on purpose, after asking whether its name is a verb in disguise.
NOUNS = {
    "adoption",
    "app",
    "backup",
    "container",
    "database",
    "docker",
    "host",
    "images",
    "journal",
    "pgbouncer",
    "proxy",
    "release",
}

# These only look, or are what one types when nothing else is let in; all other verbs change something.
LOOKING_VERBS = {"status", "unlock", "verify"}

# systemd, which makes the lab's containers into hosts, is root by nature; the lab is never a production image.
ROOT_BY_NATURE = {"lab-host"}


def relative(path: Path) -> str:
    """Name a file as seen from the root, for the test's id."""
    return str(path.relative_to(ROOT))


def each(paths: list[Path]) -> pytest.MarkDecorator:
    """Run the test once per file, so that one failure does not hide the next."""
    return pytest.mark.parametrize("path", paths, ids=relative)


def plays(playbook: Path) -> list[dict[str, Any]]:
    """Read a playbook."""
    return yaml.safe_load(playbook.read_text()) or []


def imported_playbook(play: dict[str, Any]) -> str | None:
    """The file a play imports, if that is all it does."""
    return play.get("ansible.builtin.import_playbook")


def role_calls(play: dict[str, Any]) -> list[dict[str, Any]]:
    """Every import_role or include_role of a play."""
    tasks = [task for section in ("pre_tasks", "tasks", "post_tasks") for task in play.get(section) or []]
    calls = [task.get("ansible.builtin.import_role") or task.get("ansible.builtin.include_role") for task in tasks]
    return [call for call in calls if call]


def test_there_is_something_to_hold_the_rules_to() -> None:
    """A moved folder would otherwise pass every rule."""
    assert PLAYBOOKS
    assert ROLE_FOLDERS
    assert TASK_FILES
    assert DOCKERFILES


@each(PLAYBOOKS)
def test_a_playbook_is_short_and_opens_by_saying_what_one_gets(path: Path) -> None:
    """A playbook is a table of contents: read in one look, opened by a comment for the operator."""
    lines = path.read_text().splitlines()
    assert len(lines) <= 40, f"{len(lines)} lines"
    assert lines[0] == "---"
    assert re.match(r"# \S.*[.!]$", lines[1]), "the second line must be a comment of one whole sentence"


@each(PLAYBOOKS)
def test_a_playbook_does_no_work(path: Path) -> None:
    """Work lies in roles, where it has an interface and a check; a play only calls them, or a file only imports."""
    calling = {"ansible.builtin.import_role", "ansible.builtin.include_role"}
    for play in plays(path):
        if imported_playbook(play):
            assert set(play) <= {"name", "ansible.builtin.import_playbook", "vars", "when"}
            continue
        assert not {"roles", "pre_tasks", "post_tasks", "handlers"} & set(play)
        for task in play["tasks"]:
            assert calling & set(task), f"“{task.get('name')}” is work"
            assert set(task) <= {*calling, "name", "vars", "when", "tags"}


@each(PLAYBOOKS)
def test_the_first_failure_ends_a_play_for_all_hosts(path: Path) -> None:
    """There is no setting of ansible.cfg for it, and without it a second host goes on after the first one failed."""
    for play in plays(path):
        assert imported_playbook(play) or play.get("any_errors_fatal") is True, play.get("name")


@each([path for path in PLAYBOOKS if not path.name.startswith("_") and path.stem not in LOOKING_VERBS])
def test_preflight_comes_first(path: Path) -> None:
    """Everything that can be known to be wrong is refused before the first change."""
    while path.name != "_preflight.yml":
        first = imported_playbook(plays(path)[0])
        assert first, f"{path.name} begins with a play of its own"
        path = DEPLOY / first


@each([*TASK_FILES, *PLAYBOOKS])
def test_hosts_of_one_play_may_differ(path: Path) -> None:
    """Ansible gives every host of a play the first one's file where an included role's is named by a variable."""
    assert not re.search(r"tasks_from:\s*[\"']?\{\{", path.read_text())


def test_the_pooler_is_replaced_before_the_database_and_after_it_may_come() -> None:
    """A former pooler, by name, would lose a replaced PostgreSQL; a new one is refused by a former pg_hba.conf."""
    calls = [call for play in plays(DEPLOY / "_provision.yml") for call in role_calls(play)]
    steps = [(call["name"], call.get("tasks_from", "main")) for call in calls]
    assert [step for step in steps if step[0] in ("database", "pgbouncer")] == [
        ("database", "settings"),
        ("pgbouncer", "main"),
        ("database", "main"),
    ]


def test_there_is_one_way_to_start_the_app() -> None:
    """Deploy, rollback, restart and restore differ in the wish they hand over, never in how a release is started."""
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
def test_roles_are_nouns(path: Path) -> None:
    """Verbs are playbooks; a role called rollback would be a second implementation of something."""
    assert path.name in NOUNS


@each(ROLE_FOLDERS)
def test_every_role_answers_the_same_questions(path: Path) -> None:
    """main: it is present. check: it is well. With an interface and a README, to know one role is to know all."""
    for needed in ("tasks/main.yml", "tasks/check.yml", "meta/argument_specs.yml", "README.md"):
        assert (path / needed).is_file(), f"{needed} is missing"


def test_verify_asks_every_role() -> None:
    """A noun whose check nobody calls is a noun nobody knows the health of."""
    imported = [DEPLOY / name for name in map(imported_playbook, plays(DEPLOY / "verify.yml")) if name]
    asked = {
        call["name"]
        for playbook in imported
        for play in plays(playbook)
        for call in role_calls(play)
        if call.get("tasks_from") == "check"
    }
    # container is a helper that the others' checks call with what they own.
    assert {path.name for path in ROLE_FOLDERS} - asked <= {"container"}


@each(TASK_FILES)
def test_task_files_are_short(path: Path) -> None:
    """main.yml is a contents page of at most 60 lines; no file takes more than 100."""
    limit = 60 if path.name == "main.yml" else 100
    assert len(path.read_text().splitlines()) <= limit


@each(sorted(file for file in ROLES.rglob("*") if file.is_file()))
def test_roles_know_no_groups(path: Path) -> None:
    """Hosts arrive as variables; a group's name inside a role ties it to one inventory."""
    assert not re.search(r"\bgroups(\[|\.\w)", path.read_text(errors="replace"))


def test_a_path_has_one_owner() -> None:
    """The role that writes a folder is the only one to name it; two that must agree by heart will one day disagree."""
    owners = defaultdict(set)
    for file in (file for file in ROLES.rglob("*") if file.is_file() and file.name != "README.md"):
        for path in re.findall(r"/(?:var/lib|etc)/scratch4school/[a-z_-]+", file.read_text(errors="replace")):
            owners[path].add(file.relative_to(ROLES).parts[0])
    assert {path: sorted(roles) for path, roles in owners.items() if len(roles) > 1} == {}


@each(
    [
        file
        for folder in ("deploy", "docker", "inventories", "roles", "scripts")
        for file in sorted((ROOT / folder).rglob("*"))
        if file.is_file()
        and not {".venv", "node_modules", "__pycache__", ".secrets", "tests"} & set(file.relative_to(ROOT).parts)
        and file.suffix in {"", ".yml", ".j2", ".py", ".toml", ".md"}
    ]
)
def test_nothing_is_the_latest(path: Path) -> None:
    """What `:latest` means changes by itself; then the same release is not the same content."""
    assert not re.search(r"[\w}]:latest\b", path.read_text(errors="replace"))


@each([path for path in DOCKERFILES if path.parent.name not in ROOT_BY_NATURE])
def test_images_end_as_an_ordinary_user(path: Path) -> None:
    """Whoever starts the image without thinking gets no root; the user's name or number is the last word."""
    users = re.findall(r"^USER\s+(\S+)", path.read_text(), flags=re.MULTILINE)
    assert users, "no USER at all"
    assert users[-1].split(":")[0] not in ("root", "0")


def test_the_readme_is_read_in_four_minutes_and_names_every_verb() -> None:
    """Two hundred words a minute; the rest is in docs/. And a verb that it leaves out is one that nobody finds."""
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 800
    assert [path.name for path in PLAYBOOKS if not path.name.startswith("_") and f"`{path.name}" not in text] == []


def test_both_folders_have_the_same_ansible_settings() -> None:
    """Ansible reads only the ansible.cfg of the folder it is started in; a copy in deploy/ would drift."""
    link = DEPLOY / "ansible.cfg"
    assert link.is_symlink()
    assert link.resolve() == ROOT / "ansible.cfg"


def test_every_container_is_hardened_alike() -> None:
    """A container that stays and one that ends are made by two tasks; what keeps an intruder in is the same in both."""

    def made_by(path: str) -> dict[str, Any]:
        tasks = yaml.safe_load((ROOT / "roles" / "container" / "tasks" / path).read_text())
        found = [
            task["community.docker.docker_container"] for task in tasks if "community.docker.docker_container" in task
        ]
        assert len(found) == 1
        return found[0]

    stays, ends = made_by("_made.yml"), made_by("once.yml")
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
