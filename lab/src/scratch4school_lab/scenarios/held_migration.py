"""A migration of a table that a long transaction holds: until it has given up several times, then to its end."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from ..hosts.plan import Host
from .faults import held_lock, psql, started
from .lab_hosts import on_host, wait_for
from .playbooks import Run, finish

# How often the migration gives up waiting before the transaction ends.
TRIES = 6
# PostgreSQL logs a wait for a lock that lasts a second; only a migration asks for this lock.
WAITED = "still waiting for AccessExclusiveLock on relation"


def revision(host: Host) -> str:
    """The schema revision of the host's database."""
    return psql(host, "SELECT version_num FROM alembic_version").strip()


def migrate_behind_a_transaction(host: Host, checkout: Path) -> Run:
    """Migrate to a checkout made by `variants.slow_lock`, whose images the host has; returns the migration's run."""
    before, began = revision(host), time.time()

    def tries() -> int:
        log = f"sudo docker logs --since {began:.3f} scratch4school-postgres 2>&1"
        return int(on_host(f"{log} | grep -c '{WAITED}' || true", host))

    # Without the backup before the migration, whose duration depends on the disk.
    migrate = ("migrate.yml", "-e", "backup_skip=true")
    with ExitStack() as transaction:
        transaction.enter_context(held_lock(host, "projects"))
        with started(*migrate, folder=checkout, host=host) as migration:
            wait_for(lambda: tries() >= TRIES or migration.poll() is not None)
            assert migration.poll() is None, finish(migration).output[-4000:]
            assert revision(host) == before
            transaction.close()
            return finish(migration)


def undo_migration(host: Host, before: str) -> None:
    """Undo the variant's migration, which this checkout does not know, where it was applied."""
    psql(
        host,
        "BEGIN; SET LOCAL lock_timeout = '10s'; ALTER TABLE projects DROP COLUMN IF EXISTS rehearsal;"
        f" UPDATE alembic_version SET version_num = '{before}'; COMMIT",
    )
