"""Reading the claims of an identity provider: user id, name, role and groups; any value may be missing or malformed."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .login_messages import UNKNOWN_PERSON, lasting

log = logging.getLogger(__name__)

_ID_LENGTH = 128
_NAME_LENGTH = 128
_EXTERNAL_ID_LENGTH = 255
_ACT_KEYS = ("act", "id", "external_id", "value", "name", "displayName", "display", "display_name")
_NAME_KEYS = ("name", "displayName", "display", "display_name")
_UNUSABLE = "Scratch4School cannot use your account."


class ClaimsError(Exception):
    """The claims contain no usable user id; the message may be shown to the person."""


@dataclass(frozen=True, order=True)
class GroupClaim:
    """One group: the provider's permanent id for it, and the name to show if the provider sent one."""

    external_id: str
    name: str | None = None


@dataclass(frozen=True)
class Identity:
    """The person who logged in. `groups` is sorted and holds each group once; `raw` is the whole claim set."""

    user_id: str
    username: str
    email: str | None
    role: str
    groups: tuple[GroupClaim, ...]
    raw: dict[str, Any]


def identity(claims: Mapping[str, Any], role_admin: str, role_teacher: str) -> Identity:
    """The identity in `claims`; ClaimsError when they contain no usable user id."""
    named = next((claims[key] for key in ("uuid", "id", "sub") if text(claims.get(key)) is not None), None)
    if named is None:
        raise ClaimsError(lasting(UNKNOWN_PERSON, "the identity provider sent no user id (uuid, id or sub)"))
    user_id = identifier(named)
    if user_id is None:
        raise ClaimsError(lasting(_UNUSABLE, "the user id that the identity provider sent has invisible characters"))
    # A shortened id could be the id of another person.
    if len(user_id) > _ID_LENGTH:
        cause = f"the user id that the identity provider sent is longer than {_ID_LENGTH} characters"
        raise ClaimsError(lasting(_UNUSABLE, cause))
    username = _first(claims, ("preferred_username", "username", "name")) or user_id
    email = text(claims.get("email"))
    found = groups(claims.get("groups"))
    names = {group.external_id for group in found}
    role = "admin" if role_admin in names else "teacher" if role_teacher in names else "student"
    return Identity(
        user_id=user_id,
        username=username[:_NAME_LENGTH],
        email=email if email is not None and len(email) <= _NAME_LENGTH else None,
        role=role,
        groups=found,
        raw=dict(claims),
    )


def groups(claim: Any) -> tuple[GroupClaim, ...]:
    """The groups of a claim: IServ's object of objects, a list of names or objects, or a single name.

    Sorted by external id, so that all logins lock groups in the same order and no two can deadlock. Values without a
    usable name are skipped, because one malformed group must not fail a login.
    """
    found: dict[str, GroupClaim] = {}
    skipped = 0
    for value in _group_values(claim):
        group = _group(value)
        if group is None:
            skipped += 1
        elif group.external_id not in found or found[group.external_id].name is None:
            found[group.external_id] = group
    if skipped:
        log.warning("groups without a usable name were skipped", extra={"skipped": skipped, "kept": len(found)})
    return tuple(sorted(found.values(), key=lambda group: group.external_id))


def text(value: Any) -> str | None:
    """`value` as text that a database can store, without control characters; None unless it is a string or integer."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    try:
        printable = "".join(character for character in str(value) if character.isprintable())
    except ValueError:
        # Python refuses to print an integer of more than a few thousand digits.
        return None
    return printable.strip() or None


def identifier(value: Any) -> str | None:
    """`value` as an id, or None if it would need cleaning: a cleaned id could name another person or another group."""
    found = text(value)
    return found if found is not None and found == str(value) else None


def _group_values(claim: Any) -> Iterable[Any]:
    if isinstance(claim, Mapping):
        # IServ's keys are row numbers. An object with `act` is itself one group.
        return [claim] if isinstance(claim.get("act"), str) else claim.values()
    if isinstance(claim, list | tuple):
        return claim
    return [] if claim is None else [claim]


def _group(value: Any) -> GroupClaim | None:
    if isinstance(value, Mapping):
        named = next((value[key] for key in _ACT_KEYS if text(value.get(key)) is not None), None)
        external_id, name = identifier(named), _first(value, _NAME_KEYS)
    else:
        external_id, name = identifier(value), None
    if external_id is None or len(external_id) > _EXTERNAL_ID_LENGTH:
        return None
    return GroupClaim(external_id, name[:_NAME_LENGTH] if name is not None else None)


def _first(values: Mapping[str, Any], keys: Iterable[str]) -> str | None:
    return next((found for key in keys if (found := text(values.get(key))) is not None), None)
