"""A role's interface is written twice, as arguments for Ansible to check and as defaults to use; both must agree.

Ansible never applies the `default` of an argument spec: it is documentation, and documentation that nothing checks is
wrong sooner or later.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = ROOT / "roles"
EXAMPLE = ROOT / "inventories" / "example" / "group_vars" / "scratch4school" / "settings.yml"

ROLE_FOLDERS = sorted(folder for folder in ROLES.iterdir() if folder.is_dir())

ABSENT = object()


def each(roles: list[Path]) -> pytest.MarkDecorator:
    """Run the test once per role."""
    return pytest.mark.parametrize("role", roles, ids=lambda role: role.name)


def read(path: Path) -> dict[str, Any]:
    """Read a YAML file that may be missing or empty."""
    return (yaml.safe_load(path.read_text()) or {}) if path.is_file() else {}


def entry_points(role: Path) -> dict[str, dict[str, Any]]:
    """The role's callable task files with what they say of themselves."""
    return read(role / "meta" / "argument_specs.yml").get("argument_specs", {})


def options(role: Path) -> list[tuple[str, str, dict[str, Any]]]:
    """Every (entry point, option, description of it)."""
    return [
        (point, name, option)
        for point, spec in entry_points(role).items()
        for name, option in (spec.get("options") or {}).items()
    ]


def test_there_are_roles() -> None:
    """A moved folder would otherwise agree with everything."""
    assert ROLE_FOLDERS


@each(ROLE_FOLDERS)
def test_entry_points_are_the_task_files(role: Path) -> None:
    """What may be called from outside is declared; what is not starts with an underscore."""
    files = {path.stem for path in (role / "tasks").glob("*.yml") if not path.name.startswith("_")}
    assert set(entry_points(role)) == files


@each(ROLE_FOLDERS)
def test_entry_points_say_what_they_promise(role: Path) -> None:
    """`ansible-doc -t role` is the reference; a point or an option without words is a hole in it."""
    for point, spec in entry_points(role).items():
        assert spec.get("short_description"), point
    for point, name, option in options(role):
        assert option.get("description"), f"{point}: {name}"
        assert option.get("type"), f"{point}: {name}"


@each(ROLE_FOLDERS)
def test_options_carry_the_role_in_their_name(role: Path) -> None:
    """All variables share one space; the prefix says whose it is."""
    assert [name for _, name, _ in options(role) if not name.startswith(f"{role.name}_")] == []


@each(ROLE_FOLDERS)
def test_defaults_agree(role: Path) -> None:
    """Each default in the spec is the one in defaults/main.yml, and the other way round, in every entry point."""
    defaults = read(role / "defaults" / "main.yml")
    for point, name, option in options(role):
        assert option.get("default", ABSENT) == defaults.get(name, ABSENT), f"{point}: {name}"
    assert set(defaults) <= {name for _, name, _ in options(role)}, "a default that no entry point declares"


@each(ROLE_FOLDERS)
def test_what_is_required_has_no_default(role: Path) -> None:
    """A secret or an address that is quietly inherited is worse than one that is missing."""
    defaults = read(role / "defaults" / "main.yml")
    assert [name for _, name, option in options(role) if option.get("required") and name in defaults] == []


@each(ROLE_FOLDERS)
def test_an_option_is_required_or_has_a_default(role: Path) -> None:
    """Anything else is undefined in some inventory, and found out in the middle of a play."""
    undecided = [f"{point}: {name}" for point, name, option in options(role) if not option.get("required")]
    defaults = read(role / "defaults" / "main.yml")
    assert [one for one in undecided if one.split(": ")[1] not in defaults] == []


@each(ROLE_FOLDERS)
def test_every_entry_point_means_the_same_by_an_option(role: Path) -> None:
    """Two entry points that take one variable must not disagree about its type."""
    types: dict[str, set[str]] = {}
    for _, name, option in options(role):
        types.setdefault(name, set()).add(str(option.get("type")))
    assert {name: kinds for name, kinds in types.items() if len(kinds) > 1} == {}


# Of these the wiring makes what roles take: deploy/group_vars/all.yml.
WIRED = {"scratch4school_url", "change_windows"}
TAKEN = {name: option for role in ROLE_FOLDERS for _, name, option in options(role)}
SHOWN = [
    (name, yaml.safe_load(value))
    for name, value in re.findall(r"^(?:# )?([a-z0-9]+_\w+): (.+)$", EXAMPLE.read_text(), flags=re.MULTILINE)
]


@pytest.mark.parametrize(("name", "value"), SHOWN, ids=[name for name, _ in SHOWN])
def test_what_the_example_shows_is_taken_and_is_the_default(name: str, value: object) -> None:
    """A setting that no role takes is changed for nothing, and a default that is none misleads whoever keeps it.

    Where the default is empty the example may show what one would write; "…" stands for what is too long to show.
    """
    assert name in TAKEN or name in WIRED
    default = TAKEN.get(name, {}).get("default")
    assert not default or "…" in str(value) or value == default


REPEATED = [
    (name, yaml.safe_load(value))
    for file in (ROOT / "deploy" / "group_vars" / "all.yml", *ROLES.glob("*/vars/main.yml"))
    for name, value in re.findall(r"\b(\w+) \| default\(([^()]+)\)", file.read_text())
    if "default" in TAKEN.get(name, {}) and value != "''"
]


@pytest.mark.parametrize(("name", "value"), REPEATED, ids=[name for name, _ in REPEATED])
def test_a_default_that_is_repeated_outside_its_role_is_the_same(name: str, value: object) -> None:
    """A role's defaults are not visible in another; one that has to know it all the same must not believe another."""
    assert value == TAKEN[name]["default"]


def test_repeated_defaults_were_found() -> None:
    """Written otherwise, they would agree with everything."""
    assert {"app_workers", "app_threads", "database_max_connections", "proxy_https_port"} <= dict(REPEATED).keys()
