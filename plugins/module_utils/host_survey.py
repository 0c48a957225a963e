"""Looks at everything on a host that a change must know before it begins, in one go.

A question of Ansible's own costs about half a second, and a deploy has eighty to ask. This file asks the kernel, the
engine's socket and the application's socket directly. It changes nothing, needs no package beside Python's own library,
and runs on any Python since 3.10.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import socket
import ssl
import stat
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ENGINE_SOCKET = "/var/run/docker.sock"
AUTHORITIES = "/usr/local/share/ca-certificates"
OURS = "scratch4school"
UNITS = "/etc/systemd/system"

# The journal only grows; what a change asks of it stands in its last lines.
JOURNAL_BYTES = 64 * 1024

# Seconds that a question may take before its answer counts as none.
PATIENCE = 10
REACH_PATIENCE = 3
KEY_SET_BYTES = 1 << 20
TOKEN_QUESTION = b"grant_type=authorization_code"
SIZES_PATIENCE = 1.0


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket: the engine's, or that of the application's slot."""

    def __init__(self, path: str, timeout: float = PATIENCE) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Called by http.client before the first request."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Engine:
    """Docker's own interface, of which we only ever ask."""

    def __init__(self, path: str = ENGINE_SOCKET) -> None:
        self._path = path

    def get(self, path: str) -> Any:
        """The engine's answer; None when there is no engine, or no such thing."""
        connection = UnixConnection(self._path)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            return json.loads(body) if answer.status == 200 else None
        except (OSError, ValueError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def containers(self) -> dict[str, dict[str, Any]]:
        """Every container of ours as the engine describes it, by name."""
        described = [
            self.get(f"/containers/{one['Id']}/json")
            for one in self.get("/containers/json?all=1") or []
            if any(name.startswith(f"/{OURS}-") for name in one["Names"])
        ]
        return {one["Name"].lstrip("/"): one for one in described if one}


def system(text: str) -> dict[str, str]:
    """Name and version of the distribution, from the text of os-release: Debian 13, Ubuntu 24.04."""
    fields = dict(re.findall(r'^([A-Z_]+)="?([^"\n]*)"?$', text, flags=re.MULTILINE))
    return {
        "distribution": fields.get("NAME", "an unknown system").removesuffix(" GNU/Linux"),
        "version": fields.get("VERSION_ID", "").strip(),
    }


def memory(text: str) -> dict[str, int]:
    """Megabytes of memory that there are, and that a new process could have, from the text of /proc/meminfo."""
    kilobytes = dict(re.findall(r"^(\w+):\s+(\d+) kB$", text, flags=re.MULTILINE))
    return {
        name: int(kilobytes.get(key, 0)) // 1024
        for name, key in (("total_mb", "MemTotal"), ("available_mb", "MemAvailable"))
    }


def nearest(path: str) -> str:
    """The path, or the nearest folder above it that exists: what will be made there lies on the same disk."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def free_mb(path: str) -> int:
    """Megabytes that are free where the path lies or will lie."""
    found = os.statvfs(nearest(path))
    return found.f_bavail * found.f_frsize // 2**20


def file_system(path: str, mounts: str) -> str:
    """Kind of the file system on which the path lies or will lie; `mounts` is the text of /proc/self/mounts."""
    real = os.path.realpath(nearest(path))
    found = ""
    longest = -1
    for line in mounts.splitlines():
        _, point, kind = line.split(" ")[:3]
        point = point.replace("\\040", " ")
        # Not smaller: of two mounts on one point the later one is seen.
        if len(point) >= longest and (real == point or real.startswith(point.rstrip("/") + "/")):
            found, longest = kind, len(point)
    return found


def size_mb(path: str, deadline: float) -> int | None:
    """Megabytes that the files below a folder take; None when they are too many to be counted in time."""
    total, folders = 0, [path]
    while folders:
        if time.monotonic() > deadline:
            return None
        try:
            for entry in os.scandir(folders.pop()):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            # It went while we looked, or never was.
            continue
    return total // 2**20


def authorities(folder: str = AUTHORITIES) -> list[str]:
    """SHA-1 of every certificate authority that the sysadmin added, in the order of their paths."""
    return [
        hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
        for path in sorted(Path(folder).rglob("*.crt"), key=str)
        if path.is_file()
    ]


def port_holders(listening: str, ports: Iterable[int], own: Iterable[int]) -> dict[str, str]:
    """Who holds each port, as a name for people: '' is nobody, `ours` our own proxy.

    :param listening: what `ss --listening --tcp --numeric --processes --no-header` prints.
    :param own: ports that our proxy publishes.
    """
    own = set(own)
    holders = {}
    for port in ports:
        line = next((line for line in listening.splitlines() if re.search(rf":{port}\s", line)), "")
        program = re.search(r'users:\(\("([^"]+)"', line)
        holders[str(port)] = "" if not line else "ours" if port in own else program[1] if program else "another program"
    return holders


def published(container: Mapping[str, Any] | None) -> set[int]:
    """Ports of the host that a container publishes while it runs."""
    ports = ((container or {}).get("NetworkSettings") or {}).get("Ports") or {}
    return {int(binding["HostPort"]) for bindings in ports.values() for binding in bindings or []}


def summary(container: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked of a container, of all that the engine says."""
    state = container["State"]
    return {
        "state": state["Status"],
        "health": (state.get("Health") or {}).get("Status", ""),
        "labels": container["Config"]["Labels"] or {},
    }


def ready(socket_directory: str, slot: str) -> dict[str, Any]:
    """What the serving slot answers when it is asked whether a save would succeed."""
    nothing = {"ok": False, "release": "", "schema": "", "last_login": ""}
    if not slot:
        return {**nothing, "error": "no slot serves"}
    connection = UnixConnection(f"{socket_directory}/{slot}/gunicorn.sock")
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        said = json.loads(answer.read())
        return {
            "ok": answer.status == 200,
            "release": said.get("release") or "",
            "schema": said.get("schema") or "",
            "last_login": said.get("last_login") or "",
            "error": said.get("error") or "",
        }
    except (OSError, ValueError, AttributeError, http.client.HTTPException) as problem:
        return {**nothing, "error": str(problem)}
    finally:
        connection.close()


def slot(socket_directory: str) -> str:
    """The slot that the proxy's link names; '' before the first release."""
    try:
        return os.path.basename(os.readlink(f"{socket_directory}/current"))
    except OSError:
        return ""


def provider(urls: Iterable[str], posted: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """What each address of the identity provider answers, asked side by side.

    Those in `posted` are asked by POST: a token address takes nothing else (RFC 6749, 3.2). It answers a
    request without client and code with 400 or 401.

    `status` is the HTTP status, 0 without an answer; `problem` says why there was none; `keys` counts the keys of the
    set that was answered (RFC 7517), 0 where the answer is none.
    """

    posted = set(posted)

    def ask(url: str) -> dict[str, Any]:
        try:
            request = urllib.request.Request(url, TOKEN_QUESTION if url in posted else None, {"User-Agent": OURS})
            with urllib.request.urlopen(
                request, timeout=REACH_PATIENCE, context=ssl.create_default_context()
            ) as answer:
                return {"status": answer.status, "problem": "", "keys": key_count(answer.read(KEY_SET_BYTES))}
        except urllib.error.HTTPError as answer:
            answer.close()
            return {"status": answer.code, "problem": "", "keys": 0}
        except (OSError, ValueError, http.client.HTTPException) as problem:
            return {"status": 0, "problem": str(getattr(problem, "reason", problem)), "keys": 0}

    urls = list(urls)
    with ThreadPoolExecutor(max_workers=max(1, len(urls))) as pool:
        return dict(zip(urls, pool.map(ask, urls), strict=True))


def key_count(body: bytes) -> int:
    """How many keys a JSON Web Key Set holds (RFC 7517); 0 for anything else."""
    try:
        keys = json.loads(body).get("keys")
    except (ValueError, AttributeError):
        return 0
    return sum(isinstance(key, dict) and bool(key.get("kty")) for key in keys) if isinstance(keys, list) else 0


def calendar_error(hour: str) -> str:
    """Why systemd would never run a timer of that time; '' when it would, or cannot be asked."""
    try:
        ended = subprocess.run(
            ["systemd-analyze", "calendar", "--", hour], capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    lines = (ended.stderr or ended.stdout).strip().splitlines()
    if ended.returncode:
        return lines[-1] if lines else "it is none"
    return "it lies in the past" if re.search(r"Next elapse: never", ended.stdout) else ""


def has_program(name: str) -> bool:
    """Whether the shell would find a command of that name, its own included."""
    if "/" in name:
        # Of a path Debian's shell only says that something is there.
        return os.path.isfile(name) and os.access(name, os.X_OK)
    return run(["sh", "-c", 'command -v -- "$1"', "sh", name]) is not None


def text(path: str | os.PathLike[str], last_bytes: int | None = None) -> str:
    """A file's text, or its last whole lines; '' where there is no file."""
    try:
        content = Path(path).read_bytes()
    except OSError:
        return ""
    if last_bytes and len(content) > last_bytes:
        content = content[-last_bytes:].partition(b"\n")[2]
    return content.decode("utf-8", "replace")


def loaded_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A file that holds a JSON object; an empty one where there is none, or a power cut tore it."""
    try:
        content = json.loads(text(path))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def run(argv: Sequence[str]) -> str | None:
    """What a command prints; None when it fails, is not there or takes too long."""
    try:
        ended = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except (OSError, subprocess.SubprocessError):
        return None
    return ended.stdout if ended.returncode == 0 else None


class Observer:
    """Reads what a role manages on the host, as facts with a digest each; the same state is the same digests.

    A role says what that is in its variable `__<role>_managed`:

    * `contents`: files, and folders that are the role's alone with all that lies in them;
    * `places`: folders and files of which kind, owner and mode are the role's business, and the content is not;
    * `containers`: names; which container of that name, of which image, and that it runs and is not ill;
    * `loaded`: containers that remember in their own memory which files they took in (see roles/container);
    * `units`: systemd's, which must be enabled and active as their files say, a timer with a next run;
    * `unit_files`: units of systemd of which the file counts, and that runs by others' doing;
    * `unwanted_units`: units of systemd that must not be there;
    * `networks`: the engine's;
    * `asks`: commands in a container whose answer is state; one that is `empty` must answer nothing.

    Other keys are for others: `survey` reads `disks`, `sizes`, `files`, `calendars` and `programs`, the lookup `role`
    `points` and `sources`.
    """

    def __init__(self, engine: Engine, containers: Mapping[str, Mapping[str, Any]], root: str = "/") -> None:
        self._engine = engine
        self._containers = containers
        self._root = root.rstrip("/")

    def facts(self, managed: Mapping[str, Any]) -> dict[str, str]:
        """Hexadecimal digits by what they are of, such as `container scratch4school-proxy`.

        '' is what is missing, stopped or ill; a role with such a fact has something to do.
        """
        questions: list[tuple[str, str, Callable[[Any], str | None]]] = [
            ("places", "file", self._place),
            ("containers", "container", self._container),
            ("loaded", "loaded", self._loaded),
            ("unit_files", "unit file", self._unit_file),
            ("units", "unit", self._unit),
            ("unwanted_units", "unwanted unit", self._no_unit),
            ("networks", "network", self._network),
        ]
        found: dict[str, str | None] = {}
        for path in managed.get("contents") or []:
            found.update(self._contents(path))
        for kind, words, question in questions:
            for one in managed.get(kind) or []:
                # A folder may be the role's with all that lies in it, and a place besides.
                found.setdefault(f"{words} {one}", _gone_is_none(question, one))
        for one in managed.get("asks") or []:
            found[one.get("what") or f"answer of {one['container']}"] = _gone_is_none(self._ask, one)
        return {name: digest(fact) if fact is not None else "" for name, fact in found.items()}

    def _place(self, path: str) -> str | None:
        try:
            found = os.lstat(self._root + path)
        except OSError:
            return None
        return f"{stat.filemode(found.st_mode)} {found.st_uid} {found.st_gid}"

    def _contents(self, path: str) -> dict[str, str | None]:
        found = {f"file {path}": _gone_is_none(self._content, path)}
        for folder, folders, files in os.walk(self._root + path):
            # Python keeps that beside a program that ran.
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            below = folder.removeprefix(self._root)
            found.update(
                {f"file {below}/{name}": _gone_is_none(self._content, f"{below}/{name}") for name in [*folders, *files]}
            )
        return found

    def _content(self, path: str) -> str | None:
        place = self._place(path)
        if place and place.startswith("-"):
            return f"{place} {hashlib.sha256(Path(self._root + path).read_bytes()).hexdigest()}"
        return f"{place} {os.readlink(self._root + path)}" if place and place.startswith("l") else place

    def _container(self, name: str) -> str | None:
        container = self._containers.get(name)
        if container is None or not container["State"]["Running"] or summary(container)["health"] == "unhealthy":
            return None
        return f"{container['Id']} {container['Image']}"

    def _loaded(self, name: str) -> str | None:
        container = self._containers.get(name)
        if container is None or not container["State"]["Running"]:
            return None
        try:
            # Through the kernel: the container's memory is no folder of the host, and a command in it is a process.
            handle = os.open(f"/proc/{container['State']['Pid']}/root/tmp/loaded", os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return None
        with os.fdopen(handle) as file:
            return file.read(1024).strip() or None

    def _unit(self, name: str) -> str | None:
        said = unit_state(name)
        well = {"LoadState": "loaded", "UnitFileState": "enabled", "ActiveState": "active", "NeedDaemonReload": "no"}
        if not name.startswith(OURS):
            # Which files of the distribution's units were read is no role's business.
            del well["NeedDaemonReload"]
        if any(said.get(key) != value for key, value in well.items()):
            return None
        # A timer without a next run is `active`, too, and never does anything again.
        if name.endswith(".timer") and not next_run(said):
            return None
        return f"{well} {self._file_of_unit(name)}"

    def _unit_file(self, name: str) -> str | None:
        return self._file_of_unit(name)

    def _file_of_unit(self, name: str) -> str | None:
        # One that is not ours, such as Docker's, is the distribution's business.
        path = f"{UNITS}/{name}" if "." in name else f"{UNITS}/{name}.service"
        return self._content(path) if name.startswith(OURS) else ""

    def _no_unit(self, name: str) -> str | None:
        return "none" if self._place(f"{UNITS}/{name}") is None else None

    def _network(self, name: str) -> str | None:
        network = self._engine.get(f"/networks/{name}")
        return network and f"{network['Id']} {network['Driver']}"

    def _ask(self, question: Mapping[str, Any]) -> str | None:
        answer = run(["docker", "exec", question["container"], *question["argv"]])
        return None if question.get("empty") and answer else answer


def _gone_is_none(question: Callable[[Any], str | None], one: Any) -> str | None:
    try:
        return question(one)
    except OSError:
        # It went while we looked.
        return None


def digest(text: str) -> str:
    """The first hexadecimal digits of a text's SHA-256, enough to tell two states of one thing apart."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def unit_state(name: str) -> dict[str, str]:
    """What systemd says of a unit; NextElapseUSecRealtime is empty for a timer that has no next run."""
    keys = "LoadState,UnitFileState,ActiveState,SubState,NeedDaemonReload,NextElapseUSecRealtime"
    said = run(["systemctl", "show", f"--property={keys}", name]) or ""
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def next_run(said: Mapping[str, str]) -> str:
    """When a timer runs next, of what `unit_state` says; '' for never.

    While its work is under way, or waits for the lock of a deploy, systemd may know no hour yet: it reads the file anew
    at a `daemon-reload`, and works the hour out when the work has ended.
    """
    return said.get("NextElapseUSecRealtime") or ("runs now" if said.get("SubState") == "running" else "")


def observe(
    engine: Engine, containers: Mapping[str, Any], managed: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, str]]:
    """The facts of every role's state, the roles asked side by side."""
    observer = Observer(engine, containers)
    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(zip(managed, pool.map(observer.facts, managed.values()), strict=True))


def stamp(
    path: str | os.PathLike[str], desired: Mapping[str, str], observed: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """Write down that these roles ran to their end, and what they left; what cannot be stamped is forgotten.

    For root alone: the digests are made of secrets too.
    """
    settled = loaded_json(path)
    for role, wanted in desired.items():
        settled.pop(role, None)
        if observed.get(role) and all(observed[role].values()):
            settled[role] = {"desired": wanted, "observed": dict(observed[role])}
    return _write_stamps(Path(path), settled)


def void(path: str | os.PathLike[str], roles: Iterable[str]) -> None:
    """Forget what these roles left, because they are about to change it; a run that is cut short leaves no record."""
    settled = loaded_json(path)
    kept = {role: record for role, record in settled.items() if role not in set(roles)}
    if kept != settled:
        _write_stamps(Path(path), kept)


def _write_stamps(path: Path, settled: dict[str, Any]) -> dict[str, Any]:
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(settled, file, indent=2, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    return settled


def survey(
    *,
    data_directory: str,
    socket_directory: str,
    ledger: str,
    change_directory: str,
    ports: Sequence[int] = (),
    reach: Sequence[str] = (),
    posted: Sequence[str] = (),
    managed: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Ask all questions, those that wait for somebody side by side.

    Roles name in `managed` what else they need to know: `disks` (paths whose free megabytes and kind of file system
    count), `sizes` (folders), `files` (paths that may or may not exist), `calendars` (texts that systemd should read as
    times) and `programs` (names that the shell should find).
    """
    managed = managed or {}

    def named(key: str) -> list[str]:
        return [path for one in managed.values() for path in one.get(key) or []]

    engine = Engine()
    with ThreadPoolExecutor(max_workers=6) as pool:
        info = pool.submit(engine.get, "/info")
        images = pool.submit(engine.get, "/images/json")
        listening = pool.submit(run, ["ss", "--listening", "--tcp", "--numeric", "--processes", "--no-header"])
        answers = pool.submit(provider, reach, posted)
        hours = pool.submit(lambda: {hour: calendar_error(hour) for hour in named("calendars")})
        serving = slot(socket_directory)
        readiness = pool.submit(ready, socket_directory, serving)
        described = engine.containers()
        observed = pool.submit(observe, engine, described, managed)
        said = info.result() or {}
        tags = [tag for image in images.result() or [] for tag in image.get("RepoTags") or []]
        own = published(described.get(f"{OURS}-proxy"))
        deadline = time.monotonic() + SIZES_PATIENCE
        mounts = text("/proc/self/mounts")
        return {
            "system": system(text("/etc/os-release")),
            "memory": memory(text("/proc/meminfo")),
            "disk": {path: free_mb(path) for path in ["/var/lib", "/var/lib/docker", data_directory, *named("disks")]},
            "file_systems": {path: file_system(path, mounts) for path in named("disks")},
            "sizes": {path: size_mb(path, deadline) for path in named("sizes")},
            "files": {path: os.path.exists(path) for path in named("files")},
            "ports": port_holders(listening.result() or "", ports, own),
            "authorities": authorities(),
            "engine": {
                "answers": bool(said),
                **(
                    {
                        "limits_memory": said["MemoryLimit"],
                        "limits_swap": said["MemoryLimit"] and said["SwapLimit"],
                    }
                    if said
                    else {}
                ),
            },
            "images": sorted(tag for tag in tags if tag.startswith(f"{OURS}/")),
            "containers": {name: summary(one) for name, one in described.items()},
            "slot": serving,
            "ready": readiness.result(),
            "provider": answers.result(),
            "calendars": hours.result(),
            "timers": {unit: next_run(unit_state(unit)) for unit in named("units") if unit.endswith(".timer")},
            "programs": {program: has_program(program) for program in named("programs")},
            "ledger": text(ledger),
            "journal": text(Path(change_directory) / "journal.jsonl", JOURNAL_BYTES),
            "lock": loaded_json(Path(change_directory) / "lock.json"),
            "hold": loaded_json(Path(change_directory) / "hold.json"),
            "observed": observed.result(),
            "settled": loaded_json(Path(change_directory) / "settled.json"),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "zone": time.strftime("%Z"),
        }
