"""Gives playbooks what preflight refuses and warns of; plugins/module_utils/preflight judges."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible import context
from ansible.errors import AnsibleError, AnsibleLookupError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.lookup import LookupBase
from ansible.utils.vars import load_extra_vars

# Ansible hands its module_utils setting to modules only; a lookup finds the same folder by its own place.
sys.path.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

import preflight
from preflight import rules as preflight_rules
from preflight import settings as preflight_settings

DOCUMENTATION = r"""
name: preflight
short_description: Refusals and warnings of preflight, and its questions to a host
description:
  - C(settings) refuses names with a prefix of one of our roles that no role knows, and proposes the nearest one. It
    refuses settings of all roles that have no value, a wrong type, or a value out of bounds. It applies the rules of
    the named roles.
  - C(questions) is what the module C(host_survey) must read for the rules of the named roles.
  - C(host_refusals) and C(host_warnings) judge the fact C(host_survey).
  - A password that nothing set is read only by a rule that judges it, because reading it generates it.
options:
  _terms:
    description: Names of roles whose rules apply.
    required: true
  want:
    description: Kind of result.
    type: str
    choices: [settings, questions, host_refusals, host_warnings]
    required: true
  by_rules:
    description: With C(settings), whether rules are applied; names, types and bounds always are.
    type: bool
    default: true
author:
  - The Scratch4School deployment project
"""

EXAMPLES = r"""
refusals: "{{ lookup('preflight', 'app', 'proxy', want='settings') }}"
"""

RETURN = r"""
_raw:
  description: One list of messages; of C(questions) one dictionary, kind of question to a list.
  type: list
"""

ROOT = Path(__file__).resolve().parents[2]
WIRING = ROOT / "deploy" / "group_vars" / "all"
# Settings that are no role's: the address and the windows are wired to several, `change_` is on the command line too.
PREFIXES = ("scratch4school_", "change_")
_WORD = re.compile(r"\b[a-z][a-z0-9_]*\b")
_DEFAULTED = re.compile(r"\b([a-z][a-z0-9_]*) \| default\(")


class LookupModule(LookupBase):
    """The class that Ansible loads from a lookup file."""

    def run(self, terms: list[str], variables: Mapping[str, Any] | None = None, **options: Any) -> list[Any]:
        """See RETURN."""
        self.set_options(var_options=variables, direct=options)
        want = self.get_option("want")
        variables = variables or {}
        settings = _HostSettings(self._templar, variables)
        try:
            if want == "settings":
                return [self._refuse_settings(terms, variables, settings)]
            if want == "questions":
                return [preflight.questions(terms, settings)]
            judge = preflight.host_refusals if want == "host_refusals" else preflight.host_warnings
            return [judge(terms, settings, variables["host_survey"])]
        except preflight.CannotRead as problem:
            # Ansible would append the message of the cause, which is part of this one.
            raise AnsibleLookupError(str(problem)) from None

    def _refuse_settings(self, roles: list[str], variables: Mapping[str, Any], settings: _HostSettings) -> list[str]:
        found = _unknown(variables)
        for name, option in _options().items():
            if message := _refusal_of_value(name, option, variables, settings):
                found.append(message)
                settings.refused.add(name)
        if self.get_option("by_rules"):
            found += preflight.settings_refusals(roles, settings, refused=bool(found))
        return found


class _HostSettings(Mapping[str, Any]):
    """The settings of a host: templates are worked out when a setting is read, and not before."""

    def __init__(self, templar: Any, variables: Mapping[str, Any]) -> None:
        defaults = {name: option["default"] for name, option in _options().items() if "default" in option}
        self._raw = {**defaults, **variables}
        self._templar = templar.copy_with_new_env(available_variables=self._raw)
        self._values: dict[str, Any] = {}
        self.refused: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        """The value, of the type that the role's argument specs say."""
        if name in self.refused:
            raise preflight.AlreadyRefused(name)
        if name not in self._values:
            self._values[name] = preflight_settings.typed(self.worked_out(name), _options().get(name, {}))
        return self._values[name]

    def worked_out(self, name: str) -> Any:
        """The value as it was written, templates worked out."""
        try:
            return self._templar.template(self._raw[name])
        except AnsibleError as problem:
            raise preflight.CannotRead(f"{name} cannot be worked out: {str(problem).rstrip('.')}.") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)


def _refusal_of_value(
    name: str, option: preflight.Option, variables: Mapping[str, Any], settings: _HostSettings
) -> str:
    """Why a value that the inventory or the command line sets is refused by itself; '' when it is not."""
    wiring = _wiring()
    if name not in variables or (name in wiring and variables[name] == wiring[name]):
        return ""
    if name in wiring and "{{" not in str(wiring[name]):
        # A default that two roles need is in the wiring.
        option = {**option, "default": wiring[name]}
    if variables[name] is None:
        # A required setting is asked for by its role, with where to find it.
        required = any(name in rules.required for rules in preflight.ROLES.values())
        return "" if required else preflight_settings.empty(name, option, name in wiring)
    try:
        value = settings.worked_out(name)
    except preflight.CannotRead as problem:
        return str(problem)
    bound = preflight.BOUNDS.get(name)
    return preflight_settings.wrong_type(name, value, option) or (bound.refusal(name, value) if bound else "")


def _unknown(variables: Mapping[str, Any]) -> list[str]:
    """Messages for names that may be misspelled ones of ours: neither Ansible's own, nor what roles keep of a play."""
    given = {str(name) for name in load_extra_vars(DataLoader())} if context.CLIARGS.get("extra_vars") else set()
    names = {name for name in {*variables, *given} if not name.startswith(("ansible_", "_"))}
    # A variable to which a playbook gives a default may be set on the command line.
    defaulted = {name for text in _playbooks() for name in _DEFAULTED.findall(text)}
    settings = {*_options(), *defaulted, "scratch4school_url"}
    prefixes = [*PREFIXES, *(f"{role}_" for role in preflight.ROLES)]
    if not preflight_settings.unknown(names, settings, _wiring(), prefixes):
        return []
    # Variables that playbooks and tasks pass to each other are known. They are read last, because that takes longest.
    return preflight_settings.unknown(names, settings, {*_wiring(), *_words()}, prefixes)


def _read(path: Path) -> dict[str, Any]:
    """A YAML file of ours as it stands, by the fast reader where there is one."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(), Loader=loader) or {}


# Each task is a process of its own, and none of these files changes while one runs.
@cache
def _options() -> dict[str, preflight.Option]:
    """Every option of every role, by name."""
    specs = [_read(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"] for role in preflight.ROLES]
    return preflight_rules.options_by_name(point for spec in specs for point in spec.values())


@cache
def _wiring() -> dict[str, Any]:
    """Variables that roles are wired with."""
    return {name: value for file in sorted(WIRING.glob("*.yml")) for name, value in _read(file).items()}


@cache
def _playbooks() -> list[str]:
    """The text of each playbook and of the wiring."""
    return [file.read_text() for file in (*(ROOT / "deploy").glob("*.yml"), *WIRING.glob("*.yml"))]


@cache
def _words() -> set[str]:
    """Every word in the playbooks and tasks."""
    tasks = [file.read_text() for file in (ROOT / "roles").glob("*/tasks/*.yml")]
    return {word for text in (*_playbooks(), *tasks) for word in _WORD.findall(text)}
