"""PgBouncer's configuration as a tool: render it, check it, size it, import it, and compare it with a running one.

Needs PyYAML, and psycopg2 for `diff` and `top`: run it with `.venv/bin/python scripts/pgbouncer-config …`, or after
`. .venv/bin/activate`. The pgbouncer role uses the same code.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pgbouncer_config import (
    POSTGRES_MAX_CONNECTIONS,
    SIZE_NUMBERS,
    VERSION,
    Circumstances,
    Configuration,
    Finding,
    PgbouncerConfigError,
    changes,
    check,
    check_intent,
    intent_of,
    pool_facts,
    pool_table,
    pools_of,
    read_ini,
    read_userlist,
    render_ini,
    render_userlist,
    running,
    size,
)

INTENT_HELP = """\
An intent holds PgBouncer's own settings by their own names, “databases”, and, if it is to be
rendered too, “users” (name: password). The least that works:

  databases:
    scratch4school: {host: /run/postgresql, port: 5432}

In place of default_pool_size, reserve_pool_size and max_client_conn it may give the numbers from
which they follow:

  capacity: {users: 100, slots: 2, workers: 4, threads: 8, max_connections: 100}

Where it is silent our defaults hold; with “defaults: pgbouncer” it is PgBouncer's own.
“user_settings” and “peers” are PgBouncer's sections [users] and [peers].
"""
# PostgreSQL reserves this many connections for superusers by default.
RESERVED = 3


def read_text(file: Path) -> str:
    """Read a file.

    :raises PgbouncerConfigError: when it cannot be read, or is not text in UTF-8.
    """
    try:
        # As bytes, because PgBouncer ends a line at a line feed only, and Python would also do so at a carriage return.
        content = file.read_bytes()
        return content.decode()
    except OSError as problem:
        raise PgbouncerConfigError(f"{file} cannot be read: {problem.strerror}.") from problem
    except UnicodeDecodeError as problem:
        line = content[: problem.start].count(b"\n") + 1
        raise PgbouncerConfigError(
            f"{file} is not text in UTF-8; see line {line}. Save the file in UTF-8."
        ) from problem


def yaml_tools() -> Any:
    """Import PyYAML; here, so that --help answers before scripts/setup has run."""
    try:
        import yaml
    except ImportError:
        raise PgbouncerConfigError(
            f"PyYAML is missing; run scripts/setup, then .venv/bin/python {sys.argv[0]}."
        ) from None
    return yaml


def read_intent(file: Path) -> tuple[dict[str, object], dict[tuple[str, ...], int]]:
    """Read the YAML of an intent, and the line of each of its settings.

    :raises PgbouncerConfigError: when it is missing, is not YAML or is not a mapping.
    """
    yaml = yaml_tools()
    text = read_text(file)
    try:
        intent = yaml.safe_load(text)
        lines = dict(lines_of(yaml, yaml.compose(text, Loader=yaml.SafeLoader), ()))
    except (yaml.YAMLError, ValueError) as problem:
        raise PgbouncerConfigError(f"{file} is not YAML: {' '.join(str(problem).split())}.") from problem
    if not isinstance(intent, dict):
        raise PgbouncerConfigError(f"{file} contains no names of settings; write each line as `name: value`.")
    return intent, lines


def lines_of(yaml: Any, node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    """The line of each key of a YAML, by its path."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            yield here, key.start_mark.line + 1
            yield from lines_of(yaml, value, here)


def read_file(file: Path) -> Configuration:
    """Read a pgbouncer.ini and the files that it includes; a path in it is relative to its folder."""
    return read_ini(read_text(file), str(file), lambda name: (file.parent / name).read_bytes().decode())


def write_if_different(file: Path, text: str, mode: int) -> bool:
    """Replace the file as a whole when text or mode differ, because PgBouncer may reload at any moment.

    Returns whether it was replaced.

    :raises PgbouncerConfigError: when its folder does not exist.
    """
    if file.is_dir():
        raise PgbouncerConfigError(f"{file} is a folder; write the path of a file.")
    if not file.parent.is_dir():
        raise PgbouncerConfigError(f"There is no folder {file.parent}. Create it, or write another path.")
    if file.is_file() and file.read_text(encoding="utf-8") == text and file.stat().st_mode & 0o777 == mode:
        return False
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
            os.fchmod(handle.fileno(), mode)
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True


def render(arguments: argparse.Namespace) -> int:
    """Write pgbouncer.ini, and userlist.txt when the intent names users, and print for each whether it changed."""
    intent, _ = read_intent(arguments.intent)
    users = intent.pop("users", None)
    # Both are rendered before one is written, so that an error in the second leaves both files as they were.
    files = [("pgbouncer.ini", render_ini(intent), 0o640)]
    if users is not None:
        files.append(("userlist.txt", render_userlist(users), 0o400))
    arguments.out.mkdir(parents=True, exist_ok=True)
    ini = arguments.out / "pgbouncer.ini"
    before = read_file(ini) if ini.is_file() else None
    for name, text, mode in files:
        changed = write_if_different(arguments.out / name, text, mode)
        print(f"{arguments.out / name}: {'written' if changed else 'unchanged'}")
    for change in changes(before, read_file(ini)) if before else ():
        print(f"  {change}")
    return 0


def findings_of(arguments: argparse.Namespace, file: Path) -> list[Finding]:
    """The errors and warnings of one file, an intent or a pgbouncer.ini."""
    room = arguments.max_connections and arguments.max_connections - RESERVED
    files = arguments.open_files or resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    around = Circumstances(None, "", room, files, open_files_known=arguments.open_files is not None)
    if file.suffix in (".yml", ".yaml"):
        intent, lines = read_intent(file)
        users = intent.pop("users", None)
        return check_intent(intent, str(file), lines, replace(around, users=users, userlist=str(file)))
    configuration = read_file(file)
    listed = arguments.userlist or Path(str(configuration.pooler.get("auth_file", "")))
    if not arguments.userlist and not (listed.is_absolute() and listed.is_file()):
        return check(configuration, around)
    users, findings = read_userlist(read_text(listed), str(listed))
    return findings + check(configuration, replace(around, users=users, userlist=str(listed)))


def check_files(arguments: argparse.Namespace) -> int:
    """Print errors and warnings; returns 1 when there is an error, or a warning with --strict."""
    findings = [finding for file in arguments.files for finding in findings_of(arguments, file)]
    for finding in findings:
        print(finding)
    errors = sum(finding.error for finding in findings)
    print(f"{errors} errors, {len(findings) - errors} warnings, for PgBouncer {VERSION}.", file=sys.stderr)
    return 1 if errors or (arguments.strict and findings) else 0


def choose_sizes(arguments: argparse.Namespace) -> int:
    """Print which numbers to choose, and how they follow from the given ones; returns 1 when they do not fit."""
    given = {name: getattr(arguments, name) for name in SIZE_NUMBERS if getattr(arguments, name) is not None}
    assumed = []
    if "max_connections" not in given:
        given["max_connections"] = POSTGRES_MAX_CONNECTIONS
        assumed.append(
            f"max_connections = {POSTGRES_MAX_CONNECTIONS}: PostgreSQL's default; "
            "give --max-connections if yours differs."
        )
    sizes = size(given)
    if arguments.json:
        result = {"numbers": sizes.numbers, "why": sizes.why, "assumed": assumed, "problems": sizes.problems}
        print(json.dumps(result, indent=2))
    else:
        print("\n".join([*assumed, *sizes.lines, *sizes.problems]))
    return 1 if sizes.problems else 0


def import_file(arguments: argparse.Namespace) -> int:
    """Print a pgbouncer.ini as an intent, with its comments."""
    yaml = yaml_tools()
    configuration = read_file(arguments.file)
    findings = check(configuration)
    intent = intent_of(configuration)
    if arguments.userlist:
        intent["users"], more = read_userlist(read_text(arguments.userlist), str(arguments.userlist))
        findings += more
    errors = [str(finding) for finding in findings if finding.error]
    if errors:
        raise PgbouncerConfigError("\n".join([*errors, f"nothing was imported; errors: {len(errors)}."]))
    render_ini({key: value for key, value in intent.items() if key != "users"})
    text = f"# What {arguments.file.name} said, as an intent for scripts/pgbouncer-config render.\n"
    for key, value in intent.items():
        text += as_comment(comments_of(configuration, key))
        text += yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=1000)
    text += as_comment(configuration.comments.get(("", "", ""), []))
    if arguments.out:
        # It may contain passwords, as the file does.
        write_if_different(arguments.out, text, 0o600)
        print(f"{arguments.out}: written")
    else:
        sys.stdout.write(text)
    return 0


def as_comment(lines: list[str]) -> str:
    """Write lines as a comment of YAML, where more characters than a line feed end a line."""
    printable = ("".join(one if one.isprintable() else " " for one in line) for line in lines)
    return "".join(f"# {line}".rstrip() + "\n" for line in printable)


def comments_of(configuration: Configuration, key: str) -> list[str]:
    """The comments above the settings of a key of the intent."""
    section = {"databases": "databases", "user_settings": "users", "peers": "peers"}.get(key)
    if section is None:
        return configuration.comments.get(("pgbouncer", "", key), [])
    return [line for place, lines in configuration.comments.items() if place[0] == section for line in lines]


@contextmanager
def console(address: str) -> Iterator[Callable[[str], list[Mapping[str, object]]]]:
    """Connect to PgBouncer's console; yields a function that runs one `SHOW …`.

    :raises PgbouncerConfigError: when it does not answer, or refuses the login.
    """
    try:
        import psycopg2
        import psycopg2.extras
    except ImportError:
        raise PgbouncerConfigError(
            f"psycopg2 is missing; run scripts/setup, then .venv/bin/python {sys.argv[0]}."
        ) from None
    try:
        connection = psycopg2.connect(f"dbname=pgbouncer connect_timeout=10 {address}")
        # The console knows no transactions.
        connection.autocommit = True
    except psycopg2.Error as problem:
        raise PgbouncerConfigError(
            f"PgBouncer's console cannot be reached: {' '.join(str(problem).split())}"
        ) from problem

    def show(what: str) -> list[Mapping[str, object]]:
        with connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            cursor.execute(f"SHOW {what}")
            return list(cursor.fetchall())

    try:
        yield show
    except psycopg2.Error as problem:
        raise PgbouncerConfigError(f"PgBouncer's console refused: {' '.join(str(problem).split())}") from problem
    finally:
        connection.close()


def compare(arguments: argparse.Namespace) -> int:
    """Print the differences between a running PgBouncer and a file; returns 1 when there are any."""
    configuration = read_file(arguments.file)
    with console(arguments.connect) as show:
        found = changes(running(show("CONFIG"), show("DATABASES"), configuration), configuration)
    for change in found:
        print(change)
    restarts = sum(change.restart for change in found)
    print(f"{len(found)} differences; {restarts} need a restart.", file=sys.stderr)
    return 1 if found else 0


def watch(arguments: argparse.Namespace) -> int:
    """Print the pools: again and again on a terminal, otherwise or with --once a single time."""
    with console(arguments.connect) as show:
        while True:
            pools = pools_of(show("POOLS"), show("STATS"), show("DATABASES"))
            if arguments.json:
                print(json.dumps(pool_facts(pools), indent=2))
                return 0
            lines = pool_table(pools)
            if arguments.once or not sys.stdout.isatty():
                print("\n".join(lines))
                return 0
            clear = "\033[H\033[2J"
            print(clear + time.strftime("%H:%M:%S %Z") + "\n" + "\n".join(lines), flush=True)
            try:
                time.sleep(arguments.every)
            except KeyboardInterrupt:
                return 0


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    root = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = root.add_subparsers(metavar="COMMAND", required=True)

    command = commands.add_parser(
        "render",
        help="write pgbouncer.ini and userlist.txt from an intent",
        epilog=INTENT_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("intent", type=Path, metavar="INTENT.yml", help="the YAML file of intent")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write; created when missing")
    command.set_defaults(run=render)

    command = commands.add_parser("check", help="list errors and unwise settings, with file and line")
    command.add_argument("files", type=Path, nargs="+", metavar="FILE", help="a pgbouncer.ini, or an intent (.yml)")
    command.add_argument("--userlist", type=Path, metavar="FILE", help="the userlist to read in place of auth_file")
    command.add_argument(
        "--max-connections", type=int, metavar="N", help="PostgreSQL's limit; 3 of them are for superusers"
    )
    command.add_argument(
        "--open-files",
        type=int,
        metavar="N",
        help="file descriptors that PgBouncer may have; without it this machine's hard limit is only warned of",
    )
    command.add_argument("--strict", action="store_true", help="exit with 1 for warnings, too")
    command.set_defaults(run=check_files)

    command = commands.add_parser("size", help="print which numbers to choose, and their calculation")
    for name, (meaning, usual) in SIZE_NUMBERS.items():
        taken = f"{POSTGRES_MAX_CONNECTIONS}, PostgreSQL's own" if name == "max_connections" else usual
        help_text = f"{meaning} (default: {taken})" if taken is not None else meaning
        command.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N", help=help_text)
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(run=choose_sizes)

    command = commands.add_parser("import", help="convert a pgbouncer.ini to an intent")
    command.add_argument("file", type=Path, metavar="PGBOUNCER.INI")
    command.add_argument("--userlist", type=Path, metavar="FILE", help="a userlist.txt, to become “users”")
    command.add_argument("--out", type=Path, metavar="INTENT.yml", help="where to write (default: to standard output)")
    command.set_defaults(run=import_file)

    for name, run, words in (
        ("diff", compare, "print the differences between a running PgBouncer and a file"),
        ("top", watch, "show the pools of a running PgBouncer"),
    ):
        command = commands.add_parser(name, help=words)
        if name == "diff":
            command.add_argument("file", type=Path, metavar="PGBOUNCER.INI")
        else:
            command.add_argument("--once", action="store_true", help="print once, then exit")
            command.add_argument("--json", action="store_true", help="once, as JSON")
            command.add_argument("--every", type=float, default=2.0, metavar="SECONDS", help="(default: %(default)s)")
        command.add_argument(
            "--connect",
            default="host=127.0.0.1 port=6432",
            metavar="ADDRESS",
            help="how to reach the console, as libpq reads it, with a user of admin_users or stats_users;"
            " the password is best left to PGPASSWORD (default: %(default)s)",
        )
        command.set_defaults(run=run)
    return root


def main() -> int:
    """Run the command; returns 0 when it was done, 1 after a refusal or a finding, 2 for a wrong command line."""
    arguments = parser().parse_args()
    try:
        return arguments.run(arguments)
    except (PgbouncerConfigError, OSError) as problem:
        *findings, refusal = str(problem).split("\n")
        print("\n".join([*findings, f"pgbouncer-config: {refusal}"]), file=sys.stderr)
        return 1
