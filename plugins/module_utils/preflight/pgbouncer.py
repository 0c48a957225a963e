"""Refusals of the role `pgbouncer`: pools that do not add up, and a wait that ends while something is restarted."""

from __future__ import annotations

import pgbouncer_config

from scratch4school_host.pooler import LEAST_WAIT_SECONDS, RESUME_AFTER_SECONDS

from .rules import Messages, Rules, Settings
from .settings import memory, whole_number

RULES = Rules(
    "pgbouncer",
    bounds={
        "pgbouncer_pool_size": whole_number(1),
        "pgbouncer_reserve_pool_size": whole_number(0),
        "pgbouncer_max_client_conn": whole_number(1),
        "pgbouncer_query_wait_timeout": whole_number(0),
        "pgbouncer_memory": memory(16),
    },
)
# Both slots run during a switch. One-shots: a verification's hundred clients. Direct: migration, backup, a sysadmin.
FIXED = {"slots": 2, "one_shots": 106, "admin": 5, "direct": 8, "reserved": 3}


@RULES.refuses_settings
def pools(settings: Settings) -> Messages:
    """All clients are let in, and all pools fit into what PostgreSQL accepts."""
    result = pgbouncer_config.capacity(
        {
            **FIXED,
            "workers": int(settings["app_workers"]),
            "threads": int(settings["app_threads"]),
            "max_client_conn": int(settings["pgbouncer_max_client_conn"]),
            "pools": int(settings["pgbouncer_pool_size"]) + int(settings["pgbouncer_reserve_pool_size"]),
            "max_connections": int(settings["database_max_connections"]),
        }
    )
    if result.problems:
        yield (
            f"{' '.join(result.problems)} The settings are app_workers, app_threads, pgbouncer_max_client_conn, "
            "pgbouncer_pool_size, pgbouncer_reserve_pool_size and database_max_connections."
        )


@RULES.refuses_settings
def query_wait_timeout(settings: Settings) -> Messages:
    """Else requests fail while PostgreSQL or PgBouncer is restarted."""
    seconds = int(settings["pgbouncer_query_wait_timeout"])
    if seconds < LEAST_WAIT_SECONDS:
        yield (
            f"pgbouncer_query_wait_timeout is {seconds}; write at least {LEAST_WAIT_SECONDS}, because pupils wait up "
            f"to {RESUME_AFTER_SECONDS} seconds while PostgreSQL or PgBouncer is restarted."
        )
