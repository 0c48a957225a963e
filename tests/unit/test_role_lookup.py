"""What a role manages and refuses, and the digest of what it would do, which changes with the outcome alone."""

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


TYPED = """\
argument_specs:
  main: {options: {proxy_count: {type: int}, proxy_open: {type: bool}, proxy_name: {type: str}, proxy_plain: {}}}
  point: {options: {proxy_count: {type: int}}}
  nothing: {short_description: It takes nothing}
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
    """`-e name=16` arrives as a text; it is no other wish, so the role has nothing to do."""
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
def test_value_of_another_kind_is_another_value(typed: Ask, name: str, one: object, other: object) -> None:
    """A text that looks like a number stays a text where a text is wanted."""
    assert typed(**{name: one}) != typed(**{name: other})


def test_path_of_a_role_is_its_own(ask: Ask, root: Path) -> None:
    """A role names files of its own; the one that asks has another folder."""
    (root / "roles" / "proxy" / "vars" / "main.yml").write_text(
        "__proxy_managed:\n  contents: ['{{ role_path }}/files']\n  sources: ['{{ role_path }}/tasks/main.yml']\n"
    )
    found = ask("managed", role_path="/somewhere/roles/host")
    assert found["proxy"]["contents"] == [f"{root}/roles/proxy/files"]
    assert ask(role_path="/somewhere/roles/host") == ask(role_path="/elsewhere")


JUDGES = """\
__proxy_problems: "{{ ['proxy_memory is ' ~ proxy_memory] if proxy_memory != '256m' else [] }}"
__proxy_host_problems: ["The host is full.", "{{ base }} is none."]
__proxy_host_warnings: []
"""


@pytest.fixture
def judges(ask: Ask, root: Path) -> Ask:
    """Two roles that judge, and one that has nothing to say."""
    for role in ("proxy", "other"):
        (root / "roles" / role / "vars").mkdir(exist_ok=True)
    (root / "roles" / "proxy" / "vars" / "main.yml").write_text(JUDGES)
    (root / "roles" / "other" / "vars" / "main.yml").write_text(
        "__other_problems: \"{{ [] if address is search('^https') else ['address is ' ~ address] }}\"\n"
        "__other_host_problems: ['{{ survey.said }}']\n"
        "__other_host_warnings: ['Look.', '{{ survey.said }}']\n"
    )
    return ask


@pytest.mark.parametrize(
    ("want", "variables", "said"),
    [
        ("problems", {"address": "https://a"}, []),
        ("problems", {"address": "https://a", "proxy_memory": "1g"}, ["proxy_memory is 1g"]),
        ("problems", {"address": "ftp://a", "proxy_memory": "1g"}, ["proxy_memory is 1g", "address is ftp://a"]),
        ("host_problems", {"survey": {"said": "Old."}}, ["The host is full.", "/etc is none.", "Old."]),
        ("host_warnings", {"survey": {"said": "Old."}}, ["Look.", "Old."]),
    ],
    ids=str,
)
def test_sentences_of_all_roles_are_one_list(
    judges: Ask, want: str, variables: dict[str, Any], said: list[str]
) -> None:
    """In the order of the roles, templates worked out; a role that has none of a kind says nothing."""
    assert judges(want, "proxy", "other", "container", **variables) == said


def test_sentences_stand_for_a_role_that_cannot_work_with_what_they_refuse(judges: Ask) -> None:
    """An address that is missing is refused by one role, and breaks the sum of another one."""
    assert judges("problems", "proxy", "other", proxy_memory="1g") == ["proxy_memory is 1g"]
    assert judges("problems", "other", "proxy", proxy_memory="1g") == ["proxy_memory is 1g"]


@pytest.mark.parametrize(("want", "memory"), [("problems", "256m"), ("host_warnings", "1g")])
def test_role_that_cannot_judge_is_an_error_where_nothing_is_refused(judges: Ask, want: str, memory: str) -> None:
    """What cannot be worked out must not be taken for well, and a warning refuses nothing."""
    with pytest.raises(AnsibleError, match="is undefined"):
        judges(want, "proxy", "other", proxy_memory=memory)


def test_sentences_of_no_roles_are_none(judges: Ask) -> None:
    """All roles may have been left out."""
    assert judges("problems", "container") == []


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
