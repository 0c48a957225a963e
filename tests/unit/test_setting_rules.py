"""What a specification says of a setting, as sentences: unknown, empty, of a wrong type, or against the role's rule."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils import setting_rules

SETTINGS = [
    "app_workers",
    "app_memory",
    "backup_at",
    "backup_ssh_key",
    "change_windows",
    "release",
    "scratch4school_url",
]
PREFIXES = ["app_", "backup_", "change_", "scratch4school_"]


def unknown(*names: str, known: tuple[str, ...] = ()) -> list[str]:
    """What is said of these names."""
    return setting_rules.unknown(names, SETTINGS, known, PREFIXES)


@pytest.mark.parametrize("name", [*SETTINGS, "ansible_host", "vault_backup_ssh_key", "school_name", "groups"])
def test_unknown_is_silent_of_what_is_ours_or_no_mistake(name: str) -> None:
    """Settings, names of the sysadmin's own, and those that only contain one of ours."""
    assert unknown(name) == []


def test_unknown_is_silent_of_what_is_known() -> None:
    """What plays pass to each other has our prefixes and is no setting."""
    assert unknown("app_slot", known=("app_slot",)) == []


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("bakcup_at", "backup_at"),
        ("backup_aat", "backup_at"),
        ("app_worker", "app_workers"),
        ("app_workres", "app_workers"),
        ("ap_workers", "app_workers"),
        ("change_window", "change_windows"),
        ("scratch4school_uri", "scratch4school_url"),
        ("relase", "release"),
    ],
)
def test_unknown_name_is_said_with_the_nearest(name: str, nearest: str) -> None:
    """Also where the mistake is in the prefix, or where a name of ours has none."""
    assert unknown(name) == [f"{name} is no setting of Scratch4School. Did you mean {nearest}?"]


def test_unknown_name_with_our_prefix_that_is_near_none_is_to_be_removed() -> None:
    """It does nothing, and the one who wrote it believes that it does."""
    assert unknown("app_zzzzzzzzzzzzzz") == [
        "app_zzzzzzzzzzzzzz is no setting of Scratch4School. Remove it; inventories/example has all settings."
    ]


def test_unknown_names_are_each_said_once_in_order() -> None:
    """A sentence for each, in the order of the names."""
    said = unknown("backup_att", "app_worker", "backup_att")
    assert [line.split()[0] for line in said] == ["app_worker", "backup_att"]


@pytest.mark.parametrize(
    ("name", "option", "said"),
    [
        ("app_workers", {"type": "int", "default": 3}, "to get the default, 3."),
        ("app_role_teacher", {"type": "str", "default": "lehrer"}, "to get the default, “lehrer”."),
        ("backup_environment", {"type": "dict", "default": {}}, "to get the default, {}."),
        ("backup_ssh_key", {"type": "str", "default": ""}, "to get the default, “”."),
        ("x_on", {"type": "bool", "default": False}, "to get the default, false."),
    ],
)
def test_empty_setting_is_said_with_its_default(name: str, option: dict[str, Any], said: str) -> None:
    """A name without a value takes the default away; to remove the line brings it back."""
    sentence = setting_rules.empty(name, option)
    assert sentence.startswith(f"{name} has no value. Write one behind the colon, or remove the line ")
    assert sentence.endswith(said)


def test_empty_setting_without_a_default_needs_a_value() -> None:
    """There is nothing to get by removing the line."""
    assert setting_rules.empty("app_url", {"type": "str"}) == "app_url has no value. Write one behind the colon."


def test_empty_setting_that_is_made_needs_no_line() -> None:
    """A password that nothing sets is made; an empty one would be none."""
    said = setting_rules.empty("backup_password", {"type": "str"}, wired=True)
    assert said == "backup_password has no value. Write one behind the colon, or remove the line."


RIGHT = [
    ("int", 3),
    ("int", "16"),
    ("int", "-1"),
    ("bool", True),
    ("bool", "no"),
    ("bool", 1),
    ("bool", "True"),
    ("list", []),
    ("list", ["Mon 16:00-22:00"]),
    ("dict", {}),
    ("dict", {"A": "b"}),
    ("str", ""),
    ("str", "text"),
    ("str", 5),
    ("str", 2.5),
    ("path", "/srv"),
    ("float", "anything"),
]
WRONG = [
    ("int", "many", "a whole number, such as 3"),
    ("int", "", "a whole number, such as 3"),
    ("int", 2.5, "a whole number, such as 3"),
    ("int", "3 ", "a whole number, such as 3"),
    ("int", "0x10", "a whole number, such as 3"),
    ("int", True, "a whole number, such as 3"),
    ("int", [3], "a whole number, such as 3"),
    ("int", None, "a whole number, such as 3"),
    ("bool", "maybe", "true or false"),
    ("bool", "", "true or false"),
    ("bool", 2, "true or false"),
    ("bool", [], "true or false"),
    ("list", "one", "a list, such as [one, two]"),
    ("list", {"a": 1}, "a list, such as [one, two]"),
    ("list", 5, "a list, such as [one, two]"),
    ("dict", "A=b", "a mapping, such as {NAME: value}"),
    ("dict", ["A=b"], "a mapping, such as {NAME: value}"),
    ("str", ["a"], "one text, in quotation marks"),
    ("str", {"a": 1}, "one text, in quotation marks"),
    ("path", ["/srv"], "one text, in quotation marks"),
]


@pytest.mark.parametrize(("kind", "value"), RIGHT, ids=str)
def test_right_type_is_no_problem(kind: str, value: object) -> None:
    """A number may come from the command line as a text, and a text may look like a number."""
    assert setting_rules.wrong_type("app_x", value, {"type": kind, "default": 3}) == ""


@pytest.mark.parametrize(("kind", "value", "wanted"), WRONG, ids=str)
def test_wrong_type_is_said_with_what_to_write(kind: str, value: object, wanted: str) -> None:
    """One sentence with the name, the value and what is wanted instead."""
    said = setting_rules.wrong_type("app_x", value, {"type": kind, "default": 3})
    assert said == f"app_x is {setting_rules.shown('app_x', value)}; write {wanted}."


@pytest.mark.parametrize(("value", "word"), [(True, "true"), (False, "false")])
def test_word_that_yaml_takes_for_a_truth_value_is_said(value: bool, word: str) -> None:
    """`app_role_admin: no` is a group of that name for a person, and false for YAML."""
    said = setting_rules.wrong_type("app_role_admin", value, {"type": "str", "default": "admins"})
    assert said == f"app_role_admin is the YAML value {word}; if you mean the word, put it in quotation marks."


def test_option_without_a_type_is_a_text() -> None:
    """As Ansible takes it."""
    assert setting_rules.wrong_type("app_x", [], {})
    assert setting_rules.wrong_type("app_x", "text", {}) == ""


@pytest.mark.parametrize("value", ["mysql", "", None, ["postgres"], "Postgres"])
def test_value_that_is_none_of_the_choices_is_said_with_them(value: object) -> None:
    """All of them, whatever the type of the value."""
    option = {"type": "str", "choices": ["postgres", "sqlite"], "default": "postgres"}
    said = setting_rules.wrong_type("database_engine", value, option)
    assert said.startswith("database_engine is ")
    assert said.endswith("; write postgres or sqlite.")
    assert setting_rules.wrong_type("database_engine", "sqlite", option) == ""


MEMORY = "an amount of memory as Docker does, such as 256m or 1g"


@pytest.mark.parametrize(
    ("rule", "value", "said"),
    [
        ({"at_least": 1}, 1, ""),
        ({"at_least": 1}, "1", ""),
        ({"at_least": 1}, 0, "x_y is 0; it must be at least 1."),
        ({"at_least": 1}, "-5", "x_y is -5; it must be at least 1."),
        ({"at_most": 19}, 19, ""),
        ({"at_most": 19}, 20, "x_y is 20; it must be at most 19."),
        ({"at_least": 1, "at_most": 100}, 0, "x_y is 0; it must be at least 1 and at most 100."),
        ({"at_least": 1, "at_most": 100}, 101, "x_y is 101; it must be at least 1 and at most 100."),
        ({"at_least": 0}, 0, ""),
        ({"megabytes": 128}, "128m", ""),
        ({"megabytes": 128}, "1G", ""),
        ({"megabytes": 128}, "131072k", ""),
        ({"megabytes": 128}, str(128 * 2**20), ""),
        ({"megabytes": 128}, 128 * 2**20, ""),
        ({"megabytes": 128}, f"{128 * 2**20}b", ""),
        ({"megabytes": 128}, "127m", "x_y is 127m; it must be at least 128m."),
        ({"megabytes": 128}, 512, "x_y is 512; it must be at least 128m."),
        ({"megabytes": 128}, "131071k", "x_y is 131071k; it must be at least 128m."),
        *[
            ({"megabytes": 128}, value, f"x_y is “{value}”; write {MEMORY}.")
            for value in ("???", "", "0m", "1.5g", "512 m", "512MB", "-1g", "lots")
        ],
        ({"pattern": "(/.*)?", "write": "a whole path"}, "", ""),
        ({"pattern": "(/.*)?", "write": "a whole path"}, "/srv/x", ""),
        ({"pattern": "(/.*)?", "write": "a whole path"}, "srv", "x_y is “srv”; write a whole path."),
        ({"pattern": "a", "write": "an a"}, "ab", "x_y is “ab”; write an a."),
        ({"pattern": "[0-9]+", "write": "digits"}, 5, ""),
    ],
    ids=str,
)  # fmt: skip
def test_rule_is_kept_or_said(rule: dict[str, Any], value: object, said: str) -> None:
    """The bounds themselves are allowed; a pattern is of the whole value; the sentence says what is allowed."""
    assert setting_rules.broken_rule("x_y", value, rule) == said


def test_value_is_shown_as_a_person_wrote_it() -> None:
    """A text in quotation marks, a number and a truth value as YAML has them, and what is long shortened."""
    shown = setting_rules.shown
    assert shown("app_x", "some text") == "“some text”"
    assert shown("app_x", 5) == "5"
    assert shown("app_x", 2.5) == "2.5"
    assert shown("app_x", True) == "true"
    assert shown("app_x", ["a"]) == "['a']"
    assert shown("app_x", None) == "None"
    assert shown("app_x", "a" * 61) == f"“{'a' * 60}…”"
    assert shown("app_x", ["a" * 90]) == "['" + "a" * 58 + "…"


SECRETS = [
    "app_secret_key",
    "app_oidc_client_secret",
    "backup_password",
    "backup_ssh_key",
    "backup_environment",
    "backup_failure_command",
    "database_app_password",
    "pgbouncer_users",
    "proxy_tls_key",
]


@pytest.mark.parametrize("name", SECRETS)
def test_secret_is_never_shown(name: str) -> None:
    """Neither as a text nor within a list, in no sentence: it would stand in a log for long."""
    for value in ("hunter2-hunter2", ["hunter2-hunter2"], {"KEY": "hunter2-hunter2"}, 12345678):
        option = {"type": "dict" if isinstance(value, str) else "bool", "default": "x"}
        rule = {"pattern": "no", "write": "it well"}
        said = [
            setting_rules.shown(name, value),
            setting_rules.wrong_type(name, value, option),
            setting_rules.wrong_type(name, value, {"type": "str", "choices": ["a"]}),
            setting_rules.broken_rule(name, value, rule),
        ]
        assert all(said)
        assert [one for one in said if "hunter2" in one or "12345678" in one] == []


@pytest.mark.parametrize(
    "value",
    [
        "ftp://anna:hunter2@proxy.example:3128",
        "postgresql://anna:hunter2@db.example/scratch",
        ["https://anna:hunter2@mirror.example"],
        {"a": "https://hunter2@mirror.example"},
        "https://anna:hun@ter2@mirror.example",
    ],
    ids=str,
)
def test_password_in_an_address_is_never_shown(value: object) -> None:
    """A proxy, a mirror and an old database are named by an address that may hold one; the rest of it is shown."""
    shown = setting_rules.shown("images_http_proxy", value)
    assert "hunter2" not in shown
    assert "hun@" not in shown
    assert ".example" in shown
