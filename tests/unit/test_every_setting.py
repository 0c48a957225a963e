"""Every setting, with values that are wrong by its type and rule.

The settings are those of inventories/example and those with a default in a role. A new setting is tested here without a
further line. If no wrong value follows from its type and bound, FREE_TEXT or FREE_NUMBERS must name it with the reason.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from judging import Inventory
from preflight import BOUNDS
from preflight import ROLES as RULES_OF
from preflight.rules import options_by_name

EXAMPLE = ROOT / "inventories" / "example" / "group_vars" / "scratch4school"


def specs_of(role: Path) -> dict[str, Any]:
    """The role's entry points."""
    return yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]


ROLES = sorted(folder for folder in (ROOT / "roles").iterdir() if folder.is_dir())
OPTIONS = options_by_name(point for role in ROLES for point in specs_of(role).values())
REQUIRED = {name for rules in RULES_OF.values() for name in rules.required}
SHOWN = [
    name
    for file in ("settings.yml", "vault.yml")
    for name in re.findall(r"^(?:# )?([a-z0-9]+_\w+):", (EXAMPLE / file).read_text(), flags=re.MULTILINE)
]
# Settings that are no option of a role: deploy/group_vars/all passes them to this role, which checks them.
WIRED = {"scratch4school_url": "app", "change_windows": "host"}
# Settings for which every text is valid by type and bound, each with the check that applies instead, or the reason for
# none. A wrong value is then one of another type.
FREE_TEXT = {
    # Judged by rules of a role, plugins/module_utils/preflight/<role>.py.
    "app_oidc_authorize_url": "app: a complete https address",
    "app_oidc_client_id": "app: no placeholder",
    "app_oidc_client_secret": "app: no placeholder, and long enough",
    "app_oidc_jwks_url": "app: a complete https address",
    "app_oidc_token_url": "app: a complete https address",
    "app_secret_key": "app: long enough",
    "backup_password": "backup: long enough",
    "backup_repository": "backup: a folder of the host, or as restic writes it",
    "database_app_password": "database: long enough, and different",
    "database_backup_password": "database: long enough, and different",
    "database_migrator_password": "database: long enough, and different",
    "database_monitor_password": "database: long enough, and different",
    "proxy_tls_certificate": "proxy: a certificate for the address",
    "proxy_tls_key": "proxy: the key of the certificate",
    # Checked on the host.
    "backup_schedule": "systemd parses it",
    "backup_check_schedule": "systemd parses it",
    "backup_drill_schedule": "systemd parses it",
    "backup_prune_schedule": "systemd parses it",
    "backup_failure_command": "preflight finds its programs, and a deploy runs it once",
    "adoption_database": "a path on the server, or an address; adopt.yml -e step=inspect opens it",
    "adoption_uploads": "a path on the server; adopt.yml -e step=inspect opens it",
    # Names of the school.
    "app_role_admin": "any name of a group",
    "app_role_teacher": "any name of a group",
    # No settings, but arguments of a command line, which the playbook checks, or variables that plays pass on.
    "adoption_step": "-e step=",
    "backup_confirmed": "-e confirm=",
    "backup_target": "-e backup=",
    "container_pauser": "passed on",
    "container_reload": "passed on",
    "lock_cause": "passed on",
    "lock_reason": "-e reason=",
    "lock_release": "passed on",
    "release_component": "-e component=",
}
# Settings for which every whole number is valid.
FREE_NUMBERS: dict[str, str] = {}

# Options whose default, also one for the command line, is in deploy/group_vars/all.
WIRING = {
    name: value
    for file in sorted((ROOT / "deploy" / "group_vars" / "all").glob("*.yml"))
    for name, value in yaml.safe_load(file.read_text()).items()
    if name in OPTIONS
}
ON_THE_COMMAND_LINE = {name for name, value in WIRING.items() if re.match(r"{{ \w+ \| default\(", str(value))}
PASSED_ON = {"adoption_undo", "backup_undo", "backup_is_restoring", "container_pauser", "lock_release", "lock_seen"}
DEFAULTS = {name: option["default"] for name, option in OPTIONS.items() if "default" in option}
DEFAULTS |= {name: value for name, value in WIRING.items() if isinstance(value, bool)}
DEFAULTS |= {name: value for name, value in WIRING.items() if name in SHOWN and "{{" not in str(value)}

SETTINGS = sorted({*SHOWN, *DEFAULTS, *ON_THE_COMMAND_LINE, *PASSED_ON} - set(WIRED))
NUMBERS = sorted(name for name in SETTINGS if OPTIONS.get(name, {}).get("type") == "int")
TEXTS = sorted(
    name for name in SETTINGS if OPTIONS.get(name, {}).get("type") in ("str", "path") and "choices" not in OPTIONS[name]
)
# Texts of which each pattern rejects at least one.
NO_TEXTS = ("???", "", " ")


def wrong_values(name: str) -> list[Any]:
    """Values that are wrong by the type, choices or bound of a setting."""
    option, bound = OPTIONS[name], BOUNDS.get(name)
    kind = option["type"]
    if "choices" in option:
        return ["none-of-these", "", ["none-of-these"], True]
    if kind == "int":
        low, high = (bound.at_least, bound.at_most) if bound else (None, None)
        bounds = [*([] if low is None else [low - 1, str(low - 1)]), *([] if high is None else [high + 1])]
        return ["many", "", 2.5, True, [1], *bounds]
    others = {"bool": ["maybe", "", 2, ["true"]], "list": ["text", {"a": 1}, 5, True], "dict": ["text", ["text"], 5]}
    if kind in others:
        return others[kind]
    assert kind in ("str", "path"), f"{name} is of type {kind}, which setting_rules does not know"
    values: list[Any] = [["text"], {"a": "text"}, True, False]
    if bound and bound.at_least_mb is not None:
        values += ["???", "", "1.5g", f"{bound.at_least_mb - 1}m", bound.at_least_mb]
    elif bound:
        values += [next(text for text in NO_TEXTS if not re.fullmatch(bound.pattern, text))]
    return values


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Inventory:
    """One host with valid settings; no test of this module changes it."""
    return Inventory(tmp_path_factory.mktemp("school") / "school")


def test_settings_and_rules_are_found() -> None:
    """In a moved file the other tests would find nothing and pass."""
    assert len(SHOWN) == len(set(SHOWN)) > 70
    assert len(SETTINGS) > 100
    assert set(SHOWN) <= {*OPTIONS, *WIRED}
    assert len(BOUNDS) > 40
    assert list(RULES_OF) == [role.name for role in ROLES]


def test_bound_is_of_an_option_of_its_role() -> None:
    """A bound for a renamed setting would check nothing."""
    assert {
        name for role, rules in RULES_OF.items() for name in rules.bounds if not name.startswith(f"{role}_")
    } == set()
    assert set(BOUNDS) - set(OPTIONS) == set()


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_bound_has_the_type_of_its_option(name: str) -> None:
    """One setting, one type: in the argument specs and in the role's module."""
    assert BOUNDS[name].type == OPTIONS[name]["type"]


def test_number_has_bounds_or_a_reason() -> None:
    """-1 is a whole number too, and rarely a useful value."""
    assert {name for name in NUMBERS if name not in BOUNDS} == set(FREE_NUMBERS)


def test_text_has_a_pattern_or_a_reason() -> None:
    """And no setting has both."""
    assert {name for name in TEXTS if name not in BOUNDS} == set(FREE_TEXT)


@pytest.mark.parametrize("name", SETTINGS)
def test_wrong_value_is_refused_in_one_message_that_names_the_setting(inventory: Inventory, name: str) -> None:
    """Without a host, and nothing else is refused."""
    values = wrong_values(name)
    assert values
    for value in values:
        found = inventory.wrong(**{name: value})
        assert len(found) == 1, f"{name}: {value!r}: {found}"
        assert found[0].startswith(f"{name} is "), found
        assert found[0].endswith("."), found
        assert "\n" not in found[0]


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_without_a_value_is_refused_in_one_message(inventory: Inventory, name: str) -> None:
    """By itself, or by the role that requires it and says where to find it."""
    found = inventory.refused(**{name: None})
    assert len(found) == 1, found
    expected = f"{name} is not set for server." if name in REQUIRED else f"{name} has no value."
    assert found[0].startswith(expected)


@pytest.mark.parametrize("name", [name for name in SETTINGS if name in FREE_TEXT or name in BOUNDS])
def test_rules_that_read_a_wrong_value_are_left_out(inventory: Inventory, name: str) -> None:
    """A rule that reads the value is left out, and no rule ends in an error."""
    first, *_, last = wrong_values(name)
    for value in (first, last):
        said = inventory.refused(**{name: value})
        assert len([message for message in said if message.startswith(f"{name} is ")]) == 1, said


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_default_is_within_its_bounds(inventory: Inventory, name: str) -> None:
    """As a value, and as a text from the command line."""
    default = DEFAULTS[name]
    assert inventory.wrong(**{name: default}) == []
    if isinstance(default, (bool, int)):
        assert inventory.wrong(**{name: str(default)}) == []


@pytest.mark.parametrize("name", [name for name in SETTINGS if name in BOUNDS and BOUNDS[name].type == "int"])
def test_bounds_of_a_setting_are_valid_values(inventory: Inventory, name: str) -> None:
    """At least 1 accepts 1."""
    for bound in (BOUNDS[name].at_least, BOUNDS[name].at_most):
        if bound is not None:
            assert inventory.wrong(**{name: bound}) == []


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
def test_wrong_value_of_a_wired_setting_is_refused(inventory: Inventory, name: str, value: object) -> None:
    """In a message that names the setting, by the role that it is wired to."""
    variables = inventory.variables({name: value})
    said = inventory.lookup("preflight", variables, WIRED[name], want="settings")
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
    "backup_repository": ["???", "/mnt/nas/", "/etc/scratch4school/backups", "ftp://nas/backups"],
    "database_app_password": ["short", ""],
    "database_backup_password": ["short"],
    "database_migrator_password": ["short"],
    "database_monitor_password": ["short"],
    "proxy_tls_certificate": ["/nowhere/school.crt", ""],
    "proxy_tls_key": ["/nowhere/school.key", ""],
}


def test_text_that_a_role_checks_has_wrong_examples() -> None:
    """Each reason in FREE_TEXT that names a role."""
    roles = {role.name for role in ROLES}
    assert set(WRONG_TEXTS) == {name for name, reason in FREE_TEXT.items() if reason.partition(":")[0] in roles}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG_TEXTS.items() for value in values], ids=str
)
def test_wrong_text_is_refused_by_its_role(inventory: Inventory, name: str, value: str) -> None:
    """In one message that names the setting; by itself every text is accepted."""
    assert inventory.wrong(**{name: value}) == []
    said = inventory.refused(**{name: value})
    assert len(said) == 1, said
    assert name in said[0]
