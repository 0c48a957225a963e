"""Compares a configuration with another, or with that of a running PgBouncer, and reads PgBouncer's pools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from .ini import Configuration
from .keys import KEYS
from .values import PgbouncerConfigError, understood

Row = Mapping[str, object]

# Settings of a database that `SHOW DATABASES` shows under another name, and those under their own name.
SHOWN = {"database": "dbname", "force_user": "user", "max_connections": "max_db_connections"}
SHOWN_ALIKE = ("host", "port", "pool_size", "min_pool_size", "reserve_pool_size", "pool_mode")


@dataclass(frozen=True)
class Change:
    """One difference.

    :param name: the setting, or the database and its setting.
    :param before: the current value.
    :param after: the file's value.
    :param restart: whether the change needs a restart; otherwise a RELOAD is enough.
    """

    name: str
    before: object
    after: object
    restart: bool

    def __str__(self) -> str:
        how = "needs a restart" if self.restart else "needs a RELOAD"
        return f"{self.name}: {_shown(self.before)} → {_shown(self.after)} ({how})"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "nothing"
    return str(value) if value not in (None, "") else "nothing"


def changes(before: Configuration, after: Configuration) -> list[Change]:
    """Return the differences between two configurations; a missing setting has PgBouncer's default."""
    found = []
    for name, key in KEYS.items():
        own = understood(name, key, key.default) if key.default else None
        old, new = (one.pooler.get(name, own) for one in (before, after))
        if (old or None) != (new or None):
            found.append(Change(name, old, new, not key.reload))
    for section in ("databases", "users", "peers"):
        olds, news = before.values[section], after.values[section]
        for name in sorted(olds.keys() | news.keys()):
            for key in sorted(olds.get(name, {}).keys() | news.get(name, {}).keys()):
                pair = (olds.get(name, {}).get(key), news.get(name, {}).get(key))
                if pair[0] != pair[1]:
                    shown = ("…", "…") if key == "password" else pair
                    found.append(Change(f"{section}.{name}.{key}", *shown, restart=False))
            if (name in olds) != (name in news) and not olds.get(name) and not news.get(name):
                found.append(Change(f"{section}.{name}", name in olds, name in news, restart=False))
    return found


def running(settings: Iterable[Row], databases: Iterable[Row], like: Configuration) -> Configuration:
    """Read the configuration of a running PgBouncer from the rows of `SHOW CONFIG` and `SHOW DATABASES`.

    PgBouncer shows only some settings of a database, and none of users and peers.

    :param like: the configuration that supplies the settings that PgBouncer does not show.
    """
    found = Configuration()
    values = found.values["pgbouncer"].setdefault("", {})
    for row in settings:
        name, text = str(row["key"]), str(row["value"] or "")
        # An empty text is a value; an empty number is a setting that PgBouncer does not show.
        if name not in KEYS or (not text and KEYS[name].kind != "text"):
            continue
        if KEYS[name].kind == "octal" and text.isdigit():
            # The mode of a file is the one number that it shows in another form than it reads.
            text = f"0{int(text):03o}"
        try:
            values[name] = understood(name, KEYS[name], text)
        except PgbouncerConfigError:
            values[name] = text
    # PgBouncer always shows its file's path, and never shows a number that is not set.
    for name in ("conffile", "verbose"):
        values.pop(name, None)
        if name in like.pooler:
            values[name] = like.pooler[name]
    defaults = {"pool_size": values.get("default_pool_size"), "port": 5432}
    defaults |= {name: values.get(name, 0) for name in ("min_pool_size", "reserve_pool_size", "max_db_connections")}
    for row in databases:
        name = str(row["name"])
        if name == "pgbouncer" or ("*" in like.values["databases"] and name not in like.values["databases"]):
            continue
        known = like.values["databases"].get(name, {})
        shown = {SHOWN.get(key, key): value for key, value in row.items() if key in SHOWN or key in SHOWN_ALIKE}
        given: dict[str, object] = {key: value for key, value in known.items() if key not in shown}
        for key, value in shown.items():
            usual = name if key == "dbname" else defaults.get(key)
            if value not in (None, "") and (key in known or _number(value) != _number(usual)):
                given[key] = _number(value)
        found.values["databases"][name] = given
    if "*" in like.values["databases"]:
        found.values["databases"]["*"] = dict(like.values["databases"]["*"])
    found.values["users"] = like.values["users"]
    found.values["peers"] = like.values["peers"]
    return found


def _number(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isdigit() else value


@dataclass(frozen=True)
class Pool:
    """One pool, at one moment.

    :param clients: clients that have a server connection.
    :param waiting: clients that wait for a server connection.
    :param longest_wait: seconds that the longest-waiting client has waited.
    :param average_wait: average wait of a client in the last `stats_period`, in milliseconds.
    :param busy: server connections in use.
    :param idle: server connections that are not in use.
    :param size: largest number of server connections, without the reserve.
    :param transactions: transactions per second in the last `stats_period`.
    :param query_time: average duration of a query in the last `stats_period`, in milliseconds.
    """

    database: str
    user: str
    clients: int
    waiting: int
    longest_wait: float
    average_wait: float
    busy: int
    idle: int
    size: int
    transactions: int
    query_time: float


def pools_of(pools: Iterable[Row], stats: Iterable[Row], databases: Iterable[Row]) -> list[Pool]:
    """Read the rows of `SHOW POOLS`, `SHOW STATS` and `SHOW DATABASES`: one entry per pool, without the console's."""
    averages = {str(row["database"]): row for row in stats}
    sizes = {str(row["name"]): _count(row["pool_size"]) for row in databases}
    found = []
    for row in pools:
        database = str(row["database"])
        if database == "pgbouncer":
            continue
        average = averages.get(database, {})
        found.append(
            Pool(
                database,
                str(row["user"]),
                _count(row["cl_active"]),
                _count(row["cl_waiting"]),
                _count(row["maxwait"]) + _count(row["maxwait_us"]) / 1e6,
                _count(average.get("avg_wait_time")) / 1e3,
                _count(row["sv_active"]),
                _count(row["sv_idle"]) + _count(row["sv_used"]) + _count(row["sv_tested"]),
                sizes.get(database, 0),
                _count(average.get("avg_xact_count")),
                _count(average.get("avg_query_time")) / 1e3,
            )
        )
    return sorted(found, key=lambda pool: (-pool.waiting, -pool.busy, pool.database, pool.user))


def _count(value: object) -> int:
    return int(str(value or 0))


def pool_table(pools: Iterable[Pool]) -> list[str]:
    """Format pools as the lines of a table, in their order."""
    form = "{:<20} {:<24} {:>7} {:>7} {:>9} {:>9} {:>9} {:>5} {:>7} {:>8}"
    head = ("database", "user", "clients", "waiting", "longest", "avg wait", "servers", "idle", "trans/s", "query")
    lines = [form.format(*head)]
    for pool in pools:
        lines.append(
            form.format(
                pool.database[:20],
                pool.user[:24],
                pool.clients,
                pool.waiting,
                f"{pool.longest_wait:.1f} s",
                f"{pool.average_wait:.1f} ms",
                f"{pool.busy}/{pool.size}",
                pool.idle,
                pool.transactions,
                f"{pool.query_time:.1f} ms",
            )
        )
    return lines


def pool_facts(pools: Iterable[Pool]) -> list[dict[str, object]]:
    """Return pools as dicts for JSON; names and units are those of Pool."""
    return [asdict(pool) for pool in pools]
