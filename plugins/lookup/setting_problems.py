"""Says what is wrong with the settings of a host, each in one sentence, without a connection to it."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible import context
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.lookup import LookupBase
from ansible.utils.vars import load_extra_vars

# Ansible hands its module_utils setting to modules only; a lookup finds the same folder by its own place.
sys.path.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

import setting_rules

DOCUMENTATION = r"""
name: setting_problems
short_description: Sentences for what is wrong with the settings of a host
description:
  - Names with a prefix of one of our roles that no role knows are refused, with the nearest right one; so are settings
    without a value, of a wrong type, or against the role's rules (C(__<role>_rules) in its vars).
  - A password that nothing set is not looked at, because to look at it is to make it.
author:
  - The Scratch4School deployment project
"""

EXAMPLES = r"""
problems: "{{ lookup('setting_problems') }}"
"""

RETURN = r"""
_raw:
  description: One dictionary, role to sentences, without those that have none; names that no role knows are under ''.
  type: list
"""

ROOT = Path(__file__).resolve().parents[2]
WIRING = ROOT / "deploy" / "group_vars" / "all.yml"
# Settings that are no role's: the address and the hours are wired to several, `change_` is on the command line too.
PREFIXES = ("scratch4school_", "change_")
_WORD = re.compile(r"\b[a-z][a-z0-9_]*\b")
_DEFAULTED = re.compile(r"\b([a-z][a-z0-9_]*) \| default\(")


class LookupModule(LookupBase):
    """What Ansible asks a lookup file for."""

    def run(self, terms: list[str], variables: Mapping[str, Any] | None = None, **options: Any) -> list[Any]:
        """See RETURN."""
        variables = variables or {}
        roles = {folder.name: _Role(self, folder) for folder in sorted((ROOT / "roles").iterdir()) if folder.is_dir()}
        wiring = self._load(WIRING)
        settings = {name: option for role in roles.values() for name, option in role.options.items()}
        said = {name for file in _playbooks() for name in _DEFAULTED.findall(file)}
        names = setting_rules.unknown(
            self._names(variables),
            {*settings, *said, "scratch4school_url"},
            {*wiring, *_words()},
            [*PREFIXES, *(f"{role}_" for role in roles)],
        )
        problems = {"": names}
        for name, role in roles.items():
            problems[name] = self._judge(role, variables, wiring)
        return [{name: found for name, found in problems.items() if found}]

    def _load(self, path: Path) -> dict[str, Any]:
        # `unsafe` is only that it is not copied; nothing here changes it.
        return (
            self._loader.load_from_file(str(path), unsafe=True, trusted_as_template=True) or {}
            if path.is_file()
            else {}
        )

    @staticmethod
    def _names(variables: Mapping[str, Any]) -> set[str]:
        """Names that may be misspelled ones of ours: neither Ansible's own, nor what roles keep of an earlier play."""
        given = {str(name) for name in load_extra_vars(DataLoader())} if context.CLIARGS.get("extra_vars") else set()
        return {name for name in {*variables, *given} if not name.startswith(("ansible_", "_"))}

    def _judge(self, role: _Role, variables: Mapping[str, Any], wiring: Mapping[str, Any]) -> list[str]:
        found = []
        for name, option in role.options.items():
            if name not in variables or (name in wiring and variables[name] == wiring[name]):
                continue
            if variables[name] is None:
                # Those that must be set are asked for by name, with where to find them.
                found += [setting_rules.empty(name, option, name in wiring)] if name not in role.asked_for else []
                continue
            try:
                value = self._templar.template(variables[name])
            except AnsibleError as problem:
                found.append(f"{name} cannot be worked out: {str(problem).rstrip('.')}.")
                continue
            problem = setting_rules.wrong_type(name, value, option)
            if not problem and name in role.rules:
                problem = setting_rules.broken_rule(name, value, role.rules[name])
            found += [problem] if problem else []
        return found


class _Role:
    """What a role says of its settings: options by name, rules, and those that it asks for by name."""

    def __init__(self, lookup: LookupModule, folder: Path) -> None:
        specs = _read(folder / "meta" / "argument_specs.yml")["argument_specs"]
        self.options: dict[str, dict[str, Any]] = {}
        for point in specs.values():
            for name, option in (point.get("options") or {}).items():
                # Of two entry points the one that names choices says more.
                if name not in self.options or "choices" in option:
                    self.options[name] = option
        variables = _read(folder / "vars" / "main.yml")
        self.rules: dict[str, dict[str, Any]] = variables.get(f"__{folder.name}_rules", {})
        self.asked_for: dict[str, str] = variables.get(f"__{folder.name}_required", {})


def _read(path: Path) -> dict[str, Any]:
    """A YAML file of ours as it stands, by the fast reader where there is one: it is two dozen files for each host."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return (yaml.load(path.read_text(), Loader=loader) or {}) if path.is_file() else {}


def _playbooks() -> list[str]:
    """The text of each playbook and of the wiring; what they give a default to may be set on the command line."""
    return [file.read_text() for file in (*(ROOT / "deploy").glob("*.yml"), WIRING)]


def _words() -> set[str]:
    """Every word in the playbooks and tasks: what they pass to each other is known, and is no setting."""
    tasks = [file.read_text() for file in (ROOT / "roles").glob("*/tasks/*.yml")]
    return {word for text in (*_playbooks(), *tasks) for word in _WORD.findall(text)}
