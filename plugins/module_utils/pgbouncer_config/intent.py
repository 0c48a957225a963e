"""What a sysadmin says of PgBouncer, and our opinion wherever it is silent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from .capacity import SIZES, size
from .ini import Configuration
from .keys import SECTIONS, Key
from .values import PgbouncerConfigError, quoted, type_name, unknown, unknown_sentence, written


@dataclass(frozen=True)
class Opinion:
    """Why a line is there; says why the number is what it is, not what the key means.

    :param why: the comment above the rendered line.
    :param default: rendered when the intent is silent; None leaves the line out, so that PgBouncer's own default holds.
    """

    why: str
    default: object = None


OPINIONS: dict[str, Opinion] = {
    "listen_addr": Opinion(
        "All addresses of the container; which of them are reachable is the network's business.",
        "*",
    ),
    "listen_port": Opinion("PgBouncer's customary port, so that nobody takes it for PostgreSQL's.", 6432),
    "unix_socket_dir": Opinion(
        "Clients come over the network; over a socket PgBouncer's own user reaches the console without a password.",
        "",
    ),
    "auth_type": Opinion("Passwords never cross the network and cannot be replayed.", "scram-sha-256"),
    "auth_file": Opinion(
        "Who may come in; kept apart from this file because it is secret.",
        "/etc/scratch4school/pgbouncer/userlist.txt",
    ),
    "admin_users": Opinion(
        "Who may pause, reload and shut down over the network. Nobody need: the server's root comes by the socket.",
        (),
    ),
    "stats_users": Opinion("Who may look (SHOW …) and nothing else.", ()),
    "pool_mode": Opinion(
        "A server connection is lent for one transaction, so that many share few. The app keeps no session state.",
        "transaction",
    ),
    "max_client_conn": Opinion(
        "Above all threads of both slots during a swap, one-shots and an administrator: nobody is refused at the door.",
        300,
    ),
    "default_pool_size": Opinion(
        "Server connections per database and user. More than PostgreSQL can work on only moves the queue there.",
        20,
    ),
    "min_pool_size": Opinion("Kept open, so that the first lesson of the day does not wait for connections."),
    "reserve_pool_size": Opinion("Lent on top when clients have waited for reserve_pool_timeout.", 5),
    "reserve_pool_timeout": Opinion("How long is too long to wait for the ordinary pool, in seconds.", 3),
    "max_db_connections": Opinion("A lid on all pools of one database together."),
    "max_user_connections": Opinion("A lid on all pools of one user together."),
    "max_prepared_statements": Opinion(
        "0 where the driver prepares nothing by itself (psycopg2): tracking statements would cost and bring nothing.",
        0,
    ),
    "query_wait_timeout": Opinion(
        "A client without a connection by then is told so while its pupil still waits, not queued past all patience.",
        15,
    ),
    "query_timeout": Opinion("Cuts off a single statement; PostgreSQL's own statement_timeout is the better tool."),
    "idle_transaction_timeout": Opinion(
        "A transaction left open holds a server connection and its locks; no request needs to think this long.",
        60,
    ),
    "client_idle_timeout": Opinion("Closes clients that say nothing."),
    "server_idle_timeout": Opinion("Gives connections back to PostgreSQL when the school is empty.", 600),
    "server_lifetime": Opinion(
        "Renews each connection now and then, so that PostgreSQL's per-connection caches do not grow for weeks.",
        3600,
    ),
    "server_connect_timeout": Opinion(
        "PostgreSQL is one network hop away at most: it answers quickly or not at all.",
        5,
    ),
    "server_login_retry": Opinion(
        "After a failed login to PostgreSQL, wait only this long: it is most likely restarting.",
        1,
    ),
    "server_reset_query": Opinion(
        "Cleans a session before the next client gets it; PgBouncer does not use it in transaction mode."
    ),
    "ignore_startup_parameters": Opinion(
        "Drivers send these when they connect; refusing them would refuse the driver.",
        ("extra_float_digits",),
    ),
    "application_name_add_host": Opinion("Shows in pg_stat_activity which container a query came from."),
    "server_tls_sslmode": Opinion("TLS towards PostgreSQL."),
    "server_tls_ca_file": Opinion("The authority that must have signed PostgreSQL's certificate."),
    "client_tls_sslmode": Opinion("TLS towards clients."),
    "client_tls_cert_file": Opinion("The certificate shown to clients."),
    "client_tls_key_file": Opinion("Its key."),
    "client_tls_ca_file": Opinion("The authority that must have signed clients' certificates."),
    "log_connections": Opinion("One line per connection says little when a pool of threads connects.", default=False),
    "log_disconnections": Opinion("Likewise; errors are logged all the same.", default=False),
    "log_pooler_errors": Opinion("What clients were told went wrong; the first thing to read.", default=True),
    "stats_period": Opinion("How often averages are computed and one line of figures is logged.", 60),
}

# What an intent calls the sections that hold names.
NAMED = {"databases": "databases", "user_settings": "users", "peers": "peers"}
# What stands in an intent beside PgBouncer's own settings.
BESIDE = {
    *NAMED,
    # “pgbouncer”: where the intent is silent PgBouncer's own defaults hold, not ours.
    "defaults",
    # Numbers from which pools and clients follow.
    "capacity",
}


@dataclass(frozen=True)
class Line:
    """One line to render: a setting of the pooler as a whole, as PgBouncer reads it, and the comment above it."""

    key: str
    value: str
    why: str


# What to do about a mistake: where it stands in the intent, and a sentence.
Refuse = Callable[[tuple[str, ...], str], None]


def refuse_at_once(path: tuple[str, ...], sentence: str) -> None:
    """Stop at the first mistake; who wants to hear of all of them gives another such function."""
    raise PgbouncerConfigError(sentence)


def settings_of(intent: Mapping[str, object], refuse: Refuse = refuse_at_once) -> list[Line]:
    """Give the settings of the pooler as a whole: our order first, then whatever else was said, by name.

    :raises PgbouncerConfigError: for an unknown key, a wrong value, or two ways of saying the same.
    """
    if not isinstance(intent, Mapping):
        raise PgbouncerConfigError(f"The intent must be a mapping of settings, not {type_name(intent)}.")
    keys = SECTIONS["pgbouncer"]
    for name in unknown(intent, {*keys, *BESIDE}):
        refuse((str(name),), unknown_sentence(name, {*keys, *BESIDE}, "The intent"))
    silent = intent.get("defaults", "ours")
    if silent not in ("ours", "pgbouncer"):
        refuse(("defaults",), f"defaults is {quoted(silent)}, but it must be “ours” or “pgbouncer”.")
    sized = _sized(intent, refuse)
    lines = []
    for name in [*OPINIONS, *sorted(keys.keys() - OPINIONS.keys())]:
        own = keys[name].default or "none"
        opinion = OPINIONS.get(name) or Opinion(f"Said by the intent; PgBouncer's own is {own}.")
        value = intent.get(name, opinion.default if silent == "ours" else None)
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
    """Give what follows from the numbers under `capacity`: key → number and the sum it comes from."""
    if "capacity" not in intent:
        return {}
    for name in SIZES:
        if name in intent:
            refuse((name,), f"{name} follows from capacity; leave out one of the two.")
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
    """Give the sections that hold names: section → name → keys and values as PgBouncer reads them.

    :raises PgbouncerConfigError: for a name that PgBouncer cannot read, an unknown key or a wrong value.
    """
    sections: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for said, section in NAMED.items():
        given = intent.get(said, {})
        sections[section] = {}
        if not isinstance(given, Mapping):
            refuse((said,), f"“{said}” must be a mapping of names, not {type_name(given)}.")
            continue
        for name in sorted(given, key=str):
            sections[section][str(name)] = list(_pairs(said, name, given[name], refuse))
    if not sections["databases"] and intent.get("defaults") != "pgbouncer":
        refuse(("databases",), "The intent needs “databases”, a mapping from each name to its host and port.")
    return sections


SINGULAR = {"databases": "database", "users": "user", "peers": "peer"}


def _pairs(said: str, name: object, given: object, refuse: Refuse) -> Iterator[tuple[str, str]]:
    section = NAMED[said]
    what = SINGULAR[section]
    here = (said, str(name))
    # Quoted names are in PgBouncer's manual, but 1.24 refuses the file that has one (tried).
    if section == "peers":
        if not re.fullmatch(r"[1-9][0-9]{0,4}", str(name)) or int(str(name)) > SECTIONS["pgbouncer"]["peer_id"].high:
            refuse(here, f"The peer {quoted(name)} must be a number from 1 to 16383.")
    elif not isinstance(name, str) or not re.fullmatch(r"\*|[A-Za-z0-9_.-]+", name):
        end = ", or be “*” for all others; another name can be given as its dbname." if what == "database" else "."
        refuse(here, f"The {what} name {quoted(name)} must consist of letters, digits, “_”, “.” and “-”{end}")
    elif (section, name) == ("databases", "pgbouncer"):
        refuse(here, "The database name “pgbouncer” is taken by PgBouncer's own console.")
    if not isinstance(given, Mapping):
        refuse(here, f"The {what} “{name}” must be a mapping, not {type_name(given)}.")
        return
    keys: dict[str, Key] = SECTIONS[section]
    for key in unknown(given, keys):
        refuse((*here, str(key)), unknown_sentence(key, keys, f"The {what} “{name}”"))
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
                refuse((*here, key), f"{key} of the {what} “{name}” is empty; leave it out.")


def intent_of(configuration: Configuration) -> dict[str, object]:
    """Say as an intent what a pgbouncer.ini says; PgBouncer's own defaults hold where it was silent."""
    intent: dict[str, object] = {"defaults": "pgbouncer"}
    intent.update(configuration.pooler)
    for said, section in NAMED.items():
        if configuration.values[section]:
            intent[said] = {name: dict(given) for name, given in configuration.values[section].items()}
    return intent
