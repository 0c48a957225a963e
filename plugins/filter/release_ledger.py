"""Gives playbooks release ids, and targets resolved by the ledger; see host/src/scratch4school_host/ledger.py."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ansible.errors import AnsibleFilterError

# Ansible hands its module_utils setting to modules only; a filter finds the same folder by its own place.
sys.path.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from scratch4school_host import ledger
from scratch4school_host.errors import OperatorError


def release_id(content: Mapping[str, object]) -> str:
    """`{'image': …, 'schema': …} | release_id` → 12 hexadecimal digits that follow from the content.

    The order of keys does not matter. Content that would lose something in JSON is refused.
    """
    if not isinstance(content, Mapping) or not content:
        raise AnsibleFilterError("A release id needs a mapping of what the release consists of.")
    try:
        canonical = json.dumps(
            _plain(content), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
        )
    except ValueError as problem:
        raise AnsibleFilterError(str(problem)) from problem
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _plain(value: object) -> object:
    """Copy into built-in types: Ansible's containers are templated only when they are walked through."""
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise ValueError("The content of a release may only have text as keys.")
        return {str(name): _plain(value[name]) for name in value}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)
    raise ValueError(f"The content of a release has {value!r}, which is neither text, number, list nor mapping.")


def resolve_release(entries: Iterable[Mapping[str, object]], target: str, kept: Iterable[str] | None = None) -> str:
    """`ledger.entries | resolve_release('previous', kept=ids)` → one id."""
    try:
        return ledger.resolve(ledger.history_of(entries), target, kept=kept)
    except OperatorError as problem:
        raise AnsibleFilterError(str(problem)) from problem


def target_refusal(entries: Iterable[Mapping[str, object]], target: str, kept: Iterable[str]) -> str:
    """`ledger_entries | target_refusal('previous', ids)` → why there is no such release, or ''."""
    try:
        ledger.resolve(ledger.history_of(entries), target, kept=kept)
    except OperatorError as problem:
        return str(problem)
    return ""


def login_is_proved(text: str, login: str, last_login: str) -> bool:
    """`ledger_text | login_is_proved(digest, '2026-11-28T16:50:00Z')` → whether a person has logged in since then."""
    return ledger.is_login_proved(ledger.parse(text).entries, login, last_login)


def release_history(text: str) -> dict[str, object]:
    """`ledger_text | release_history` → current, previous and all releases by a ledger's text."""
    history = ledger.parse(text)
    return {"current": history.current, "previous": history.previous, "releases": history.releases}


class FilterModule:
    """The class that Ansible loads from a filter file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Name the filters of this file."""
        return {
            "release_id": release_id,
            "resolve_release": resolve_release,
            "target_refusal": target_refusal,
            "login_is_proved": login_is_proved,
            "release_history": release_history,
        }
