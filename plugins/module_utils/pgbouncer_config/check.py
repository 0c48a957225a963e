"""Checks PgBouncer's files for contradictions, and for settings that are valid and inadvisable."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from .ini import Configuration, Finding
from .keys import KEYS
from .values import understood


@dataclass(frozen=True)
class Circumstances:
    """PgBouncer's environment; a value of None is unknown, and is not checked.

    :param users: passwords or secrets of the userlist by name.
    :param userlist: path of the userlist.
    :param max_connections: connections that PostgreSQL accepts, without those reserved for superusers.
    :param open_files: file descriptors that PgBouncer may open.
    :param open_files_known: False when open_files is only the limit of the machine that runs the check.
    """

    users: Mapping[str, str] | None = None
    userlist: str = "userlist.txt"
    max_connections: int | None = None
    open_files: int | None = None
    open_files_known: bool = True


def check(configuration: Configuration, circumstances: Circumstances | None = None) -> list[Finding]:
    """Return all findings about a configuration, errors first, each kind in the order of the files."""
    around = circumstances or Circumstances()
    findings = [
        *configuration.findings,
        *contradictions(configuration),
        *_room(configuration, around),
        *_secrets(configuration, around),
        *_unwise(configuration),
    ]
    return sorted(dict.fromkeys(findings), key=lambda finding: (not finding.error, finding.file, finding.line))


class _Effective:
    """A configuration's effective values: those of the file, or PgBouncer's defaults."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.findings: list[Finding] = []

    def __getitem__(self, key: str) -> object:
        if key in self.configuration.pooler:
            return self.configuration.pooler[key]
        return understood(key, KEYS[key], KEYS[key].default) if KEYS[key].default else ""

    def number(self, key: str) -> float:
        """Return a setting as a number; 0 when it is none."""
        value = self[key]
        return value if isinstance(value, (int, float)) else 0

    def find(self, text: str, key: str, *, error: bool = True) -> None:
        """Add a finding about a setting of [pgbouncer]."""
        self.findings.append(Finding(*self.configuration.place("pgbouncer", "", key), text, error))

    def find_named(self, text: str, section: str, name: str, *, error: bool = True) -> None:
        """Add a finding about a line of another section."""
        self.findings.append(Finding(*self.configuration.place(section, name), text, error))


# PgBouncer's own keywords beside OpenSSL's; tests/scenarios/test_pgbouncer_tool.py tries both on the packaged version.
_CIPHER_WORDS = ("default", "secure", "fast", "normal")
_PROTOCOL = r"[ \t]*!?(all|secure|default|tlsv1(\.[0-3])?)"
_PROTOCOLS = re.compile(f"{_PROTOCOL}([,:]{_PROTOCOL})*", re.IGNORECASE)
_CURVE_WORDS = ("auto", "none")
# OpenSSL supports these, but not through the interface that PgBouncer uses.
_NO_CURVES = ("x25519", "x448")
_OBJECT = re.compile(r"\d+(\.\d+)+")


def _tls_words(effective: _Effective) -> Iterator[tuple[str, str]]:
    """Yield key and message for each TLS value that keeps PgBouncer from starting, if PgBouncer would use the value."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for side in ("client", "server"):
        ciphers, protocols = f"{side}_tls_ciphers", f"{side}_tls_protocols"
        if effective[f"{side}_tls_sslmode"] == "disable":
            continue
        if str(effective[ciphers]).lower() not in _CIPHER_WORDS and not _takes(context.set_ciphers, effective[ciphers]):
            yield (
                ciphers,
                f"“{effective[ciphers]}” names no cipher; write default, or a list that `openssl ciphers` accepts.",
            )
        if not _PROTOCOLS.fullmatch(str(effective[protocols])):
            yield protocols, f"“{effective[protocols]}” names no protocols; write secure, or “tlsv1.2, tlsv1.3”."
    curve = effective["client_tls_ecdhcurve"]
    known = str(curve).lower() in _CURVE_WORDS or _OBJECT.fullmatch(str(curve)) or _takes(context.set_ecdh_curve, curve)
    known = known and str(curve).lower() not in _NO_CURVES
    if effective["client_tls_sslmode"] != "disable" and not known:
        yield "client_tls_ecdhcurve", f"“{curve}” is no curve; write auto, or a name such as prime256v1."


def _takes(setting: Callable[[str], object], value: object) -> bool:
    try:
        setting(str(value))
    except (ssl.SSLError, ValueError):
        return False
    return True


def contradictions(configuration: Configuration) -> list[Finding]:
    """Return findings, from the files alone, that keep PgBouncer from starting or from working as configured."""
    effective = _Effective(configuration)
    client_tls, server_tls, auth = (
        effective["client_tls_sslmode"],
        effective["server_tls_sslmode"],
        effective["auth_type"],
    )
    verified = ("verify-ca", "verify-full")
    certificate = effective["client_tls_cert_file"] and effective["client_tls_key_file"]
    rules = (
        (
            client_tls != "disable" and not certificate,
            "client_tls_sslmode",
            "client_tls_sslmode needs client_tls_cert_file and client_tls_key_file.",
        ),
        (
            client_tls in verified and not effective["client_tls_ca_file"],
            "client_tls_sslmode",
            f"client_tls_sslmode {client_tls} needs client_tls_ca_file.",
        ),
        (
            server_tls in verified and not effective["server_tls_ca_file"],
            "server_tls_sslmode",
            f"server_tls_sslmode {server_tls} needs server_tls_ca_file.",
        ),
        (
            bool(effective["server_tls_cert_file"]) != bool(effective["server_tls_key_file"]),
            "server_tls_cert_file" if effective["server_tls_cert_file"] else "server_tls_key_file",
            "only one of server_tls_cert_file and server_tls_key_file is set; set both, or none.",
        ),
        (
            not effective["listen_addr"] and not effective["unix_socket_dir"],
            "listen_addr",
            "there is neither listen_addr nor unix_socket_dir, so no client can connect.",
        ),
        (auth == "hba" and not effective["auth_hba_file"], "auth_type", "auth_type hba needs auth_hba_file."),
        (
            auth == "cert" and client_tls != "verify-full",
            "auth_type",
            "auth_type cert needs client_tls_sslmode verify-full: PgBouncer refuses clients without a certificate.",
        ),
        (
            auth == "pam" and effective["auth_user"],
            "auth_user",
            "auth_type pam cannot be used with auth_user; remove auth_user.",
        ),
    )
    for applies, key, message in rules:
        if applies:
            effective.find(message, key)
    for key, problem in _tls_words(effective):
        effective.find(problem, key)
    for name, given in configuration.values["databases"].items():
        if name == "pgbouncer":
            effective.find_named(
                "the database name “pgbouncer” is reserved for PgBouncer's console.", "databases", name
            )
        if auth == "any" and "user" not in given:
            effective.find_named(f"auth_type any needs a user for the database “{name}”.", "databases", name)
    for name, given in configuration.values["peers"].items():
        if not name.isdecimal() or not 0 < int(name) <= KEYS["peer_id"].high:
            effective.find_named(f"the peer “{name}” must be a number from 1 to {KEYS['peer_id'].high}.", "peers", name)
        if "host" not in given:
            effective.find_named(f"the peer “{name}” has no host.", "peers", name)
    return effective.findings


def pools(configuration: Configuration) -> dict[str, int]:
    """Return the largest number of server connections of each database's pool, for one user, reserve included."""
    effective = _Effective(configuration)
    sums = {}
    for name, given in configuration.values["databases"].items():
        largest = int(str(given.get("pool_size", effective["default_pool_size"])))
        reserve = int(str(given.get("reserve_pool_size", effective["reserve_pool_size"])))
        lid = int(str(given.get("max_db_connections", effective["max_db_connections"])))
        sums[name] = min(largest + reserve, lid or largest + reserve)
    return sums


def _room(configuration: Configuration, around: Circumstances) -> list[Finding]:
    """Return findings about connections that exceed PostgreSQL's or the process's limit."""
    effective = _Effective(configuration)
    sums = pools(configuration)
    servers = sum(sums.values())
    written = " + ".join(f"{amount} for “{name}”" for name, amount in sums.items())
    if around.max_connections is not None and servers > around.max_connections:
        effective.find(
            f"the pools may open {written} = {servers} server connections, but PostgreSQL accepts "
            f"{around.max_connections}; make the pools smaller or raise max_connections.",
            "default_pool_size",
        )
    files = int(effective.number("max_client_conn")) + servers
    if around.open_files is not None and files > around.open_files:
        effective.find(
            f"{effective['max_client_conn']} clients and {servers} servers are {files} connections, but PgBouncer may "
            f"have {around.open_files} open files; raise the limit (ulimit -n, LimitNOFILE=) or lower max_client_conn.",
            "max_client_conn",
            error=around.open_files_known,
        )
    if effective.number("max_client_conn") < servers:
        effective.find(
            f"max_client_conn is {effective['max_client_conn']}, fewer than the {servers} server connections of the "
            "pools; raise max_client_conn above that.",
            "max_client_conn",
            error=False,
        )
    return effective.findings


def _secrets(configuration: Configuration, around: Circumstances) -> list[Finding]:
    """Return findings about the userlist, without secrets."""
    effective = _Effective(configuration)
    needs_passwords = effective["auth_type"] in ("md5", "scram-sha-256", "plain")
    asks = effective["auth_user"] or any(given.get("auth_user") for given in configuration.values["databases"].values())
    if needs_passwords and not effective["auth_file"] and not asks:
        effective.find("there is neither auth_file nor auth_user, so no client can log in.", "auth_type", error=False)
    if around.users is None:
        return effective.findings
    for name, secret in around.users.items():
        if effective["auth_type"] == "scram-sha-256" and secret.startswith("md5") and len(secret) == 35:
            effective.find(
                f"“{name}” has an MD5 hash in {around.userlist}, which cannot be used with auth_type scram-sha-256; "
                "write the password, or PostgreSQL's SCRAM secret.",
                "auth_type",
            )
    for name, given in configuration.values["databases"].items():
        user = given.get("user")
        if not isinstance(user, str) or given.get("password"):
            continue
        if user not in around.users:
            text = f"the user “{user}” of “{name}” is not in {around.userlist}; PgBouncer has no password for it."
            effective.find_named(text, "databases", name, error=False)
        elif around.users[user].startswith("SCRAM-SHA-256$"):
            text = (
                f"the user “{user}” of “{name}” has a SCRAM secret in {around.userlist}, with which PgBouncer cannot "
                "log in where the database names its user; write the password."
            )
            effective.find_named(text, "databases", name)
    for key in ("admin_users", "stats_users"):
        names = effective[key]
        for user in names if isinstance(names, list) else []:
            if user not in around.users and effective["auth_type"] != "any":
                effective.find(f"“{user}” of {key} is not in {around.userlist}, so it cannot log in.", key, error=False)
    return effective.findings


def _unwise(configuration: Configuration) -> list[Finding]:
    """Return findings about settings that are valid and, for an application with a pool, rarely intended."""
    effective = _Effective(configuration)
    auth, reset, ignored = (
        effective["auth_type"],
        effective["server_reset_query"],
        effective["ignore_startup_parameters"],
    )
    databases = configuration.values["databases"]
    # Databases and users may have a mode of their own; without databases only PgBouncer's mode counts.
    modes = {given.get("pool_mode", effective["pool_mode"]) for given in databases.values()} or {effective["pool_mode"]}
    modes |= {given["pool_mode"] for given in configuration.values["users"].values() if "pool_mode" in given}
    shared = not modes.isdisjoint(("transaction", "statement"))
    smallest, largest = effective.number("min_pool_size"), effective.number("default_pool_size")
    rules = (
        (
            not databases,
            "listen_addr",
            "there is no database, so clients can connect to the console only.",
        ),
        (auth in ("trust", "any"), "auth_type", f"auth_type {auth} accepts every client without a password."),
        (auth == "plain", "auth_type", "auth_type plain sends passwords unencrypted."),
        (
            "statement" in modes,
            "pool_mode",
            "pool_mode statement refuses every transaction of more than one statement.",
        ),
        (
            "session" not in modes
            and "server_reset_query" in configuration.pooler
            and reset
            and not effective["server_reset_query_always"],
            "server_reset_query",
            "server_reset_query is not used in transaction mode; clients must not use session state.",
        ),
        (
            shared and effective["server_reset_query_always"],
            "server_reset_query_always",
            "server_reset_query_always costs a round trip per transaction, and hides clients that use session state.",
        ),
        (
            "session" in modes and not reset,
            "server_reset_query",
            "without server_reset_query the next client of a session gets the state that the last one left.",
        ),
        (
            "extra_float_digits" not in (ignored if isinstance(ignored, list) else ()),
            "ignore_startup_parameters",
            "ignore_startup_parameters lacks extra_float_digits; JDBC and other drivers send it and are refused.",
        ),
        (
            effective.number("query_wait_timeout") == 0,
            "query_wait_timeout",
            "query_wait_timeout 0 lets clients wait forever when PostgreSQL does not answer.",
        ),
        (
            shared and effective.number("idle_transaction_timeout") == 0,
            "idle_transaction_timeout",
            "without idle_transaction_timeout a forgotten transaction occupies a server connection forever.",
        ),
        (
            effective.number("reserve_pool_size") and not effective.number("reserve_pool_timeout"),
            "reserve_pool_timeout",
            "reserve_pool_timeout 0 switches the reserve off.",
        ),
        (
            effective.number("server_lifetime") == 0,
            "server_lifetime",
            "server_lifetime 0 opens a new server connection each time.",
        ),
        (
            effective.number("query_timeout"),
            "query_timeout",
            "query_timeout breaks connections; PostgreSQL's statement_timeout only ends the statement.",
        ),
        (
            smallest > largest,
            "min_pool_size",
            f"min_pool_size is {smallest}, but a pool never has more connections than default_pool_size, {largest}.",
        ),
        (effective.number("verbose"), "verbose", "verbose writes statements with their values to the log."),
    )
    for applies, key, message in rules:
        if applies:
            effective.find(message, key, error=False)
    expired = "auth_query does not read VALID UNTIL, so that expired passwords are still accepted (CVE-2025-2291)."
    if _forgets_expiry(effective["auth_query"]):
        effective.find(expired, "auth_query", error=False)
    for name, given in databases.items():
        size, least = given.get("pool_size", largest), given.get("min_pool_size", smallest)
        if isinstance(size, (int, float)) and isinstance(least, (int, float)) and least > size and given:
            text = f"min_pool_size of “{name}” is {least}, but its pool never has more connections than {size}."
            effective.find_named(text, "databases", name, error=False)
        if _forgets_expiry(given.get("auth_query")):
            effective.find_named(f"“{name}”: {expired}", "databases", name, error=False)
    return effective.findings


def _forgets_expiry(query: object) -> bool:
    """Return whether a query reads passwords from PostgreSQL's own tables without their expiry."""
    text = str(query or "").lower()
    return ("pg_shadow" in text and "valuntil" not in text) or ("pg_authid" in text and "rolvaliduntil" not in text)
