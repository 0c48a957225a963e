"""Values of settings: from YAML to pgbouncer.ini and back, with a message for each invalid one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from .keys import LATER, VERSION, Key

# Blanks of C's isspace(), which PgBouncer uses; Python's strip() removes many more.
BLANKS = " \t\n\v\f\r"
# Looks like a comment, and PgBouncer reads it as part of the value.
_COMMENT = re.compile(r"(?:^|[ \t])[#;]")
# As C reads a whole number; a 0 before other digits would make it octal.
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})|0[xX][0-9a-fA-F]{1,15}")
_PLACEHOLDER = re.compile(r"\$\{|\{\{")


class PgbouncerConfigError(ValueError):
    """An intent or a file is invalid; the text is a message of one line for the sysadmin."""


def nearest(name: object, known: Iterable[str]) -> str:
    """Return the end of a message, with the known name that is most similar; empty when none is."""
    if name in LATER:
        return f"; only versions after {VERSION} know it."
    matches = difflib.get_close_matches(str(name).lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean “{matches[0]}”?" if matches else ""


def unknown(given: Iterable[object], known: Iterable[str]) -> list[object]:
    """Return the unknown names, in their order."""
    names = set(known)
    return [name for name in given if name not in names]


def unknown_message(name: object, known: Iterable[str], where: str) -> str:
    """Return the message for an unknown name, with the known name that is most similar."""
    hint = nearest(name, sorted(known)) or f"; known are {', '.join(sorted(known))}."
    return f"{where} has no setting “{name}”{hint}"


def refuse_unknown(given: Iterable[object], known: Iterable[str], where: str) -> None:
    """Raise PgbouncerConfigError for the first unknown name."""
    for name in unknown(given, known):
        raise PgbouncerConfigError(unknown_message(name, known, where))


def quoted(value: object) -> str:
    """Format a value for a message."""
    return f"“{value}”" if isinstance(value, str) else repr(value)


def type_name(value: object) -> str:
    """Return a value's type in words, for a message."""
    # By isinstance, because Ansible passes subclasses of its own; bool before int, of which it is a subclass.
    names = {bool: "true or false", int: "a number", str: "text", list: "a list", dict: "a mapping"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "another type")


def written(name: str, key: Key, value: object) -> str:
    """Format one value of an intent as PgBouncer reads it.

    :param name: name of the setting for a message.
    :raises PgbouncerConfigError: for a wrong type, or a value out of bounds.
    """
    if key.kind == "choice":
        if value not in key.choices:
            raise PgbouncerConfigError(
                f"{name} is {quoted(value)}, but it must be one of {', '.join(key.choices)}"
                + (nearest(value, key.choices) or ".")
            )
        return str(value)
    if key.kind == "boolean":
        if not isinstance(value, bool):
            raise PgbouncerConfigError(f"{name} is {quoted(value)}, but it must be true or false.")
        return "1" if value else "0"
    if key.kind in ("integer", "seconds"):
        return number(name, value, key.low, key.high, whole=key.kind == "integer")
    if key.kind == "octal":
        if not isinstance(value, str) or not re.fullmatch(r"0[0-7]{3}", value):
            raise PgbouncerConfigError(f"{name} is {quoted(value)}, but it must be text like “0770”.")
        return value
    return _names(name, value) if key.kind == "names" else _text(name, value)


def number(name: str, value: object, low: float, high: float, *, whole: bool) -> str:
    """Format a number.

    :raises PgbouncerConfigError: for another type, or a number out of bounds.
    """
    accepted = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, accepted):
        what = "a whole number" if whole else "a number of seconds"
        raise PgbouncerConfigError(f"{name} is {quoted(value)}, but it must be {what}.")
    if not low <= value <= high:
        raise PgbouncerConfigError(f"{name} is {value}, but it must be between {low} and {high}.")
    return str(value)


def _names(name: str, value: object) -> str:
    if isinstance(value, str) or not isinstance(value, Iterable) or isinstance(value, Mapping):
        raise PgbouncerConfigError(f"{name} is {quoted(value)}, but it must be a list of names.")
    names = list(value)
    for one in names:
        # PgBouncer splits at commas and blanks, and supports no quotation marks here.
        if not isinstance(one, str) or not re.fullmatch(r"[^\s,\x00-\x1f]+", one):
            raise PgbouncerConfigError(
                f"{name} contains {quoted(one)}, but a name must be text without blanks and commas."
            )
    return ", ".join(sorted(set(names)))


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise PgbouncerConfigError(f"{name} is {quoted(value)}, but it must be text.")
    # The value is not shown, because it may be a password.
    if value != value.strip(BLANKS):
        raise PgbouncerConfigError(f"{name} has blanks around it; remove them.")
    if re.search(r"[\x00-\x08\x0a-\x1f]", value):
        raise PgbouncerConfigError(f"{name}: text must be one line without control characters.")
    return value


def taken_literally(text: str, *, to_line_end: bool = True) -> str:
    """Return a message for a text that PgBouncer reads literally and that was probably not meant so; empty for others.

    The message continues after the setting's name, and contains nothing of the text, which may be secret.

    :param to_line_end: whether the text is the rest of its line.
    """
    if _PLACEHOLDER.search(text):
        return "contains a placeholder such as ${…} or {{ … }}, which PgBouncer reads literally; replace it."
    if to_line_end and _COMMENT.search(text):
        return "contains what looks like a comment; PgBouncer supports comments only on lines of their own."
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'`":
        return "is in quotation marks, which PgBouncer reads as part of the value; remove them."
    return ""


def understood(name: str, key: Key, text: str) -> object:
    """Parse one value of a pgbouncer.ini to a value of an intent; the reverse of `written`.

    :raises PgbouncerConfigError: when PgBouncer would refuse the value, or read it as another one than it looks like.
    """
    value: object = text
    if key.kind == "boolean":
        # PgBouncer reads a number, and every number but 0 is true.
        value = bool(int(text, 0)) if _WHOLE.fullmatch(text) else text
        if value is text:
            raise PgbouncerConfigError(f"{name} is “{text}”, but it must be 0 or 1.")
    elif key.kind == "integer":
        if re.fullmatch(r"0[0-9]+", text):
            raise PgbouncerConfigError(f"{name} is “{text}”, which PgBouncer reads as octal; remove the leading 0.")
        value = int(text, 0) if _WHOLE.fullmatch(text) else text
    elif key.kind == "seconds" and re.fullmatch(r"[0-9]{1,15}(\.[0-9]{0,9})?", text):
        value = float(text)
        value = int(value) if value.is_integer() else value
    elif key.kind == "octal" and re.fullmatch(r"[0-7]{3}", text):
        raise PgbouncerConfigError(f"{name} is “{text}”, which PgBouncer reads as decimal; write 0{text}.")
    elif key.kind == "choice":
        # PgBouncer ignores case in these words.
        value = next((choice for choice in key.choices if choice == text.lower()), text)
    elif key.kind == "names":
        value = sorted({one.strip(BLANKS) for one in re.split(f"[{key.separators}]+", text) if one.strip(BLANKS)})
    written(name, key, value)
    return value
