"""Items that a role manages, and the digest of its settings and files, which changes only with its effect."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar, trust_as_template

REPOSITORY = Path(__file__).resolve().parents[2]
ROLE = {
    "defaults/main.yml": "proxy_memory: 256m\n",
    "vars/main.yml": (
        "__proxy_uid: 10004\n"
        "__proxy_managed:\n"
        "  contents: ['{{ proxy_directory }}']\n"
        "  points: [postgres]\n"
        "  sources: ['{{ proxy_certificate }}']\n"
    ),
    "meta/argument_specs.yml": (
        "argument_specs:\n"
        "  main: {options: {proxy_directory: {}, proxy_memory: {}, proxy_certificate: {}}}\n"
        "  postgres: {options: {proxy_password: {}}}\n"
        "  point: {options: {proxy_slot: {}}}\n"
    ),
    "tasks/main.yml": "---\n",
}

Ask = Callable[..., Any]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with the role `proxy`, the role that creates containers, another role, and a certificate."""
    for name, text in ROLE.items():
        file = tmp_path / "roles" / "proxy" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for folder in ("plugins", "roles/container", "roles/other"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").write_text("one\n")
    (tmp_path / "requirements.lock").write_text("ansible==1\n")
    (tmp_path / "school.crt").write_text("certificate\n")
    return tmp_path


@pytest.fixture
def ask(root: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """A function that calls the lookup for the role `proxy`, with further variables."""
    lookup_loader.add_directory(str(REPOSITORY / "plugins" / "lookup"))

    def call(want: str = "digest", *roles: str, **variables: Any) -> Any:
        known = {
            "proxy_directory": trust_as_template("{{ base }}/proxy"),
            "base": "/etc",
            "proxy_certificate": str(root / "school.crt"),
            "proxy_password": "secret",
            **variables,
        }
        loader = DataLoader()
        lookup = lookup_loader.get("role", loader=loader, templar=Templar(loader=loader, variables=known))
        monkeypatch.setattr(sys.modules[type(lookup).__module__], "ROOT", root)
        return lookup.run(list(roles) or ["proxy"], variables=known, want=want)[0]

    return call


def test_managed_items_are_those_that_the_role_declares(ask: Ask, root: Path) -> None:
    """With templates resolved, as in the role itself."""
    assert ask("managed") == {
        "proxy": {"contents": ["/etc/proxy"], "points": ["postgres"], "sources": [str(root / "school.crt")]}
    }


def test_role_that_declares_no_managed_items_has_no_digest(ask: Ask, root: Path) -> None:
    """Such a role always runs, because it has no recorded state."""
    (root / "roles" / "proxy" / "vars" / "main.yml").write_text("__proxy_uid: 10004\n")
    assert ask() == {}


@pytest.mark.parametrize(
    "variables",
    [{"base": "/srv"}, {"proxy_memory": "512m"}, {"proxy_password": "other"}],
    ids=["through a template", "over a default", "of a named entry point"],
)
def test_changed_option_changes_the_digest(ask: Ask, variables: dict[str, str]) -> None:
    """Every option of `main` and of the entry points that the role names."""
    assert ask(**variables) != ask()


def test_option_of_another_entry_point_does_not_change_the_digest(ask: Ask) -> None:
    """Such as a slot, which `main` does not use and which is not known yet."""
    assert ask(proxy_slot="blue") == ask()


@pytest.mark.parametrize(
    "file",
    [
        "roles/proxy/tasks/main.yml",
        "roles/proxy/vars/main.yml",
        "roles/container/file",
        "plugins/file",
        "requirements.lock",
        "school.crt",
    ],
)
def test_changed_file_of_the_role_changes_the_digest(ask: Ask, root: Path, file: str) -> None:
    """Its own files, those that it depends on, and those that it copies from the control node."""
    before = ask()
    with (root / file).open("a") as content:
        content.write("# changed\n")
    assert ask() != before


@pytest.mark.parametrize("file", ["roles/other/file", "plugins/__pycache__/file.pyc", "README.md"])
def test_changed_file_of_another_role_does_not_change_the_digest(ask: Ask, root: Path, file: str) -> None:
    """Nor does a file that Python compiled."""
    before = ask()
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).write_text("changed\n")
    assert ask() == before


def test_unreadable_source_is_an_error_with_its_name(ask: Ask, root: Path) -> None:
    """The sysadmin has to supply the file."""
    (root / "school.crt").unlink()
    with pytest.raises(AnsibleError, match=r"school\.crt cannot be read: No such file"):
        ask()


TYPED = """\
argument_specs:
  main: {options: {proxy_count: {type: int}, proxy_open: {type: bool}, proxy_name: {type: str}, proxy_plain: {}}}
  point: {options: {proxy_count: {type: int}}}
  nothing: {short_description: No options}
"""


@pytest.fixture
def typed(ask: Ask, root: Path) -> Ask:
    """The role with options of each type."""
    (root / "roles" / "proxy" / "meta" / "argument_specs.yml").write_text(TYPED)
    (root / "roles" / "proxy" / "vars" / "main.yml").write_text("__proxy_managed: {contents: [/etc]}\n")

    def call(**variables: Any) -> Any:
        known = {"proxy_count": 3, "proxy_open": False, "proxy_name": "a", "proxy_plain": "b", **variables}
        return ask("digest", **known)

    return call


@pytest.mark.parametrize(
    ("name", "value", "written"),
    [
        ("proxy_count", 16, "16"),
        ("proxy_count", 16, " 16 "),
        ("proxy_count", -1, "-1"),
        ("proxy_count", 0, "00"),
        ("proxy_open", True, "true"),
        ("proxy_open", True, "yes"),
        ("proxy_open", True, "True"),
        ("proxy_open", False, "no"),
    ],
)
def test_value_from_the_command_line_is_the_same_value(typed: Ask, name: str, value: object, written: str) -> None:
    """`-e name=16` passes a text, which must not change the digest."""
    assert typed(**{name: value}) == typed(**{name: written})
    assert typed(**{name: value}) == typed(**{name: trust_as_template("{{ given }}"), "given": written})


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("proxy_count", 16, "17"),
        ("proxy_open", True, "false"),
        ("proxy_name", "16", 16),
        ("proxy_name", "true", True),
        ("proxy_plain", "16", 16),
        ("proxy_count", 16, None),
    ],
)
def test_value_of_another_type_changes_the_digest(typed: Ask, name: str, one: object, other: object) -> None:
    """Such as a number for an option of type text."""
    assert typed(**{name: one}) != typed(**{name: other})


def test_role_path_is_that_of_the_declaring_role(ask: Ask, root: Path) -> None:
    """Not that of the role that calls the lookup."""
    (root / "roles" / "proxy" / "vars" / "main.yml").write_text(
        "__proxy_managed:\n  contents: ['{{ role_path }}/files']\n  sources: ['{{ role_path }}/tasks/main.yml']\n"
    )
    found = ask("managed", role_path="/somewhere/roles/host")
    assert found["proxy"]["contents"] == [f"{root}/roles/proxy/files"]
    assert ask(role_path="/somewhere/roles/host") == ask(role_path="/elsewhere")


def skipped_roles() -> list[str]:
    """Roles that _apply_settings.yml skips where they are unchanged."""
    plays = yaml.safe_load((REPOSITORY / "deploy" / "_apply_settings.yml").read_text())
    tasks = [task for play in plays for task in play["tasks"]]
    return [
        task["ansible.builtin.include_role"]["name"]
        for task in tasks
        if "host_roles_unchanged." in str(task.get("when"))
    ]


def test_provisioning_skips_unchanged_roles() -> None:
    """With another condition the tests below would find no roles and pass."""
    assert set(skipped_roles()) >= {"host", "docker", "database", "pgbouncer", "app", "proxy", "release"}


def run_by_main(role: Path) -> dict[str, list[dict[str, Any]]]:
    """The tasks of main.yml and of the role's own files that it includes, by file."""
    found: dict[str, list[dict[str, Any]]] = {}
    names = ["main.yml"]
    while names:
        name = names.pop()
        text = (role / "tasks" / name).read_text()
        found[name] = yaml.safe_load(text)
        names += re.findall(r"include_tasks: (\S+\.yml)", text)
        names += [f"{point}.yml" for point in re.findall(rf"name: {role.name}, tasks_from: (\w+)", text)]
    return found


@pytest.mark.parametrize("role", skipped_roles())
def test_role_that_may_be_skipped_declares_what_it_manages(role: str) -> None:
    """A file that the role writes and does not declare could be changed by hand, and no deploy would correct it."""
    folder = REPOSITORY / "roles" / role
    variables = yaml.safe_load((folder / "vars" / "main.yml").read_text())
    managed = "".join(str(value) for name, value in variables.items() if name.startswith(f"__{role}_managed"))
    written = {
        f"{file}: {task['name']}": task[module]["dest"]
        for file, tasks in run_by_main(folder).items()
        for task in tasks
        for module in ("ansible.builtin.copy", "ansible.builtin.template")
        if module in task
    }
    # The folder of the destination: `{{ proxy_settings_directory }}/tls.crt` is in `{{ proxy_settings_directory }}`.
    places = {task: (dest.rstrip("/"), str(Path(dest).parent)) for task, dest in written.items()}
    assert managed
    assert {task: place for task, place in places.items() if not any(one in managed for one in place)} == {}
