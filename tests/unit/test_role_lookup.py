"""The digest of what a role would do: it changes with whatever changes the outcome, and with nothing else."""

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

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with one role of its own, the role that makes containers, and a certificate."""
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
    """Call the lookup for the role `proxy` with these variables on top of the usual ones."""
    lookup_loader.add_directory(str(REPOSITORY / "plugins" / "lookup"))

    def call(want: str = "digest", **variables: str) -> dict[str, Any]:
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
        return lookup.run(["proxy"], variables=known, want=want)[0]

    return call


def test_managed_is_what_the_role_says(ask: Ask, root: Path) -> None:
    """With its templates worked out, as the role itself would see them."""
    assert ask("managed") == {
        "proxy": {"contents": ["/etc/proxy"], "points": ["postgres"], "sources": [str(root / "school.crt")]}
    }


def test_role_that_manages_nothing_is_left_out(ask: Ask, root: Path) -> None:
    """It has to run every time, because nobody could tell that it need not."""
    (root / "roles" / "proxy" / "vars" / "main.yml").write_text("__proxy_uid: 10004\n")
    assert ask() == {}


@pytest.mark.parametrize(
    "variables",
    [{"base": "/srv"}, {"proxy_memory": "512m"}, {"proxy_password": "other"}],
    ids=["through a template", "over a default", "of a named entry point"],
)
def test_value_counts(ask: Ask, variables: dict[str, str]) -> None:
    """Every option of `main` and of the entry points that the role names."""
    assert ask(**variables) != ask()


def test_value_of_another_entry_point_does_not_count(ask: Ask) -> None:
    """Which slot serves is no business of `main`, and is not known yet."""
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
def test_file_counts(ask: Ask, root: Path, file: str) -> None:
    """The role's own, what it stands on, and what it copies from the control node."""
    before = ask()
    with (root / file).open("a") as content:
        content.write("# changed\n")
    assert ask() != before


@pytest.mark.parametrize("file", ["roles/other/file", "plugins/__pycache__/file.pyc", "README.md"])
def test_other_file_does_not_count(ask: Ask, root: Path, file: str) -> None:
    """A change of one role is no work for the others, and neither is what Python compiles for itself."""
    before = ask()
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).write_text("changed\n")
    assert ask() == before


def test_source_that_cannot_be_read_is_named(ask: Ask, root: Path) -> None:
    """In a sentence, because the sysadmin has to put it there."""
    (root / "school.crt").unlink()
    with pytest.raises(AnsibleError, match=r"school\.crt cannot be read: No such file"):
        ask()


def passed_over() -> list[str]:
    """Roles that _provision.yml, and _ground.yml before it, run only where they are not settled."""
    tasks = [task for name in ("_ground.yml", "_provision.yml")
             for play in yaml.safe_load((REPOSITORY / "deploy" / name).read_text())
             for task in play.get("tasks", [])]  # fmt: skip
    return [task["ansible.builtin.include_role"]["name"] for task in tasks if "host_settled." in str(task.get("when"))]


def test_provisioning_passes_over_what_is_settled() -> None:
    """A changed condition would otherwise agree with everything below."""
    assert set(passed_over()) >= {"host", "docker", "database", "pgbouncer", "app", "proxy", "release"}


def run_by_main(role: Path) -> dict[str, list[dict[str, Any]]]:
    """The tasks of main.yml and of all that it includes of its own role, by file."""
    found: dict[str, list[dict[str, Any]]] = {}
    names = ["main.yml"]
    while names:
        name = names.pop()
        text = (role / "tasks" / name).read_text()
        found[name] = yaml.safe_load(text)
        names += re.findall(r"include_tasks: (\S+\.yml)", text)
        names += [f"{point}.yml" for point in re.findall(rf"name: {role.name}, tasks_from: (\w+)", text)]
    return found


@pytest.mark.parametrize("role", passed_over())
def test_role_that_may_be_passed_over_says_what_it_manages(role: str) -> None:
    """A folder that the role writes and does not name here could be changed by hand, and nobody would mend it."""
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
