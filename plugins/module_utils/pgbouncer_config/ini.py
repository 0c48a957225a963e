"""Reads pgbouncer.ini and userlist.txt as PgBouncer does, keeps which line said what, and goes on after a mistake."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from .keys import OLD_NAMES, SECTIONS
from .values import BLANKS, PgbouncerConfigError, nearest, taken_literally, understood

# What PgBouncer reads as a key; anything else before the “=” is a syntax error to it, quotation marks included.
KEY = re.compile(r"[A-Za-z0-9_.*-]*")
# Files that include one another are followed so deep.
DEEPEST = 10


@dataclass(frozen=True)
class Finding:
    """Something to say about one line.

    :param line: 1 for the first; 0 when it is about the whole.
    :param error: whether PgBouncer would not start, or nobody could come in; otherwise it is only unwise.
    """

    file: str
    line: int
    text: str
    error: bool = True

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {'error' if self.error else 'warning'}: {self.text}"


@dataclass
class Configuration:
    """What a file says.

    :param values: section → name → key → value as an intent gives it; in section `pgbouncer` the name is empty.
    :param places: (section, name, key) → file and line; with an empty key, where the name was first given.
    :param comments: (section, name, key) → the lines of comment above it; those at the end are above (“”, “”, “”).
    :param findings: what was wrong with it.
    """

    values: dict[str, dict[str, dict[str, object]]] = field(default_factory=lambda: {name: {} for name in SECTIONS})
    places: dict[tuple[str, str, str], tuple[str, int]] = field(default_factory=dict)
    comments: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def pooler(self) -> dict[str, object]:
        """What is said about the pooler as a whole."""
        return self.values["pgbouncer"].get("", {})

    def place(self, section: str, name: str = "", key: str = "") -> tuple[str, int]:
        """Give file and line of a setting, or the nearest there is."""
        for path in ((section, name, key), (section, name, ""), (section, "", "")):
            if path in self.places:
                return self.places[path]
        return (next(iter(self.places.values()), ("pgbouncer.ini", 0))[0], 0)

    def say(self, text: str, *path: str, error: bool = True) -> None:
        """Find something about a setting."""
        self.findings.append(Finding(*self.place(*path), text, error))


def read_ini(text: str, file: str = "pgbouncer.ini", include: Callable[[str], str] | None = None) -> Configuration:
    """Read the text of a pgbouncer.ini.

    :param file: what to call it.
    :param include: gives the text of a file that it includes, and raises OSError when there is none; None follows none.
    """
    configuration = Configuration()
    reader = _Reader(configuration, include)
    reader.read(text, file, 0)
    reader.end(file)
    return configuration


class _Reader:
    def __init__(self, configuration: Configuration, include: Callable[[str], str] | None) -> None:
        self.configuration = configuration
        self.include = include
        self.section: str | None = None
        self.comment: list[str] = []
        # The files that are being read, one from within the other.
        self.included: list[str] = []

    def read(self, text: str, file: str, depth: int) -> None:
        if text.startswith("\ufeff"):
            self._find(file, 1, "the file begins with a byte order mark, where PgBouncer stops; save it without one.")
        for index, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
            self._line(raw.strip(BLANKS), file, index, depth)

    def end(self, file: str) -> None:
        """Say what is missing once everything was read."""
        self._comment("", "", "")
        if ("pgbouncer", "", "") not in self.configuration.places:
            self._find(file, 0, "there is no section [pgbouncer], without which PgBouncer does not start.")

    def _find(self, file: str, line: int, text: str, *, error: bool = True) -> None:
        self.configuration.findings.append(Finding(file, line, text, error))

    def _line(self, line: str, file: str, index: int, depth: int) -> None:
        if not line:
            return
        if line[0] in "#;":
            self.comment.append(line.lstrip("#; "))
        elif included := re.match(r"%include[ \t]+(.*)", line):
            self._include(included.group(1), file, index, depth)
        elif line[0] == "[":
            name, closed, rest = line[1:].partition("]")
            if not closed:
                self._find(file, index, f"the section “{line}” has no closing “]”.")
                return
            self._enter(name, file, index)
            self._line(rest.strip(BLANKS), file, index, depth)
        else:
            self._setting(line, file, index)

    def _include(self, name: str, file: str, index: int, depth: int) -> None:
        if self.include is None:
            self._find(file, index, f"“{name}” is included, and was not read.", error=False)
        elif depth >= DEEPEST or name in self.included:
            self._find(file, index, f"“{name}” includes itself, or lies more than {DEEPEST} files deep.")
        else:
            try:
                text = self.include(name)
            except OSError as problem:
                self._find(file, index, f"“{name}” is included, but cannot be read: {problem.strerror}.")
                return
            except UnicodeDecodeError:
                self._find(file, index, f"“{name}” is included, but is not text in UTF-8.")
                return
            if not name.startswith("/"):
                elsewhere = f"“{name}” was found beside this file, but PgBouncer looks where it is started"
                self._find(file, index, f"{elsewhere}; write the whole path.", error=False)
            self.included.append(name)
            self.read(text, name, depth + 1)
            self.included.pop()

    def _enter(self, name: str, file: str, index: int) -> None:
        self.section = name
        if name not in SECTIONS:
            self._find(file, index, f"there is no section “{name}”{nearest(name, SECTIONS) or '.'}")
        elif (name, "", "") in self.configuration.places:
            again = name == "pgbouncer"
            _, before = self.configuration.places[name, "", ""]
            what = "; PgBouncer forgets what was said there" if again else ""
            self._find(file, index, f"the section “{name}” began in line {before} already{what}.", error=again)
        else:
            self.configuration.places[name, "", ""] = (file, index)

    def _setting(self, line: str, file: str, index: int) -> None:
        matched = KEY.match(line)
        name = matched.group() if matched else ""
        rest = line[len(name) :].lstrip(" \t")
        if not rest.startswith("="):
            self._find(file, index, f"“{line[:40]}” is no setting; write a name, “=” and a value.")
        elif self.section is None:
            self._find(file, index, f"“{name}” stands above all sections; begin with [databases] or [pgbouncer].")
        elif self.section == "pgbouncer":
            self._keep("", name, rest[1:].strip(BLANKS), file, index)
        elif self.section in SECTIONS:
            self._named(name, rest[1:].strip(BLANKS), file, index)
        self.comment = []

    def _named(self, name: str, text: str, file: str, index: int) -> None:
        """Take in a line of another section: a name and a connection string."""
        section = self.section or ""
        place = (section, name, "")
        pairs, problem = connection_pairs(text)
        if problem and not pairs and name in SECTIONS["pgbouncer"]:
            self._find(file, index, f"{name} is a setting of [pgbouncer], but stands in [{section}].")
            return
        if not name or ("*" in name and name != "*"):
            self._find(file, index, f"“{name}” is no name; only “*” by itself stands for all others.")
            return
        if place in self.configuration.places:
            _, before = self.configuration.places[place]
            self._find(file, index, f"“{name}” was given in line {before}; this line replaces that.", error=False)
        self.configuration.places[place] = (file, index)
        self.configuration.values[section][name] = {}
        self._comment(*place)
        former = ""
        for key, value in pairs:
            if former == "password" and key not in SECTIONS[section]:
                hint = "a password with blanks in it stands between two '."
                self._find(file, index, f"what follows the password of “{name}” is no setting; {hint}")
                break
            former = key
            if key in self.configuration.values[section][name]:
                self._find(file, index, f"{key} of “{name}” is given twice; the last counts.", error=False)
            self._keep(name, key, value, file, index)
        if problem:
            literal = taken_literally(text)
            self._find(file, index, f"“{name}”: {problem}" + (f" The line {literal}" if literal else ""))

    def _keep(self, name: str, key: str, text: str, file: str, index: int) -> None:
        section = self.section or ""
        known = SECTIONS[section]
        key = OLD_NAMES.get(section, {}).get(key, key)
        if key not in known:
            self._find(file, index, f"there is no setting “{key}” in [{section}]{nearest(key, known) or '.'}")
            return
        where = f"{key} of “{name}”" if name else key
        literal = taken_literally(text, to_line_end=not name)
        place = (section, name, key)
        if place in self.configuration.places and not name:
            _, before = self.configuration.places[place]
            self._find(file, index, f"{key} was given in line {before}; this line replaces it.", error=False)
        self.configuration.places[place] = (file, index)
        try:
            value = understood(key, known[key], text)
        except PgbouncerConfigError as problem:
            self._find(file, index, str(problem) + (f" It {literal}" if literal else ""))
            return
        if literal:
            # An address cannot have such in it, where a query may be meant so.
            self._find(file, index, f"{where} {literal}", error=key == "listen_addr")
        elif known[key].kind == "boolean" and text not in ("0", "1"):
            self._find(file, index, f"{key} is {text}, which is not 0 and so the same as 1 to PgBouncer.", error=False)
        self.configuration.values[section].setdefault(name, {})[key] = value
        if not name:
            self._comment(*place)

    def _comment(self, *place: str) -> None:
        # More than one where a setting is given twice.
        if self.comment:
            self.configuration.comments.setdefault((place[0], place[1], place[2]), []).extend(self.comment)
            self.comment = []


def connection_pairs(text: str) -> tuple[list[tuple[str, str]], str]:
    """Take a connection string apart.

    :return: the pairs, as far as they could be read, and a sentence about where it ended, or nothing.
    """
    pairs = []
    rest = text.strip(BLANKS)
    while rest:
        key, equals, rest = rest.partition("=")
        key = key.rstrip(" \t")
        if not equals or not key or " " in key:
            # What follows a value may be the rest of it, and that of a password is not shown.
            where = f"what follows {pairs[-1][0]}" if pairs else f"“{key}”"
            hint = "; a value with blanks in it stands between two '." if pairs else "."
            return pairs, f"{where} should be a name, “=” and a value{hint}"
        rest = rest.lstrip(" \t")
        if rest.startswith("'"):
            quotation = re.match(r"'((?:[^']|'')*)'", rest)
            if not quotation:
                return pairs, f"the quotation marks of {key} do not close; a ' inside of them is doubled."
            value, rest = quotation.group(1).replace("''", "'"), rest[quotation.end() :]
            if rest and rest[0] != " ":
                return pairs, f"after the quotation marks of {key} there must be a blank."
        else:
            value, _, rest = rest.partition(" ")
            if "\t" in value:
                return pairs, f"there is a tab in the value of {key}; PgBouncer ends one at a blank alone."
        if not value:
            return pairs, f"{key} has no value; leave it out."
        pairs.append((key, value))
        rest = rest.lstrip(" \t")
    return pairs, ""


def read_userlist(text: str, file: str = "userlist.txt") -> tuple[dict[str, str], list[Finding]]:
    """Read the text of a userlist.txt: name to password or secret, and what is wrong with it. No secret is told."""
    users: dict[str, str] = {}
    findings = []
    for index, raw in enumerate(text.split("\n"), 1):
        line = raw.strip(BLANKS)
        if not line or line[0] == ";":
            continue
        pair = re.match(r'"((?:[^"]|"")+)"[ \t]*"((?:[^"]|"")*)"', line)
        if not pair:
            findings.append(Finding(file, index, 'a line must be "name" "password", a " inside of them doubled.'))
            continue
        name, secret = (part.replace('""', '"') for part in pair.groups())
        if name in users:
            findings.append(Finding(file, index, f"“{name}” was given before; this line replaces it.", error=False))
        users[name] = secret
    return users, findings
