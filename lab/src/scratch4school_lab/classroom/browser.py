"""A pupil's browser: it sends a request once, measures it, and tells a failure from an answer."""

from __future__ import annotations

import io
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from .records import Failure, Records

# Longer than the proxy waits for the application, so that the proxy's answer ends a request.
TIMEOUT_SECONDS = 90
# Larger requests and answers are counted apart: they take as long as their bytes take to transfer.
LARGE_BYTES = 1024 * 1024
CONNECT_SECONDS = 15
MESSAGE_LENGTH = 200


class Failed(Exception):
    """A request failed and was recorded; `status` is None where no answer came."""

    def __init__(self, status: int | None) -> None:
        super().__init__(status)
        self.status = status

    @property
    def refused(self) -> bool:
        """Whether the answer says that nothing was done: any answer but a server error."""
        return self.status is not None and self.status < 500


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was expected: status, body, and the version that its ETag names (0 where there is none)."""

    status: int
    body: bytes
    version: int

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Browser:
    """A browser with a session of the application; all browsers share one pool of connections.

    `on_request` is called before each request, so that the caller can limit their number.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        session_id: str,
        records: Records,
        on_request: Callable[[], None] = lambda: None,
    ) -> None:
        self._http = http
        self._headers = {"Authorization": f"Bearer {session_id}"}
        self._on_request = on_request
        self.records = records

    async def ask(
        self,
        operation: str,
        method: str,
        path: str,
        *,
        expected: tuple[int, ...] = (200,),
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> Answer:
        """Send a request to `path` below /backend and return its answer.

        :raises Failed: for any status that is not expected, and where no whole answer came.
        """
        self._on_request()
        headers = self._headers if body is None else {**self._headers, "Content-Type": content_type}
        # aiohttp sends a stream piece by piece; bytes it encrypts as a whole, and every other pupil waits meanwhile.
        is_large = body is not None and len(body) > LARGE_BYTES
        start, started = time.time(), time.perf_counter()
        try:
            with self.records.open_since(start):
                async with self._http.request(
                    method,
                    f"/backend{path}",
                    headers=headers,
                    data=io.BytesIO(body or b"") if is_large else body,
                    allow_redirects=False,
                ) as response:
                    data = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            message = f"{type(error).__name__}: {error}"[:MESSAGE_LENGTH]
            self.records.note_failure(Failure(start, time.time(), operation, None, message))
            raise Failed(None) from None
        if response.status not in expected:
            message = data[:MESSAGE_LENGTH].decode(errors="replace").strip()
            self.records.note_failure(Failure(start, time.time(), operation, response.status, message))
            raise Failed(response.status)
        if is_large or len(data) > LARGE_BYTES:
            operation = f"{operation} large"
        self.records.note(operation, (time.perf_counter() - started) * 1000)
        self.records.bytes_sent += len(body or b"")
        self.records.bytes_read += len(data)
        return Answer(response.status, data, _version(response.headers.get("ETag", "")))


def connect(url: str, ca: str | None) -> aiohttp.ClientSession:
    """The connections to the proxy at `url`; `ca` names the file of authorities to trust, else this machine's."""
    context = ssl.create_default_context(cafile=ca)
    # Connections are kept for a shorter time than nginx keeps them, so that nginx seldom closes one during a request.
    connector = aiohttp.TCPConnector(ssl=context, limit=0, keepalive_timeout=30)
    session = aiohttp.ClientSession(
        base_url=url,
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS, connect=CONNECT_SECONDS),
    )
    # aiohttp repeats a PUT by itself when a kept connection breaks, and the save record would take the second save for
    # a fault of the server. There is no public switch.
    session._retry_connection = False
    return session


def _version(etag: str) -> int:
    # A proxy that compresses turns "3" into W/"3".
    digits = etag.removeprefix("W/").strip('"')
    return int(digits) if digits.isdigit() else 0
