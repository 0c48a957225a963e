"""Registers the rules that a role's module declares, and collects the messages of several roles in one list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any, TypeVar

from .settings import Bound, Option, is_true

# Name to value. A setting that the inventory leaves out has its role's default.
Settings = Mapping[str, Any]
# The result of host_survey; see plugins/module_utils/host_survey.py.
Survey = Mapping[str, Any]
Messages = Iterator[str]
# The questions of the survey: kind of question to a list; see `survey` in host_survey.py.
Questions = dict[str, list[Any]]

SettingsRule = Callable[[Settings], Messages]
HostRule = Callable[[Settings, Survey], Messages]
_SettingsRule = TypeVar("_SettingsRule", bound=SettingsRule)
_HostRule = TypeVar("_HostRule", bound=HostRule)
_Asks = TypeVar("_Asks", bound=Callable[[Settings], Questions])


class AlreadyRefused(Exception):
    """A rule reads a setting that is refused by itself; what the rule would say of it is left out."""


class CannotRead(Exception):
    """A setting's template fails, mostly because another setting is missing; the text is Ansible's."""


@dataclass
class Rules:
    """The refusals and warnings of one role. A rule is a function that yields messages, registered by a decorator.

    :param bounds: setting to what it may be beside its type.
    :param required: setting without a default, to a hint where to find its value; one that is not set is refused.
    """

    role: str
    bounds: Mapping[str, Bound] = field(default_factory=dict)
    required: Mapping[str, str] = field(default_factory=dict)
    settings_rules: list[SettingsRule] = field(default_factory=list)
    host_rules: list[HostRule] = field(default_factory=list)
    host_warnings: list[HostRule] = field(default_factory=list)
    questions: list[Callable[[Settings], Questions]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with one rule for each required setting."""
        self.settings_rules += [partial(_is_set, name, hint) for name, hint in self.required.items()]

    def refuses_settings(self, rule: _SettingsRule) -> _SettingsRule:
        """Register a rule about settings; it runs on the control node, before the first connection."""
        self.settings_rules.append(rule)
        return rule

    def refuses_host(self, rule: _HostRule) -> _HostRule:
        """Register a rule about the host as it was surveyed."""
        self.host_rules.append(rule)
        return rule

    def warns_of_host(self, rule: _HostRule) -> _HostRule:
        """Register a rule whose messages do not end the run."""
        self.host_warnings.append(rule)
        return rule

    def refuses_host_if(self, setting: str) -> Callable[[_HostRule], _HostRule]:
        """Register a rule that refuses where the setting is true; elsewhere, as in a rollback, it only warns."""

        def register(rule: _HostRule) -> _HostRule:
            @wraps(rule)
            def refuse(settings: Settings, survey: Survey) -> Messages:
                if is_true(settings[setting]):
                    yield from rule(settings, survey)

            @wraps(rule)
            def warn(settings: Settings, survey: Survey) -> Messages:
                if not is_true(settings[setting]):
                    yield from rule(settings, survey)

            self.refuses_host(refuse)
            self.warns_of_host(warn)
            return rule

        return register

    def asks_host(self, question: _Asks) -> _Asks:
        """Register what the survey must read for the role's rules. Values may be of any type: status.yml asks too."""
        self.questions.append(question)
        return question


def _is_set(name: str, hint: str, settings: Settings) -> Messages:
    """There is no default for it."""
    if not as_text(settings, name):
        yield f"{name} is not set for {settings['inventory_hostname']}. {where(hint)}"


def as_text(settings: Settings, name: str) -> str:
    """The value of a setting that may not be set; '' when it is not, or is empty."""
    return str(settings.get(name) or "")


def where(hint: str) -> str:
    """Return the advice about a missing required setting."""
    return f"Set it in the inventory's group_vars/scratch4school/: {hint}."


def collect(calls: Iterable[Callable[[], Messages]]) -> tuple[list[str], list[CannotRead]]:
    """The messages of rules in their order, and the errors of those that could not read a setting."""
    found: list[str] = []
    failed: list[CannotRead] = []
    for call in calls:
        try:
            # One by one: what a rule said before it came to a setting that is refused stands.
            for message in call():
                found.append(message)
        except AlreadyRefused:
            continue
        except CannotRead as error:
            failed.append(error)
    return found, failed


def options_by_name(specs: Iterable[Mapping[str, Any]]) -> dict[str, Option]:
    """Every option of the entry points of argument specs; of two the one that names choices says more."""
    found: dict[str, Option] = {}
    for spec in specs:
        for name, option in (spec.get("options") or {}).items():
            if name not in found or "choices" in option:
                found[name] = option
    return found
