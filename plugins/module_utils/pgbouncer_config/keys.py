"""All settings of PgBouncer 1.24: kind, default, bounds, and whether a RELOAD is enough for a change.

Names, bounds and choices are those of pgbouncer(5) as Debian ships it with 1.24.1. Defaults, and the settings for which
a RELOAD is enough, are those of `SHOW CONFIG`; a scenario compares them.
"""

from __future__ import annotations

from dataclasses import dataclass

VERSION = "1.24"

# PgBouncer stores numbers as C's int.
MOST = 2**31 - 1

POOL_MODES = ("session", "transaction", "statement")
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


@dataclass(frozen=True)
class Key:
    """One setting.

    :param kind: `integer`, `octal`, `seconds`, `boolean`, `choice`, `names` (a list with commas) or `text`; decides
        which values are accepted and how they are formatted.
    :param default: PgBouncer's default, as `SHOW CONFIG` prints it.
    :param reload: whether a RELOAD is enough for a change; otherwise it needs a restart.
    :param low: smallest accepted number.
    :param high: largest accepted number.
    :param choices: accepted words, for `choice`.
    :param separators: characters between two names, for `names`.
    """

    kind: str
    default: str = ""
    reload: bool = True
    low: float = 0
    high: float = MOST
    choices: tuple[str, ...] = ()
    separators: str = ", \t"


def _number(default: int, low: int = 0, high: int = MOST, *, reload: bool = True) -> Key:
    return Key("integer", str(default), reload, low, high)


def _seconds(default: int) -> Key:
    return Key("seconds", str(default))


def _boolean(default: int, *, reload: bool = True) -> Key:
    return Key("boolean", str(default), reload)


def _choice(default: str, *choices: str) -> Key:
    return Key("choice", default, choices=choices)


def _text(default: str = "", *, reload: bool = True) -> Key:
    return Key("text", default, reload)


def _names(default: str = "", *, reload: bool = True, separators: str = ", \t") -> Key:
    return Key("names", default, reload, separators=separators)


# Section [pgbouncer].
KEYS: dict[str, Key] = {
    # Generic
    "logfile": _text(),
    "pidfile": _text(reload=False),
    "listen_addr": _text(reload=False),
    "listen_port": _number(6432, 1, 65535, reload=False),
    "unix_socket_dir": _text("/tmp", reload=False),
    "unix_socket_mode": Key("octal", "0777", False, 0, 0o777),
    "unix_socket_group": _text(reload=False),
    "user": _text(reload=False),
    "pool_mode": _choice("session", *POOL_MODES),
    "max_client_conn": _number(100, 1),
    "default_pool_size": _number(20, 1),
    "min_pool_size": _number(0),
    "reserve_pool_size": _number(0),
    "reserve_pool_timeout": _seconds(5),
    "max_db_connections": _number(0),
    "max_db_client_connections": _number(0),
    "max_user_connections": _number(0),
    "max_user_client_connections": _number(0),
    "server_round_robin": _boolean(0),
    "track_extra_parameters": _names("IntervalStyle", reload=False, separators=","),
    "ignore_startup_parameters": _names(),
    "peer_id": _number(0, 0, 16383),
    "disable_pqexec": _boolean(0, reload=False),
    "application_name_add_host": _boolean(0),
    "conffile": _text(),
    "job_name": _text("pgbouncer", reload=False),
    "stats_period": _number(60, 1),
    "max_prepared_statements": _number(200),
    # Authentication
    "auth_type": _choice("md5", "cert", "md5", "scram-sha-256", "plain", "trust", "any", "hba", "pam"),
    "auth_hba_file": _text(),
    "auth_ident_file": _text(),
    "auth_file": _text(),
    "auth_user": _text(),
    "auth_query": _text(
        "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END"
        " FROM pg_authid WHERE rolname=$1 AND rolcanlogin"
    ),
    "auth_dbname": _text(),
    # Log
    "syslog": _boolean(0),
    "syslog_ident": _text("pgbouncer"),
    "syslog_facility": _choice(
        "daemon", "auth", "authpriv", "daemon", "user", *(f"local{number}" for number in range(8))
    ),
    "log_connections": _boolean(1),
    "log_disconnections": _boolean(1),
    "log_pooler_errors": _boolean(1),
    "log_stats": _boolean(1),
    "verbose": Key("integer"),
    # Console
    "admin_users": _names(),
    "stats_users": _names(),
    # Sanity checks and timeouts
    "server_reset_query": _text("DISCARD ALL"),
    "server_reset_query_always": _boolean(0),
    "server_check_delay": _seconds(30),
    "server_check_query": _text("select 1"),
    "server_fast_close": _boolean(0),
    "server_lifetime": _seconds(3600),
    "server_idle_timeout": _seconds(600),
    "server_connect_timeout": _seconds(15),
    "server_login_retry": _seconds(15),
    "client_login_timeout": _seconds(60),
    "autodb_idle_timeout": _seconds(3600),
    "dns_max_ttl": _seconds(15),
    "dns_nxdomain_ttl": _seconds(15),
    "dns_zone_check_period": _seconds(0),
    "resolv_conf": _text(reload=False),
    # TLS
    "client_tls_sslmode": _choice("disable", *SSL_MODES),
    "client_tls_key_file": _text(),
    "client_tls_cert_file": _text(),
    "client_tls_ca_file": _text(),
    "client_tls_protocols": _text("secure"),
    "client_tls_ciphers": _text("default"),
    "client_tls_ecdhcurve": _text("auto"),
    # The manual also names legacy; with the OpenSSL of Debian 13 PgBouncer does not start with it.
    "client_tls_dheparams": _choice("auto", "none", "auto"),
    "server_tls_sslmode": _choice("prefer", *SSL_MODES),
    "server_tls_ca_file": _text(),
    "server_tls_key_file": _text(),
    "server_tls_cert_file": _text(),
    "server_tls_protocols": _text("secure"),
    "server_tls_ciphers": _text("default"),
    # Dangerous timeouts
    "query_timeout": _seconds(0),
    "query_wait_timeout": _seconds(120),
    "cancel_wait_timeout": _seconds(10),
    "client_idle_timeout": _seconds(0),
    "idle_transaction_timeout": _seconds(0),
    "suspend_timeout": _seconds(10),
    # Low-level network
    "pkt_buf": _number(4096, 512, reload=False),
    "max_packet_size": _number(MOST, 1),
    "listen_backlog": _number(128, 1, reload=False),
    "sbuf_loopcnt": _number(5),
    "so_reuseport": _boolean(0, reload=False),
    "tcp_defer_accept": _boolean(1),
    "tcp_socket_buffer": _number(0),
    "tcp_keepalive": _boolean(1),
    # The kernel's limits: with larger numbers PgBouncer does not start (tried).
    "tcp_keepcnt": _number(0, high=127),
    "tcp_keepidle": _number(0, high=32767),
    "tcp_keepintvl": _number(0, high=32767),
    "tcp_user_timeout": _number(0),
}

# In the connection string behind a name in section [databases].
DATABASE_KEYS: dict[str, Key] = {
    "host": _text(),
    "port": _number(5432, 1, 65535),
    "dbname": _text(),
    "user": _text(),
    "password": _text(),
    "auth_user": _text(),
    "auth_query": _text(),
    "auth_dbname": _text(),
    "pool_size": _number(20, 1),
    "min_pool_size": _number(0),
    "reserve_pool_size": _number(0),
    "pool_mode": _choice("", *POOL_MODES),
    "load_balance_hosts": _choice("round-robin", "round-robin", "disable"),
    "max_db_connections": _number(0),
    "max_db_client_connections": _number(0),
    "server_lifetime": _seconds(3600),
    "client_encoding": _text(),
    "datestyle": _text(),
    "timezone": _text(),
    "application_name": _text(),
    "connect_query": _text(),
}

# In the settings behind a name in section [users].
USER_KEYS: dict[str, Key] = {
    "pool_size": _number(20, 1),
    "reserve_pool_size": _number(0),
    "pool_mode": _choice("", *POOL_MODES),
    "max_user_connections": _number(0),
    "max_user_client_connections": _number(0),
    "query_timeout": _seconds(0),
    "idle_transaction_timeout": _seconds(0),
    "client_idle_timeout": _seconds(0),
}

# In the connection string behind a number in section [peers].
PEER_KEYS: dict[str, Key] = {"host": _text(), "port": _number(6432, 1, 65535), "pool_size": _number(20, 1)}

# The four sections. All but the first contain names, each with such settings.
SECTIONS: dict[str, dict[str, Key]] = {
    "pgbouncer": KEYS,
    "databases": DATABASE_KEYS,
    "users": USER_KEYS,
    "peers": PEER_KEYS,
}

# Settings of later versions.
LATER = ("transaction_timeout", "query_wait_notify", "scram_iterations", "target_session_attrs")

# Names of settings in versions before 1.24.
OLD_NAMES = {"databases": {"reserve_pool": "reserve_pool_size"}}
