"""Gives playbooks release ids and the choice among them; plugins/module_utils/release_ledger.py does the work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ansible.errors import AnsibleFilterError

# Ansible hands its module_utils setting to modules only; a filter finds the same folder by its own place.
sys.path.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from release_ledger import ReleaseError, choose, is_login_proved, parse, recount
from release_ledger import release_id as derive_release_id


def release_id(content: Mapping[str, object]) -> str:
    """`{'image': …, 'schema': …} | release_id` → 12 hexadecimal digits that follow from the content."""
    try:
        return derive_release_id(content)
    except (ReleaseError, ValueError) as problem:
        raise AnsibleFilterError(str(problem)) from problem


def choose_release(entries: Iterable[Mapping[str, object]], wanted: str, kept: Iterable[str] | None = None) -> str:
    """`ledger.entries | choose_release('previous', kept=ids)` → one id."""
    try:
        return choose(recount(entries), wanted, kept=kept)
    except ReleaseError as problem:
        raise AnsibleFilterError(str(problem)) from problem


def wish_refusal(entries: Iterable[Mapping[str, object]], wanted: str, kept: Iterable[str]) -> str:
    """`ledger_entries | wish_refusal('previous', ids)` → why it cannot be granted, as a sentence, or ''."""
    try:
        choose(recount(entries), wanted, kept=kept)
    except ReleaseError as problem:
        return str(problem)
    return ""


def login_is_proved(ledger: str, login: str, last_login: str) -> bool:
    """`ledger_text | login_is_proved(digest, '2026-11-28T16:50:00Z')` → whether a person has logged in since then."""
    return is_login_proved(parse(ledger).entries, login, last_login)


def release_history(text: str) -> dict[str, object]:
    """`ledger_text | release_history` → current, previous and all releases by a ledger's text."""
    history = parse(text)
    return {"current": history.current, "previous": history.previous, "releases": history.releases}


class FilterModule:
    """What Ansible asks a filter file for."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Name the filters of this file."""
        return {
            "release_id": release_id,
            "choose_release": choose_release,
            "login_is_proved": login_is_proved,
            "release_history": release_history,
            "wish_refusal": wish_refusal,
        }
