"""Refusals of the role `database`: weak passwords, memory that does not fit, and a host with the other engine."""

from __future__ import annotations

import re

from .rules import Messages, Questions, Rules, Settings, Survey
from .settings import is_true, memory, memory_mb, text, whole_number

RULES = Rules(
    "database",
    bounds={
        "database_max_connections": whole_number(10, 10000),
        "database_shared_buffers": text("[1-9][0-9]*(kB|MB|GB)", "it as PostgreSQL does, such as 256MB or 1GB"),
        "database_memory": memory(128),
        "database_statement_timeout_ms": whole_number(0),
    },
)
PASSWORDS = (
    "database_app_password",
    "database_migrator_password",
    "database_backup_password",
    "database_monitor_password",
)
# PostgreSQL's share of its container's memory that shared_buffers may take.
MOST_SHARED = 0.75
# File systems of a network. SQLite's write-ahead log is shared memory between processes; over a network each side
# would see its own.
_NETWORK_DISKS = re.compile("(nfs|cifs|smb|9p|afs|ceph|fuse|glusterfs|ocfs2|gfs2)")


@RULES.refuses_settings
def passwords(settings: Settings) -> Messages:
    """Each role has rights of its own, so each has a password of its own. SQLite has none; reading one generates it."""
    if settings["database_engine"] != "postgres":
        return
    given = {name: str(settings[name]) for name in PASSWORDS}
    for name, password in given.items():
        if not re.match(r"^.{16,}$", password):
            yield f"{name} must be one line of at least 16 characters; leave it unset to have one generated."
    shared = [name for name in PASSWORDS if list(given.values()).count(given[name]) > 1]
    if shared:
        yield (
            f"{' and '.join(shared)} must be different, because each of these database roles has rights of its own. "
            "Leave them unset to have them generated."
        )


@RULES.refuses_settings
def shared_buffers(settings: Settings) -> Messages:
    """PostgreSQL needs the rest of its memory for connections."""
    if settings["database_engine"] != "postgres":
        return
    buffers, limit = settings["database_shared_buffers"], settings["database_memory"]
    if memory_mb(re.sub("B$", "", buffers)) > memory_mb(limit) * MOST_SHARED:
        yield (
            f"database_shared_buffers is {buffers} and database_memory is {limit}, which leaves PostgreSQL no memory "
            f"for connections; write at most {int(memory_mb(limit) * MOST_SHARED)}MB for database_shared_buffers, or "
            "raise database_memory."
        )


@RULES.asks_host
def traces_and_disk(settings: Settings) -> Questions:
    """The file by which each engine's data is recognized, and the disk of the engine that is set."""
    return {"files": list(traces(settings).values()), "disks": [settings["database_data_directory"]]}


def traces(settings: Settings) -> dict[str, str]:
    """Engine to a file that is there where the engine keeps a school's data."""
    folders = settings["database_data_directories"]
    return {"postgres": f"{folders['postgres']}/17/PG_VERSION", "sqlite": f"{folders['sqlite']}/main.db"}


@RULES.refuses_host
def other_engine(settings: Settings, survey: Survey) -> Messages:
    """With the other engine the school would begin with an empty database."""
    engine = settings["database_engine"]
    # SQLite's file has this name only while it has all data: a PostgreSQL beside it is what a migration has left.
    found = next((name for name in ("sqlite", "postgres") if survey["files"][traces(settings)[name]]), engine)
    if found != engine and not is_true(settings["database_migrates_engine"]):
        folder = settings["database_data_directories"][found]
        migrate = ", or migrate: move-to-postgres.yml." if found == "sqlite" else "."
        yield (
            f"{settings['inventory_hostname']} runs on {found}; its database is in {folder}, and with database_engine: "
            f"{engine} the school would begin with an empty one. Set database_engine: {found}{migrate}"
        )


@RULES.refuses_host
def network_disk(settings: Settings, survey: Survey) -> Messages:
    """SQLite loses data on a network file system."""
    folder = settings["database_data_directory"]
    disk = survey["file_systems"][folder]
    if settings["database_engine"] == "sqlite" and _NETWORK_DISKS.match(disk):
        yield (
            f"{folder} on {settings['inventory_hostname']} would be on {disk}, a network file system, where SQLite "
            "loses data. Mount a local disk there, or set database_engine: postgres."
        )
