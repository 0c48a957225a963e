"""A consistent copy of a SQLite database that somebody may be writing to, without a write beside it or to it.

SQLite's own backup would make files beside a database in WAL mode. So the files are copied, under the lock that readers
take (https://www.sqlite.org/lockingv3.html, https://www.sqlite.org/fileformat2.html#walformat): with a rollback journal
nobody changes the database while it is held. With a write-ahead log they may go on; then it is looked whether the log
began anew meanwhile, and if so all is copied once more.
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

from scratch4school_backup.base import Problem

MAGIC = b"SQLite format 3\0"
PENDING_BYTE = 0x40000000
SHARED_FIRST = PENDING_BYTE + 2
SHARED_SIZE = 510
LOCK_SECONDS = 30
TRIES = 5
# Of the log's header: two numbers that change when it begins anew.
WAL_SALTS = slice(12, 24)


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy the database as it was in one moment into one file; Problem when it cannot be, or is damaged."""
    for _ in range(TRIES):
        log_before = _log(source)
        with _shared(source) as reading:
            # By what holds the lock: to close the file anywhere in this process would give the lock back.
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
        raise Problem(f"{source} is written to all the time; stop the old service for a moment, or try again later.")
    _settle(source, target)


def _log(source: Path) -> bytes:
    try:
        with source.with_name(f"{source.name}-wal").open("rb") as log:
            return log.read(32)[WAL_SALTS]
    except FileNotFoundError:
        return b""


@contextmanager
def _shared(source: Path) -> Iterator[IO[bytes]]:
    """Hold SQLite's lock of readers, as SQLite itself takes it; yields the database, opened."""
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
                raise Problem(
                    f"{source} is locked by whoever writes to it, for more than {LOCK_SECONDS} seconds; stop the old "
                    "service, or try again later."
                ) from problem
            time.sleep(0.01)
        else:
            return


def _settle(source: Path, target: Path) -> None:
    """Take what log and journal hold into the copy, leave one file, and see that it is whole."""
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
        raise Problem(f"{source} is damaged ({verdict}). Repair it, or take a backup of it that is whole.")
