"""Reads pgbouncer.ini and userlist.txt as PgBouncer does, with the place of each setting; continues after errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from .keys import OLD_NAMES, SECTIONS
from .values import BLANKS, PgbouncerConfigError, nearest, taken_literally, understood

# A key as PgBouncer reads it; anything else before the “=”, quotation marks included, is a syntax error.
KEY = re.compile(r"[A-Za-z0-9_.*-]*")
# The largest depth of included files.
DEEPEST = 10


@dataclass(frozen=True)
class Finding:
    """A message about one line.

    :param line: number of the line from 1; 0 for the whole file.
    :param error: True when PgBouncer would not start or would accept no client; False for a warning.
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
    """The contents of a file.

    :param values: section → name → key → value as in an intent; in section `pgbouncer` the name is empty.
    :param places: (section, name, key) → file and line; with an empty key, the first line of the name.
    :param comments: (section, name, key) → the comment lines above the setting; (“”, “”, “”) → those at the end.
    :param findings: the errors and warnings of reading.
    """

    values: dict[str, dict[str, dict[str, object]]] = field(default_factory=lambda: {name: {} for name in SECTIONS})
    places: dict[tuple[str, str, str], tuple[str, int]] = field(default_factory=dict)
    comments: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def pooler(self) -> dict[str, object]:
        """The settings of section [pgbouncer]."""
        return self.values["pgbouncer"].get("", {})

    def place(self, section: str, name: str = "", key: str = "") -> tuple[str, int]:
        """Return file and line of a setting, or of its name or section."""
        for path in ((section, name, key), (section, name, ""), (section, "", "")):
            if path in self.places:
                return self.places[path]
        return (next(iter(self.places.values()), ("pgbouncer.ini", 0))[0], 0)

    def say(self, text: str, *path: str, error: bool = True) -> None:
        """Add a finding about a setting."""
        self.findings.append(Finding(*self.place(*path), text, error))


def read_ini(text: str, file: str = "pgbouncer.ini", include: Callable[[str], str] | None = None) -> Configuration:
    """Read the text of a pgbouncer.ini.

    :param file: name of the file for findings.
    :param include: returns the text of an included file or raises OSError; None reads no included files.
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
        # The stack of included files that are being read.
        self.included: list[str] = []

    def read(self, text: str, file: str, depth: int) -> None:
        if text.startswith("\ufeff"):
            self._find(file, 1, "the file begins with a byte order mark, which PgBouncer rejects; save it without one.")
        for index, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
            self._line(raw.strip(BLANKS), file, index, depth)

    def end(self, file: str) -> None:
        """Add the findings about the whole, after all lines were read."""
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
            self._find(file, index, f"“{name}” includes itself, or is nested more than {DEEPEST} files deep.")
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
                elsewhere = f"“{name}” was found beside this file, but PgBouncer reads it from its working directory"
                self._find(file, index, f"{elsewhere}; write the absolute path.", error=False)
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
            what = "; PgBouncer forgets the settings above" if again else ""
            self._find(file, index, f"the section “{name}” already began in line {before}{what}.", error=again)
        else:
            self.configuration.places[name, "", ""] = (file, index)

    def _setting(self, line: str, file: str, index: int) -> None:
        matched = KEY.match(line)
        name = matched.group() if matched else ""
        rest = line[len(name) :].lstrip(" \t")
        if not rest.startswith("="):
            self._find(file, index, f"“{line[:40]}” is no setting; write a name, “=” and a value.")
        elif self.section is None:
            self._find(file, index, f"“{name}” is above all sections; begin with [databases] or [pgbouncer].")
        elif self.section == "pgbouncer":
            self._keep("", name, rest[1:].strip(BLANKS), file, index)
        elif self.section in SECTIONS:
            self._named(name, rest[1:].strip(BLANKS), file, index)
        self.comment = []

    def _named(self, name: str, text: str, file: str, index: int) -> None:
        """Read a line of another section: a name and a connection string."""
        section = self.section or ""
        place = (section, name, "")
        pairs, problem = connection_pairs(text)
        if problem and not pairs and name in SECTIONS["pgbouncer"]:
            self._find(file, index, f"{name} is a setting of [pgbouncer], but is in [{section}].")
            return
        if not name or ("*" in name and name != "*"):
            self._find(file, index, f"“{name}” is no name; only “*” by itself stands for all others.")
            return
        if place in self.configuration.places:
            _, before = self.configuration.places[place]
            self._find(file, index, f"“{name}” is set in line {before} too; this line replaces that one.", error=False)
        self.configuration.places[place] = (file, index)
        self.configuration.values[section][name] = {}
        self._comment(*place)
        previous = ""
        for key, value in pairs:
            if previous == "password" and key not in SECTIONS[section]:
                hint = "write a password with blanks between two '."
                self._find(file, index, f"what follows the password of “{name}” is no setting; {hint}")
                break
            previous = key
            if key in self.configuration.values[section][name]:
                self._find(file, index, f"{key} of “{name}” is set twice; the last one counts.", error=False)
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
            self._find(file, index, f"{key} is set in line {before} too; this line replaces that one.", error=False)
        self.configuration.places[place] = (file, index)
        try:
            value = understood(key, known[key], text)
        except PgbouncerConfigError as problem:
            self._find(file, index, str(problem) + (f" It {literal}" if literal else ""))
            return
        if literal:
            # An address cannot contain such characters; a query can.
            self._find(file, index, f"{where} {literal}", error=key == "listen_addr")
        elif known[key].kind == "boolean" and text not in ("0", "1"):
            self._find(file, index, f"{key} is {text}, which PgBouncer reads as 1; write 0 or 1.", error=False)
        self.configuration.values[section].setdefault(name, {})[key] = value
        if not name:
            self._comment(*place)

    def _comment(self, *place: str) -> None:
        # A setting that is set twice has two blocks of comment.
        if self.comment:
            self.configuration.comments.setdefault((place[0], place[1], place[2]), []).extend(self.comment)
            self.comment = []


def connection_pairs(text: str) -> tuple[list[tuple[str, str]], str]:
    """Split a connection string.

    :return: the pairs that could be read, and a message about the error; empty without one.
    """
    pairs = []
    rest = text.strip(BLANKS)
    while rest:
        key, equals, rest = rest.partition("=")
        key = key.rstrip(" \t")
        if not equals or not key or " " in key:
            # The text after a value is not shown, because it may be the rest of a password.
            where = f"what follows {pairs[-1][0]}" if pairs else f"“{key}”"
            hint = "; write a value with blanks between two '." if pairs else "."
            return pairs, f"{where} should be a name, “=” and a value{hint}"
        rest = rest.lstrip(" \t")
        if rest.startswith("'"):
            quotation = re.match(r"'((?:[^']|'')*)'", rest)
            if not quotation:
                return pairs, f"the quotation marks of {key} do not close; write '' for a ' inside them."
            value, rest = quotation.group(1).replace("''", "'"), rest[quotation.end() :]
            if rest and rest[0] != " ":
                return pairs, f"write a blank after the quotation marks of {key}."
        else:
            value, _, rest = rest.partition(" ")
            if "\t" in value:
                return pairs, f"there is a tab in the value of {key}; PgBouncer ends a value only at a blank."
        if not value:
            return pairs, f"{key} has no value; write one, or remove {key}."
        pairs.append((key, value))
        rest = rest.lstrip(" \t")
    return pairs, ""


def read_userlist(text: str, file: str = "userlist.txt") -> tuple[dict[str, str], list[Finding]]:
    """Read the text of a userlist.txt: passwords or secrets by name, and findings, which contain no secret."""
    users: dict[str, str] = {}
    findings = []
    for index, raw in enumerate(text.split("\n"), 1):
        line = raw.strip(BLANKS)
        if not line or line[0] == ";":
            continue
        pair = re.match(r'"((?:[^"]|"")+)"[ \t]*"((?:[^"]|"")*)"', line)
        if not pair:
            findings.append(Finding(file, index, 'a line must be "name" "password"; write "" for a " inside them.'))
            continue
        name, secret = (part.replace('""', '"') for part in pair.groups())
        if name in users:
            findings.append(Finding(file, index, f"“{name}” is set above too; this line replaces it.", error=False))
        users[name] = secret
    return users, findings
