"""Tools of the checks: the service's database and files, HTTP clients, and threads that start at the same moment."""

import http.client
import io
import json
import secrets
import socket
import ssl
import threading
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ..clock import utcnow
from ..config import Settings
from ..database.database import Database
from ..login.claims import GroupClaim, Identity
from ..login.sign_in import sign_in
from ..storage.file_store import FileStore, IncomingFile
from .visitors import PREFIX

T = TypeVar("T")

_HTTP_SECONDS = 30
_VISIT = timedelta(minutes=30)

# One for all connections: each default context would read the host's certificate authorities again.
_UNCHECKED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_UNCHECKED.check_hostname = False
_UNCHECKED.verify_mode = ssl.CERT_NONE


class Stopped(BaseException):
    """A signal asked this run to end; not an Exception, so that no check takes it for its own failure."""


@dataclass(frozen=True)
class Scale:
    """How much load one run makes. The promises are the same at each scale."""

    # Devices of one pupil, and the saves of each device.
    devices: int
    saves: int
    # Uploads of the same bytes at once.
    uploads: int
    # New users, and the logins of each user at once.
    users: int
    logins: int
    # Clients that save and list at once.
    clients: int
    # Failing saves of this process, and the readers beside them.
    failing_saves: int
    readers: int
    # True: a save of the service loses its connection at each try, until it gives up after ten seconds. False: it loses
    # its statement, and gives up at once.
    cuts_connections: bool


FULL = Scale(
    devices=10, saves=10, uploads=20, users=5, logins=20, clients=100, failing_saves=5, readers=5, cuts_connections=True
)
# For a service that was verified in full when it was deployed, and has not changed since.
QUICK = Scale(
    devices=4, saves=3, uploads=8, users=2, logins=8, clients=20, failing_saves=2, readers=2, cuts_connections=False
)


@dataclass(frozen=True)
class Answer:
    """An answer over HTTP."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Visitor:
    """A temporary user with a session."""

    user_id: str
    session_id: str


class Client:
    """One device of a visitor: its own connection to the service, through the proxy. For use by one thread."""

    def __init__(self, base_url: str, public_url: str, session_id: str, before_asking: Callable[[], None]) -> None:
        """`before_asking` is called before each request; if it raises, the request is not sent."""
        self._before_asking = before_asking
        base, public = urlsplit(base_url), urlsplit(public_url)
        self._prefix = base.path
        self._headers = {"Authorization": f"Bearer {session_id}", "Host": public.netloc}
        host, port = base.hostname or "", base.port or (443 if base.scheme == "https" else 80)
        if base.scheme == "https":
            self._connection: http.client.HTTPConnection = _NamedTls(host, port, public.hostname or host)
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=_HTTP_SECONDS)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_exception: object) -> None:
        self._connection.close()

    def connect(self) -> None:
        """Open the connection, before the requests that shall collide."""
        self._connection.connect()

    def get(self, path: str) -> Answer:
        return self._ask("GET", path, None, {})

    def send(self, method: str, path: str, field: str, name: str, content: bytes, **fields: str) -> Answer:
        """Send a multipart request with one file part, and `fields` as form fields."""
        boundary = uuid.uuid4().hex
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
            for key, value in fields.items()
        ]
        parts.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n".encode()
        )
        body = b"".join([*parts, content, f"\r\n--{boundary}--\r\n".encode()])
        return self._ask(method, path, body, {"Content-Type": f"multipart/form-data; boundary={boundary}"})

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        self._before_asking()
        self._connection.request(method, self._prefix + path, body, {**self._headers, **headers})
        response = self._connection.getresponse()
        return Answer(response.status, response.read())


class _NamedTls(http.client.HTTPSConnection):
    """TLS to one host that asks for the certificate of the public host.

    The chain is not checked: the connection stays inside the deployment. The health tests check the public certificate.
    """

    def __init__(self, host: str, port: int, public_host: str) -> None:
        super().__init__(host, port, timeout=_HTTP_SECONDS, context=_UNCHECKED)
        self._public_host = public_host

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), self.timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = _UNCHECKED.wrap_socket(plain, server_hostname=self._public_host)


class Stage:
    """One run of the verification: its settings, database, files and temporary users."""

    def __init__(self, settings: Settings, database: Database, store: FileStore, url: str, scale: Scale = FULL) -> None:
        self.settings = settings
        self.scale = scale
        self.database = database
        self.store = store
        self.run_id = secrets.token_hex(6)
        self._url = url
        # Not an Event: a signal handler sets it, and must not wait for a lock of the thread that it interrupts.
        self._is_stopped = False

    def stop(self) -> None:
        """Let open requests end with their answer; the next request or login raises Stopped."""
        self._is_stopped = True

    def identity(self, name: str, groups: int = 0) -> Identity:
        """The identity of a temporary user with `groups` temporary groups."""
        user_id = f"{PREFIX}{self.run_id}-{name}"
        claims = tuple(GroupClaim(f"{user_id}-{number}", f"Verification {number}") for number in range(groups))
        return Identity(user_id, user_id, None, "student", claims, {})

    def sign_in(self, identity: Identity) -> Visitor:
        """Log a temporary user in by the application's own function."""
        self._require_running()
        session_id = sign_in(self.database, identity, "verify", None, utcnow() + _VISIT)
        return Visitor(identity.user_id, session_id)

    @contextmanager
    def client(self, visitor: Visitor) -> Iterator[Client]:
        with Client(self._url, self.settings.public_url, visitor.session_id, self._require_running) as client:
            client.connect()
            yield client

    def together(self, count: int, work: Callable[[int, threading.Barrier], T]) -> list[T]:
        """The results of `work(index, start)` in `count` threads; each waits at `start` before the colliding step.

        The first exception of a thread is raised here, after all threads have ended.
        """
        start = threading.Barrier(count, timeout=_HTTP_SECONDS)

        def task(index: int) -> T:
            try:
                return work(index, start)
            except BaseException:
                start.abort()
                raise

        with ThreadPoolExecutor(count) as threads:
            tasks = [threads.submit(task, index) for index in range(count)]
        self._require_running()
        # A broken barrier is the consequence of another thread's exception, which is the one to raise.
        failures = sorted((error for done in tasks if (error := done.exception())), key=_is_broken_start)
        if failures:
            raise failures[0]
        return [done.result() for done in tasks]

    def _require_running(self) -> None:
        if self._is_stopped:
            raise Stopped


def _is_broken_start(error: BaseException) -> bool:
    return isinstance(error, threading.BrokenBarrierError)


def project_file(content: Any) -> bytes:
    """A small project file that carries `content`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("project.json", json.dumps({"targets": [], "meta": {"verification": content}}))
    return buffer.getvalue()


def project_content(file: bytes) -> Any:
    """The content that `project_file` was given; None for a file that is torn."""
    try:
        with zipfile.ZipFile(io.BytesIO(file)) as archive:
            return json.loads(archive.read("project.json"))["meta"]["verification"]
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError):
        return None


def incoming(store: FileStore, content: bytes) -> IncomingFile:
    """`content` as a received file in the uploads folder."""
    file = store.receive()
    file.write(content)
    return file
