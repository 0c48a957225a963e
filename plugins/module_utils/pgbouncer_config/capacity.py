"""Does the arithmetic of connections: what may come at worst, whether there is room, and which numbers to choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from .keys import MOST
from .values import PgbouncerConfigError, number, refuse_unknown, type_name

CAPACITY_NUMBERS: dict[str, str] = {
    "slots": "slots that serve at once, 2 during a swap",
    "workers": "gunicorn workers per slot",
    "threads": "threads per worker, each with at most one connection",
    "one_shots": "clients of one-shot containers that come through the pool",
    "admin": "people and monitors on the pooler",
    "max_client_conn": "clients PgBouncer lets in",
    "pools": "server connections of all pools together, their reserves included",
    "direct": "connections that bypass the pool: migration, dump, monitor, a person with psql",
    "max_connections": "connections PostgreSQL accepts",
    "reserved": "of these, kept for superusers",
}


@dataclass(frozen=True)
class Capacity:
    """What can connect at worst, and whether both doors are wide enough.

    :param clients: connections to PgBouncer at worst.
    :param servers: connections to PostgreSQL at worst.
    :param lines: both sums, written out.
    :param problems: one sentence for each that does not fit; empty when all is well.
    """

    clients: int
    servers: int
    lines: list[str]
    problems: list[str]


def capacity(numbers: Mapping[str, int]) -> Capacity:
    """Add up connections (see CAPACITY_NUMBERS for the names; all are needed) and compare with the two limits.

    :raises PgbouncerConfigError: for a missing, unknown or negative number.
    """
    if not isinstance(numbers, Mapping):
        raise PgbouncerConfigError(f"Capacity needs a mapping of numbers, not {type_name(numbers)}.")
    refuse_unknown(numbers, CAPACITY_NUMBERS, "Capacity")
    for name, meaning in CAPACITY_NUMBERS.items():
        if name not in numbers:
            raise PgbouncerConfigError(f"Capacity needs “{name}”: {meaning}.")
        number(name, numbers[name], 0, MOST, whole=True)
    n = {name: numbers[name] for name in CAPACITY_NUMBERS}
    clients = n["slots"] * n["workers"] * n["threads"] + n["one_shots"] + n["admin"]
    servers = n["pools"] + n["direct"]
    room = n["max_connections"] - n["reserved"]
    client_sum = (
        f"{n['slots']} slots × {n['workers']} workers × {n['threads']} threads + {n['one_shots']} for one-shots"
        f" + {n['admin']} for administrators = {clients} clients"
    )
    server_sum = f"{n['pools']} of the pools + {n['direct']} direct = {servers} server connections"
    room_sum = f"max_connections = {n['max_connections']} less {n['reserved']} reserved = {room}"
    problems = []
    if clients > n["max_client_conn"]:
        problems.append(
            f"PgBouncer lets in max_client_conn = {n['max_client_conn']} clients, but {client_sum} may come; "
            f"raise max_client_conn to {clients} or run fewer workers or threads."
        )
    if servers > room:
        problems.append(
            f"PostgreSQL has room for {room} connections ({room_sum}), but {server_sum} may be opened; "
            f"raise max_connections to {servers + n['reserved']} or make the pools smaller."
        )
    return Capacity(
        clients=clients,
        servers=servers,
        lines=[f"{client_sum}; max_client_conn = {n['max_client_conn']}", f"{server_sum}; {room_sum}"],
        problems=problems,
    )


# A process more than there are cores, for each waits for a disk now and then, and how many requests each has under way:
# what the tables of benchmarks/ showed best (docs/decisions/0023).
WORKERS_BESIDE_CORES = 1
THREADS = 4

# What `size` needs, what each means, and what is taken where nothing is said; workers and threads follow from cores.
SIZE_NUMBERS: dict[str, tuple[str, int | None]] = {
    "cores": ("cores of the server; workers and threads follow from them where they are not said", 2),
    "users": ("pupils who save in the same minute", 100),
    "slots": (CAPACITY_NUMBERS["slots"], 2),
    "workers": (f"{CAPACITY_NUMBERS['workers']}; cores + {WORKERS_BESIDE_CORES} where nothing is said", None),
    "threads": (CAPACITY_NUMBERS["threads"], THREADS),
    "one_shots": (CAPACITY_NUMBERS["one_shots"], 106),
    "admin": (CAPACITY_NUMBERS["admin"], 5),
    "direct": (CAPACITY_NUMBERS["direct"], 8),
    "max_connections": (CAPACITY_NUMBERS["max_connections"], None),
    "reserved": (CAPACITY_NUMBERS["reserved"], 3),
}
# What PostgreSQL accepts where its max_connections was never set. `size` does not take it by itself: of a number that
# ends up in a file the intent has to say it.
POSTGRES_MAX_CONNECTIONS = 100
# The settings of PgBouncer that `size` chooses.
SIZES = ("default_pool_size", "reserve_pool_size", "max_client_conn")


@dataclass(frozen=True)
class Sizes:
    """The numbers to choose.

    :param numbers: the SIZES.
    :param why: for each of them the sum it comes from.
    :param lines: all of it, to be read by a person.
    :param problems: one sentence for each that does not fit; empty when all is well.
    """

    numbers: dict[str, int]
    why: dict[str, str]
    lines: list[str]
    problems: list[str]


def size(given: object) -> Sizes:
    """Choose the numbers of one pool from what runs before and behind it.

    A server connection for each thread of all slots is the most that is ever used; a fifth of them is the reserve, lent
    only when clients wait. Of clients twice as many are let in as can come: one costs 2 kB, one refused costs a save.

    :param given: the SIZE_NUMBERS, of which those without a usual value are needed.
    :raises PgbouncerConfigError: for a missing, unknown or negative number.
    """
    if not isinstance(given, Mapping):
        raise PgbouncerConfigError(f"capacity must be a mapping of numbers, not {type_name(given)}.")
    refuse_unknown(given, SIZE_NUMBERS, "capacity")
    n: dict[str, int] = {}
    for name, (meaning, usual) in SIZE_NUMBERS.items():
        follows = n["cores"] + WORKERS_BESIDE_CORES if name == "workers" else usual
        if given.get(name, follows) is None:
            raise PgbouncerConfigError(f"capacity needs “{name}”: {meaning}.")
        low = 1 if name in ("cores", "users", "slots", "workers", "threads", "max_connections") else 0
        number(f"{name} of capacity", given.get(name, follows), low, 100_000, whole=True)
        n[name] = given.get(name, follows)
    threads = n["slots"] * n["workers"] * n["threads"]
    room = n["max_connections"] - n["reserved"] - n["direct"]
    servers = max(2, min(5 * ceil(threads / 5), room))
    reserve = max(1, servers // 5)
    pool = servers - reserve
    clients = threads + n["one_shots"] + n["admin"]
    door = 50 * ceil(2 * clients / 50)
    threads_sum = f"{n['slots']} slots × {n['workers']} workers × {n['threads']} threads = {threads}"
    room_sum = f"max_connections {n['max_connections']} - {n['reserved']} reserved - {n['direct']} direct = {room}"
    why = {
        "default_pool_size": f"{threads_sum}, in fives and at most {room_sum}: {servers}, less {reserve} in reserve.",
        "reserve_pool_size": f"A fifth of {servers}, lent when clients have waited for reserve_pool_timeout.",
        "max_client_conn": f"Twice {clients}: {threads_sum}, {n['one_shots']} one-shots, {n['admin']} administrators.",
    }
    numbers = {"default_pool_size": pool, "reserve_pool_size": reserve, "max_client_conn": door}
    fits = capacity(
        {name: n[name] for name in CAPACITY_NUMBERS if name in n} | {"max_client_conn": door, "pools": servers}
    )
    share = ceil(n["users"] / servers)
    lines = [f"{name} = {numbers[name]}: {why[name]}" for name in SIZES]
    if "workers" not in given:
        more = f"{n['cores']} cores + {WORKERS_BESIDE_CORES}, of {n['threads']} threads each"
        lines.insert(0, f"workers = {n['workers']}: {more}.")
    lines += fits.lines
    lines.append(f"{n['users']} users who save at once take turns of {share} at {servers} server connections.")
    if servers < threads:
        lines.append(f"PostgreSQL's room is less than the {threads} threads: they wait for each other, and none fails.")
    return Sizes(numbers, why, lines, fits.problems)
