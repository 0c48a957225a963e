"""The verification at the end of a deployment: six checks of the running service, one line each.

It is safe on a production system: it opens at most a hundred connections for some seconds. The ids of its users begin
with `verify-`. It removes all their data afterwards, also after a failed check or a SIGTERM. The quick
verification runs the same checks at a small scale, in some three seconds.
"""

import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from ..config import EX_CONFIG, Settings
from ..database.database import Database, DatabaseUnavailable
from ..storage.file_store import FileStore
from . import checks, visitors
from .checks import CheckFailed
from .stage import FULL, QUICK, Stage, Stopped


def run(settings: Settings, quick: bool = False) -> int:
    """Run all checks and print their results; returns 0 when all passed and nothing was left behind."""
    if settings.verification.url is None:
        print("scratch4school: SCRATCH4SCHOOL_VERIFY_URL is missing.", file=sys.stderr)
        return EX_CONFIG
    scale = QUICK if quick else FULL
    # One connection for each login at once, and two for the last check beside them: one locks, one sees which waits.
    database = Database(settings.database, connections=scale.logins + 2)
    stage = Stage(settings, database, FileStore(settings.uploads), settings.verification.url, scale)
    # No request is interrupted: the service would go on with it after its user is removed.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stage.stop())
    passed, clean = 0, True
    try:
        visitors.remove_leftovers(database, stage.store)
        for has_passed in _run_all(stage):
            passed += has_passed
    except Stopped:
        print("stopped", flush=True)
        print("scratch4school: the verification was stopped before its end.", file=sys.stderr)
    except DatabaseUnavailable as error:
        print(f"scratch4school: the database cannot be reached: {error}", file=sys.stderr)
    finally:
        clean = _clean_up(stage)
        database.dispose()
    print(f"Results: {passed} passed, {len(checks.ALL) - passed} failed", flush=True)
    return 0 if passed == len(checks.ALL) and clean else 1


def _run_all(stage: Stage) -> Iterator[bool]:
    """Run the checks, print a line for each, and yield whether it passed."""
    # The last check waits for seconds until the service gives up a save. So it starts with the first one; they do not
    # affect each other, because each check has its own users.
    with ThreadPoolExecutor(1) as beside:
        last = beside.submit(_outcome, checks.ALL[-1], stage)
        for position, check in enumerate(checks.ALL, start=1):
            print(f"[{position}/{len(checks.ALL)}] {check.line(stage.scale)} … ", end="", flush=True)
            has_passed, verdict = last.result() if check is checks.ALL[-1] else _outcome(check, stage)
            print(verdict, flush=True)
            yield has_passed


def _outcome(check: checks.Check, stage: Stage) -> tuple[bool, str]:
    """Whether the check passed, and the end of its line."""
    started = time.monotonic()
    try:
        remark = check.run(stage)
    except CheckFailed as error:
        problem = str(error)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
    else:
        return True, f"passed ({time.monotonic() - started:.1f} s){f', {remark}' if remark else ''}"
    return False, f"FAILED ({time.monotonic() - started:.1f} s): {problem}"


def _clean_up(stage: Stage) -> bool:
    try:
        visitors.remove_run(stage.database, stage.store, stage.run_id)
    except Exception as error:
        print(
            f"scratch4school: the temporary users of run {stage.run_id} could not all be removed "
            f"({type(error).__name__}); a verification an hour from now removes them.",
            file=sys.stderr,
        )
        return False
    return True
