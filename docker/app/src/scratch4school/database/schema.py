"""The database's schema: its current revision, the revision that this release needs, and the upgrade to it.

Migrations expand and contract. An expand is applied while the previous release is live, and that release also works on
the new schema after a rollback. A contract removes what only earlier releases used. It is applied only on request, and
until then no newer revision may depend on it.

Migrations connect to PostgreSQL directly. Their advisory lock and their role belong to a session, which does not exist
with PgBouncer's transaction pooling.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from itertools import chain, repeat, takewhile
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from ..config import DatabaseSettings
from .driver_errors import retry_reason
from .engine import make_engine
from .legacy_schema import SchemaRefused, recognise
from .lock_watch import LockWatch

# Longer than a transaction of a minute, as a dump or a person at a console may have.
PATIENCE_SECONDS = 180.0

_SCRIPTS = Path(__file__).parent / "migrations"
# An arbitrary number; every release must use the same one.
_ADVISORY_LOCK = 7_234_205_118
# Later statements queue behind a waiting one, so pupils may wait this long at each try. It is more than PostgreSQL's
# deadlock_timeout of a second, because only after that does a blocking autovacuum give way.
_LOCK_TIMEOUT = "2s"
# Between the tries pupils can save. The last pause is repeated.
_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)


class LockNotObtained(Exception):
    """Another migration, or a long transaction, blocked this one for too long; no revision is half applied."""


def current_revision(connection: Connection) -> str | None:
    """The revision that Alembic recorded in the database; None when there is none."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.scalar(sa.text("SELECT version_num FROM alembic_version"))


def head() -> str:
    """The newest revision that this release knows."""
    return _revisions()[-1].revision


def needed() -> str:
    """The revision that this release needs at least: its last expand. A contract only removes."""
    return next(script.revision for script in reversed(_revisions()) if kind(script) == "expand")


def is_acceptable(revision: str | None) -> bool:
    """Whether this release works with the database at `revision`.

    A newer revision is accepted: schemas expand first and contract later, so a release also works on the schema of its
    successor. That makes a rollback a change of images only. Revision ids are numbers, so that they can be compared.
    """
    return revision is not None and revision.isdigit() and int(revision) >= int(needed())


def kind(revision: Script) -> str:
    """Whether a revision is an "expand" or a "contract", as its module says."""
    return str(revision.module.kind)


def check(settings: DatabaseSettings) -> tuple[str | None, str, bool]:
    """The current revision, the newest, and whether this release works; takes no lock. SchemaRefused if unknown."""
    with _engine(settings) as engine, engine.connect() as connection:
        current = current_revision(connection)
        if current is None:
            recognise(connection)
        _refuse_foreign(current)
        return current, head(), is_acceptable(current)


@dataclass(frozen=True)
class Plan:
    """The plan of an upgrade: apply `pending` to `current` (None: empty database), and leave `waiting` contracts."""

    current: str | None
    pending: tuple[Script, ...]
    waiting: tuple[Script, ...]

    def lines(self) -> list[str]:
        """The plan as text."""
        lines = [f"The database is at revision {self.current or 'none'}; this release needs {needed()}."]
        lines += [f"Would apply revision {described(script)}" for script in self.pending]
        lines += [_waiting_line(script) for script in self.waiting]
        return lines if self.pending else [*lines, "Nothing to do."]


def plan(settings: DatabaseSettings, contract: bool = False) -> Plan:
    """The plan of `upgrade` at this moment; takes no lock. SchemaRefused where `upgrade` would refuse."""
    with _engine(settings) as engine, engine.connect() as connection:
        current = current_revision(connection)
        _refuse_foreign(current)
        return _plan(recognise(connection) if current is None else current, contract)


def described(script: Script) -> str:
    """A revision in one line: its number, kind and description."""
    return f"{script.revision} ({kind(script)}): {script.doc}"


def upgrade(
    settings: DatabaseSettings,
    say: Callable[[str], None],
    contract: bool = False,
    patience: float = PATIENCE_SECONDS,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Apply the pending revisions, each in a transaction of its own, and report each step by `say`.

    Contracts are applied when `contract` is set, and on an empty database, which no earlier release ever used. The plan
    takes no lock. Then an advisory lock admits one migration at a time, and each statement waits at most two seconds
    for the tables. So a long query delays the migration by at most `patience` seconds, and pupils never wait longer
    behind it. SchemaRefused, LockNotObtained and database errors leave the schema at the last reported revision.
    """
    ahead = plan(settings, contract)
    if ahead.pending:
        with _engine(settings) as engine, _only_one(engine, pause, patience) as lock_holder:
            steps = _Upgrade(engine, lock_holder, say, contract or ahead.current is None)
            while (step := _patiently(steps, say, pause, patience)) is not None:
                say(f"Now at revision {step}.")
    else:
        say(f"The database is at revision {ahead.current}; nothing to do (newest known: {head()}).")
    for script in ahead.waiting:
        say(_waiting_line(script))


def _plan(current: str | None, contract: bool) -> Plan:
    later = tuple(script for script in _revisions() if current is None or script.revision > current)
    if contract or current is None:
        return Plan(current, later, ())
    pending = tuple(takewhile(lambda script: kind(script) == "expand", later))
    waiting = later[len(pending) :]
    behind = [script.revision for script in waiting if kind(script) == "expand"]
    if behind:
        raise SchemaRefused(
            f"Revision {behind[0]} (expand) comes after {waiting[0].revision} (contract), which runs only when it is "
            "asked for. When no kept release needs the old schema any more, run `scratch4school db upgrade "
            "--contract`."
        )
    return Plan(current, pending, waiting)


def _waiting_line(script: Script) -> str:
    return f"Waits until `scratch4school db upgrade --contract` asks for it: revision {described(script)}"


def _refuse_foreign(revision: str | None) -> None:
    if revision is not None and not revision.isdigit():
        raise SchemaRefused(
            f"The database is at the Alembic revision {revision[:40]!r}, which is no revision of this application; "
            "another program's migrations ran on it."
        )


@dataclass
class _Upgrade:
    """The steps of one upgrade, and the sessions that blocked the last one."""

    engine: Engine
    # The connection with the advisory lock, which also asks what blocks a step; None on SQLite.
    lock_holder: Connection | None
    say: Callable[[str], None]
    contract: bool
    blockers: list[str] = field(default_factory=list)

    def step(self) -> str | None:
        """Apply the next pending revision and return it; None when there is none."""
        self.blockers = []
        with self.engine.begin() as connection, self._watched(connection) as watch:
            try:
                return self._apply_next(connection)
            finally:
                if watch is not None:
                    self.blockers = watch.holders

    def _watched(self, connection: Connection) -> LockWatch | nullcontext[None]:
        if self.lock_holder is None:
            return nullcontext()
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
        return LockWatch(self.lock_holder, connection.scalar(sa.select(sa.func.pg_backend_pid())) or 0)

    def _apply_next(self, connection: Connection) -> str | None:
        current = current_revision(connection)
        if current is None and (recognised := recognise(connection)) is not None:
            self.say(f"The database has no Alembic revision; by columns and keys it is at revision {recognised}.")
            command.stamp(_alembic(connection), recognised)
            current = recognised
        _refuse_foreign(current)
        pending = _plan(current, self.contract).pending
        if not pending:
            return None
        self.say(f"Applying revision {described(pending[0])}")
        command.upgrade(_alembic(connection), pending[0].revision)
        if self.lock_holder is None:
            _refuse_broken_references(connection)
        return pending[0].revision


def _patiently(
    steps: _Upgrade, say: Callable[[str], None], pause: Callable[[float], None], patience: float
) -> str | None:
    """Apply the next revision and return it; try again with growing pauses while the tables are in use."""
    give_up = time.monotonic() + patience
    for seconds in chain(_PAUSES, repeat(_PAUSES[-1])):
        try:
            return steps.step()
        except DBAPIError as error:
            reason = retry_reason(error)
            if reason in (None, "disconnect"):
                raise
            blocked_by = f" In the way: {'; '.join(steps.blockers)}." if steps.blockers else ""
            left = give_up - time.monotonic()
            if left <= 0:
                raise LockNotObtained(
                    f"The tables stayed in use for {patience:g} s, and this revision is not applied.{blocked_by} "
                    "End the session that blocks it, or wait until it ends, and try again."
                ) from error
            say(f"The tables are in use ({reason}); trying again in {min(seconds, left):.0f} s.{blocked_by}")
        pause(min(seconds, left))
    raise AssertionError("unreachable: the pauses never end")


@contextmanager
def _only_one(engine: Engine, pause: Callable[[float], None], patience: float) -> Iterator[Connection | None]:
    """Take the advisory lock of migrations, on the yielded connection; on SQLite each step's write lock is enough."""
    if engine.dialect.name != "postgresql":
        yield None
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        waited = 0.0
        while not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_ADVISORY_LOCK))):
            if waited >= patience:
                raise LockNotObtained(f"Another migration is running and did not end in {patience:g} s.")
            pause(1.0)
            waited += 1.0
        try:
            yield connection
        finally:
            connection.execute(sa.select(sa.func.pg_advisory_unlock(_ADVISORY_LOCK)))


@contextmanager
def owner_engine(settings: DatabaseSettings) -> Iterator[Engine]:
    """An engine that acts as the role that owns the tables, if the settings name one."""
    engine = make_engine(settings, connections=None)
    if settings.role is not None and not settings.is_sqlite:
        role = engine.dialect.identifier_preparer.quote(settings.role)

        @sa.event.listens_for(engine, "connect")
        def act_as_owner(connection: Any, _record: object) -> None:
            with connection.cursor() as cursor:
                cursor.execute(f"SET ROLE {role}")
            connection.commit()

    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def _engine(settings: DatabaseSettings) -> Iterator[Engine]:
    with owner_engine(settings) as engine:
        if settings.is_sqlite:
            # A rebuild drops the table for a moment. Enforced references would forbid that, or delete referring rows.
            @sa.event.listens_for(engine, "connect")
            def loosen(connection: Any, _record: object) -> None:
                connection.execute("PRAGMA foreign_keys = OFF")

        yield engine


def _refuse_broken_references(connection: Connection) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if broken:
        tables = ", ".join(sorted({row[0] for row in broken}))
        raise SchemaRefused(f"Rows of {tables} refer to rows that do not exist; nothing was changed.")


def _alembic(connection: Connection) -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", str(_SCRIPTS))
    configuration.attributes["connection"] = connection
    return configuration


@cache
def _revisions() -> tuple[Script, ...]:
    """All revisions of this release, the oldest first."""
    configuration = Config()
    configuration.set_main_option("script_location", str(_SCRIPTS))
    return tuple(reversed(list(ScriptDirectory.from_config(configuration).walk_revisions())))
