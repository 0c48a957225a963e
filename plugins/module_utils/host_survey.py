"""Collects the facts about a host that preflight needs, in one module call.

A task of Ansible costs about half a second, and a deploy has eighty questions. This file asks the kernel, the engine's
socket and the application's socket directly. It changes nothing, needs only Python's own library, and runs on a host on
which nothing is installed yet.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import ssl
import stat
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .scratch4school_host import audit_log, docker, locking
from .scratch4school_host.docker import Engine
from .scratch4school_host.files import read_json, write_json
from .scratch4school_host.machine import memory
from .scratch4school_host.processes import TIMED_OUT, execute
from .scratch4school_host.slots.readiness import ask as ask_readiness
from .scratch4school_host.slots.state import live_slot
from .scratch4school_host.systemd import next_run, unit_state

AUTHORITIES = "/usr/local/share/ca-certificates"
OURS = "scratch4school"
# The beginning of our containers' names.
PREFIX = f"{OURS}-"
UNITS = "/etc/systemd/system"
RECORDED = "recorded_state.json"

# The audit log only grows; the lines that a change needs are its last ones.
AUDIT_LOG_BYTES = 64 * 1024

# Seconds that a question may take before its answer counts as none.
PATIENCE = 10
URL_PATIENCE = 3
KEY_SET_BYTES = 1 << 20
TOKEN_QUESTION = b"grant_type=authorization_code"
SIZES_PATIENCE = 1.0


def system(text: str) -> dict[str, str]:
    """Name and version of the distribution, from the text of os-release: Debian 13, Ubuntu 24.04."""
    fields = dict(re.findall(r'^([A-Z_]+)="?([^"\n]*)"?$', text, flags=re.MULTILINE))
    return {
        "distribution": fields.get("NAME", "an unknown system").removesuffix(" GNU/Linux"),
        "version": fields.get("VERSION_ID", "").strip(),
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


def folder(path: str, user: int, group: int, data_directory: str) -> dict[str, Any]:
    """Return the facts about a folder to which a container is to write.

    * `answers`: false for a share whose server is silent
    * `is_folder`, `free_mb`
    * `writable`: for the user with that group and no other, whatever the rights of the folders above
    * `on_data_disk`: its file system is that of `data_directory`
    """
    nothing = {"answers": True, "is_folder": False, "writable": False, "free_mb": 0, "on_data_disk": False}
    try:
        # In a process of its own, which can be killed: a share whose server is silent would block this process forever.
        ended = subprocess.run(["test", "-d", path], check=False, timeout=PATIENCE)
    except (OSError, subprocess.SubprocessError):
        return {**nothing, "answers": False}
    if ended.returncode:
        return nothing
    return {
        "answers": True,
        "is_folder": True,
        "writable": _may_write(path, user, group),
        "free_mb": free_mb(path),
        "on_data_disk": os.stat(path).st_dev == os.stat(nearest(data_directory)).st_dev,
    }


def _may_write(path: str, user: int, group: int) -> bool:
    """Whether the user could make a file in the folder. The kernel is asked, because a share has rules of its own."""
    try:
        # As the folder's own working directory, because a bind mount passes by the folders above it.
        ended = subprocess.run(
            ["test", "-w", ".", "-a", "-x", "."],
            cwd=path,
            user=user,
            group=group,
            extra_groups=[],
            check=False,
            timeout=PATIENCE,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return ended.returncode == 0


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
            # It was removed meanwhile, or never existed.
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
    """Which program uses each port: '' is none, `ours` is our own proxy.

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
    """Return the facts about a container that preflight needs."""
    state = container["State"]
    return {
        "state": state["Status"],
        "health": (state.get("Health") or {}).get("Status", ""),
        "labels": container["Config"]["Labels"] or {},
    }


def provider(urls: Iterable[str], by_post: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """Return the answer of each address of the identity provider, requested in parallel.

    Those in `by_post` are asked by POST: a token address takes nothing else (RFC 6749, 3.2). It answers a
    request without client and code with 400 or 401.

    `status` is the HTTP status, 0 without an answer, and `problem` is the reason. `keys` is the number of keys in the
    answer, 0 if the answer is no key set (RFC 7517).
    """

    by_post = set(by_post)

    def ask(url: str) -> dict[str, Any]:
        try:
            request = urllib.request.Request(url, TOKEN_QUESTION if url in by_post else None, {"User-Agent": OURS})
            with urllib.request.urlopen(request, timeout=URL_PATIENCE, context=ssl.create_default_context()) as answer:
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


def calendar_error(schedule: str) -> str:
    """Why systemd would never run a timer of that time; '' when it would, or cannot be asked."""
    try:
        ended = execute(["systemd-analyze", "calendar", "--", schedule], PATIENCE)
    except OSError:
        return ""
    if ended.returncode == TIMED_OUT:
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


def run(argv: Sequence[str]) -> str | None:
    """Return the output of a command; None when it fails, does not exist or takes too long."""
    try:
        ended = execute(argv, PATIENCE)
    except OSError:
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

    Other keys are for others: `survey` reads `files`, the lookup `role` `points` and `sources`. The digest of a role
    depends on all of them, also on one that no program reads.
    """

    def __init__(
        self,
        engine: Engine,
        containers: Mapping[str, Mapping[str, Any]],
        root: str = "/",
        silent: Collection[str] = (),
    ) -> None:
        """`silent` are folders that do not answer; reading one would block forever."""
        self._engine = engine
        self._containers = containers
        self._root = root.rstrip("/")
        self._silent = silent

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
        if path in self._silent:
            return None
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
        ended = docker.ask("exec", question["container"], *question["argv"], seconds=PATIENCE)
        answer = ended.stdout if ended.returncode == 0 else None
        return None if question.get("empty") and answer else answer


def _gone_is_none(question: Callable[[Any], str | None], one: Any) -> str | None:
    try:
        return question(one)
    except OSError:
        # It was removed meanwhile.
        return None


def digest(text: str) -> str:
    """The first hexadecimal digits of a text's SHA-256, enough to tell two states of one thing apart."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def observe(
    engine: Engine,
    containers: Mapping[str, Any],
    managed: Mapping[str, Mapping[str, Any]],
    silent: Collection[str] = (),
) -> dict[str, dict[str, str]]:
    """The facts of every role's state, the roles asked side by side; `silent` are folders that do not answer."""
    observer = Observer(engine, containers, silent=silent)
    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(zip(managed, pool.map(observer.facts, managed.values()), strict=True))


def record(
    path: str | os.PathLike[str], desired: Mapping[str, str], observed: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """Record that these roles ended well, and what they left; a role with something missing is forgotten.

    Only root may read the file: the digests are made of secrets, too.
    """
    recorded = read_json(path)
    for role, digest_of_settings in desired.items():
        recorded.pop(role, None)
        if observed.get(role) and all(observed[role].values()):
            recorded[role] = {"desired": digest_of_settings, "observed": dict(observed[role])}
    write_json(path, recorded, mode=0o600)
    return recorded


def forget(path: str | os.PathLike[str], roles: Iterable[str]) -> None:
    """Forget what these roles left, because they are about to change it; an interrupted run leaves no record."""
    recorded = read_json(path)
    kept = {role: state for role, state in recorded.items() if role not in set(roles)}
    if kept != recorded:
        write_json(path, kept, mode=0o600)


def survey(
    *,
    data_directory: str,
    socket_directory: str,
    ledger: str,
    change_directory: str,
    ports: Sequence[int] = (),
    required_urls: Sequence[str] = (),
    required_urls_by_post: Sequence[str] = (),
    questions: Mapping[str, Sequence[Any]] | None = None,
    managed: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Ask all questions, those that wait for an answer side by side.

    Rules of preflight add `questions`:

    * `disks`: paths, for free megabytes and kind of file system
    * `folders`: `path`, `user` and `group`; see `folder`
    * `sizes`: folders
    * `files`: paths that may or may not exist
    * `calendars`: texts that systemd should read as times
    * `programs`: names that the shell should find

    Roles name `files` in `managed`, too.
    """
    managed, questions = managed or {}, questions or {}

    def named(key: str) -> list[Any]:
        return [*(questions.get(key) or []), *(value for one in managed.values() for value in one.get(key) or [])]

    engine = Engine()
    with ThreadPoolExecutor(max_workers=6) as pool:
        info = pool.submit(engine.get, "/info")
        images = pool.submit(engine.get, "/images/json")
        listening = pool.submit(run, ["ss", "--listening", "--tcp", "--numeric", "--processes", "--no-header"])
        answers = pool.submit(provider, required_urls, required_urls_by_post)
        schedules = pool.submit(lambda: {schedule: calendar_error(schedule) for schedule in named("calendars")})
        live = live_slot(socket_directory)
        readiness = pool.submit(ask_readiness, socket_directory, live)
        described = engine.containers(PREFIX)
        folders = {
            one["path"]: folder(one["path"], int(one["user"]), int(one["group"]), data_directory)
            for one in named("folders")
        }
        silent = [path for path, found in folders.items() if not found["answers"]]
        observed = pool.submit(observe, engine, described, managed, silent)
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
            "folders": folders,
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
            "slot": live,
            "ready": readiness.result(),
            "provider": answers.result(),
            "calendars": schedules.result(),
            "programs": {program: has_program(program) for program in named("programs")},
            "ledger": text(ledger),
            "audit_log": text(Path(change_directory) / audit_log.FILE, AUDIT_LOG_BYTES),
            "lock": read_json(Path(change_directory) / locking.LOCK),
            "maintenance": read_json(Path(change_directory) / locking.MAINTENANCE),
            "observed": observed.result(),
            "recorded": read_json(Path(change_directory) / RECORDED),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "zone": time.strftime("%Z"),
        }
