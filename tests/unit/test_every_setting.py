"""Every setting that a sysadmin may make, each with values that are wrong by what the roles themselves say of it.

The settings are those that inventories/example shows and those that a role gives a default to. A new one is tested here
without a line being written; where no wrong value follows from its type and rule, it has to be named with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from judging import Inventory

EXAMPLE = ROOT / "inventories" / "example" / "group_vars" / "scratch4school"


def options_of(role: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each option of each entry point."""
    for point in yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"].values():
        yield from (point.get("options") or {}).items()


def variables_of(role: Path) -> dict[str, Any]:
    """The role's own variables, templates as they stand."""
    path = role / "vars" / "main.yml"
    return (yaml.safe_load(path.read_text()) or {}) if path.is_file() else {}


ROLES = sorted(folder for folder in (ROOT / "roles").iterdir() if folder.is_dir())
OPTIONS: dict[str, dict[str, Any]] = {}
for _role in ROLES:
    for _name, _option in options_of(_role):
        # Of two entry points the one that names choices says more.
        if _name not in OPTIONS or "choices" in _option:
            OPTIONS[_name] = _option
RULES = {name: rule for role in ROLES for name, rule in variables_of(role).get(f"__{role.name}_rules", {}).items()}
ASKED_FOR = {name for role in ROLES for name in variables_of(role).get(f"__{role.name}_required", {})}
SHOWN = [
    name
    for file in ("settings.yml", "vault.yml")
    for name in re.findall(r"^(?:# )?([a-z0-9]+_\w+):", (EXAMPLE / file).read_text(), flags=re.MULTILINE)
]
# No role takes them by this name; roles judge them by what they are wired to (deploy/group_vars/all.yml).
WIRED = {"scratch4school_url": "app", "change_windows": "host"}
# By type and rule every text is right. Who judges it instead, or why nothing can be said of it; a wrong value is then
# one of another type.
FREE_TEXT = {
    # Judged by the sentences of a role, `__<role>_problems`.
    "app_oidc_authorize_url": "app: a whole https address",
    "app_oidc_client_id": "app: no placeholder",
    "app_oidc_client_secret": "app: no placeholder, and long enough",
    "app_oidc_jwks_url": "app: a whole https address",
    "app_oidc_token_url": "app: a whole https address",
    "app_secret_key": "app: long enough",
    "backup_password": "backup: long enough",
    "backup_repository": "backup: as restic writes it",
    "database_app_password": "database: long enough, and different",
    "database_backup_password": "database: long enough, and different",
    "database_migrator_password": "database: long enough, and different",
    "database_monitor_password": "database: long enough, and different",
    "proxy_tls_certificate": "proxy: a certificate that is for the address",
    "proxy_tls_key": "proxy: the key of the certificate",
    # Judged by the host, which alone knows.
    "backup_at": "systemd reads it",
    "backup_check_at": "systemd reads it",
    "backup_drill_at": "systemd reads it",
    "backup_prune_at": "systemd reads it",
    "backup_failure_command": "the shell finds its programs, and it is run once",
    "adoption_database": "a path of the server, or an address; the look of adopt.yml opens it",
    "adoption_uploads": "a path of the server; the look of adopt.yml opens it",
    # The school's own words.
    "app_role_admin": "any name of a group",
    "app_role_teacher": "any name of a group",
    # Not settings but words of a command line, or what plays pass on; the verb judges them where it is typed.
    "adoption_step": "-e step=",
    "backup_confirmed": "-e confirm=",
    "backup_wanted": "-e backup=",
    "container_pauser": "passed on",
    "container_reload": "passed on",
    "journal_cause": "passed on",
    "journal_reason": "-e reason=",
    "release_component": "-e component=",
    "release_wanted": "passed on",
}
# Whole numbers of which every one is right.
FREE_NUMBERS: dict[str, str] = {}

SETTINGS = sorted({*SHOWN, *(name for name, option in OPTIONS.items() if "default" in option)} - set(WIRED))
NUMBERS = sorted(name for name in SETTINGS if OPTIONS.get(name, {}).get("type") == "int")
TEXTS = sorted(
    name for name in SETTINGS if OPTIONS.get(name, {}).get("type") in ("str", "path") and "choices" not in OPTIONS[name]
)
# What no pattern of ours takes: three odd characters, nothing, and nothing but a space.
NO_TEXTS = ("???", "", " ")


def wrong_values(name: str) -> list[Any]:
    """Values that type, choices and rule of a setting exclude."""
    option, rule = OPTIONS[name], RULES.get(name, {})
    kind = option["type"]
    if "choices" in option:
        return ["none-of-these", "", ["none-of-these"], True]
    if kind == "int":
        low, high = rule.get("at_least"), rule.get("at_most")
        bounds = [*([] if low is None else [low - 1, str(low - 1)]), *([] if high is None else [high + 1])]
        return ["many", "", 2.5, True, [1], *bounds]
    others = {"bool": ["maybe", "", 2, ["true"]], "list": ["text", {"a": 1}, 5, True], "dict": ["text", ["text"], 5]}
    if kind in others:
        return others[kind]
    assert kind in ("str", "path"), f"{name} is of type {kind}, which setting_rules does not know"
    values: list[Any] = [["text"], {"a": "text"}, True, False]
    if "megabytes" in rule:
        values += ["???", "", "1.5g", f"{rule['megabytes'] - 1}m", rule["megabytes"]]
    if "pattern" in rule:
        values += [next(text for text in NO_TEXTS if not re.fullmatch(rule["pattern"], text))]
    return values


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Inventory:
    """One host with settings that are right; nothing in here changes it."""
    return Inventory(tmp_path_factory.mktemp("school") / "school")


def test_settings_were_found() -> None:
    """A moved file would otherwise agree with everything."""
    assert len(SHOWN) == len(set(SHOWN)) > 70
    assert len(SETTINGS) > 100
    assert set(SHOWN) <= {*OPTIONS, *WIRED}
    assert len(RULES) > 40


def test_rule_is_of_an_option_of_its_role() -> None:
    """A rule for a name that was renamed would judge nothing."""
    strays = {
        (role.name, name)
        for role in ROLES
        for name in variables_of(role).get(f"__{role.name}_rules", {})
        if name not in dict(options_of(role))
    }
    assert strays == set()


@pytest.mark.parametrize("name", sorted(RULES))
def test_rule_says_what_it_means(name: str) -> None:
    """Bounds are for numbers, a pattern says what to write instead, and no word of it is misspelled."""
    rule, kind = RULES[name], OPTIONS[name]["type"]
    assert set(rule) <= {"at_least", "at_most", "megabytes", "pattern", "write"}
    assert set(rule) & {"at_least", "at_most", "megabytes", "pattern"}
    assert ("pattern" in rule) == ("write" in rule)
    assert kind == ("int" if set(rule) & {"at_least", "at_most"} else "str")


def test_number_has_a_rule_or_a_reason() -> None:
    """-1 is a whole number, too, and mostly no sensible one."""
    assert {name for name in NUMBERS if name not in RULES} == set(FREE_NUMBERS)


def test_text_has_a_rule_or_a_reason() -> None:
    """And no reason outlives the rule that was made."""
    assert {name for name in TEXTS if name not in RULES} == set(FREE_TEXT)


@pytest.mark.parametrize("name", SETTINGS)
def test_wrong_value_is_refused_in_one_sentence_that_names_the_setting(inventory: Inventory, name: str) -> None:
    """By the lookup, which needs no host; whatever else is said names no other setting's value as wrong."""
    values = wrong_values(name)
    assert values
    for value in values:
        found = inventory.wrong(**{name: value})
        assert list(found) == [name.partition("_")[0]], f"{name}: {value!r}: {found}"
        (sentence,) = found[name.partition("_")[0]]
        assert sentence.startswith(f"{name} is "), sentence
        assert sentence.endswith("."), sentence
        assert "\n" not in sentence


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_without_a_value_is_refused_in_one_sentence(inventory: Inventory, name: str) -> None:
    """By the lookup, or by the role that asks for it and says where to find it."""
    found = inventory.refused(**{name: None})
    assert len(found) == 1, found
    expected = f"{name} is not set for server." if name in ASKED_FOR else f"{name} has no value."
    assert found[0].startswith(expected)


@pytest.mark.parametrize("name", [name for name in SETTINGS if name in FREE_TEXT or name in RULES])
def test_roles_survive_a_wrong_value(inventory: Inventory, name: str) -> None:
    """A role that works with the value of another one says its sentences, or none, and never ends in an error."""
    first, *_, last = wrong_values(name)
    for value in (first, last):
        said = inventory.refused(**{name: value})
        assert len([sentence for sentence in said if sentence.startswith(f"{name} is ")]) == 1, said


@pytest.mark.parametrize("name", [name for name in SETTINGS if "default" in OPTIONS[name]])
def test_default_is_right(inventory: Inventory, name: str) -> None:
    """It passes its own rule, as it is and as the command line hands it over."""
    default = OPTIONS[name]["default"]
    assert inventory.wrong(**{name: default}) == {}
    if isinstance(default, (bool, int)):
        assert inventory.wrong(**{name: str(default)}) == {}


@pytest.mark.parametrize("name", [name for name in SETTINGS if set(RULES.get(name, {})) & {"at_least", "at_most"}])
def test_bounds_themselves_are_right(inventory: Inventory, name: str) -> None:
    """At least one means that one is right."""
    for bound in ("at_least", "at_most"):
        if bound in RULES[name]:
            assert inventory.wrong(**{name: RULES[name][bound]}) == {}


WRONG_URLS = [
    "???",
    "",
    "http://scratch.school.de",
    "https://scratch.school.de/",
    "https://a b",
    True,
    ["https://a"],
    {},
    5,
]
WRONG_WINDOWS = ["Mon-Fri 16:00-22:00", "", 5, True, {"Mon": "16:00"}, ["Mon-Fry 16:00-22:00"], [16], None]


@pytest.mark.parametrize(
    ("name", "value"),
    [*(("scratch4school_url", value) for value in WRONG_URLS), *(("change_windows", value) for value in WRONG_WINDOWS)],
    ids=str,
)  # fmt: skip
def test_wrong_value_that_is_wired_is_refused(inventory: Inventory, name: str, value: object) -> None:
    """In a sentence that names the setting, by the role that it is wired to."""
    variables = inventory.variables({name: value})
    said = inventory.lookup("role", variables, WIRED[name], want="problems")
    assert len(said) == 1, said
    assert said[0].startswith(name)
    assert said[0] in inventory.refused(**{name: value})


WRONG_TEXTS = {
    "app_oidc_authorize_url": ["???", "http://school.de/auth", "school.de/auth"],
    "app_oidc_client_id": ["change-me", ""],
    "app_oidc_client_secret": ["change-me", "short", ""],
    "app_oidc_jwks_url": ["???", "https://"],
    "app_oidc_token_url": ["???", "https://my-school.example/token"],
    "app_secret_key": ["short", ""],
    "backup_password": ["short", ""],
    "backup_repository": ["???", "/srv/backups", "ftp://nas/backups"],
    "database_app_password": ["short", ""],
    "database_backup_password": ["short"],
    "database_migrator_password": ["short"],
    "database_monitor_password": ["short"],
    "proxy_tls_certificate": ["/nowhere/school.crt", ""],
    "proxy_tls_key": ["/nowhere/school.key", ""],
}


def test_text_that_a_role_judges_is_tried() -> None:
    """A reason that names a role is one that a test below can hold it to."""
    roles = {role.name for role in ROLES}
    assert set(WRONG_TEXTS) == {name for name, reason in FREE_TEXT.items() if reason.partition(":")[0] in roles}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG_TEXTS.items() for value in values], ids=str
)
def test_wrong_text_is_refused_by_its_role(inventory: Inventory, name: str, value: str) -> None:
    """In one sentence that names the setting; the lookup itself lets every text pass."""
    assert inventory.wrong(**{name: value}) == {}
    said = inventory.refused(**{name: value})
    assert len(said) == 1, said
    assert name in said[0]
