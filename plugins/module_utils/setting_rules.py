"""Judges the settings of an inventory by what the roles' argument specs and rules say of them.

Ansible itself takes a misspelled name without a word, takes an empty value for one, and answers a wrong type with a
dump of the specification. Here each of them gets one sentence that says what to type.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

Option = Mapping[str, Any]
Rule = Mapping[str, Any]

# Values of these are never repeated in a message.
_SECRET = re.compile(r"password|secret|_key$|environment|_users$|address$|_command$")
# What may stand before the host in an address: the user, and the password.
_CREDENTIALS = re.compile(r"(?<=//)[^\s]*@|^[^/\s:]+:[^\s]*@")
_VALUE_LENGTH = 60

_TRUE_FALSE = {"true", "false", "yes", "no", "on", "off", "1", "0", "t", "f", "y", "n"}
_MEGABYTES = {"": 1 / 2**20, "b": 1 / 2**20, "k": 1 / 2**10, "m": 1, "g": 2**10}

# How near a name must be to one of ours to be taken for a misspelling of it.
_NEAR = 0.6
# Without one of our prefixes it may well be the sysadmin's own, so it must be very near.
_VERY_NEAR = 0.85


def unknown(names: Iterable[str], settings: Iterable[str], known: Iterable[str], prefixes: Iterable[str]) -> list[str]:
    """A sentence for each name that looks like a setting of ours and is none.

    :param names: names that the inventory or the command line sets.
    :param settings: names that may be set, from which the nearest is proposed.
    :param known: further names that are no settings and no mistake either.
    :param prefixes: beginnings that are ours, such as `app_`.
    """
    settings = set(settings)
    silent = settings | set(known)
    ours = tuple(prefixes)
    found = []
    for name in sorted(set(names) - silent):
        if name.startswith(ours):
            near = difflib.get_close_matches(name, sorted(settings), n=1, cutoff=_NEAR)
            advice = f"Did you mean {near[0]}?" if near else "Remove it; inventories/example has all settings."
            found.append(f"{name} is no setting of Scratch4School. {advice}")
        else:
            near = difflib.get_close_matches(name, sorted(settings), n=1, cutoff=_VERY_NEAR)
            # `vault_backup_ssh_key` is the sysadmin's own name for what backup_ssh_key takes.
            if near and not name.endswith(f"_{near[0]}"):
                found.append(f"{name} is no setting of Scratch4School. Did you mean {near[0]}?")
    return found


def empty(name: str, option: Option, wired: bool = False) -> str:
    """The sentence for a setting that has a name and no value in the inventory.

    :param wired: whether it has a value of ours where the inventory sets none, such as a password that is made.
    """
    if "default" in option:
        return (
            f"{name} has no value. Write one behind the colon, or remove the line to get the default, "
            f"{_quoted(option['default'])}."
        )
    return f"{name} has no value. Write one behind the colon{', or remove the line' if wired else ''}."


def wrong_type(name: str, value: object, option: Option) -> str:
    """The sentence for a value that is not of the option's type, or none of its choices; '' when it is."""
    kind = option.get("type", "str")
    choices = option.get("choices")
    if choices and value not in choices:
        return f"{name} is {shown(name, value)}; write {' or '.join(map(str, choices))}."
    wanted = ""
    if kind == "int" and not _is_whole_number(value):
        wanted = "a whole number"
    elif kind == "bool" and str(value).lower() not in _TRUE_FALSE:
        wanted = "true or false"
    elif kind == "list" and not isinstance(value, list):
        wanted = "a list, such as [one, two]"
    elif kind == "dict" and not isinstance(value, Mapping):
        wanted = "a mapping, such as {NAME: value}"
    elif kind in ("str", "path"):
        if isinstance(value, bool):
            return f"{name} is the YAML value {str(value).lower()}; if you mean the word, put it in quotation marks."
        if isinstance(value, (list, Mapping)):
            wanted = "one text, in quotation marks"
    if not wanted:
        return ""
    example = f", such as {option['default']}" if kind == "int" and "default" in option else ""
    return f"{name} is {shown(name, value)}; write {wanted}{example}."


def broken_rule(name: str, value: object, rule: Rule) -> str:
    """The sentence for a value that the role's rule refuses; '' when it is allowed.

    A rule has one or more of `at_least`, `at_most` (whole numbers), `megabytes` (least amount of memory, written as
    Docker does), `pattern` (a whole match), and `write`: what to type instead.
    """
    if "at_least" in rule or "at_most" in rule:
        number = int(str(value))
        low, high = rule.get("at_least"), rule.get("at_most")
        if (low is not None and number < low) or (high is not None and number > high):
            bounds = " and ".join(
                f"at {word} {bound}" for word, bound in (("least", low), ("most", high)) if bound is not None
            )
            return f"{name} is {value}; it must be {bounds}."
    if "megabytes" in rule:
        amount = re.fullmatch(r"([1-9][0-9]*)([bkmg]?)", str(value).lower())
        if not amount:
            return f"{name} is {shown(name, value)}; write an amount of memory as Docker does, such as 256m or 1g."
        if int(amount[1]) * _MEGABYTES[amount[2]] < rule["megabytes"]:
            return f"{name} is {value}; it must be at least {rule['megabytes']}m."
    if "pattern" in rule and not re.fullmatch(rule["pattern"], str(value)):
        return f"{name} is {shown(name, value)}; write {rule['write']}."
    return ""


def shown(name: str, value: object) -> str:
    """A value as a message may repeat it: in quotation marks where it is a text, shortened, and never a secret."""
    if _SECRET.search(name):
        return "not what it must be"
    return _quoted(value)


def _quoted(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    text = _CREDENTIALS.sub("…@", value if isinstance(value, str) else f"{value!r}")
    text = text if len(text) <= _VALUE_LENGTH else f"{text[:_VALUE_LENGTH]}…"
    return f"“{text}”" if isinstance(value, str) else text


def _is_whole_number(value: object) -> bool:
    return not isinstance(value, bool) and bool(re.fullmatch(r"-?[0-9]+", str(value)))
