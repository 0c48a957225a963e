"""Renders pgbouncer.ini and userlist.txt from an intent: always the same text, with a reason above each value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from .check import Circumstances, check, contradictions
from .ini import Finding, read_ini
from .intent import NAMED, Line, named_of, settings_of
from .values import PgbouncerConfigError, quoted, type_name

HEADER = """\
; PgBouncer's configuration. Rendered from an intent: change the intent, not this file.
"""
# Added when the intent has neither logfile nor pidfile.
CONTAINED = """\
; No logfile and no pidfile, because PgBouncer runs in a container with a read-only file system and logs to stderr.
"""
# Names that versions before 1.24 know too.
SPELLING = {"databases": {"reserve_pool_size": "reserve_pool"}}


def render_ini(intent: Mapping[str, object]) -> str:
    """Return the text of pgbouncer.ini, independent of the order of the intent's keys.

    :raises PgbouncerConfigError: for an unknown key, a wrong value or a contradiction.
    """
    text = _text(settings_of(intent), named_of(intent))
    # The rendered text gets the same checks as a file that a sysadmin wrote.
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
    """Return the text of userlist.txt from passwords by user, or from SCRAM secrets as PostgreSQL stores them.

    With a SCRAM secret clients can log in; PgBouncer can log in to PostgreSQL only if PostgreSQL has the same secret.

    :raises PgbouncerConfigError: for names and secrets that PgBouncer would truncate or misread; without the secret.
    """
    if not isinstance(users, Mapping):
        raise PgbouncerConfigError(f"The users must be a mapping of name to password, not {type_name(users)}.")
    lines = []
    for name in sorted(users, key=str):
        secret = users[name]
        # PostgreSQL truncates names at 63 bytes, and PgBouncer reads lines of limited length.
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
    """Return all findings about an intent, with the lines of its own file.

    :param lines: path in the intent → line of its file.
    """
    findings: list[Finding] = []

    def place(path: tuple[str, ...]) -> tuple[str, int]:
        known = [path[:length] for length in range(len(path), 0, -1) if path[:length] in lines]
        return (file, lines[known[0]] if known else 0)

    try:
        settings = settings_of(intent, lambda path, message: findings.append(Finding(*place(path), message)))
        sections = named_of(intent, lambda path, message: findings.append(Finding(*place(path), message)))
    except PgbouncerConfigError as problem:
        return [Finding(file, 0, str(problem))]
    configuration = read_ini(_text(settings, sections), file)
    own = {section: name for name, section in NAMED.items()}
    for section, name, key in list(configuration.places):
        path = (own[section], name, key) if section in own else (key if key in intent else "capacity",)
        configuration.places[section, name, key] = place(tuple(part for part in path if part))
    return sorted(
        dict.fromkeys([*findings, *check(configuration, around)]),
        key=lambda finding: (not finding.error, finding.line),
    )
