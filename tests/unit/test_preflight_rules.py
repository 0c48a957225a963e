"""Rules of several roles become one list of messages."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import preflight
import pytest
from preflight.rules import AlreadyRefused, CannotRead, Messages, Rules, Settings, Survey


class Some(Mapping[str, Any]):
    """Settings of which `refused` is refused, and `unreadable` cannot be read."""

    def __getitem__(self, name: str) -> Any:
        if name == "refused":
            raise AlreadyRefused(name)
        if name == "unreadable":
            raise CannotRead("unreadable cannot be worked out.")
        return name

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def says(*parts: str) -> Callable[..., Messages]:
    """A rule that reads settings in this order and says each; `None` for a survey that it ignores."""

    def rule(settings: Settings, survey: Survey | None = None) -> Messages:
        for name in parts:
            yield settings[name]

    return rule


@pytest.fixture
def roles(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Register roles of which each has one rule of every kind, and return their names."""

    def register(*rules: Callable[..., Messages]) -> list[str]:
        known = {}
        for number, rule in enumerate(rules):
            known[f"role{number}"] = one = Rules(f"role{number}")
            one.refuses_settings(rule)
            one.refuses_host(rule)
            one.warns_of_host(rule)
        monkeypatch.setattr(preflight, "ROLES", known)
        return list(known)

    return register


KINDS: list[Callable[[list[str]], list[str]]] = [
    lambda names: preflight.settings_refusals(names, Some()),
    lambda names: preflight.host_refusals(names, Some(), {}),
    lambda names: preflight.host_warnings(names, Some(), {}),
]


@pytest.mark.parametrize("judge", KINDS, ids=["settings", "host", "warnings"])
def test_messages_are_in_the_order_of_the_roles(roles: Callable[..., list[str]], judge: Callable[..., Any]) -> None:
    """A role that says nothing leaves no gap."""
    names = roles(says("b", "a"), says(), says("c"))
    assert judge(names) == ["b", "a", "c"]
    assert judge(names[::-1]) == ["c", "b", "a"]
    assert judge([]) == []


@pytest.mark.parametrize("judge", KINDS, ids=["settings", "host", "warnings"])
def test_rule_ends_where_it_reads_a_refused_setting(roles: Callable[..., list[str]], judge: Callable[..., Any]) -> None:
    """Its earlier messages and the other rules are kept."""
    assert judge(roles(says("a", "refused", "b"), says("c"))) == ["a", "c"]
    assert judge(roles(says("refused"))) == []


@pytest.mark.parametrize("judge", KINDS[:2], ids=["settings", "host"])
def test_rule_that_cannot_read_a_setting_is_left_out_beside_a_refusal(
    roles: Callable[..., list[str]], judge: Callable[..., Any]
) -> None:
    """The other role cannot work with the refused value; without a refusal it is an error."""
    assert judge(roles(says("unreadable"), says("a"))) == ["a"]
    assert judge(roles(says("a", "unreadable"))) == ["a"]
    with pytest.raises(CannotRead, match="unreadable cannot be worked out"):
        judge(roles(says("unreadable"), says()))


def test_rule_that_cannot_read_a_setting_is_left_out_where_a_setting_is_refused_by_itself(
    roles: Callable[..., list[str]],
) -> None:
    """That is known before the rules are asked."""
    assert preflight.settings_refusals(roles(says("unreadable")), Some(), refused=True) == []


def test_warning_that_cannot_read_a_setting_is_an_error(roles: Callable[..., list[str]]) -> None:
    """Another warning explains nothing."""
    with pytest.raises(CannotRead):
        preflight.host_warnings(roles(says("a"), says("unreadable")), Some(), {})


def test_questions_are_put_together_without_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    """By kind, in the order of the roles."""
    one, other = Rules("one"), Rules("other")
    one.asks_host(lambda settings: {"files": ["/a", "/b"], "folders": [{"path": "/x"}]})
    other.asks_host(lambda settings: {"files": ["/b", "/c"], "disks": []})
    other.asks_host(lambda settings: {"folders": [{"path": "/x"}]})
    monkeypatch.setattr(preflight, "ROLES", {"one": one, "other": other})
    assert preflight.questions(["one", "other"], {}) == {
        "files": ["/a", "/b", "/c"],
        "folders": [{"path": "/x"}],
        "disks": [],
    }


@pytest.mark.parametrize("value", [None, "", {}])
def test_required_setting_is_refused_with_where_to_find_it(value: object) -> None:
    """One rule for each, before the role's own."""
    rules = Rules("x", required={"x_a": "on the label", "x_b": "in the box"})
    settings = {"inventory_hostname": "server", "x_a": value, "x_b": "b"}
    assert [said for rule in rules.settings_rules for said in rule(settings)] == [
        "x_a is not set for server. Set it in the inventory's group_vars/scratch4school/: on the label."
    ]


@pytest.mark.parametrize(("strict", "kind"), [(True, "refused"), ("yes", "refused"), (False, "warned")])
def test_rule_that_depends_on_a_setting_refuses_or_warns(strict: object, kind: str) -> None:
    """Never both; the setting of a playbook such as a rollback turns the refusal into a warning."""
    rules = Rules("x")
    rules.refuses_host_if("x_strict")(says("x_a"))
    settings = {"x_strict": strict, "x_a": "a"}
    found = {"refused": rules.host_rules, "warned": rules.host_warnings}
    said = {name: [line for rule in found[name] for line in rule(settings, {})] for name in found}
    assert said == {"refused": [], "warned": [], kind: ["a"]}


def registered(rules: Rules) -> list[Callable[..., Any]]:
    """The functions of a role's rules, without what wraps them."""
    found = [*rules.settings_rules, *rules.host_rules, *rules.host_warnings, *rules.questions]
    return [inspect.unwrap(getattr(rule, "func", rule)) for rule in found]


@pytest.mark.parametrize("role", list(preflight.ROLES))
def test_rule_has_a_description(role: str) -> None:
    """Its docstring says why something is refused."""
    assert [rule for rule in registered(preflight.ROLES[role]) if not rule.__doc__] == []


# A rule that two others call.
HELPERS = {"provider_refusals"}


@pytest.mark.parametrize("role", list(preflight.ROLES))
def test_function_that_yields_messages_is_a_rule(role: str) -> None:
    """Without its decorator it would pass its own test, and never be asked."""
    module = importlib.import_module(f"preflight.{role}")
    functions = {
        name
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and function.__annotations__.get("return") in ("Messages", "Questions")
    }
    assert functions - HELPERS == {rule.__name__ for rule in registered(preflight.ROLES[role])} - {"_is_set"}
