"""Refusals of a single setting, each in one message: its name, an empty value, its type, its bounds."""

from __future__ import annotations

from typing import Any

import pytest
from preflight import settings
from preflight.settings import Bound, memory, text, whole_number

SETTINGS = [
    "app_workers",
    "app_memory",
    "backup_schedule",
    "backup_ssh_key",
    "change_windows",
    "release",
    "scratch4school_url",
]
PREFIXES = ["app_", "backup_", "change_", "scratch4school_"]


def unknown(*names: str, known: tuple[str, ...] = ()) -> list[str]:
    """Return the messages about these names."""
    return settings.unknown(names, SETTINGS, known, PREFIXES)


@pytest.mark.parametrize("name", [*SETTINGS, "ansible_host", "vault_backup_ssh_key", "school_name", "groups"])
def test_known_name_or_own_name_of_the_sysadmin_is_accepted(name: str) -> None:
    """Settings, names of the sysadmin's own, and those that only contain one of ours."""
    assert unknown(name) == []


def test_name_that_plays_pass_is_accepted() -> None:
    """Variables that plays pass to each other have our prefixes and are no settings."""
    assert unknown("app_slot", known=("app_slot",)) == []


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("bakcup_schedule", "backup_schedule"),
        ("backup_shedule", "backup_schedule"),
        ("app_worker", "app_workers"),
        ("app_workres", "app_workers"),
        ("ap_workers", "app_workers"),
        ("change_window", "change_windows"),
        ("scratch4school_uri", "scratch4school_url"),
        ("relase", "release"),
    ],
)
def test_unknown_name_is_refused_with_the_nearest(name: str, nearest: str) -> None:
    """Also where the mistake is in the prefix, or where a name of ours has none."""
    assert unknown(name) == [f"{name} is no setting of Scratch4School. Did you mean {nearest}?"]


def test_unknown_name_near_no_setting_is_to_be_removed() -> None:
    """It does nothing, and the one who wrote it believes that it does."""
    assert unknown("app_zzzzzzzzzzzzzz") == [
        "app_zzzzzzzzzzzzzz is no setting of Scratch4School. Remove it; inventories/example has all settings."
    ]


def test_unknown_names_are_each_refused_once_in_order() -> None:
    """A message for each, in the order of the names."""
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
def test_empty_setting_is_refused_with_its_default(name: str, option: dict[str, Any], said: str) -> None:
    """A name without a value takes the default away; to remove the line brings it back."""
    message = settings.empty(name, option)
    assert message.startswith(f"{name} has no value. Write one after the colon, or remove the line ")
    assert message.endswith(said)


def test_empty_setting_without_a_default_needs_a_value() -> None:
    """There is nothing to get by removing the line."""
    assert settings.empty("app_url", {"type": "str"}) == "app_url has no value. Write one after the colon."


def test_empty_password_that_is_generated_needs_no_line() -> None:
    """A password that nothing sets is generated; an empty one would be none."""
    said = settings.empty("backup_password", {"type": "str"}, wired=True)
    assert said == "backup_password has no value. Write one after the colon, or remove the line."


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
def test_right_type_is_accepted(kind: str, value: object) -> None:
    """A number may come from the command line as a text, and a text may look like a number."""
    assert settings.wrong_type("app_x", value, {"type": kind, "default": 3}) == ""


@pytest.mark.parametrize(("kind", "value", "wanted"), WRONG, ids=str)
def test_wrong_type_is_refused_with_what_to_write(kind: str, value: object, wanted: str) -> None:
    """One message with the name, the value and what to write instead."""
    said = settings.wrong_type("app_x", value, {"type": kind, "default": 3})
    assert said == f"app_x is {settings.shown('app_x', value)}; write {wanted}."


@pytest.mark.parametrize(("value", "word"), [(True, "true"), (False, "false")])
def test_word_that_yaml_reads_as_a_truth_value_is_refused(value: bool, word: str) -> None:
    """`app_role_admin: no` is a group of that name for a person, and false for YAML."""
    said = settings.wrong_type("app_role_admin", value, {"type": "str", "default": "admins"})
    assert said == f"app_role_admin is the YAML value {word}; if you mean the word, put it in quotation marks."


def test_option_without_a_type_is_a_text() -> None:
    """As Ansible takes it."""
    assert settings.wrong_type("app_x", [], {})
    assert settings.wrong_type("app_x", "text", {}) == ""


@pytest.mark.parametrize("value", ["mysql", "", None, ["postgres"], "Postgres"])
def test_value_that_is_none_of_the_choices_is_refused_with_them(value: object) -> None:
    """All of them, whatever the type of the value."""
    option = {"type": "str", "choices": ["postgres", "sqlite"], "default": "postgres"}
    said = settings.wrong_type("database_engine", value, option)
    assert said.startswith("database_engine is ")
    assert said.endswith("; write postgres or sqlite.")
    assert settings.wrong_type("database_engine", "sqlite", option) == ""


MEMORY = "an amount of memory as Docker does, such as 256m or 1g"


@pytest.mark.parametrize(
    ("bound", "value", "said"),
    [
        (whole_number(1), 1, ""),
        (whole_number(1), "1", ""),
        (whole_number(1), 0, "x_y is 0; it must be at least 1."),
        (whole_number(1), "-5", "x_y is -5; it must be at least 1."),
        (whole_number(at_most=19), 19, ""),
        (whole_number(at_most=19), 20, "x_y is 20; it must be at most 19."),
        (whole_number(1, 100), 0, "x_y is 0; it must be at least 1 and at most 100."),
        (whole_number(1, 100), 101, "x_y is 101; it must be at least 1 and at most 100."),
        (whole_number(0), 0, ""),
        (memory(128), "128m", ""),
        (memory(128), "1G", ""),
        (memory(128), "131072k", ""),
        (memory(128), str(128 * 2**20), ""),
        (memory(128), 128 * 2**20, ""),
        (memory(128), f"{128 * 2**20}b", ""),
        (memory(128), "127m", "x_y is 127m; it must be at least 128m."),
        (memory(128), 512, "x_y is 512; it must be at least 128m."),
        (memory(128), "131071k", "x_y is 131071k; it must be at least 128m."),
        *[
            (memory(128), value, f"x_y is “{value}”; write {MEMORY}.")
            for value in ("???", "", "0m", "1.5g", "512 m", "512MB", "-1g", "lots")
        ],
        (text("(/.*)?", "a whole path"), "", ""),
        (text("(/.*)?", "a whole path"), "/srv/x", ""),
        (text("(/.*)?", "a whole path"), "srv", "x_y is “srv”; write a whole path."),
        (text("a", "an a"), "ab", "x_y is “ab”; write an a."),
        (text("[0-9]+", "digits"), 5, ""),
    ],
    ids=str,
)  # fmt: skip
def test_value_out_of_bounds_is_refused(bound: Bound, value: object, said: str) -> None:
    """The bounds themselves are allowed; a pattern is of the whole value; the message says what is allowed."""
    assert bound.refusal("x_y", value) == said


def test_value_is_shown_as_a_person_wrote_it() -> None:
    """A text in quotation marks, a number and a truth value as YAML has them, and what is long shortened."""
    shown = settings.shown
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
    """Neither as a text nor within a list, in no message: it would stand in a log for long."""
    for value in ("hunter2-hunter2", ["hunter2-hunter2"], {"KEY": "hunter2-hunter2"}, 12345678):
        option = {"type": "dict" if isinstance(value, str) else "bool", "default": "x"}
        bound = text("no", "it well")
        said = [
            settings.shown(name, value),
            settings.wrong_type(name, value, option),
            settings.wrong_type(name, value, {"type": "str", "choices": ["a"]}),
            bound.refusal(name, value),
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
    """A proxy, a mirror and a source database are named by an address that may hold one; the rest of it is shown."""
    shown = settings.shown("images_http_proxy", value)
    assert "hunter2" not in shown
    assert "hun@" not in shown
    assert ".example" in shown


@pytest.mark.parametrize(
    ("kind", "written", "value"),
    [
        ("int", "16", 16),
        ("int", " 16 ", 16),
        ("int", "-1", -1),
        ("int", 16, 16),
        ("int", "many", "many"),
        ("bool", "yes", True),
        ("bool", "False", False),
        ("bool", True, True),
        ("bool", "maybe", "maybe"),
        ("str", "16", "16"),
        ("str", "true", "true"),
        ("list", ["1"], ["1"]),
    ],
    ids=str,
)
def test_value_from_the_command_line_gets_the_type_of_its_option(kind: str, written: object, value: object) -> None:
    """It arrives as a text; a text that is no such value stays as it is, and is refused."""
    typed = settings.typed(written, {"type": kind})
    assert (typed, type(typed)) == (value, type(value))


@pytest.mark.parametrize(
    ("value", "true"),
    [(True, True), ("true", True), ("Yes", True), (1, True), (False, False), ("false", False), ("", False)],
)
def test_text_false_is_not_true(value: object, true: bool) -> None:
    """Python takes every text for true."""
    assert settings.is_true(value) is true


@pytest.mark.parametrize(
    ("value", "megabytes"), [("256m", 256), ("1g", 1024), ("2048K", 2), (2**20, 1), ("lots", None), ("0m", None)]
)
def test_memory_is_read_in_megabytes(value: object, megabytes: float | None) -> None:
    """As Docker writes it."""
    assert settings.memory_mb(value) == megabytes
