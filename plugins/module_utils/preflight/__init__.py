"""Refusals and warnings of preflight: one module for each role, in plain Python, with unit tests.

This file finds the modules by itself. A role's module holds all that is said of the role's settings: their bounds, and
rules for what a type cannot express.
Type and default of a setting stand in the role's argument specs; unit tests hold that both agree.

**To add a bound**, add the setting to `bounds` of the role's module::

    "proxy_body_megabytes": whole_number(1),

**To add a refusal of settings**, write a rule in the role's module, and a test in `tests/unit/test_preflight_<role>.py`
that calls it with a dictionary. Nothing else::

    @RULES.refuses_settings
    def ports(settings: Settings) -> Messages:
        if settings["proxy_https_port"] == settings["proxy_http_port"]:
            yield f"proxy_https_port and proxy_http_port are both {settings['proxy_http_port']}; choose two ports."

**To add a refusal of a host**, use `RULES.refuses_host`, or `RULES.warns_of_host` for a warning. Such a rule gets the
survey as its second argument. `RULES.asks_host` names what the survey must read for it. A new kind of question needs a
function in `plugins/module_utils/host_survey.py`.

A message says what is wrong, which value, and what to type instead. It never holds a secret: put a value into it with
`settings.shown`.

A rule may read any setting by its name, also another role's. Numbers and truth values have their type, also where they
come from the command line. Read only what the rule needs: reading a password that nothing sets generates it. A rule
ends where it reads a setting that is already refused by its type or bound, so it need not check that again.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from functools import partial

from .rules import AlreadyRefused, CannotRead, Questions, Rules, Settings, Survey, collect
from .settings import Bound, Option

__all__ = ["BOUNDS", "ROLES", "AlreadyRefused", "CannotRead", "Option", "Settings", "Survey"]

# Each module of this folder that has RULES, in the order of their names; the other modules are shared.
_MODULES = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
ROLES: Mapping[str, Rules] = {module.RULES.role: module.RULES for module in _MODULES if hasattr(module, "RULES")}
BOUNDS: Mapping[str, Bound] = {name: bound for rules in ROLES.values() for name, bound in rules.bounds.items()}


def settings_refusals(roles: Iterable[str], settings: Settings, refused: bool = False) -> list[str]:
    """Return the refusals of settings by the roles' rules, in the order of the roles.

    :param refused: some setting is known to be refused by itself.
    :raises CannotRead: when a rule could not read a setting and nothing was refused, which would be its cause.
    """
    found, failed = collect(partial(rule, settings) for role in roles for rule in ROLES[role].settings_rules)
    return _or_raise(found, failed, refused)


def host_refusals(roles: Iterable[str], settings: Settings, survey: Survey) -> list[str]:
    """Return the refusals of a host by the roles' rules; raises as `settings_refusals` does."""
    found, failed = collect(partial(rule, settings, survey) for role in roles for rule in ROLES[role].host_rules)
    return _or_raise(found, failed)


def host_warnings(roles: Iterable[str], settings: Settings, survey: Survey) -> list[str]:
    """Return the warnings of the roles' rules; a rule that cannot read a setting raises."""
    found, failed = collect(partial(rule, settings, survey) for role in roles for rule in ROLES[role].host_warnings)
    return _or_raise(found, failed) if not failed else _or_raise([], failed)


def questions(roles: Iterable[str], settings: Settings) -> Questions:
    """Return the questions that the survey must answer for the rules of these roles."""
    asked: Questions = {}
    for role in roles:
        for question in ROLES[role].questions:
            for kind, values in question(settings).items():
                asked.setdefault(kind, []).extend(value for value in values if value not in asked.get(kind, []))
    return asked


def _or_raise(found: list[str], failed: list[CannotRead], explained: bool = False) -> list[str]:
    # Another role cannot work with a refused value, such as a missing address.
    if failed and not found and not explained:
        raise failed[0]
    return found
