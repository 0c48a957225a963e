"""The command line: serve, upgrade the database's schema, import rows, verify a running service, sweep."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from . import config
from .config import EX_CONFIG
from .database import schema
from .database.database import DatabaseUnavailable

EX_PENDING = 1
EX_REFUSED = 3
EX_UNAVAILABLE = 69
EX_IOERR = 74
EX_TEMPFAIL = 75

_EPILOG = f"""\
exit status: 0 done; {EX_PENDING} a migration is pending, or a check failed; 2 wrong usage;
{EX_REFUSED} an unknown database; {EX_UNAVAILABLE} the database cannot be reached or refused; {EX_IOERR} a file
cannot be read or written; {EX_TEMPFAIL} another process holds a lock, try again;
{EX_CONFIG} the settings cannot be used.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    options = vars(_parser().parse_args(arguments))
    run: Callable[..., int] = options.pop("run")
    return run(**options)


def serve() -> int:
    """Check the settings, then become gunicorn."""
    settings = config.load_or_exit(config.load, os.environ)
    from .storage.file_store import FileStore

    # After a crash, half-received files belong to no request.
    FileStore(settings.uploads).clear_stale_incoming()
    # Workers sum their counters through files in this folder; a new one, because counters start with the service.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="scratch4school-metrics-", dir=_memory())
    os.umask(0o027)
    server = settings.server
    sys.stdout.flush()
    os.execv(  # noqa: S606
        sys.executable,
        [
            sys.executable,
            "-m",
            "gunicorn",
            "--config=python:scratch4school.gunicorn_conf",
            f"--bind={server.bind}",
            f"--workers={server.workers}",
            f"--threads={server.threads}",
            # A worker without a heartbeat for this long is replaced; with threads that is a stuck process, and no slow
            # upload. A stopping worker waits as long for the requests that it answers.
            f"--timeout={server.request_seconds}",
            f"--graceful-timeout={server.request_seconds}",
            # A process accepts a connection only when one of its threads is free. The others wait in the socket's one
            # queue, not in that of a process, where some waited four times as long as others (decision 0023).
            f"--worker-connections={server.threads}",
        ],
    )


def db_check() -> int:
    """Print the schema's revision and the newest one; 0 when nothing is pending."""
    settings = config.load_or_exit(config.load_database, os.environ)
    current, newest, done = schema.check(settings)
    print(f"current {current or 'none'}, head {newest}")
    return 0 if done else EX_PENDING


def db_current() -> int:
    """Print the schema's revision and nothing else; `none` for a database without one."""
    settings = config.load_or_exit(config.load_database, os.environ)
    print(schema.check(settings)[0] or "none")
    return 0


def db_plan(contract: bool) -> int:
    """Print what `db upgrade` would do."""
    settings = config.load_or_exit(config.load_database, os.environ)
    print("\n".join(schema.plan(settings, contract).lines()))
    return 0


def db_upgrade(contract: bool, patience: int) -> int:
    """Upgrade the schema to the revision that this release needs, with `contract` to the newest one."""
    settings = config.load_or_exit(config.load_database, os.environ)
    schema.upgrade(settings, say=lambda line: print(line, flush=True), contract=contract, patience=patience)
    return 0


def import_inspect() -> int:
    """Print what a source database holds, what is wrong with it, and which files it names, as JSON."""
    from .data_import import data_import

    old, _ = config.load_or_exit(config.load_import, os.environ)
    print(json.dumps(data_import.inspect(old), ensure_ascii=False))
    return 0


def import_transfer(cut: bool) -> int:
    """Make our database equal to the source database."""
    from .data_import import data_import

    data_import.transfer(*_both_databases(), cut, say=lambda line: print(line, flush=True))
    return 0


def import_compare(cut: bool) -> int:
    """Compare our database with the old one, row for row; 0 when there is no difference."""
    from .data_import import data_import

    found = data_import.compare(*_both_databases(), cut, say=lambda line: print(line, flush=True))
    for difference in found.named:
        print(f"DIFFERENT: {difference}")
    print(f"{sum(found.same.values()):,} rows are the same, {found.differences:,} differ")
    return EX_PENDING if found.differences else 0


def _both_databases() -> tuple[config.DatabaseSettings, config.DatabaseSettings]:
    old, new = config.load_or_exit(config.load_import, os.environ)
    if new is None:
        raise SystemExit(_fail(EX_CONFIG, "SCRATCH4SCHOOL_DATABASE_URL is missing; the old rows are imported into it."))
    return old, new


def verify(quick: bool) -> int:
    """Verify that the running service keeps its promises; 0 when all checks passed."""
    from .verification.verification import run

    return run(config.load_or_exit(config.load, os.environ), quick)


def sweep(grace_hours: int, dry_run: bool) -> int:
    """Remove unnamed files, excess saved versions and dead sessions; 0 when every due file was removed."""
    from .operations import sweep as sweeping

    return sweeping.run(config.load_or_exit(config.load, os.environ), grace_hours, dry_run)


def entry_point() -> None:
    """Run `main` as a program: an expected error becomes one line on standard error and an exit status."""
    try:
        status = main()
    except schema.SchemaRefused as error:
        status = _fail(EX_REFUSED, str(error))
    except schema.LockNotObtained as error:
        status = _fail(EX_TEMPFAIL, str(error))
    except DatabaseUnavailable as error:
        status = _fail(EX_UNAVAILABLE, f"The database cannot be reached: {error}")
    except OSError as error:
        status = _fail(EX_IOERR, f"{error.filename or 'A file'} cannot be read or written: {error.strerror}")
    except DBAPIError as error:
        # The driver's message names host and reason. The statement and its values must not be printed.
        first_line = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
        status = _fail(EX_UNAVAILABLE, f"The database cannot be reached or refused: {first_line}")
    raise SystemExit(status)


def _fail(status: int, message: str) -> int:
    print(f"scratch4school: {message}", file=sys.stderr)
    return status


def _memory() -> str | None:
    shared = Path("/dev/shm")  # noqa: S108
    return str(shared) if os.access(shared, os.W_OK) else None


def _hours(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError("type a whole number of hours, at least 1: a save in flight has no row yet")
    return int(text)


def _seconds(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 86_400:
        raise argparse.ArgumentTypeError("type a whole number of seconds, from 1 to 86400, such as 180")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scratch4school", description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("serve", help="serve requests until stopped").set_defaults(run=serve)
    verifier = commands.add_parser("verify", help="check that the running service keeps its promises")
    verifier.add_argument("--quick", action="store_true", help="the same checks at a small scale, in seconds")
    verifier.set_defaults(run=verify)
    sweeper = commands.add_parser("sweep", help="remove unnamed files, old versions and dead sessions")
    sweeper.add_argument("--dry-run", action="store_true", help="only print what would be removed")
    sweeper.add_argument(
        "--grace-hours",
        type=_hours,
        default=48,
        metavar="N",
        help="keep a file this long after it was first seen to be unnamed (default 48, at least 1)",
    )
    sweeper.set_defaults(run=sweep)
    importer = commands.add_parser("import", help="import rows from a database of the original, or of the other engine")
    steps = importer.add_subparsers(required=True, metavar="COMMAND")
    steps.add_parser(
        "inspect", help="print what the source database holds and what is wrong with it, as JSON"
    ).set_defaults(run=import_inspect)
    for name, run, text in (
        ("transfer", import_transfer, "make our rows those of the source database; may be repeated"),
        ("compare", import_compare, "compare both databases, row for row"),
    ):
        step = steps.add_parser(name, help=text)
        step.add_argument("--cut", action="store_true", help="cut values that are longer than their column")
        step.set_defaults(run=run)
    database = commands.add_parser("db", help="the database's schema").add_subparsers(required=True, metavar="COMMAND")
    database.add_parser("check", help="print current and newest revision").set_defaults(run=db_check)
    database.add_parser("current", help="print the current revision").set_defaults(run=db_current)
    planner = database.add_parser("plan", help="print what an upgrade would do; takes no lock")
    planner.set_defaults(run=db_plan)
    upgrader = database.add_parser("upgrade", help="upgrade the schema to the revision that this release needs")
    upgrader.add_argument(
        "--patience",
        type=_seconds,
        default=int(schema.PATIENCE_SECONDS),
        metavar="SECONDS",
        help=f"wait this long for tables in use (default {schema.PATIENCE_SECONDS:g})",
    )
    upgrader.set_defaults(run=db_upgrade)
    for command in (planner, upgrader):
        command.add_argument(
            "--contract", action="store_true", help="also apply contracts, which remove what only earlier releases used"
        )
    return parser
