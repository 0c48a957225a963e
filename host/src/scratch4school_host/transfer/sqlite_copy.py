"""Makes a consistent copy of a SQLite database while another program may write to it; nothing is written at the source.

SQLite's own backup would make files beside a database in WAL mode. So this module copies the files under the lock that
readers take (https://www.sqlite.org/lockingv3.html, https://www.sqlite.org/fileformat2.html#walformat).

With a rollback journal, no program changes the database under that lock. With a write-ahead log, a writer goes on. If
it restarted the log during the copying, the copy is repeated.
"""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ..errors import OperatorError

MAGIC = b"SQLite format 3\0"
PENDING_BYTE = 0x40000000
SHARED_FIRST = PENDING_BYTE + 2
SHARED_SIZE = 510
LOCK_SECONDS = 30
TRIES = 5
# Two numbers in the header of the write-ahead log that change when the log is restarted.
WAL_SALTS = slice(12, 24)


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy a database, with its write-ahead log or rollback journal, into one file.

    :raises OperatorError: when it is damaged, is locked for LOCK_SECONDS, or its log is restarted during all TRIES.
    """
    for _ in range(TRIES):
        log_before = _log(source)
        with _shared(source) as reading:
            # Read from the file that has the lock: closing another descriptor in this process would release the lock.
            with target.open("wb") as writing:
                shutil.copyfileobj(reading, writing, 1 << 20)
            for ending in ("-journal", "-wal"):
                part = target.with_name(target.name + ending)
                part.unlink(missing_ok=True)
                with suppress(FileNotFoundError):
                    shutil.copyfile(source.with_name(source.name + ending), part)
        if _log(source) == log_before:
            break
    else:
        raise OperatorError(
            f"{source} is written to all the time; stop the old service for a moment, or try again later."
        )
    _merge_log(source, target)


def _log(source: Path) -> bytes:
    try:
        with source.with_name(f"{source.name}-wal").open("rb") as log:
            return log.read(32)[WAL_SALTS]
    except FileNotFoundError:
        return b""


@contextmanager
def _shared(source: Path) -> Iterator[IO[bytes]]:
    """Take SQLite's SHARED lock during a block; yields the opened database."""
    with source.open("rb", buffering=0) as opened:
        _take(opened, 1, PENDING_BYTE, source)
        try:
            _take(opened, SHARED_SIZE, SHARED_FIRST, source)
        finally:
            fcntl.lockf(opened, fcntl.LOCK_UN, 1, PENDING_BYTE)
        yield opened


def _take(opened: IO[bytes], length: int, start: int, source: Path) -> None:
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.lockf(opened, fcntl.LOCK_SH | fcntl.LOCK_NB, length, start)
        except OSError as problem:
            if time.monotonic() > end:
                raise OperatorError(
                    f"{source} is locked by the program that writes to it, for more than {LOCK_SECONDS} seconds; stop "
                    "the old service, or try again later."
                ) from problem
            time.sleep(0.01)
        else:
            return


def _merge_log(source: Path, target: Path) -> None:
    """Merge log and rollback journal into the copy, so that one file is left, and check its integrity."""
    try:
        copy = sqlite3.connect(target)
        try:
            copy.execute("PRAGMA journal_mode = DELETE")
            verdict = copy.execute("PRAGMA integrity_check(1)").fetchone()[0]
        finally:
            copy.close()
    except sqlite3.Error as problem:
        verdict = str(problem)
    if verdict != "ok":
        raise OperatorError(f"{source} is damaged ({verdict}). Repair it, or use an undamaged backup of it.")
