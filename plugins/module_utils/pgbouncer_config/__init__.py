"""PgBouncer's configuration: intents, the two files, the settings and their values, checks, and connection limits.

Used by scripts/pgbouncer-config, by the module of the same name and by plugins/filter/pgbouncer.py; therefore without
Ansible and YAML.
"""

from __future__ import annotations

from .capacity import (
    CAPACITY_NUMBERS,
    POSTGRES_MAX_CONNECTIONS,
    SIZE_NUMBERS,
    SIZES,
    Capacity,
    Sizes,
    capacity,
    size,
)
from .check import Circumstances, check
from .console import Change, Pool, changes, pool_facts, pool_table, pools_of, running
from .ini import Configuration, Finding, read_ini, read_userlist
from .intent import OPINIONS, intent_of
from .keys import KEYS, SECTIONS, VERSION
from .render import check_intent, render_ini, render_userlist
from .values import PgbouncerConfigError

__all__ = [
    "CAPACITY_NUMBERS",
    "KEYS",
    "OPINIONS",
    "POSTGRES_MAX_CONNECTIONS",
    "SECTIONS",
    "SIZES",
    "SIZE_NUMBERS",
    "VERSION",
    "Capacity",
    "Change",
    "Circumstances",
    "Configuration",
    "Finding",
    "PgbouncerConfigError",
    "Pool",
    "Sizes",
    "capacity",
    "changes",
    "check",
    "check_intent",
    "intent_of",
    "pool_facts",
    "pool_table",
    "pools_of",
    "read_ini",
    "read_userlist",
    "render_ini",
    "render_userlist",
    "running",
    "size",
]
