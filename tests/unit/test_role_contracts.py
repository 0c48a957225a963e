"""The interface of a role: argument specs, defaults and facts must agree.

Ansible never applies the `default` of an argument spec, so that only a test notices a wrong one.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from jinja2 import nodes

ROOT = Path(__file__).resolve().parents[2]
ROLES = ROOT / "roles"
DEPLOY = ROOT / "deploy"
EXAMPLE = ROOT / "inventories" / "example" / "group_vars" / "scratch4school" / "settings.yml"

ROLE_FOLDERS = sorted(folder for folder in ROLES.iterdir() if folder.is_dir())

ABSENT = object()


def each(roles: list[Path]) -> pytest.MarkDecorator:
    """Run the test once per role."""
    return pytest.mark.parametrize("role", roles, ids=lambda role: role.name)


@cache
def content(file: Path) -> Any:
    """A YAML file; the tests read each one often, and do not change what they get."""
    return yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def read(path: Path) -> dict[str, Any]:
    """Read a YAML file that may be missing or empty."""
    return (content(path) or {}) if path.is_file() else {}


def entry_points(role: Path) -> dict[str, dict[str, Any]]:
    """The role's entry points with their specs."""
    return read(role / "meta" / "argument_specs.yml").get("argument_specs", {})


def options(role: Path) -> list[tuple[str, str, dict[str, Any]]]:
    """Every (entry point, name of an option, its spec)."""
    return [
        (point, name, option)
        for point, spec in entry_points(role).items()
        for name, option in (spec.get("options") or {}).items()
    ]


# The wiring: variables of the roles, by name.
WIRING = {name: value for file in sorted(DEPLOY.glob("group_vars/all/*.yml")) for name, value in read(file).items()}
OPTIONS = {name: option for role in ROLE_FOLDERS for _, name, option in options(role)}


def test_folders_of_roles_are_found() -> None:
    """In a moved folder the other tests would find nothing and pass."""
    assert ROLE_FOLDERS


@each(ROLE_FOLDERS)
def test_entry_points_are_the_task_files(role: Path) -> None:
    """A task file without a spec is internal, and its name begins with an underscore."""
    files = {path.stem for path in (role / "tasks").glob("*.yml") if not path.name.startswith("_")}
    assert set(entry_points(role)) == files


def entry_points_in_readme(text: str) -> set[str]:
    """The entry points that a README lists: in the first column of the table, or after “Entry points:”."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    paragraphs = [
        re.sub(r"\([^)]*\)", "", found) for found in re.findall(r"^Entry points:(.*?)(?:\n\n|\Z)", text, re.M | re.S)
    ]
    return set(re.findall(r"`(\w+)`", " ".join(cells + paragraphs)))


@each(ROLE_FOLDERS)
def test_readme_lists_the_entry_points(role: Path) -> None:
    """A reader calls what the README lists."""
    assert entry_points_in_readme((role / "README.md").read_text()) == set(entry_points(role))


@each(ROLE_FOLDERS)
def test_entry_points_and_options_have_descriptions(role: Path) -> None:
    """`ansible-doc -t role` prints them as the reference."""
    for point, spec in entry_points(role).items():
        assert spec.get("short_description"), point
    for point, name, option in options(role):
        assert option.get("description"), f"{point}: {name}"
        assert option.get("type"), f"{point}: {name}"


def walk(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Tasks, and those within their blocks."""
    for task in tasks:
        yield task
        for section in ("block", "rescue", "always"):
            yield from walk(task.get(section) or [])


@cache
def facts_of(file: Path) -> set[str]:
    """Names that a task file sets for the rest of the run: facts and results."""
    names: set[str] = set()
    for task in walk(content(file)):
        names |= {*task.get("ansible.builtin.set_fact", ()), *filter(None, [task.get("register")])}
    return names


# Those for other roles have no two leading underscores.
FACTS = {
    name
    for role in ROLE_FOLDERS
    for file in role.glob("tasks/*.yml")
    for name in facts_of(file)
    if not name.startswith("__")
}


@cache
def passed_by(file: Path) -> set[str]:
    """Names that tasks of a file set for themselves and for what they include."""
    names: set[str] = set()
    for task in walk(content(file)):
        loop = task.get("loop_control") or {}
        names |= {*(task.get("vars") or {}), *(loop[key] for key in ("loop_var", "index_var") if key in loop)}
    return names


@cache
def files_of(role: Path, point: str, others: bool) -> set[Path]:
    """The task files that run when an entry point is called, with those of other roles or without."""
    found: set[Path] = set()
    left = {role / "tasks" / f"{point}.yml"}
    while left:
        file = left.pop()
        if file in found:
            continue
        found.add(file)
        text, own = file.read_text(), file.parent.parent
        left |= {
            file.with_name(f"{name}.yml")
            for name in re.findall(r"(?:include_tasks|import_tasks|file): (\w+)\.yml", text)
        }
        calls = re.findall(r"_role: \{name: (\w+)(?:, tasks_from: (\w+))?\}", text)
        # With a block below it instead of braces, a call names no entry point.
        calls += [(name, "") for name in re.findall(r"_role:\n +name: (\w+)\n", text)]
        left |= {
            ROLES / name / "tasks" / f"{start or 'main'}.yml" for name, start in calls if others or name == own.name
        }
    return found


# Keys of a task whose values are expressions without braces.
BARE = {"when", "that", "until", "failed_when", "changed_when", "var"}


@cache
def parsed(text: str) -> nodes.Template:
    """The template as Jinja reads it."""
    with warnings.catch_warnings():
        # Jinja remarks on a backslash in an expression.
        warnings.simplefilter("ignore", DeprecationWarning)
        return jinja2.Environment().parse(text)


def templates_in(value: object, key: str = "") -> Iterator[str]:
    """Every template of a task or a variable."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from templates_in(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from templates_in(part, key)
    elif isinstance(value, str) and "{{" in value:
        yield value
    elif isinstance(value, str) and key in BARE:
        yield f"{{{{ {value} }}}}"


def names_in(value: object) -> set[str]:
    """Variables that the templates of a task or a variable read."""
    return {
        name.name for text in templates_in(value) for name in parsed(text).find_all(nodes.Name) if name.ctx == "load"
    }


@cache
def variables_of(role: Path, point: str) -> set[str]:
    """Variables that an entry point reads in its tasks and templates, and in the role's variables that they use."""
    own = read(role / "vars" / "main.yml")
    left: set[str] = set()
    for file in files_of(role, point, others=False):
        left |= names_in(content(file))
        for name in re.findall(r"[\w.-]+\.j2", file.read_text()):
            template = role / "templates" / name
            left |= names_in(template.read_text()) if template.is_file() else set()
    found: set[str] = set()
    while left:
        name = left.pop()
        found.add(name)
        left |= names_in(own[name]) - found if name in own else set()
    return found


@each(ROLE_FOLDERS)
def test_entry_point_declares_what_it_reads_of_other_roles(role: Path) -> None:
    """Their facts and their options are global variables, and only the declaration tells the caller to set them."""
    foreign = {name for name in {*FACTS, *OPTIONS, *WIRING} if not name.startswith(f"{role.name}_")}
    for point, spec in entry_points(role).items():
        made = {name for file in files_of(role, point, others=True) for name in facts_of(file)}
        made |= {name for file in files_of(role, point, others=False) for name in passed_by(file)}
        assert variables_of(role, point) & foreign - made - set(spec.get("options") or {}) == set(), point


@each(ROLE_FOLDERS)
def test_entry_point_declares_the_facts_of_its_role_that_it_reads(role: Path) -> None:
    """Another entry point sets them."""
    for point, spec in entry_points(role).items():
        made = {name for file in files_of(role, point, others=True) for name in facts_of(file) | passed_by(file)}
        assert variables_of(role, point) & FACTS - made - set(spec.get("options") or {}) == set(), point


@each(ROLE_FOLDERS)
def test_internal_result_stays_within_its_entry_point(role: Path) -> None:
    """A variable that another entry point registered exists only if that one ran before."""
    results = {name for file in role.glob("tasks/*.yml") for name in facts_of(file) if name.startswith("__")}
    for point in entry_points(role):
        made = {name for file in files_of(role, point, others=True) for name in facts_of(file) | passed_by(file)}
        assert variables_of(role, point) & results - made == set(), point


def test_release_is_activated_by_the_state_of_the_slots_that_was_just_read() -> None:
    """Under a condition, another entry point's result would be used where it is not fulfilled."""
    first = content(ROLES / "release" / "tasks" / "activate.yml")[0]
    assert first["ansible.builtin.include_tasks"] == "_state.yml"
    assert "when" not in first


@each(ROLE_FOLDERS)
def test_roles_read_no_internal_variable_of_another_role(role: Path) -> None:
    """Variables with two leading underscores and the role's name are internal."""
    text = "".join(file.read_text() for file in role.rglob("*") if file.suffix in {".yml", ".j2"})
    assert {name for name in re.findall(r"\b__([a-z]+)_", text) if name != role.name} == set()


@each(ROLE_FOLDERS)
def test_options_carry_the_role_in_their_name(role: Path) -> None:
    """All variables share one namespace. A fact or an option of another role has the prefix of that role."""
    theirs = {name for other in ROLE_FOLDERS for _, name, _ in options(other) if name.startswith(f"{other.name}_")}
    assert {name for _, name, _ in options(role) if not name.startswith(f"{role.name}_")} - FACTS - theirs == set()


@each(ROLE_FOLDERS)
def test_defaults_in_specs_equal_those_of_the_role(role: Path) -> None:
    """In every entry point, and every default of the role has an option."""
    defaults = read(role / "defaults" / "main.yml")
    for point, name, option in options(role):
        assert option.get("default", ABSENT) == defaults.get(name, ABSENT), f"{point}: {name}"
    assert set(defaults) <= {name for _, name, _ in options(role)}, "a default that no entry point declares"


@each(ROLE_FOLDERS)
def test_required_option_has_no_default(role: Path) -> None:
    """A missing secret or address must be an error, and no default value."""
    defaults = read(role / "defaults" / "main.yml")
    assert [name for _, name, option in options(role) if option.get("required") and name in defaults] == []


@each(ROLE_FOLDERS)
def test_option_is_required_or_has_a_default(role: Path) -> None:
    """Otherwise it is undefined in some inventories, and the play fails in the middle."""
    undecided = [
        f"{point}: {name}" for point, name, option in options(role) if not option.get("required") and name not in FACTS
    ]
    defaults = read(role / "defaults" / "main.yml")
    assert [one for one in undecided if one.split(": ")[1] not in defaults] == []


@each(ROLE_FOLDERS)
def test_option_has_the_same_type_in_all_entry_points(role: Path) -> None:
    """It is the same variable."""
    types: dict[str, set[str]] = {}
    for _, name, option in options(role):
        types.setdefault(name, set()).add(str(option.get("type")))
    assert {name: kinds for name, kinds in types.items() if len(kinds) > 1} == {}


# Settings from which deploy/group_vars/all sets the options of roles.
WIRED = {"scratch4school_url", "change_windows"}
SHOWN = [
    (name, yaml.safe_load(value))
    for name, value in re.findall(r"^(?:# )?([a-z0-9]+_\w+): (.+)$", EXAMPLE.read_text(), flags=re.MULTILINE)
]


@pytest.mark.parametrize(("name", "value"), SHOWN, ids=[name for name, _ in SHOWN])
def test_setting_in_the_example_exists_and_shows_its_default(name: str, value: object) -> None:
    """Where the default is empty, the example may show another value; "…" shortens a long one."""
    assert name in OPTIONS or name in WIRED
    default = OPTIONS.get(name, {}).get("default", WIRING.get(name))
    assert not default or "…" in str(value) or "{{" in str(default) or value == default


def defaults_in(file: Path) -> list[tuple[str, bool]]:
    """Each place in a file where a template gives a variable a default: its name, and whether the default is a value.

    `omit` and '' are none: they say that the variable has no value.
    """
    empty = (nodes.Name("omit", "load"), nodes.Const(""))
    return [
        (given.node.name, given.args[0] not in empty)
        for text in templates_in(file.read_text() if file.suffix == ".j2" else content(file))
        for given in parsed(text).find_all(nodes.Filter)
        if given.name in ("default", "d") and isinstance(given.node, nodes.Name)
    ]


FILES = [
    *sorted(DEPLOY.rglob("*.yml")),
    *sorted(file for file in ROLES.rglob("*") if file.suffix in (".yml", ".j2") and "meta" not in file.parts),
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_option_has_no_second_default(file: Path) -> None:
    """Its default is in the role, or in deploy/group_vars/all if several roles need it. A fact may be missing."""
    assert {name for name, is_value in defaults_in(file) if is_value and name in {*OPTIONS, *WIRING}} - FACTS == set()


@each(ROLE_FOLDERS)
def test_wired_option_has_no_default_in_its_role(role: Path) -> None:
    """The wiring would hide it."""
    assert set(read(role / "defaults" / "main.yml")) & set(WIRING) == set()


def test_default_is_in_one_place() -> None:
    """In one role, or in one file of the wiring."""
    files = [*ROLES.glob("*/defaults/main.yml"), *DEPLOY.glob("group_vars/all/*.yml")]
    names = [name for file in files for name in read(file)]
    assert {name for name in names if names.count(name) > 1} == set()


def test_variable_of_the_command_line_has_one_default() -> None:
    """Such as `-e step=import`."""
    names = [name for file in DEPLOY.rglob("*.yml") for name, _ in defaults_in(file)]
    assert {"step", "stopped", "cut", "undo", "release", "reason", "component", "backup", "confirm"} <= set(names)
    assert {name for name in names if names.count(name) > 1} == set()
