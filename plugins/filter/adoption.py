"""Reads the compose file of an existing installation: where its database and files are, and its settings."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

import yaml

# The original's settings, and ours for the same.
SETTINGS = {
    "OAUTH_CLIENT_ID": "app_oidc_client_id",
    "OAUTH_CLIENT_SECRET": "app_oidc_client_secret",
    "OAUTH_AUTHORIZE_URL": "app_oidc_authorize_url",
    "OAUTH_TOKEN_URL": "app_oidc_token_url",
    "OAUTH_JWKS_URI": "app_oidc_jwks_url",
    "ROLE_ADMIN": "app_role_admin",
    "ROLE_TEACHER": "app_role_teacher",
    "FRONTEND_URL": "scratch4school_url",
}
# Where the original keeps things inside of its container.
UPLOADS = "/app/uploads"
DEFAULT_DATABASE = "sqlite:////app/db/main.db"
# As the original reads it (SQLAlchemy's make_url): a password may contain everything but @, slashes included.
ADDRESS = re.compile(
    r"^postgres(?:ql)?(?:\+\w+)?://(?:(?P<user>[^:/@]*)(?::(?P<password>[^@]*))?@)?(?P<where>[^?]*)(?:\?.*)?$"
)
SCHEME = re.compile(r"^postgres(?:ql)?(?:\+\w+)?://")


def compose_files(text: str, folder: str) -> list[str]:
    """`text | compose_files('/srv/scratch')` → the files with variables that it reads, `.env` first."""
    files = [posixpath.normpath(posixpath.join(folder, ".env"))]
    for service in _services(text).values():
        files += _env_files(service, folder)
    return list(dict.fromkeys(files))


def compose_source(text: str, folder: str, files: Mapping[str, str]) -> dict[str, Any]:
    """`text | compose_source('/srv/scratch', {'/srv/scratch/.env': '…'})` → database, uploads, settings, and a note.

    :param files: what `compose_files` named, by path; those that are not there are left out.
    """
    variables = _variables(files.get(posixpath.join(folder, ".env"), ""))
    services = _services(text)
    for service in services.values():
        environment = {**_from_files(service, folder, files), **_environment(service)}
        environment = {name: _filled_in(value, variables) for name, value in environment.items()}
        if "OAUTH_CLIENT_ID" in environment or "DATABASE_URI" in environment:
            return _source(service, environment, folder, variables)
    return {
        "note": "No service in the compose file has OAUTH_CLIENT_ID or DATABASE_URI, so it belongs to another program."
    }


def without_password(address: str) -> str:
    """`'postgresql://a:b@h/d' | without_password` → postgresql://a@h/d; a path stays as it is."""
    found = ADDRESS.match(address)
    if not found:
        return address
    who = f"{found['user']}@" if found["user"] else ""
    return f"postgresql://{who}{found['where']}"


def pgpass_line(address: str) -> str:
    """`'postgresql://a:b@h/d' | pgpass_line` → the line by which PostgreSQL's programs find the password."""
    found = ADDRESS.match(address)
    password = unquote((found and found["password"]) or "")
    return "*:*:*:*:" + password.replace("\\", "\\\\").replace(":", "\\:")


def settings_that_differ(settings: Mapping[str, str], here: Mapping[str, Any]) -> list[str]:
    """`old | settings_that_differ(vars)` → names of settings that this inventory has otherwise, or not at all."""
    return sorted(name for name, value in settings.items() if str(here.get(name, "")) != value)


def _services(text: str) -> dict[str, dict[str, Any]]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    services = content.get("services") if isinstance(content, dict) else None
    return {name: one for name, one in (services or {}).items() if isinstance(one, dict)}


def _source(
    service: Mapping[str, Any], environment: Mapping[str, str], folder: str, variables: Mapping[str, str]
) -> dict[str, Any]:
    places, volumes = _mounts(service, folder, variables)
    database = environment.get("DATABASE_URI") or DEFAULT_DATABASE
    if SCHEME.match(database):
        database = SCHEME.sub("postgresql://", database)
    else:
        database = _on_host(re.sub(r"^sqlite:///", "", database), places)
    uploads = _on_host(UPLOADS, places)
    note = ""
    if not uploads and UPLOADS in volumes:
        place = volumes[UPLOADS]
        where = (
            f"{place}, a folder in a user's home"
            if place.startswith("~")
            else f"the volume {place}; `docker volume inspect` says where that is (Mountpoint)"
        )
        note = f"The compose file keeps them in {where}."
    settings = {ours: environment[name] for name, ours in SETTINGS.items() if environment.get(name)}
    if "scratch4school_url" in settings:
        settings["scratch4school_url"] = settings["scratch4school_url"].rstrip("/")
    return {"database": database, "uploads": uploads, "settings": settings, "note": note}


def _environment(service: Mapping[str, Any]) -> dict[str, str]:
    found = service.get("environment") or {}
    if isinstance(found, list):
        found = dict(str(line).partition("=")[::2] for line in found)
    return {str(name): "" if value is None else str(value) for name, value in found.items()}


def _from_files(service: Mapping[str, Any], folder: str, files: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in _env_files(service, folder):
        found.update(_variables(files.get(path, "")))
    return found


def _env_files(service: Mapping[str, Any], folder: str) -> list[str]:
    """The files that `env_file` names: one or several, each as its path or as a mapping with that."""
    named = service.get("env_file") or []
    names = [
        one["path"] if isinstance(one, Mapping) else one
        for one in ([named] if isinstance(named, str | Mapping) else named)
    ]
    return [posixpath.normpath(posixpath.join(folder, str(name))) for name in names]


def _variables(text: str) -> dict[str, str]:
    """NAME=value, a line each, as Compose reads them."""
    found = {}
    for line in text.splitlines():
        name, is_one, value = line.strip().removeprefix("export ").partition("=")
        if is_one and re.fullmatch(r"\w+", name.strip()):
            value = value.strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            found[name.strip()] = value[1:-1] if quoted else value.partition(" #")[0].strip()
    return found


def _filled_in(value: str, variables: Mapping[str, str]) -> str:
    """${NAME}, ${NAME:-default}, ${NAME:?complaint} and $NAME; $$ is a dollar."""

    def fill(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return variables.get(found[1] or found[3]) or found[2] or ""

    return re.sub(r"\$\$|\$\{(\w+)(?::?-([^}]*)|:?\?[^}]*)?\}|\$(\w+)", fill, value)


def _mounts(
    service: Mapping[str, Any], folder: str, variables: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Places in the container: those that are folders of the host, and those that are volumes.

    A folder below ~ is among the volumes: which user ran Compose is not known here.
    """
    places, volumes = {}, {}
    for one in service.get("volumes") or []:
        if isinstance(one, Mapping):
            source, target = (_filled_in(str(one.get(end, "")), variables) for end in ("source", "target"))
        else:
            source, _, rest = _filled_in(str(one), variables).partition(":")
            target = rest.partition(":")[0]
        if source.startswith(("/", ".")):
            places[target.rstrip("/")] = posixpath.normpath(posixpath.join(folder, source))
        elif target:
            volumes[target.rstrip("/")] = source
    return places, volumes


def _on_host(path: str, places: Mapping[str, str]) -> str:
    """A path of the container as one of the host; '' where none leads there."""
    for target in sorted(places, key=len, reverse=True):
        if path == target or path.startswith(f"{target}/"):
            return places[target] + path[len(target) :]
    return ""


class FilterModule:
    """The class that Ansible loads from a filter file."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Name the filters of this file."""
        return {
            "compose_files": compose_files,
            "compose_source": compose_source,
            "pgpass_line": pgpass_line,
            "settings_that_differ": settings_that_differ,
            "without_password": without_password,
        }
