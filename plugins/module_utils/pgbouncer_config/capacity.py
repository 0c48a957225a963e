"""Computes connections: the largest numbers that can occur, whether they fit, and which limits to choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from .keys import MOST
from .values import PgbouncerConfigError, number, refuse_unknown, type_name

CAPACITY_NUMBERS: dict[str, str] = {
    "slots": "slots that are live at the same time, 2 during an activation",
    "workers": "gunicorn workers per slot",
    "threads": "threads per worker, each with at most one connection",
    "one_shots": "clients of one-shot containers that use the pool",
    "admin": "people and monitors that connect to PgBouncer",
    "max_client_conn": "clients that PgBouncer accepts",
    "pools": "server connections of all pools together, their reserves included",
    "direct": "connections that bypass the pool: migration, dump, monitor, a person with psql",
    "max_connections": "connections that PostgreSQL accepts",
    "reserved": "connections of these that are reserved for superusers",
}


@dataclass(frozen=True)
class Capacity:
    """The largest numbers of connections, and whether they fit into the limits.

    :param clients: largest number of connections to PgBouncer.
    :param servers: largest number of connections to PostgreSQL.
    :param lines: both sums, written out.
    :param problems: a message for each sum that does not fit; empty when both fit.
    """

    clients: int
    servers: int
    lines: list[str]
    problems: list[str]


def capacity(numbers: Mapping[str, int]) -> Capacity:
    """Add up connections and compare the sums with the two limits.

    :param numbers: all of CAPACITY_NUMBERS.

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
            f"PgBouncer accepts max_client_conn = {n['max_client_conn']} clients, but {client_sum} may connect; "
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


# The best values in the benchmarks (docs/decisions/0023). There is one process more than cores, because processes
# sometimes wait for the disk. Each process handles so many requests at a time.
WORKERS_BESIDE_CORES = 1
THREADS = 4

# The numbers that `size` needs: meaning and default of each; None has no fixed default.
SIZE_NUMBERS: dict[str, tuple[str, int | None]] = {
    "cores": ("cores of the server, from which the default of workers follows", 2),
    "users": ("pupils who save in the same minute", 100),
    "slots": (CAPACITY_NUMBERS["slots"], 2),
    "workers": (f"{CAPACITY_NUMBERS['workers']}, by default cores + {WORKERS_BESIDE_CORES}", None),
    "threads": (CAPACITY_NUMBERS["threads"], THREADS),
    "one_shots": (CAPACITY_NUMBERS["one_shots"], 106),
    "admin": (CAPACITY_NUMBERS["admin"], 5),
    "direct": (CAPACITY_NUMBERS["direct"], 8),
    "max_connections": (CAPACITY_NUMBERS["max_connections"], None),
    "reserved": (CAPACITY_NUMBERS["reserved"], 3),
}
# PostgreSQL's default of max_connections. `size` does not assume it, because an intent must state a number on which
# a rendered file depends.
POSTGRES_MAX_CONNECTIONS = 100
# The settings of PgBouncer that `size` chooses.
SIZES = ("default_pool_size", "reserve_pool_size", "max_client_conn")


@dataclass(frozen=True)
class Sizes:
    """Recommended values.

    :param numbers: a value for each of SIZES.
    :param why: the calculation of each value.
    :param lines: all values and calculations as text.
    :param problems: a message for each sum that does not fit; empty when all fit.
    """

    numbers: dict[str, int]
    why: dict[str, str]
    lines: list[str]
    problems: list[str]


def size(given: object) -> Sizes:
    """Choose the sizes of one pool from the number of its clients and the limit of PostgreSQL.

    At most one server connection per thread of all slots is used; a fifth of them is the reserve for waiting clients.
    The limit of clients is twice the largest number, because a client takes 2 kB and a refused one loses a save.

    :param given: the SIZE_NUMBERS; those without a default are required, except workers.
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
        "reserve_pool_size": f"A fifth of {servers}, added when clients have waited for reserve_pool_timeout.",
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
    lines.append(f"{n['users']} users who save at the same time: {share} share each of {servers} server connections.")
    if servers < threads:
        lines.append(
            f"PostgreSQL accepts fewer connections than there are threads ({threads}): threads wait, none fails."
        )
    return Sizes(numbers, why, lines, fits.problems)
