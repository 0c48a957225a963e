"""Looks for what contradicts itself in PgBouncer's files, and for what is legal and unwise."""

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
    """What surrounds PgBouncer; None is unknown, and nothing is said about it.

    :param users: the userlist: name to password or secret.
    :param userlist: the userlist's file.
    :param max_connections: connections that PostgreSQL accepts, those reserved for superusers already taken off.
    :param open_files: file descriptors that PgBouncer may have.
    :param open_files_known: whether that is known, and not only the limit of the machine that checks.
    """

    users: Mapping[str, str] | None = None
    userlist: str = "userlist.txt"
    max_connections: int | None = None
    open_files: int | None = None
    open_files_known: bool = True


def check(configuration: Configuration, circumstances: Circumstances | None = None) -> list[Finding]:
    """Give everything there is to say about a configuration, errors first, each in the order of the files."""
    around = circumstances or Circumstances()
    findings = [
        *configuration.findings,
        *contradictions(configuration),
        *_room(configuration, around),
        *_secrets(configuration, around),
        *_unwise(configuration),
    ]
    return sorted(dict.fromkeys(findings), key=lambda finding: (not finding.error, finding.file, finding.line))


class _Said:
    """A configuration as PgBouncer will have it: what was said, or its own default."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.findings: list[Finding] = []

    def __getitem__(self, key: str) -> object:
        if key in self.configuration.pooler:
            return self.configuration.pooler[key]
        return understood(key, KEYS[key], KEYS[key].default) if KEYS[key].default else ""

    def number(self, key: str) -> float:
        """Give a number."""
        value = self[key]
        return value if isinstance(value, (int, float)) else 0

    def find(self, text: str, key: str, *, error: bool = True) -> None:
        """Say something about a setting."""
        self.findings.append(Finding(*self.configuration.place("pgbouncer", "", key), text, error))

    def find_named(self, text: str, section: str, name: str, *, error: bool = True) -> None:
        """Say something about a line of another section."""
        self.findings.append(Finding(*self.configuration.place(section, name), text, error))


# PgBouncer's own words beside OpenSSL's; tests/scenarios/test_pooler.py tries both on the packaged version.
_CIPHER_WORDS = ("default", "secure", "fast", "normal")
_PROTOCOL = r"[ \t]*!?(all|secure|default|tlsv1(\.[0-3])?)"
_PROTOCOLS = re.compile(f"{_PROTOCOL}([,:]{_PROTOCOL})*", re.IGNORECASE)
_CURVE_WORDS = ("auto", "none")
# OpenSSL has these by a way of its own, which PgBouncer does not go.
_NO_CURVES = ("x25519", "x448")
_OBJECT = re.compile(r"\d+(\.\d+)+")


def _tls_words(said: _Said) -> Iterator[tuple[str, str]]:
    """Give the words about TLS that keep PgBouncer from starting, where it would use them: key and sentence."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for side in ("client", "server"):
        ciphers, protocols = f"{side}_tls_ciphers", f"{side}_tls_protocols"
        if said[f"{side}_tls_sslmode"] == "disable":
            continue
        if str(said[ciphers]).lower() not in _CIPHER_WORDS and not _takes(context.set_ciphers, said[ciphers]):
            yield ciphers, f"“{said[ciphers]}” names no cipher; say default, or a list that `openssl ciphers` takes."
        if not _PROTOCOLS.fullmatch(str(said[protocols])):
            yield protocols, f"“{said[protocols]}” names no protocols; say secure, or tlsv1.2 and tlsv1.3 with a comma."
    curve = said["client_tls_ecdhcurve"]
    known = str(curve).lower() in _CURVE_WORDS or _OBJECT.fullmatch(str(curve)) or _takes(context.set_ecdh_curve, curve)
    known = known and str(curve).lower() not in _NO_CURVES
    if said["client_tls_sslmode"] != "disable" and not known:
        yield "client_tls_ecdhcurve", f"“{curve}” is no curve; say auto, or one such as prime256v1."


def _takes(setting: Callable[[str], object], value: object) -> bool:
    try:
        setting(str(value))
    except (ssl.SSLError, ValueError):
        return False
    return True


def contradictions(configuration: Configuration) -> list[Finding]:
    """Give what keeps PgBouncer from starting, or from doing what was said, by the file alone."""
    said = _Said(configuration)
    client_tls, server_tls, auth = said["client_tls_sslmode"], said["server_tls_sslmode"], said["auth_type"]
    verified = ("verify-ca", "verify-full")
    certificate = said["client_tls_cert_file"] and said["client_tls_key_file"]
    rules = (
        (
            client_tls != "disable" and not certificate,
            "client_tls_sslmode",
            "client_tls_sslmode needs client_tls_cert_file and client_tls_key_file.",
        ),
        (
            client_tls in verified and not said["client_tls_ca_file"],
            "client_tls_sslmode",
            f"client_tls_sslmode {client_tls} needs client_tls_ca_file.",
        ),
        (
            server_tls in verified and not said["server_tls_ca_file"],
            "server_tls_sslmode",
            f"server_tls_sslmode {server_tls} needs server_tls_ca_file.",
        ),
        (
            bool(said["server_tls_cert_file"]) != bool(said["server_tls_key_file"]),
            "server_tls_cert_file" if said["server_tls_cert_file"] else "server_tls_key_file",
            "server_tls_cert_file and server_tls_key_file need each other.",
        ),
        (
            not said["listen_addr"] and not said["unix_socket_dir"],
            "listen_addr",
            "there is neither listen_addr nor unix_socket_dir, so nobody can connect.",
        ),
        (auth == "hba" and not said["auth_hba_file"], "auth_type", "auth_type hba needs auth_hba_file."),
        (
            auth == "cert" and client_tls != "verify-full",
            "auth_type",
            "auth_type cert needs client_tls_sslmode verify-full: without a certificate nobody comes in.",
        ),
        (auth == "pam" and said["auth_user"], "auth_user", "auth_type pam does not go with auth_user."),
    )
    for applies, key, sentence in rules:
        if applies:
            said.find(sentence, key)
    for key, problem in _tls_words(said):
        said.find(problem, key)
    for name, given in configuration.values["databases"].items():
        if name == "pgbouncer":
            said.find_named("the database name “pgbouncer” is taken by PgBouncer's own console.", "databases", name)
        if auth == "any" and "user" not in given:
            said.find_named(f"auth_type any needs a user for the database “{name}”.", "databases", name)
    for name, given in configuration.values["peers"].items():
        if not name.isdecimal() or not 0 < int(name) <= KEYS["peer_id"].high:
            said.find_named(f"the peer “{name}” must be a number from 1 to {KEYS['peer_id'].high}.", "peers", name)
        if "host" not in given:
            said.find_named(f"the peer “{name}” has no host.", "peers", name)
    return said.findings


def pools(configuration: Configuration) -> dict[str, int]:
    """Give the server connections of each database's pool for one user, its reserve and its lid included."""
    said = _Said(configuration)
    sums = {}
    for name, given in configuration.values["databases"].items():
        largest = int(str(given.get("pool_size", said["default_pool_size"])))
        reserve = int(str(given.get("reserve_pool_size", said["reserve_pool_size"])))
        lid = int(str(given.get("max_db_connections", said["max_db_connections"])))
        sums[name] = min(largest + reserve, lid or largest + reserve)
    return sums


def _room(configuration: Configuration, around: Circumstances) -> list[Finding]:
    """Give what does not fit into PostgreSQL, or into the process."""
    said = _Said(configuration)
    sums = pools(configuration)
    servers = sum(sums.values())
    written = " + ".join(f"{amount} for “{name}”" for name, amount in sums.items())
    if around.max_connections is not None and servers > around.max_connections:
        said.find(
            f"the pools may open {written} = {servers} server connections, but PostgreSQL has room for "
            f"{around.max_connections}; make them smaller or raise max_connections.",
            "default_pool_size",
        )
    files = int(said.number("max_client_conn")) + servers
    if around.open_files is not None and files > around.open_files:
        said.find(
            f"{said['max_client_conn']} clients and {servers} servers are {files} connections, but PgBouncer may have "
            f"{around.open_files} open files; raise the limit (ulimit -n, LimitNOFILE=) or lower max_client_conn.",
            "max_client_conn",
            error=around.open_files_known,
        )
    if said.number("max_client_conn") < servers:
        said.find(
            f"max_client_conn is {said['max_client_conn']}, fewer than the {servers} server connections of the pools; "
            "clients are meant to be the many.",
            "max_client_conn",
            error=False,
        )
    return said.findings


def _secrets(configuration: Configuration, around: Circumstances) -> list[Finding]:
    """Give what does not go together in the userlist. No secret is told."""
    said = _Said(configuration)
    wants_passwords = said["auth_type"] in ("md5", "scram-sha-256", "plain")
    asks = said["auth_user"] or any(given.get("auth_user") for given in configuration.values["databases"].values())
    if wants_passwords and not said["auth_file"] and not asks:
        said.find("there is neither auth_file nor auth_user, so nobody comes in.", "auth_type", error=False)
    if around.users is None:
        return said.findings
    for name, secret in around.users.items():
        if said["auth_type"] == "scram-sha-256" and secret.startswith("md5") and len(secret) == 35:
            said.find(
                f"“{name}” has an MD5 hash in {around.userlist}, with which nobody passes auth_type scram-sha-256; "
                "give the password, or PostgreSQL's own SCRAM secret.",
                "auth_type",
            )
    for name, given in configuration.values["databases"].items():
        user = given.get("user")
        if not isinstance(user, str) or given.get("password"):
            continue
        if user not in around.users:
            text = f"the user “{user}” of “{name}” is not in {around.userlist}; PgBouncer has no password for it."
            said.find_named(text, "databases", name, error=False)
        elif around.users[user].startswith("SCRAM-SHA-256$"):
            text = (
                f"the user “{user}” of “{name}” has a SCRAM secret in {around.userlist}, with which PgBouncer cannot "
                "log in where the database names its user; give the password."
            )
            said.find_named(text, "databases", name)
    for key in ("admin_users", "stats_users"):
        names = said[key]
        for user in names if isinstance(names, list) else []:
            if user not in around.users and said["auth_type"] != "any":
                said.find(f"“{user}” of {key} is not in {around.userlist}, so cannot come in.", key, error=False)
    return said.findings


def _unwise(configuration: Configuration) -> list[Finding]:
    """Give what is legal and, for an application behind it, seldom meant."""
    said = _Said(configuration)
    auth, reset, ignored = said["auth_type"], said["server_reset_query"], said["ignore_startup_parameters"]
    databases = configuration.values["databases"]
    # Databases and users may have a mode of their own; without any the pooler's is all there is.
    modes = {given.get("pool_mode", said["pool_mode"]) for given in databases.values()} or {said["pool_mode"]}
    modes |= {given["pool_mode"] for given in configuration.values["users"].values() if "pool_mode" in given}
    shared = not modes.isdisjoint(("transaction", "statement"))
    smallest, largest = said.number("min_pool_size"), said.number("default_pool_size")
    rules = (
        (
            not databases,
            "listen_addr",
            "there is no database, so nobody can connect to anything but the console.",
        ),
        (auth in ("trust", "any"), "auth_type", f"auth_type {auth} lets in whoever reaches it."),
        (auth == "plain", "auth_type", "auth_type plain sends passwords as they are."),
        (
            "statement" in modes,
            "pool_mode",
            "pool_mode statement refuses every transaction of more than one statement.",
        ),
        (
            "session" not in modes
            and "server_reset_query" in configuration.pooler
            and reset
            and not said["server_reset_query_always"],
            "server_reset_query",
            "server_reset_query is not used in transaction mode; clients must not keep anything in their session.",
        ),
        (
            shared and said["server_reset_query_always"],
            "server_reset_query_always",
            "server_reset_query_always costs a round trip per transaction, and hides that clients use their session.",
        ),
        (
            "session" in modes and not reset,
            "server_reset_query",
            "without server_reset_query the next client of a session gets what the last one left in it.",
        ),
        (
            "extra_float_digits" not in (ignored if isinstance(ignored, list) else ()),
            "ignore_startup_parameters",
            "ignore_startup_parameters lacks extra_float_digits; JDBC and others send it and are refused.",
        ),
        (
            said.number("query_wait_timeout") == 0,
            "query_wait_timeout",
            "query_wait_timeout 0 lets clients wait forever when PostgreSQL is away.",
        ),
        (
            shared and said.number("idle_transaction_timeout") == 0,
            "idle_transaction_timeout",
            "without idle_transaction_timeout a forgotten transaction holds a server connection for good.",
        ),
        (
            said.number("reserve_pool_size") and not said.number("reserve_pool_timeout"),
            "reserve_pool_timeout",
            "reserve_pool_timeout 0 switches the reserve off.",
        ),
        (
            said.number("server_lifetime") == 0,
            "server_lifetime",
            "server_lifetime 0 opens a server connection anew each time.",
        ),
        (
            said.number("query_timeout"),
            "query_timeout",
            "query_timeout breaks connections; PostgreSQL's statement_timeout ends the statement alone.",
        ),
        (
            smallest > largest,
            "min_pool_size",
            f"min_pool_size is {smallest}, but a pool never holds more than default_pool_size, {largest}.",
        ),
        (said.number("verbose"), "verbose", "verbose writes statements, and what is in them, into the log."),
    )
    for applies, key, sentence in rules:
        if applies:
            said.find(sentence, key, error=False)
    expired = (
        "auth_query does not ask for VALID UNTIL: passwords that have run out still open the door (CVE-2025-2291)."
    )
    if _forgets_expiry(said["auth_query"]):
        said.find(expired, "auth_query", error=False)
    for name, given in databases.items():
        size, least = given.get("pool_size", largest), given.get("min_pool_size", smallest)
        if isinstance(size, (int, float)) and isinstance(least, (int, float)) and least > size and given:
            text = f"min_pool_size of “{name}” is {least}, but its pool never holds more than {size}."
            said.find_named(text, "databases", name, error=False)
        if _forgets_expiry(given.get("auth_query")):
            said.find_named(f"“{name}”: {expired}", "databases", name, error=False)
    return said.findings


def _forgets_expiry(query: object) -> bool:
    """Say whether a query reads passwords from PostgreSQL's own tables and not until when they hold."""
    text = str(query or "").lower()
    return ("pg_shadow" in text and "valuntil" not in text) or ("pg_authid" in text and "rolvaliduntil" not in text)
