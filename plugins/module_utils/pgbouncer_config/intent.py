"""An intent: PgBouncer's settings as a sysadmin writes them, with our defaults for the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from .capacity import SIZES, size
from .ini import Configuration
from .keys import SECTIONS, Key
from .values import PgbouncerConfigError, quoted, type_name, unknown, unknown_message, written


@dataclass(frozen=True)
class Opinion:
    """Our default for a setting, with the reason.

    :param why: the comment above the rendered line: the reason for the value, not the meaning of the key.
    :param default: the value that is rendered when the intent has none; None renders no line.
    """

    why: str
    default: object = None


OPINIONS: dict[str, Opinion] = {
    "listen_addr": Opinion(
        "All addresses of the container; Docker's network decides which of them can be reached.",
        "*",
    ),
    "listen_port": Opinion("PgBouncer's usual port, which differs from PostgreSQL's.", 6432),
    "unix_socket_dir": Opinion(
        "Clients connect over the network; over a socket PgBouncer's user reaches the console without a password.",
        "",
    ),
    "auth_type": Opinion("Passwords never cross the network and cannot be replayed.", "scram-sha-256"),
    "auth_file": Opinion(
        "The users; in a file of its own because it is secret.",
        "/etc/scratch4school/pgbouncer/userlist.txt",
    ),
    "admin_users": Opinion(
        "Users who may pause, reload and shut down over the network. None: the server's root uses the socket.",
        (),
    ),
    "stats_users": Opinion("Users who may run SHOW … and nothing else.", ()),
    "pool_mode": Opinion(
        "Clients share server connections per transaction. The application keeps no session state.",
        "transaction",
    ),
    "max_client_conn": Opinion(
        "More than all threads of both slots during an activation, one-shots and an administrator: none is refused.",
        300,
    ),
    "default_pool_size": Opinion(
        "Server connections per database and user. With more than PostgreSQL can work on, clients wait there instead.",
        20,
    ),
    "min_pool_size": Opinion("Kept open, so that the first lesson of the day does not wait for connections."),
    "reserve_pool_size": Opinion("Added when clients have waited for reserve_pool_timeout.", 5),
    "reserve_pool_timeout": Opinion("Seconds that a client waits for the ordinary pool.", 3),
    "max_db_connections": Opinion("Limit for all pools of one database together."),
    "max_user_connections": Opinion("Limit for all pools of one user together."),
    "max_prepared_statements": Opinion(
        "0, because the driver (psycopg2) prepares no statements: tracking them would cost time for nothing.",
        0,
    ),
    "query_wait_timeout": Opinion(
        "A client that waits longer for a connection gets an error while its pupil still waits for the answer.",
        15,
    ),
    "query_timeout": Opinion("Ends a statement and its connection; prefer PostgreSQL's statement_timeout."),
    "idle_transaction_timeout": Opinion(
        "An open transaction occupies a server connection and its locks; no request pauses this long.",
        60,
    ),
    "client_idle_timeout": Opinion("Closes idle clients."),
    "server_idle_timeout": Opinion("Closes idle server connections when the school is empty.", 600),
    "server_lifetime": Opinion(
        "Renews each connection, so that PostgreSQL's per-connection caches do not grow for weeks.",
        3600,
    ),
    "server_connect_timeout": Opinion(
        "PostgreSQL is at most one network hop away: it answers quickly or not at all.",
        5,
    ),
    "server_login_retry": Opinion(
        "Seconds until the next try after a failed login to PostgreSQL, which is probably restarting.",
        1,
    ),
    "server_reset_query": Opinion(
        "Resets a session before the next client gets it; PgBouncer does not use it in transaction mode."
    ),
    "ignore_startup_parameters": Opinion(
        "Drivers send these when they connect; without this PgBouncer refuses such drivers.",
        ("extra_float_digits",),
    ),
    "application_name_add_host": Opinion("Shows in pg_stat_activity which container a query came from."),
    "server_tls_sslmode": Opinion("TLS towards PostgreSQL."),
    "server_tls_ca_file": Opinion("The authority that must have signed PostgreSQL's certificate."),
    "client_tls_sslmode": Opinion("TLS towards clients."),
    "client_tls_cert_file": Opinion("The certificate shown to clients."),
    "client_tls_key_file": Opinion("The key of that certificate."),
    "client_tls_ca_file": Opinion("The authority that must have signed clients' certificates."),
    "log_connections": Opinion("A line per connection says little when a pool of threads connects.", default=False),
    "log_disconnections": Opinion("As for connections; errors are logged anyway.", default=False),
    "log_pooler_errors": Opinion("Errors that clients received; read these first.", default=True),
    "stats_period": Opinion("Seconds between two log lines with averages.", 60),
}

# The names of an intent for the sections that contain names.
NAMED = {"databases": "databases", "user_settings": "users", "peers": "peers"}
# The keys of an intent beside PgBouncer's settings.
BESIDE = {
    *NAMED,
    # “pgbouncer”: missing settings have PgBouncer's defaults, not ours.
    "defaults",
    # Numbers from which the sizes of pools and the limit of clients follow.
    "capacity",
}


@dataclass(frozen=True)
class Line:
    """A rendered setting of section [pgbouncer]: key, value as PgBouncer reads it, and the comment above it."""

    key: str
    value: str
    why: str


# A function that handles an error: it takes the path in the intent and a message.
Refuse = Callable[[tuple[str, ...], str], None]


def refuse_at_once(path: tuple[str, ...], message: str) -> None:
    """Raise the first error; a caller that collects all errors passes another function."""
    raise PgbouncerConfigError(message)


def settings_of(intent: Mapping[str, object], refuse: Refuse = refuse_at_once) -> list[Line]:
    """Return the lines of section [pgbouncer]: settings with a default of ours first, then the others by name.

    :raises PgbouncerConfigError: for an unknown key, a wrong value, or a size that is given twice.
    """
    if not isinstance(intent, Mapping):
        raise PgbouncerConfigError(f"The intent must be a mapping of settings, not {type_name(intent)}.")
    keys = SECTIONS["pgbouncer"]
    for name in unknown(intent, {*keys, *BESIDE}):
        refuse((str(name),), unknown_message(name, {*keys, *BESIDE}, "The intent"))
    defaults = intent.get("defaults", "ours")
    if defaults not in ("ours", "pgbouncer"):
        refuse(("defaults",), f"defaults is {quoted(defaults)}, but it must be “ours” or “pgbouncer”.")
    sized = _sized(intent, refuse)
    lines = []
    for name in [*OPINIONS, *sorted(keys.keys() - OPINIONS.keys())]:
        own = keys[name].default or "none"
        opinion = OPINIONS.get(name) or Opinion(f"Set by the intent; PgBouncer's default is {own}.")
        value = intent.get(name, opinion.default if defaults == "ours" else None)
        why = opinion.why
        if name in sized:
            value, why = sized[name]
        if value is not None:
            try:
                lines.append(Line(name, written(name, keys[name], value), why))
            except PgbouncerConfigError as problem:
                refuse((name,), str(problem))
    return lines


def _sized(intent: Mapping[str, object], refuse: Refuse) -> dict[str, tuple[int, str]]:
    """Return the settings that follow from the numbers under `capacity`: key → number and its calculation."""
    if "capacity" not in intent:
        return {}
    for name in SIZES:
        if name in intent:
            refuse((name,), f"{name} follows from capacity; remove one of the two.")
    try:
        sizes = size(intent["capacity"])
    except PgbouncerConfigError as problem:
        refuse(("capacity",), str(problem))
        return {}
    for problem in sizes.problems:
        refuse(("capacity",), problem)
    return {name: (sizes.numbers[name], sizes.why[name]) for name in SIZES}


def named_of(
    intent: Mapping[str, object], refuse: Refuse = refuse_at_once
) -> dict[str, dict[str, list[tuple[str, str]]]]:
    """Return the sections that contain names: section → name → keys and values as PgBouncer reads them.

    :raises PgbouncerConfigError: for a name that PgBouncer cannot read, an unknown key or a wrong value.
    """
    sections: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for own, section in NAMED.items():
        given = intent.get(own, {})
        sections[section] = {}
        if not isinstance(given, Mapping):
            refuse((own,), f"“{own}” must be a mapping of names, not {type_name(given)}.")
            continue
        for name in sorted(given, key=str):
            sections[section][str(name)] = list(_pairs(own, name, given[name], refuse))
    if not sections["databases"] and intent.get("defaults") != "pgbouncer":
        refuse(("databases",), "The intent needs “databases”, a mapping from each name to its host and port.")
    return sections


SINGULAR = {"databases": "database", "users": "user", "peers": "peer"}


def _pairs(own: str, name: object, given: object, refuse: Refuse) -> Iterator[tuple[str, str]]:
    section = NAMED[own]
    what = SINGULAR[section]
    here = (own, str(name))
    # PgBouncer's manual allows quoted names, but 1.24 refuses a file that has one (tried).
    if section == "peers":
        if not re.fullmatch(r"[1-9][0-9]{0,4}", str(name)) or int(str(name)) > SECTIONS["pgbouncer"]["peer_id"].high:
            refuse(here, f"The peer {quoted(name)} must be a number from 1 to 16383.")
    elif not isinstance(name, str) or not re.fullmatch(r"\*|[A-Za-z0-9_.-]+", name):
        end = ", or be “*” for all others; write another name as its dbname." if what == "database" else "."
        refuse(here, f"The {what} name {quoted(name)} must consist of letters, digits, “_”, “.” and “-”{end}")
    elif (section, name) == ("databases", "pgbouncer"):
        refuse(here, "The database name “pgbouncer” is reserved for PgBouncer's console.")
    if not isinstance(given, Mapping):
        refuse(here, f"The {what} “{name}” must be a mapping, not {type_name(given)}.")
        return
    keys: dict[str, Key] = SECTIONS[section]
    for key in unknown(given, keys):
        refuse((*here, str(key)), unknown_message(key, keys, f"The {what} “{name}”"))
    for key, kind in keys.items():
        if key in given:
            try:
                value = written(f"{key} of the {what} “{name}”", kind, given[key])
            except PgbouncerConfigError as problem:
                refuse((*here, key), str(problem))
                continue
            if value:
                yield key, value
            else:
                refuse((*here, key), f"{key} of the {what} “{name}” is empty; write a value, or remove {key}.")


def intent_of(configuration: Configuration) -> dict[str, object]:
    """Convert a pgbouncer.ini to an intent with PgBouncer's defaults for missing settings."""
    intent: dict[str, object] = {"defaults": "pgbouncer"}
    intent.update(configuration.pooler)
    for own, section in NAMED.items():
        if configuration.values[section]:
            intent[own] = {name: dict(given) for name, given in configuration.values[section].items()}
    return intent
