"""A new setting, role or image is named in every place that docs/development.md lists; a forgotten one fails here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import preflight
import pytest
import yaml
from preflight.host import ENGINE_MB
from test_role_contracts import EXAMPLE, FACTS, ROLE_FOLDERS, ROOT, SHOWN, each, options, read

GROUP_VARS = ROOT / "deploy" / "group_vars" / "all"
# The images that a deploy builds; the others are the lab's own.
IMAGES = {file.parent.name for file in ROOT.glob("docker/*/Dockerfile") if not file.parent.name.startswith("lab-")}
MEGABYTES = read(ROOT / "roles" / "images" / "vars" / "main.yml")["__images_megabytes"]

# Options of `main` with a default that no sysadmin sets, with the reason.
NOT_SHOWN = {
    "adoption_cut": "-e cut=",
    "container_pause_clients": "a role passes it",
    "container_pauser": "wired to scratch4schoolctl",
    "container_started": "a role passes it",
}


def words_of_list(file: Path, name: str) -> set[str]:
    """The quoted words in a list that depends on the database engine, without the engine's own name."""
    condition = r"(?:==|!=) '\w+'"
    return set(re.findall(r"'(\w+)'", re.sub(condition, "", read(file)[name])))


def task_variables(node: Any) -> set[str]:
    """Every name in a `vars` of a play or a task."""
    if isinstance(node, list):
        return set().union(*map(task_variables, node))
    if not isinstance(node, dict):
        return set()
    own = set(node["vars"]) if isinstance(node.get("vars"), dict) else set()
    return own.union(*map(task_variables, node.values()))


# Variables that a play or a role passes to an entry point.
PASSED = set().union(
    *(
        task_variables(yaml.safe_load(file.read_text()))
        for file in (*(ROOT / "deploy").glob("*.yml"), *ROOT.glob("roles/*/tasks/*.yml"))
    )
)


def test_places_for_the_comparisons_are_found() -> None:
    """In a moved or renamed place the other tests would compare nothing and pass."""
    assert {"app", "base", "postgres"} <= IMAGES
    assert {"container_spec", "app_slot"} <= PASSED
    assert words_of_list(GROUP_VARS / "host.yml", "host_roles") > {"host", "database", "pgbouncer"}


# ---- a setting


@each(ROLE_FOLDERS)
def test_option_of_main_with_a_default_is_in_the_example(role: Path) -> None:
    """A sysadmin finds settings only there."""
    shown = {name for name, _ in SHOWN}
    ours = {name for point, name, option in options(role) if point == "main" and "default" in option}
    assert ours - shown == {name for name in NOT_SHOWN if name in ours}


@each(ROLE_FOLDERS)
def test_option_is_used_by_its_role_or_by_its_preflight_rules(role: Path) -> None:
    """A setting that is declared, and forgotten in the template, would have no effect."""
    folders = ("tasks", "handlers", "templates", "files", "vars")
    files = [file for folder in folders for file in role.glob(f"{folder}/**/*") if file.is_file()]
    words = set(re.findall(r"\w+", "\n".join(re.sub(r"(?m)#.*$", "", file.read_text()) for file in files)))
    # A bound alone is no use: a rule reads the value.
    rules = (ROOT / "plugins" / "module_utils" / "preflight" / f"{role.name}.py").read_text()
    words |= set(re.findall(r"settings\[\"(\w+)\"\]", rules))
    assert {name for _, name, _ in options(role)} - words == set()


@each(ROLE_FOLDERS)
def test_required_option_is_wired_or_passed_or_a_setting_of_the_school(role: Path) -> None:
    """A file of deploy/group_vars/all wires it; otherwise the first deploy would fail in the middle."""
    vault = EXAMPLE.with_name("vault.yml")
    school = {name for name, _ in SHOWN} | set(read(vault)) | set(preflight.ROLES[role.name].required)
    required = {name for _, name, option in options(role) if option.get("required")}
    wired = {name for file in GROUP_VARS.glob("*.yml") for name in read(file)}
    assert required - FACTS - school - PASSED - wired == set()


# ---- a role


def test_roles_that_a_deploy_provisions_are_host_roles() -> None:
    """`host_roles` decides which roles are skipped, and which state is recorded; the playbook decides which run."""
    called = {
        match
        for file in (ROOT / "deploy").glob("_*.yml")
        for match in re.findall(r"when: .*\bnot host_roles_unchanged\.(\w+)", file.read_text())
    }
    assert called == words_of_list(GROUP_VARS / "host.yml", "host_roles")


def test_roles_that_manage_something_on_the_host_are_host_roles() -> None:
    """No deploy runs another role, and no state of it is recorded."""
    managing = {
        role.name
        for role in ROLE_FOLDERS
        if (file := role / "vars" / "main.yml").is_file() and f"__{role.name}_managed" in read(file)
    }
    assert managing == words_of_list(GROUP_VARS / "host.yml", "host_roles")


def test_containers_of_roles_start_and_stop_with_the_unit() -> None:
    """The unit scratch4school acts on the slots of the application, on the proxy, and on `release_dependencies`."""
    containers = {
        variables.get(specification["name"].strip("{ }"), specification["name"])
        for variables in map(read, ROOT.glob("roles/*/vars/main.yml"))
        for name, specification in variables.items()
        if name.endswith("_container") and isinstance(specification, dict) and "ready" in specification
    }
    dependencies = re.findall(r"'(scratch4school-[\w-]+)'", read(GROUP_VARS / "release.yml")["release_dependencies"])
    assert containers - {"scratch4school-proxy", "scratch4school-app-{{ app_slot }}"} == set(dependencies)


def test_roles_with_preflight_rules_are_host_preflight_roles() -> None:
    """The rules of another role would never run; its bounds always apply."""
    kinds = ("settings_rules", "host_rules", "host_warnings", "questions")
    judging = {role for role, rules in preflight.ROLES.items() if any(getattr(rules, kind) for kind in kinds)}
    assert judging == words_of_list(GROUP_VARS / "host.yml", "host_preflight_roles")


# ---- an image


def test_images_of_the_repository_are_built_and_their_sizes_are_known() -> None:
    """An image that is not built is missing at the first start; without a size, the check of free disk fails."""
    assert words_of_list(GROUP_VARS / "images.yml", "images_names") | {"base"} == IMAGES
    assert set(MEGABYTES) == IMAGES


def test_images_that_roles_use_are_those_of_the_repository() -> None:
    """Every image but the base belongs to a role."""
    files = [*GROUP_VARS.glob("*.yml"), *ROOT.glob("roles/*/*/*.yml")]
    used = {name for file in files for name in re.findall(r"\bimages_references\.(\w+)", file.read_text())}
    assert used | {"base"} == IMAGES


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("troubleshoot.md", "up to {images} MB for the images"),
        ("troubleshoot.md", "{engine} MB for Docker"),
        ("troubleshoot.md", "`host_min_free_mb` ({rest} MB)"),
        ("install.md", "{all} MB of free disk"),
    ],
)
def test_free_disk_in_a_document_is_the_sum_of_the_roles(document: str, text: str) -> None:
    """The first deploy builds all images and installs Docker."""
    images = sum(MEGABYTES.values())
    rest = read(ROOT / "roles" / "host" / "defaults" / "main.yml")["host_min_free_mb"]
    numbers = {"images": images, "engine": ENGINE_MB, "rest": rest, "all": images + ENGINE_MB + rest}
    assert text.format(**numbers) in (ROOT / "docs" / document).read_text()
