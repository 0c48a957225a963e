"""Settings: read once from the environment and from secret files, checked together, and never changed."""

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

PREFIX = "SCRATCH4SCHOOL_"
EX_CONFIG = 78
DEFAULT_SCOPE = "openid profile uuid email groups"
SECRET_KEY_LENGTH = 32
CLIENT_SECRET_LENGTH = 8

# Values of example files and guides that stand for a real one.
_PLACEHOLDERS = {
    "secret",
    "dev",
    "development",
    "example",
    "password",
    "test",
    "todo",
    "none",
    "null",
    "xxx",
    "default",
}
_PLACEHOLDER_PARTS = ("changeme", "change-me", "change_me", "placeholder", "replaceme", "replace-me", "replace_me")
_PLACEHOLDER_STARTS = ("your-", "your_", "<", "{{", "$")
_PLACEHOLDER_DOMAINS = ("example", "example.com", "example.org", "example.net", "invalid")

T = TypeVar("T")


class ConfigurationError(Exception):
    """The settings cannot be used; `problems` holds one message for each wrong setting."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Secret:
    """A secret value that logs, tracebacks and printed settings objects do not show."""

    _value: str = field(repr=False)

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__


@dataclass(frozen=True)
class DatabaseSettings:
    """Where the data is. `url` carries no password; `role` is the role that a migration acts as."""

    url: URL
    password: Secret | None
    role: str | None

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"


@dataclass(frozen=True)
class OidcSettings:
    """The OpenID Connect provider, and which of its groups make an admin or a teacher."""

    client_id: str
    client_secret: Secret
    authorize_url: str
    token_url: str
    jwks_url: str
    issuer: str | None
    scope: str
    role_admin: str
    role_teacher: str


@dataclass(frozen=True)
class ServerSettings:
    """How gunicorn listens, with how many processes and threads, and how long a request may take."""

    bind: str
    workers: int
    threads: int
    request_seconds: int


@dataclass(frozen=True)
class PoolerSettings:
    """PgBouncer's admin console, for the verification only."""

    url: URL
    password: Secret


@dataclass(frozen=True)
class VerificationSettings:
    """Where the verification finds the running service and, on PostgreSQL, its connection pooler."""

    url: str | None
    pooler: PoolerSettings | None


@dataclass(frozen=True)
class Settings:
    """All settings of the application."""

    public_url: str
    secret_key: Secret
    database: DatabaseSettings
    oidc: OidcSettings
    uploads: Path
    accel_redirect: str | None
    release: str
    server: ServerSettings
    keep_revisions: int
    verification: VerificationSettings

    @property
    def redirect_uri(self) -> str:
        return f"{self.public_url}/backend/authorize"


def load(environment: Mapping[str, str]) -> Settings:
    """All settings from `environment`; ConfigurationError names every problem at once."""
    reader = _Reader(environment)
    database = _database(reader)
    public_url = reader.url("PUBLIC_URL", origin=True)
    secret_key = reader.secret("SECRET_KEY_FILE", SECRET_KEY_LENGTH)
    oidc = _oidc(reader)
    uploads = _uploads(reader)
    accel_redirect = _accel_redirect(reader)
    server = ServerSettings(
        bind=_bind(reader),
        workers=reader.number("WORKERS", default=3, low=1, high=64),
        threads=reader.number("THREADS", default=4, low=1, high=128),
        request_seconds=reader.number("REQUEST_SECONDS", default=60, low=1, high=3600),
    )
    release = reader.text("RELEASE", default="unreleased")
    keep_revisions = reader.number("KEEP_REVISIONS", default=10, low=0, high=1000)
    verification = _verification(reader)
    reader.raise_problems()
    return Settings(
        public_url=public_url,
        secret_key=secret_key,
        database=database,
        oidc=oidc,
        uploads=uploads,
        accel_redirect=accel_redirect,
        release=release,
        server=server,
        keep_revisions=keep_revisions,
        verification=verification,
    )


def load_database(environment: Mapping[str, str]) -> DatabaseSettings:
    """Only the settings of a migration, so that its container does not get the other secrets."""
    reader = _Reader(environment)
    database = _database(reader)
    reader.raise_problems()
    return database


def load_import(environment: Mapping[str, str]) -> tuple[DatabaseSettings, DatabaseSettings | None]:
    """The source database, which is only read, and the one that its rows are imported into, if it is named."""
    reader = _Reader(environment)
    old = _database(reader, "SOURCE_")
    new = _database(reader) if reader.optional("DATABASE_URL") else None
    reader.raise_problems()
    return old, new


class _Reader:
    """Reads single values and collects problems instead of stopping at the first one.

    For a wrong value it returns an empty one. That never reaches a settings object, because `raise_problems` is called
    first.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.problems: list[str] = []

    def raise_problems(self) -> None:
        if self.problems:
            raise ConfigurationError(self.problems)

    def wrong(self, name: str, why: str) -> None:
        self.problems.append(f"{PREFIX}{name} {why}")

    def optional(self, name: str) -> str | None:
        return self._environment.get(PREFIX + name, "").strip() or None

    def text(self, name: str, default: str | None = None) -> str:
        value = self.optional(name)
        if value is None:
            if default is None:
                self.wrong(name, "is missing.")
            return default or ""
        if any(ord(character) < 32 for character in value):
            self.wrong(name, "contains a control character.")
        elif is_placeholder(value):
            self.wrong(name, f"still holds the placeholder {value!r}.")
        return value

    def number(self, name: str, default: int, low: int, high: int) -> int:
        value = self.optional(name)
        if value is None:
            return default
        if not re.fullmatch(r"[0-9]{1,6}", value) or not low <= int(value) <= high:
            self.wrong(name, f"must be a whole number from {low} to {high}, not {value!r}.")
            return default
        return int(value)

    def url(self, name: str, origin: bool = False, required: bool = True) -> str:
        value = self.optional(name)
        if value is None:
            if required:
                self.wrong(name, "is missing.")
            return ""
        try:
            parts = urlsplit(value)
            host, _ = parts.hostname, parts.port
        except ValueError:
            parts, host = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not host or re.search(r"[\s\x00-\x1f]", value):
            self.wrong(name, f"must be a URL such as https://scratch.school.de, not {value!r}.")
        elif parts.username is not None or parts.password is not None:
            self.wrong(name, "must not contain a user name or password.")
        elif _is_placeholder_host(host):
            self.wrong(name, f"still names the placeholder host {host!r}.")
        elif origin and (parts.path.strip("/") or parts.query or parts.fragment):
            self.wrong(name, f"must be scheme, host and port only, without a path, not {value!r}.")
        return value.rstrip("/") if origin else value

    def secret(self, name: str, minimum: int) -> Secret:
        path = self.optional(name)
        if path is None:
            self.wrong(name, "is missing; it must name a file that holds the secret.")
            return Secret("")
        try:
            value = Path(path).read_text(encoding="utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not UTF-8 text"
            self.wrong(name, f"names {path}, which cannot be read: {reason}.")
            return Secret("")
        if not value.strip():
            self.wrong(name, f"names {path}, which is empty.")
        elif is_placeholder(value):
            self.wrong(name, f"names {path}, which still holds a placeholder instead of a secret.")
        elif len(value) < minimum:
            self.wrong(name, f"names {path}, whose secret has {len(value)} characters; at least {minimum} are needed.")
        elif len(set(value)) < min(minimum, 6):
            self.wrong(name, f"names {path}, whose secret repeats too few different characters.")
        return Secret(value)


def is_placeholder(value: str) -> bool:
    """Whether `value` is a placeholder of an example file for a value that the sysadmin must choose."""
    lowered = value.strip().lower()
    return (
        lowered in _PLACEHOLDERS
        or lowered in _PLACEHOLDER_DOMAINS
        or lowered.startswith(_PLACEHOLDER_STARTS)
        or any(part in lowered for part in _PLACEHOLDER_PARTS)
    )


def _is_placeholder_host(host: str) -> bool:
    lowered = host.lower()
    return lowered.startswith(_PLACEHOLDER_STARTS) or any(
        lowered == domain or lowered.endswith("." + domain) for domain in _PLACEHOLDER_DOMAINS
    )


def _database(reader: _Reader, which: str = "") -> DatabaseSettings:
    url = _database_url(reader, f"{which}DATABASE_URL")
    password = None
    # Over a socket PostgreSQL may know the client; over the network a password is required.
    if url.get_backend_name() == "postgresql" and (url.host or reader.optional(f"{which}DATABASE_PASSWORD_FILE")):
        password = reader.secret(f"{which}DATABASE_PASSWORD_FILE", CLIENT_SECRET_LENGTH)
    role = reader.optional(f"{which}DATABASE_ROLE")
    if role is not None and not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", role):
        reader.wrong(f"{which}DATABASE_ROLE", f"must be a plain role name, not {role!r}.")
    return DatabaseSettings(url=url, password=password, role=role)


def _database_url(reader: _Reader, name: str) -> URL:
    stand_in = URL.create("sqlite")
    value = reader.optional(name)
    if value is None:
        reader.wrong(name, "is missing.")
        return stand_in
    # No message repeats the value, because people put passwords into such URLs.
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        reader.wrong(name, "is not a database URL such as postgresql://user@host:6432/name or sqlite:////path/main.db.")
        return stand_in
    if url.password is not None:
        reader.wrong(name, "must not contain the password; put it into a file and name that file.")
        return stand_in
    if url.drivername == "postgresql":
        if not ((url.host or str(url.query.get("host", "")).startswith("/")) and url.database and url.username):
            reader.wrong(name, "must name user, host and database: postgresql://user@host:6432/name.")
        # SQLAlchemy 2.1 reads a bare postgresql:// as psycopg 3, which is not installed here.
        return url.set(drivername="postgresql+psycopg2")
    if url.drivername == "sqlite":
        if not (url.database and url.database.startswith("/")):
            reader.wrong(name, "must give SQLite an absolute path: sqlite:////path/main.db.")
        return url
    reader.wrong(name, f"must begin with postgresql:// or sqlite:///, not {url.drivername}://.")
    return stand_in


def _oidc(reader: _Reader) -> OidcSettings:
    role_admin, role_teacher = reader.text("ROLE_ADMIN"), reader.text("ROLE_TEACHER")
    if role_admin and role_admin == role_teacher:
        reader.wrong("ROLE_TEACHER", "must be another group than SCRATCH4SCHOOL_ROLE_ADMIN.")
    return OidcSettings(
        client_id=reader.text("OIDC_CLIENT_ID"),
        client_secret=reader.secret("OIDC_CLIENT_SECRET_FILE", CLIENT_SECRET_LENGTH),
        authorize_url=reader.url("OIDC_AUTHORIZE_URL"),
        token_url=reader.url("OIDC_TOKEN_URL"),
        jwks_url=reader.url("OIDC_JWKS_URL"),
        issuer=reader.url("OIDC_ISSUER", required=False) or None,
        scope=_scope(reader),
        role_admin=role_admin,
        role_teacher=role_teacher,
    )


def _scope(reader: _Reader) -> str:
    scope = reader.text("OIDC_SCOPE", default=DEFAULT_SCOPE)
    if "openid" not in scope.split():
        reader.wrong("OIDC_SCOPE", "must contain openid; without it the provider sends no ID token.")
    return scope


def _uploads(reader: _Reader) -> Path:
    uploads = Path(reader.text("UPLOADS"))
    if uploads != Path() and not uploads.is_absolute():
        reader.wrong("UPLOADS", f"must be an absolute path, not {str(uploads)!r}.")
    elif uploads != Path() and not uploads.is_dir():
        reader.wrong("UPLOADS", f"names {uploads}, which is not a directory.")
    return uploads


def _accel_redirect(reader: _Reader) -> str | None:
    prefix = reader.optional("ACCEL_REDIRECT")
    if prefix is not None and not re.fullmatch(r"/[A-Za-z0-9_/-]*/", prefix):
        reader.wrong("ACCEL_REDIRECT", f"must begin and end with a slash, such as /_uploads/, not {prefix!r}.")
    return prefix


def _bind(reader: _Reader) -> str:
    bind = reader.text("BIND", default="127.0.0.1:8000")
    is_socket = re.fullmatch(r"unix:/[^\s]+", bind)
    port = re.fullmatch(r"(?:[A-Za-z0-9_.-]+|\[[0-9a-fA-F:]+\]):([0-9]{1,5})", bind)
    if not is_socket and not (port and int(port[1]) < 65536):
        reader.wrong("BIND", f"must be unix:/path/to/socket or host:port, not {bind!r}.")
    return bind


def _verification(reader: _Reader) -> VerificationSettings:
    url = reader.url("VERIFY_URL", required=False).rstrip("/") or None
    pooler = None
    if reader.optional("VERIFY_POOLER_URL") is not None:
        pooler = PoolerSettings(
            url=_database_url(reader, "VERIFY_POOLER_URL"),
            password=reader.secret("VERIFY_POOLER_PASSWORD_FILE", CLIENT_SECRET_LENGTH),
        )
    return VerificationSettings(url=url, pooler=pooler)


def load_or_exit(loader: Callable[[Mapping[str, str]], T], environment: Mapping[str, str]) -> T:
    """`loader(environment)`; on problems one line each on standard error, and the process ends with status 78."""
    try:
        return loader(environment)
    except ConfigurationError as error:
        for problem in error.problems:
            print(f"scratch4school: {problem}", file=sys.stderr)
        raise SystemExit(EX_CONFIG) from None
