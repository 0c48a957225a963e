"""Turns a short statement of intent into PgBouncer's two files, and does the arithmetic of connections around it.

Used by scripts/pgbouncer-config and by the filters in plugins/filter/pgbouncer.py, hence free of Ansible and of YAML.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# PgBouncer keeps its numbers in C's int.
MOST = 2**31 - 1


class PgbouncerConfigError(ValueError):
    """The intent cannot be rendered; the text is one sentence for the operator."""


@dataclass(frozen=True)
class Setting:
    """One thing an intent may say about the pooler as a whole.

    :param key: PgBouncer's own name for it, which is also the name in the intent unless `said` gives a plainer one.
    :param kind: `integer`, `seconds`, `boolean`, `choice`, `names` or `text`; decides what is accepted and how it is
        written.
    :param why: the comment above the rendered line; says why the number is what it is, not what the key means.
    :param default: rendered when the intent is silent; None leaves the line out, so that PgBouncer's own default holds.
    :param low: smallest number accepted.
    :param high: largest number accepted.
    :param choices: the words accepted, for `choice`.
    """

    key: str
    kind: str
    why: str
    default: object = None
    low: float = 0
    high: float = MOST
    choices: tuple[str, ...] = ()
    said: str = ""

    @property
    def name(self) -> str:
        """The name an intent uses."""
        return self.said or self.key


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "listen_addr",
        "text",
        "All addresses of the container; which of them are reachable is the network's business.",
        "*",
    ),
    Setting(
        "listen_port",
        "integer",
        "PgBouncer's customary port, so that nobody takes it for PostgreSQL's.",
        6432,
        1,
        65535,
    ),
    Setting(
        "unix_socket_dir",
        "text",
        "Clients come over the network; over a socket PgBouncer's own user reaches the console without a password.",
        "",
    ),
    Setting(
        "auth_type",
        "choice",
        "Passwords never cross the network and cannot be replayed.",
        "scram-sha-256",
        choices=("scram-sha-256", "md5"),
        said="auth",
    ),
    Setting(
        "auth_file",
        "text",
        "Who may come in; kept apart from this file because it is secret.",
        "/etc/scratch4school/pgbouncer/userlist.txt",
    ),
    Setting(
        "admin_users",
        "names",
        "Who may pause, reload and shut down from the console. Nobody need: the container is restarted instead.",
        (),
    ),
    Setting("stats_users", "names", "Who may look (SHOW …) and nothing else.", ()),
    Setting(
        "pool_mode",
        "choice",
        "A server connection is lent for one transaction, so that many share few. The app keeps no session state.",
        "transaction",
        choices=("session", "transaction", "statement"),
    ),
    Setting(
        "max_client_conn",
        "integer",
        "Above all threads of both slots during a swap, one-shots and an administrator: nobody is refused at the door.",
        300,
        1,
    ),
    Setting(
        "default_pool_size",
        "integer",
        "Server connections per database and user. More than PostgreSQL can work on only moves the queue there.",
        20,
        1,
    ),
    Setting(
        "min_pool_size", "integer", "Kept open, so that the first lesson of the day does not wait for connections."
    ),
    Setting("reserve_pool_size", "integer", "Lent on top when clients have waited for reserve_pool_timeout.", 5),
    Setting("reserve_pool_timeout", "seconds", "How long is too long to wait for the ordinary pool, in seconds.", 3),
    Setting("max_db_connections", "integer", "A lid on all pools of one database together."),
    Setting("max_user_connections", "integer", "A lid on all pools of one user together."),
    Setting(
        "max_prepared_statements",
        "integer",
        "0 where the driver prepares nothing by itself (psycopg2): tracking statements would cost and bring nothing.",
        0,
    ),
    Setting(
        "query_wait_timeout",
        "seconds",
        "A client without a connection by then is told so while its pupil still waits, not queued past all patience.",
        15,
    ),
    Setting(
        "query_timeout",
        "seconds",
        "Cuts off a single statement; PostgreSQL's own statement_timeout is the better tool.",
    ),
    Setting(
        "idle_transaction_timeout",
        "seconds",
        "A transaction left open holds a server connection and its locks; no request needs to think this long.",
        60,
    ),
    Setting("client_idle_timeout", "seconds", "Closes clients that say nothing."),
    Setting("server_idle_timeout", "seconds", "Gives connections back to PostgreSQL when the school is empty.", 600),
    Setting(
        "server_lifetime",
        "seconds",
        "Renews each connection now and then, so that PostgreSQL's per-connection caches do not grow for weeks.",
        3600,
    ),
    Setting(
        "server_connect_timeout",
        "seconds",
        "PostgreSQL is one network hop away at most: it answers quickly or not at all.",
        5,
    ),
    Setting(
        "server_login_retry",
        "seconds",
        "After a failed login to PostgreSQL, wait only this long: it is most likely restarting.",
        1,
    ),
    Setting(
        "server_reset_query",
        "text",
        "Cleans a session before the next client gets it; PgBouncer does not use it in transaction mode.",
    ),
    Setting(
        "ignore_startup_parameters",
        "names",
        "Drivers send these when they connect; refusing them would refuse the driver.",
        ("extra_float_digits",),
    ),
    Setting("application_name_add_host", "boolean", "Shows in pg_stat_activity which container a query came from."),
    Setting(
        "server_tls_sslmode",
        "choice",
        "TLS towards PostgreSQL.",
        choices=("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    ),
    Setting("server_tls_ca_file", "text", "The authority that must have signed PostgreSQL's certificate."),
    Setting(
        "client_tls_sslmode",
        "choice",
        "TLS towards clients.",
        choices=("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    ),
    Setting("client_tls_cert_file", "text", "The certificate shown to clients."),
    Setting("client_tls_key_file", "text", "Its key."),
    Setting("client_tls_ca_file", "text", "The authority that must have signed clients' certificates."),
    Setting(
        "log_connections", "boolean", "One line per connection says little when a pool of threads connects.", False
    ),
    Setting("log_disconnections", "boolean", "Likewise; errors are logged all the same.", False),
    Setting("log_pooler_errors", "boolean", "What clients were told went wrong; the first thing to read.", True),
    Setting("stats_period", "seconds", "How often averages are computed and one line of figures is logged.", 60, 1),
)

DATABASE_KEYS: dict[str, str] = {
    "host": "text",
    "port": "integer",
    "dbname": "text",
    "user": "text",
    "auth_user": "text",
    "pool_size": "integer",
    "min_pool_size": "integer",
    "reserve_pool_size": "integer",
    "pool_mode": "text",
    "max_db_connections": "integer",
    "client_encoding": "text",
    "connect_query": "text",
}

# The reserve of one database is called otherwise than the pooler's own; versions before 1.24 know no other name for it.
DATABASE_KEY_SPELLING = {"reserve_pool_size": "reserve_pool"}

HEADER = """\
; What PgBouncer reads. Rendered from a statement of intent: change that, not this file.
; There is no logfile and no pidfile, because it runs in a container with a read-only file system and logs to stderr.
"""


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name was probably meant, as the end of a sentence; empty when nothing is near."""
    matches = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f"; did you mean “{matches[0]}”?" if matches else ""


def _refuse_unknown(given: Iterable[str], known: Iterable[str], where: str) -> None:
    known = sorted(known)
    for name in given:
        if name not in known:
            hint = nearest(name, known) or f"; known are {', '.join(known)}."
            raise PgbouncerConfigError(f"{where} has no setting “{name}”{hint}")


def render_ini(intent: Mapping[str, object]) -> str:
    """Return the text of pgbouncer.ini, the same text for the same intent, whatever the order of its keys.

    :raises PgbouncerConfigError: for an unknown key, a wrong type or a contradiction.
    """
    if not isinstance(intent, Mapping):
        raise PgbouncerConfigError(f"The intent must be a mapping of settings, not {_type_name(intent)}.")
    by_name = {setting.name: setting for setting in SETTINGS}
    _refuse_unknown(intent, {*by_name, "databases"}, "The intent")
    values = {name: intent.get(name, setting.default) for name, setting in by_name.items()}
    lines = {name: _value(by_name[name], value) for name, value in values.items() if value is not None}
    _refuse_contradictions(values)
    text = HEADER + "\n[databases]\n" + "".join(_database_lines(intent.get("databases"))) + "\n[pgbouncer]\n"
    for setting in SETTINGS:
        if setting.name in lines:
            text += f"; {setting.why}\n{setting.key} = {lines[setting.name]}".rstrip() + "\n"
    return text


def _refuse_contradictions(values: Mapping[str, object]) -> None:
    if (values["min_pool_size"] or 0) > values["default_pool_size"]:
        raise PgbouncerConfigError(
            f"min_pool_size is {values['min_pool_size']}, but a pool never holds more than "
            f"default_pool_size, {values['default_pool_size']}."
        )
    if values["client_tls_sslmode"] not in (None, "disable") and not (
        values["client_tls_cert_file"] and values["client_tls_key_file"]
    ):
        raise PgbouncerConfigError("client_tls_sslmode needs client_tls_cert_file and client_tls_key_file.")
    if values["server_tls_sslmode"] in ("verify-ca", "verify-full") and not values["server_tls_ca_file"]:
        raise PgbouncerConfigError(f"server_tls_sslmode {values['server_tls_sslmode']} needs server_tls_ca_file.")


def _value(setting: Setting, value: object) -> str:
    """Write one value as PgBouncer reads it, or refuse it with a sentence."""
    if setting.kind == "choice":
        if value not in setting.choices:
            raise PgbouncerConfigError(
                f"{setting.name} is {_quoted(value)}, but it must be one of {', '.join(setting.choices)}"
                + (nearest(value, setting.choices) or ".")
            )
        return str(value)
    if setting.kind == "boolean":
        if not isinstance(value, bool):
            raise PgbouncerConfigError(f"{setting.name} is {_quoted(value)}, but it must be true or false.")
        return "1" if value else "0"
    if setting.kind in ("integer", "seconds"):
        return _number(setting.name, value, setting.low, setting.high, whole=setting.kind == "integer")
    if setting.kind == "names":
        return _names(setting.name, value)
    return _text(setting.name, value)


def _number(name: str, value: object, low: float, high: float, *, whole: bool) -> str:
    accepted = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, accepted):
        what = "a whole number" if whole else "a number of seconds"
        raise PgbouncerConfigError(f"{name} is {_quoted(value)}, but it must be {what}.")
    if not low <= value <= high:
        raise PgbouncerConfigError(f"{name} is {value}, but it must lie between {low} and {high}.")
    return str(value)


def _names(name: str, value: object) -> str:
    if isinstance(value, str) or not isinstance(value, Iterable) or isinstance(value, Mapping):
        raise PgbouncerConfigError(f"{name} is {_quoted(value)}, but it must be a list of names.")
    names = list(value)
    for one in names:
        # PgBouncer splits at commas and blanks and knows no quoting here.
        if not isinstance(one, str) or not re.fullmatch(r"[^\s,\x00-\x1f]+", one):
            raise PgbouncerConfigError(
                f"{name} holds {_quoted(one)}, but a name must be text without blanks and commas."
            )
    return ", ".join(sorted(set(names)))


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise PgbouncerConfigError(f"{name} is {_quoted(value)}, but it must be text.")
    if re.search(r"[\x00-\x1f]", value) or value != value.strip():
        raise PgbouncerConfigError(f"{name} is {_quoted(value)}, but text must be one line without blanks around it.")
    return value


def _database_lines(databases: object) -> Iterable[str]:
    if not isinstance(databases, Mapping) or not databases:
        raise PgbouncerConfigError("The intent needs “databases”, a mapping from each name to its host and port.")
    for name in sorted(databases, key=str):
        given = databases[name]
        # Quoted names are in PgBouncer's manual, but 1.24 refuses the file that has one (tried).
        if not isinstance(name, str) or not re.fullmatch(r"\*|[A-Za-z0-9_.-]+", name):
            raise PgbouncerConfigError(
                f"The database name {_quoted(name)} must consist of letters, digits, “_”, “.” and “-”, "
                "or be “*” for all others; another name can be given as its dbname."
            )
        if name == "pgbouncer":
            raise PgbouncerConfigError("The database name “pgbouncer” is taken by PgBouncer's own console.")
        if not isinstance(given, Mapping):
            raise PgbouncerConfigError(f"The database “{name}” must be a mapping, not {_type_name(given)}.")
        _refuse_unknown(given, DATABASE_KEYS, f"The database “{name}”")
        parts = []
        for key, kind in DATABASE_KEYS.items():
            if key not in given:
                continue
            where = f"{key} of the database “{name}”"
            high = 65535 if key == "port" else MOST
            value = _number(where, given[key], 0, high, whole=True) if kind == "integer" else _text(where, given[key])
            parts.append(f"{DATABASE_KEY_SPELLING.get(key, key)}={_connection_value(value)}")
        yield f"{name} = {' '.join(parts)}".rstrip() + "\n"


def _connection_value(value: str) -> str:
    """Quote a value of a connection string; PgBouncer doubles single quotes inside single quotes, as SQL does."""
    return value if re.fullmatch(r"[A-Za-z0-9_./:@,*-]+", value) else "'" + value.replace("'", "''") + "'"


def render_userlist(users: Mapping[str, str]) -> str:
    """Return the text of userlist.txt from a mapping of user to password, or to a SCRAM secret as PostgreSQL stores it.

    A SCRAM secret lets clients in, but towards PostgreSQL it works only when PostgreSQL holds the very same secret.

    :raises PgbouncerConfigError: for names and secrets that PgBouncer would cut or misread; the secret is not shown.
    """
    if not isinstance(users, Mapping):
        raise PgbouncerConfigError(f"The users must be a mapping of name to password, not {_type_name(users)}.")
    lines = []
    for name in sorted(users, key=str):
        secret = users[name]
        # PostgreSQL cuts names at 63 bytes, and PgBouncer reads lines of limited length.
        if not isinstance(name, str) or not 0 < len(name.encode()) <= 63 or re.search(r"[\x00-\x1f]", name):
            raise PgbouncerConfigError(f"The user name {_quoted(name)} must be text on one line, of 1 to 63 bytes.")
        if not isinstance(secret, str) or not 0 < len(secret.encode()) <= 1024 or re.search(r"[\x00-\x1f]", secret):
            raise PgbouncerConfigError(f"The password of “{name}” must be text on one line, of 1 to 1024 bytes.")
        lines.append(f"{_userlist_string(name)} {_userlist_string(secret)}\n")
    return "".join(lines)


def _userlist_string(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _quoted(value: object) -> str:
    return f"“{value}”" if isinstance(value, str) else repr(value)


def _type_name(value: object) -> str:
    # Ansible hands over its own subclasses, so the built-in types are asked for by isinstance; bool comes before int.
    names = {bool: "true or false", int: "a number", str: "text", list: "a list", dict: "a mapping"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "nothing of use")


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
        raise PgbouncerConfigError(f"Capacity needs a mapping of numbers, not {_type_name(numbers)}.")
    _refuse_unknown(numbers, CAPACITY_NUMBERS, "Capacity")
    for name, meaning in CAPACITY_NUMBERS.items():
        if name not in numbers:
            raise PgbouncerConfigError(f"Capacity needs “{name}”: {meaning}.")
        _number(name, numbers[name], 0, MOST, whole=True)
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
