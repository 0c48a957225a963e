"""Writes PgBouncer's two files from an intent: the same text for the same intent, each number under its why."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from .check import Circumstances, check, contradictions
from .ini import Finding, read_ini
from .intent import NAMED, Line, named_of, settings_of
from .values import PgbouncerConfigError, quoted, type_name

HEADER = """\
; What PgBouncer reads. Rendered from a statement of intent: change that, not this file.
"""
# Where there is neither, PgBouncer logs to stderr and leaves being found to whoever started it.
CONTAINED = """\
; There is no logfile and no pidfile, because it runs in a container with a read-only file system and logs to stderr.
"""
# As versions before 1.24 call them, too.
SPELLING = {"databases": {"reserve_pool_size": "reserve_pool"}}


def render_ini(intent: Mapping[str, object]) -> str:
    """Return the text of pgbouncer.ini, whatever the order of the intent's keys.

    :raises PgbouncerConfigError: for an unknown key, a wrong value or a contradiction.
    """
    text = _text(settings_of(intent), named_of(intent))
    # What would be said of a file that somebody wrote by hand is said of this one, before it is one.
    for finding in contradictions(read_ini(text)):
        if finding.error:
            raise PgbouncerConfigError(finding.text)
    return text


def _text(settings: list[Line], sections: Mapping[str, Mapping[str, list[tuple[str, str]]]]) -> str:
    contained = not {"logfile", "pidfile"} & {line.key for line in settings}
    text = HEADER + (CONTAINED if contained else "") + "\n[databases]\n" + "".join(_named("databases", sections))
    for section in ("users", "peers"):
        if sections[section]:
            text += f"\n[{section}]\n" + "".join(_named(section, sections))
    text += "\n[pgbouncer]\n"
    for line in settings:
        text += f"; {line.why}\n{line.key} = {line.value}".rstrip(" ") + "\n"
    return text


def _named(section: str, sections: Mapping[str, Mapping[str, list[tuple[str, str]]]]) -> Iterator[str]:
    spelling = SPELLING.get(section, {})
    for name, pairs in sections[section].items():
        written = " ".join(f"{spelling.get(key, key)}={_connection_value(value)}" for key, value in pairs)
        yield f"{name} = {written}".rstrip(" ") + "\n"


def _connection_value(value: str) -> str:
    """Quote a value of a connection string; PgBouncer doubles single quotes inside single quotes, as SQL does."""
    return value if re.fullmatch(r"[A-Za-z0-9_./:@,*-]+", value) else "'" + value.replace("'", "''") + "'"


def render_userlist(users: Mapping[str, str]) -> str:
    """Return the text of userlist.txt from a mapping of user to password, or to a SCRAM secret as PostgreSQL stores it.

    A SCRAM secret lets clients in, but towards PostgreSQL it works only when PostgreSQL holds the very same secret.

    :raises PgbouncerConfigError: for names and secrets that PgBouncer would cut or misread; the secret is not shown.
    """
    if not isinstance(users, Mapping):
        raise PgbouncerConfigError(f"The users must be a mapping of name to password, not {type_name(users)}.")
    lines = []
    for name in sorted(users, key=str):
        secret = users[name]
        # PostgreSQL cuts names at 63 bytes, and PgBouncer reads lines of limited length.
        if not isinstance(name, str) or not 0 < len(name.encode()) <= 63 or re.search(r"[\x00-\x1f]", name):
            raise PgbouncerConfigError(f"The user name {quoted(name)} must be text on one line, of 1 to 63 bytes.")
        if not isinstance(secret, str) or not 0 < len(secret.encode()) <= 1024 or re.search(r"[\x00-\x1f]", secret):
            raise PgbouncerConfigError(f"The password of “{name}” must be text on one line, of 1 to 1024 bytes.")
        lines.append(f"{_userlist_string(name)} {_userlist_string(secret)}\n")
    return "".join(lines)


def _userlist_string(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def check_intent(
    intent: Mapping[str, object],
    file: str,
    lines: Mapping[tuple[str, ...], int],
    around: Circumstances | None = None,
) -> list[Finding]:
    """Give everything there is to say about an intent, by its own lines.

    :param lines: path in the intent → line of its file.
    """
    findings: list[Finding] = []

    def place(path: tuple[str, ...]) -> tuple[str, int]:
        known = [path[:length] for length in range(len(path), 0, -1) if path[:length] in lines]
        return (file, lines[known[0]] if known else 0)

    try:
        settings = settings_of(intent, lambda path, sentence: findings.append(Finding(*place(path), sentence)))
        sections = named_of(intent, lambda path, sentence: findings.append(Finding(*place(path), sentence)))
    except PgbouncerConfigError as problem:
        return [Finding(file, 0, str(problem))]
    configuration = read_ini(_text(settings, sections), file)
    said = {section: name for name, section in NAMED.items()}
    for section, name, key in list(configuration.places):
        path = (said[section], name, key) if section in said else (key if key in intent else "capacity",)
        configuration.places[section, name, key] = place(tuple(part for part in path if part))
    return sorted(
        dict.fromkeys([*findings, *check(configuration, around)]),
        key=lambda finding: (not finding.error, finding.line),
    )
