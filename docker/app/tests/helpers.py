"""Helpers without fixtures: project files, clients, a fake identity provider, and a TCP port that can be cut."""

import contextlib
import http.client
import io
import json
import secrets
import socket
import struct
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

from flask.testing import FlaskClient
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

# The command line as a process, from the source folder; nothing needs to be installed.
COMMAND = [sys.executable, "-m", "scratch4school"]
SOURCE_ON_PATH = {"PYTHONPATH": str(Path(__file__).resolve().parents[1] / "src")}

PNG = b"\x89PNG\r\n\x1a\n" + b"picture"

# The fields of the answer to a save; a field of `common_json` is one of them.
SAVED_FIELDS = {"id", "title", "description", "created_at", "updated_at", "version", "success"}


def project_file(content: Any) -> bytes:
    """A small Scratch project that carries `content`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("project.json", json.dumps(content))
    return buffer.getvalue()


def project_content(file: bytes) -> Any:
    """The content that `project_file` was given."""
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        return json.loads(archive.read("project.json"))


class BufferedClient(FlaskClient):
    """A client that reads every answer to its end, as a browser does, so that no file stays open."""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        return super().open(*args, buffered=True, **kwargs)


class Device:
    """A browser of one user: the requests of the front end, through Flask's test client."""

    def __init__(self, client: Any, session_id: str) -> None:
        self._client = client
        self.session_id = session_id

    def request(self, method: str, path: str, **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.session_id}", **options.pop("headers", {})}
        return self._client.open(path, method=method, headers=headers, **options)

    def get(self, path: str) -> Any:
        return self.request("GET", path)

    def create(self, content: bytes, title: str | None = None, thumbnail: bytes | None = None) -> Any:
        return self._send("POST", "/api/projects", content, {"title": title}, thumbnail)

    def save(
        self,
        project_id: int,
        content: bytes,
        version: int | str | None = None,
        title: str | None = None,
        thumbnail: bytes | None = None,
        **options: Any,
    ) -> Any:
        query = {"version": version, "title": title}
        return self._send("PUT", f"/api/projects/{project_id}", content, query, thumbnail, **options)

    def download(self, project_id: int) -> Any:
        return self.get(f"/api/projects/{project_id}/download")

    def metadata(self, project_id: int) -> Any:
        return self.get(f"/api/projects/{project_id}/metadata")

    def upload(self, content: bytes, **form: str) -> Any:
        return self.request("POST", "/api/assets/", data={"asset": (io.BytesIO(content), "asset.bin"), **form})

    def _send(
        self, method: str, path: str, content: bytes, query: dict[str, Any], thumbnail: bytes | None, **options: Any
    ) -> Any:
        data: dict[str, Any] = {"project_file": (io.BytesIO(content), "project-1.sb3")}
        if thumbnail is not None:
            data["thumbnail"] = (io.BytesIO(thumbnail), "thumbnail-1.png")
        text = urlencode({key: value for key, value in query.items() if value is not None})
        return self.request(method, f"{path}?{text}", data=data, **options)


class HttpClient:
    """Requests of one session to a running server."""

    def __init__(self, url: str, session_id: str) -> None:
        self._url, self.session_id = url, session_id

    def ask(
        self,
        method: str,
        path: str,
        files: dict[str, bytes] | None = None,
        json_body: Any = None,
        **form: str,
    ) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self.session_id}"}
        body = None
        if json_body is not None:
            body = json.dumps(json_body).encode()
            headers["Content-Type"] = "application/json"
        if files is not None:
            parts = [f'name="{key}"\r\n\r\n{value}'.encode() for key, value in form.items()]
            parts += [f'name="{key}"; filename="f.sb3"\r\n\r\n'.encode() + content for key, content in files.items()]
            body = (
                b"".join(b"--b\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--b--\r\n"
            )
            headers["Content-Type"] = "multipart/form-data; boundary=b"
        request = urllib.request.Request(self._url + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def create(self, content: Any) -> int:
        status, body = self.ask("POST", "/api/projects", {"project_file": project_file(content)})
        assert status == 200, body
        return int(json.loads(body)["id"])

    def save(self, project_id: int, content: Any, version: int | None = None) -> int:
        query = "" if version is None else f"?version={version}"
        return self.ask("PUT", f"/api/projects/{project_id}{query}", {"project_file": project_file(content)})[0]

    def share(self, project_id: int, group_ids: list[int]) -> int:
        return self.ask("POST", f"/api/projects/{project_id}/share", json_body={"group_ids": group_ids})[0]

    def version(self, project_id: int) -> int:
        return int(json.loads(self.ask("GET", f"/api/projects/{project_id}/metadata")[1])["version"])

    def content(self, project_id: int) -> Any:
        status, body = self.ask("GET", f"/api/projects/{project_id}/download")
        assert status == 200, body
        return project_content(body)


class FakeProvider:
    """An identity provider: keys and tokens over real HTTP. Its attributes set its answers."""

    client_id = "scratch4school"
    client_secret = "a-client-secret-for-tests"

    def __init__(self) -> None:
        self._key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.reset()

    def __enter__(self) -> "FakeProvider":
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def reset(self) -> None:
        """Answer correctly again."""
        self.claims: dict[str, Any] = {}
        self.answer: dict[str, Any] = {}
        self.status = 200
        self.raw: bytes | None = None
        self.delay = 0.0
        self.nonce: str | None = None
        self.requests: list[dict[str, str]] = []
        self.used_refresh_tokens: set[str] = set()
        self.fetches_of_keys = 0
        self.keys_status = 200
        # A cleared event makes the answers wait until it is set again.
        self.answers, self.answers_keys = threading.Event(), threading.Event()
        self.answers.set()
        self.answers_keys.set()

    def rotate_key(self) -> None:
        """Sign with another key from now on."""
        self._key = RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig"})

    def id_token(self, algorithm: str = "RS256", key: Any = None, **changes: Any) -> str:
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": self.client_id,
            "sub": "ada",
            "preferred_username": "ada.lovelace",
            "nonce": self.nonce,
            "iat": now,
            "exp": now + 300,
            **self.claims,
            **changes,
        }
        claims = {name: value for name, value in claims.items() if value != "absent"}
        return jwt.encode({"alg": algorithm, "kid": self._key.kid}, claims, key or self._key)

    def _token_answer(self, form: dict[str, str]) -> tuple[int, bytes]:
        self.requests.append(form)
        time.sleep(self.delay)
        self.answers.wait(300)
        if self.raw is not None:
            return self.status, self.raw
        right = form.get("client_id") == self.client_id and form.get("client_secret") == self.client_secret
        token = form.get("refresh_token", "")
        if self.status != 200 or not right or token in self.used_refresh_tokens:
            return 400, json.dumps({"error": "invalid_grant"}).encode()
        # Like providers that rotate refresh tokens: each token works once.
        self.used_refresh_tokens.add(token or secrets.token_hex())
        answer = {"access_token": "access-token", "token_type": "Bearer", "expires_in": 3600}
        if form.get("grant_type") == "authorization_code":
            answer["id_token"] = self.id_token()
        answer["refresh_token"] = secrets.token_hex(8)
        answer.update(self.answer)
        return 200, json.dumps({key: value for key, value in answer.items() if value is not None}).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.fetches_of_keys += 1
                provider.answers_keys.wait(300)
                keys = KeySet([provider._key]).as_dict(private=False)
                self._reply(provider.keys_status, json.dumps(keys).encode())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self._reply(*provider._token_answer({key: value[0] for key, value in parse_qs(body).items()}))

            def _reply(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                # The client may have stopped waiting.
                with contextlib.suppress(OSError):
                    self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                """Log nothing."""

        return Handler


class Forwarder:
    """A TCP port that forwards to another one, and can be cut, or made to drop all data.

    `questions` counts the messages to the target; each waits for an answer.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._is_muted = False
        self.questions = 0
        self.port = 0
        self.open()

    def open(self) -> None:
        """Forward to the target, from now on or again."""
        self._is_muted = False
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Reset all connections and refuse new ones."""
        # `close` alone would leave the thread in `accept`, and the port open.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for end in self._sockets:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RD)
                end.close()
            self._sockets.clear()

    def mute(self) -> None:
        """Accept connections and data, but forward nothing, like a pooler without its server."""
        self._is_muted = True

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            with self._lock:
                self._sockets |= {near, far}
            for ends in ((near, far, 1), (far, near, 0)):
                threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counts: int) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.questions += counts
                if not self._is_muted:
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


class SlowUpload:
    """A save whose body is sent in two parts; the test acts in between."""

    def __init__(self, url: str, session_id: str, content: bytes, method: str = "POST", path: str = "") -> None:
        head = b'--b\r\nContent-Disposition: form-data; name="project_file"; filename="p"\r\n\r\n'
        self._body = head + content + b"\r\n--b--\r\n"
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
        self._connection.putrequest(method, f"/api/projects{path}")
        self._connection.putheader("X-Session-ID", session_id)
        self._connection.putheader("Content-Type", "multipart/form-data; boundary=b")
        self._connection.putheader("Content-Length", str(len(self._body)))
        self._connection.endheaders(self._body[: len(self._body) // 2])

    def finish(self, step: int = 1_000_000) -> int:
        """Send the second part in steps of `step` bytes; returns the answer's status."""
        for start in range(len(self._body) // 2, len(self._body), step):
            self._connection.send(self._body[start : min(start + step, len(self._body))])
        response = self._connection.getresponse()
        response.read()
        self._connection.close()
        return response.status

    def give_up(self) -> None:
        """Close the connection before the body is complete."""
        self._connection.close()


def metric(url: str, name: str) -> float:
    """A value from a running server's /metrics, by name and labels."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=20) as response:
        lines = dict(line.rsplit(" ", 1) for line in response.read().decode().splitlines() if line[0] != "#")
    return float(lines.get(name, 0))


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """The first true result of `condition`; AssertionError if there is none in time."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")
