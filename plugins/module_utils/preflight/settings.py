"""Judges each setting by itself: its name, whether it has a value, its type, and its bounds.

Ansible accepts a misspelled name silently, accepts an empty value, and answers a wrong type with a dump of the
specification. Here each of them gets one message that says what to type.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Option = Mapping[str, Any]

# Values of these are never repeated in a message.
_SECRET = re.compile(r"password|secret|_key$|environment|_users$|address$|_command$")
# The part of an address before the host: user and password.
_CREDENTIALS = re.compile(r"(?<=//)[^\s]*@|^[^/\s:]+:[^\s]*@")
_VALUE_LENGTH = 60

_TRUE = {"true", "yes", "on", "1", "t", "y"}
_FALSE = {"false", "no", "off", "0", "f", "n"}
_MEGABYTES = {"": 1 / 2**20, "b": 1 / 2**20, "k": 1 / 2**10, "m": 1, "g": 2**10}

# How near a name must be to one of ours to be taken for a misspelling of it.
_NEAR = 0.6
# Without one of our prefixes it may well be the sysadmin's own, so it must be very near.
_VERY_NEAR = 0.85


@dataclass(frozen=True)
class Bound:
    """The limit of a setting's value beside its type. Made by `whole_number`, `memory` or `text`."""

    type: str
    at_least: int | None = None
    at_most: int | None = None
    at_least_mb: int | None = None
    pattern: str = ""
    write: str = ""

    def refusal(self, name: str, value: object) -> str:
        """The message for a value of the right type that is out of bounds; '' when it is allowed."""
        if self.type == "int":
            low, high = self.at_least, self.at_most
            if (low is not None and int(str(value)) < low) or (high is not None and int(str(value)) > high):
                bounds = [f"at {word} {bound}" for word, bound in (("least", low), ("most", high)) if bound is not None]
                return f"{name} is {value}; it must be {' and '.join(bounds)}."
        elif self.at_least_mb is not None:
            megabytes = memory_mb(value)
            if megabytes is None:
                return f"{name} is {shown(name, value)}; write an amount of memory as Docker does, such as 256m or 1g."
            if megabytes < self.at_least_mb:
                return f"{name} is {value}; it must be at least {self.at_least_mb}m."
        elif not re.fullmatch(self.pattern, str(value)):
            return f"{name} is {shown(name, value)}; write {self.write}."
        return ""


def whole_number(at_least: int | None = None, at_most: int | None = None) -> Bound:
    """A whole number; both bounds are allowed values."""
    return Bound("int", at_least=at_least, at_most=at_most)


def memory(at_least_mb: int) -> Bound:
    """An amount of memory as Docker writes it, such as 256m or 1g, and the least one in megabytes."""
    return Bound("str", at_least_mb=at_least_mb)


def text(pattern: str, write: str) -> Bound:
    """A text that a regular expression matches as a whole; `write` says what to type instead of another one."""
    return Bound("str", pattern=pattern, write=write)


def memory_mb(value: object) -> float | None:
    """Megabytes of an amount of memory as Docker writes it; None when it is no such amount."""
    amount = re.fullmatch(r"([1-9][0-9]*)([bkmg]?)", str(value).lower())
    return int(amount[1]) * _MEGABYTES[amount[2]] if amount else None


def unknown(names: Iterable[str], settings: Iterable[str], known: Iterable[str], prefixes: Iterable[str]) -> list[str]:
    """A message for each name that looks like a setting of Scratch4School and is none.

    :param names: names that the inventory or the command line sets.
    :param settings: names that may be set, from which the nearest is proposed.
    :param known: further names that are no settings and no mistake either.
    :param prefixes: beginnings that are ours, such as `app_`.
    """
    settings = set(settings)
    ours = tuple(prefixes)
    found = []
    for name in sorted(set(names) - settings - set(known)):
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
    """The message for a setting that has a name and no value in the inventory.

    :param wired: whether it has a value of ours where the inventory sets none, such as a password that is generated.
    """
    if "default" in option:
        return (
            f"{name} has no value. Write one after the colon, or remove the line to get the default, "
            f"{_quoted(option['default'])}."
        )
    return f"{name} has no value. Write one after the colon{', or remove the line' if wired else ''}."


def wrong_type(name: str, value: object, option: Option) -> str:
    """The message for a value that is not of the option's type, or none of its choices; '' when it is."""
    kind = option.get("type", "str")
    choices = option.get("choices")
    if choices and value not in choices:
        return f"{name} is {shown(name, value)}; write {' or '.join(map(str, choices))}."
    expected = ""
    if kind == "int" and not _is_whole_number(value):
        expected = "a whole number"
    elif kind == "bool" and str(value).lower() not in _TRUE | _FALSE:
        expected = "true or false"
    elif kind == "list" and not isinstance(value, list):
        expected = "a list, such as [one, two]"
    elif kind == "dict" and not isinstance(value, Mapping):
        expected = "a mapping, such as {NAME: value}"
    elif kind in ("str", "path"):
        if isinstance(value, bool):
            return f"{name} is the YAML value {str(value).lower()}; if you mean the word, put it in quotation marks."
        if isinstance(value, (list, Mapping)):
            expected = "one text, in quotation marks"
    if not expected:
        return ""
    example = f", such as {option['default']}" if kind == "int" and "default" in option else ""
    return f"{name} is {shown(name, value)}; write {expected}{example}."


def typed(value: Any, option: Option) -> Any:
    """The value as the option's type has it: `-e name=16` and `-e name=yes` arrive as texts."""
    kind = option.get("type", "str")
    if kind == "int" and isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]+\s*", value):
        return int(value)
    if kind == "bool" and isinstance(value, str) and value.strip().lower() in _TRUE | _FALSE:
        return is_true(value)
    return value


def is_true(value: object) -> bool:
    """Whether a value of a setting or of the command line means true; a text such as `false` is true to Python."""
    return str(value).strip().lower() in _TRUE


def shown(name: str, value: object) -> str:
    """A value as a message may repeat it: in quotation marks where it is a text, shortened, and never a secret."""
    return "not valid" if is_secret(name) else _quoted(value)


def is_secret(name: str) -> bool:
    """Whether the value of a setting of this name must not be repeated in a message."""
    return bool(_SECRET.search(name))


def _quoted(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    words = _CREDENTIALS.sub("…@", value if isinstance(value, str) else f"{value!r}")
    words = words if len(words) <= _VALUE_LENGTH else f"{words[:_VALUE_LENGTH]}…"
    return f"“{words}”" if isinstance(value, str) else words


def _is_whole_number(value: object) -> bool:
    return not isinstance(value, bool) and bool(re.fullmatch(r"-?[0-9]+", str(value)))
