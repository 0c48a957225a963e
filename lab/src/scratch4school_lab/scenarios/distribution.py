"""Which scenarios run together on one worker, and in which order.

Each worker has a deployed host with PostgreSQL of its own. Further hosts are shared: the one with SQLite, the one with
Debian 12, and hosts without an installation. Files that use the same of them are one group, so that no two workers
change the same host. A test of a file in SEPARATE is a group by itself: it needs nothing that another test has made.
"""

from __future__ import annotations

# Longest first, so that the workers end at about the same time; `scripts/test` prints how long each file takes.
GROUPS = (
    # The host with SQLite, and hosts without an installation.
    (
        "test_import.py",
        "test_import_faults.py",
        "test_move_to_postgres.py",
        "test_sqlite.py",
        "test_remote_backups.py",
        # Last: its class leaves gigabytes, which a backup would read.
        "test_host_faults.py",
    ),
    # Backups first, while the host has few files: the classes of the fault matrix leave gigabytes for the sweep.
    ("test_backups.py", "test_fault_matrix.py"),
    ("test_backup_faults.py",),
    ("test_corrected_settings.py",),
    ("test_drift.py",),
    ("test_deploy.py",),
    # The host with Debian 12.
    ("test_bookworm.py",),
    ("test_connection_pool.py",),
    ("test_migrations.py",),
    ("test_sweep.py",),
)
SEPARATE = ("test_refusals.py", "test_pgbouncer_tool.py", "test_logs.py", "test_pupil.py")


def file_of(nodeid: str) -> str:
    """The name of the file of a test."""
    return nodeid.partition("::")[0].rpartition("/")[2]


def group_of(nodeid: str) -> str:
    """The name of a test's group: the first file of the group, or the test itself in a file of SEPARATE."""
    file = file_of(nodeid)
    if file in SEPARATE:
        return nodeid
    return next((group[0] for group in GROUPS if file in group), file)


def order_of(nodeid: str) -> tuple[int, int, str]:
    """The key by which tests are sorted: the position of the group, that of the file in it, and the file."""
    file = file_of(nodeid)
    for position, group in enumerate(GROUPS):
        if file in group:
            return position, group.index(file), file
    return len(GROUPS) + (file in SEPARATE), 0, file
