"""What one value may be: as YAML gives it, as pgbouncer.ini writes it, and what is said when it is neither."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from .keys import LATER, VERSION, Key

# What C's isspace() takes for a blank, as PgBouncer does; Python knows many more.
BLANKS = " \t\n\v\f\r"
# A comment to whoever wrote it, and to PgBouncer a part of the value.
_COMMENT = re.compile(r"(?:^|[ \t])[#;]")
# As C reads it; 0 before other digits makes it octal.
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})|0[xX][0-9a-fA-F]{1,15}")
_PLACEHOLDER = re.compile(r"\$\{|\{\{")


class PgbouncerConfigError(ValueError):
    """Something cannot be rendered, read or added up; the text is one sentence for the operator."""


def nearest(name: object, known: Iterable[str]) -> str:
    """Say which known name was probably meant, as the end of a sentence; empty when nothing is near."""
    if name in LATER:
        return f"; versions after {VERSION} know it."
    matches = difflib.get_close_matches(str(name).lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean “{matches[0]}”?" if matches else ""


def unknown(given: Iterable[object], known: Iterable[str]) -> list[object]:
    """Give the names that are not known, in their order."""
    names = set(known)
    return [name for name in given if name not in names]


def unknown_sentence(name: object, known: Iterable[str], where: str) -> str:
    """Say that a name is not known, and which one was probably meant."""
    hint = nearest(name, sorted(known)) or f"; known are {', '.join(sorted(known))}."
    return f"{where} has no setting “{name}”{hint}"


def refuse_unknown(given: Iterable[object], known: Iterable[str], where: str) -> None:
    """Refuse the first name that is not known.

    :raises PgbouncerConfigError: with the name that was probably meant.
    """
    for name in unknown(given, known):
        raise PgbouncerConfigError(unknown_sentence(name, known, where))


def quoted(value: object) -> str:
    """Show a value that was given, inside a sentence."""
    return f"“{value}”" if isinstance(value, str) else repr(value)


def type_name(value: object) -> str:
    """Say what kind of thing was given, inside a sentence."""
    # Ansible hands over its own subclasses, so the built-in types are asked for by isinstance; bool comes before int.
    names = {bool: "true or false", int: "a number", str: "text", list: "a list", dict: "a mapping"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "nothing of use")


def written(name: str, key: Key, value: object) -> str:
    """Write one value of an intent as PgBouncer reads it.

    :param name: what to call it in a refusal.
    :raises PgbouncerConfigError: when it is of another kind, or outside of its bounds.
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
    """Write a number.

    :raises PgbouncerConfigError: when it is none, or outside of its bounds.
    """
    accepted = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, accepted):
        what = "a whole number" if whole else "a number of seconds"
        raise PgbouncerConfigError(f"{name} is {quoted(value)}, but it must be {what}.")
    if not low <= value <= high:
        raise PgbouncerConfigError(f"{name} is {value}, but it must lie between {low} and {high}.")
    return str(value)


def _names(name: str, value: object) -> str:
    if isinstance(value, str) or not isinstance(value, Iterable) or isinstance(value, Mapping):
        raise PgbouncerConfigError(f"{name} is {quoted(value)}, but it must be a list of names.")
    names = list(value)
    for one in names:
        # PgBouncer splits at commas and blanks and knows no quoting here.
        if not isinstance(one, str) or not re.fullmatch(r"[^\s,\x00-\x1f]+", one):
            raise PgbouncerConfigError(
                f"{name} holds {quoted(one)}, but a name must be text without blanks and commas."
            )
    return ", ".join(sorted(set(names)))


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise PgbouncerConfigError(f"{name} is {quoted(value)}, but it must be text.")
    # Not shown, for it may be a password.
    if value != value.strip(BLANKS):
        raise PgbouncerConfigError(f"{name} has blanks around it; leave them out.")
    if re.search(r"[\x00-\x08\x0a-\x1f]", value):
        raise PgbouncerConfigError(f"{name}: text must be one line without control characters.")
    return value


def taken_literally(text: str, *, to_line_end: bool = True) -> str:
    """Say what of a text PgBouncer takes as it stands and whoever wrote it hardly meant so; empty when nothing is.

    The sentence goes on after the setting's name, and holds nothing of the text, which may be secret.

    :param to_line_end: whether the text is all that follows on its line.
    """
    if _PLACEHOLDER.search(text):
        return "holds a placeholder such as ${…} or {{ … }}, which PgBouncer takes as it stands; fill it in first."
    if to_line_end and _COMMENT.search(text):
        return "holds what looks like a comment; PgBouncer knows comments only on lines of their own."
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'`":
        return "stands in quotation marks, which are a part of it to PgBouncer; leave them out."
    return ""


def understood(name: str, key: Key, text: str) -> object:
    """Read one value of a pgbouncer.ini as an intent would give it; the reverse of `written`.

    :raises PgbouncerConfigError: when PgBouncer would refuse it, or take it for something else than it looks like.
    """
    value: object = text
    if key.kind == "boolean":
        # A number to PgBouncer, of which it asks whether it is 0.
        value = bool(int(text, 0)) if _WHOLE.fullmatch(text) else text
        if value is text:
            raise PgbouncerConfigError(f"{name} is “{text}”, but it must be 0 or 1.")
    elif key.kind == "integer":
        if re.fullmatch(r"0[0-9]+", text):
            # Read as octal, to be exact.
            raise PgbouncerConfigError(f"{name} is “{text}”: for PgBouncer a leading 0 makes another number; omit it.")
        value = int(text, 0) if _WHOLE.fullmatch(text) else text
    elif key.kind == "seconds" and re.fullmatch(r"[0-9]{1,15}(\.[0-9]{0,9})?", text):
        value = float(text)
        value = int(value) if value.is_integer() else value
    elif key.kind == "octal" and re.fullmatch(r"[0-7]{3}", text):
        raise PgbouncerConfigError(f"{name} is “{text}”: for PgBouncer that is a decimal number; write 0{text}.")
    elif key.kind == "choice":
        # PgBouncer does not mind capitals in these words.
        value = next((choice for choice in key.choices if choice == text.lower()), text)
    elif key.kind == "names":
        value = sorted({one.strip(BLANKS) for one in re.split(f"[{key.separators}]+", text) if one.strip(BLANKS)})
    written(name, key, value)
    return value
