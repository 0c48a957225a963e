"""Sends one kind of request again and again, to measure its time and its CPU."""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from scratch4school_lab.classroom.browser import LARGE_BYTES, connect
from scratch4school_lab.classroom.contents import MULTIPART, Contents, asset_form
from scratch4school_lab.classroom.records import percentile

from .host import CA, BenchmarkFailed


@dataclass(frozen=True)
class Request:
    """A request: `path` below the address, a body with its type, and whose session."""

    method: str
    path: str
    session: str = ""
    body: bytes | None = None
    content_type: str = "application/json"


@dataclass(frozen=True)
class Took:
    """How it went: requests, the moments between which they were sent, milliseconds of each, the last answer.

    Moments are seconds since the epoch.
    """

    count: int
    began: float
    ended: float
    mean_ms: float
    p50_ms: float
    answer: bytes

    @property
    def per_second(self) -> float:
        """Requests a second."""
        return self.count / (self.ended - self.began)


def again(url: str, make: Callable[[int, int], Request], seconds: float, clients: int = 1, at_least: int = 5) -> Took:
    """Send what `make` gives for a client and a number, so many clients at once, one request after the other of each.

    It lasts for so many seconds, and until each client sent so many. BenchmarkFailed for an answer that is no success.
    """
    return asyncio.run(_again(url, make, seconds, clients, at_least))


async def _again(url: str, make: Callable[[int, int], Request], seconds: float, clients: int, at_least: int) -> Took:
    durations: list[float] = []
    last = b""

    async def one(http: aiohttp.ClientSession, request: Request) -> None:
        nonlocal last
        headers = {"Authorization": f"Bearer {request.session}"} if request.session else {}
        body: Any = request.body
        if body is not None:
            headers["Content-Type"] = request.content_type
            headers["Content-Length"] = str(len(body))
            if len(body) > LARGE_BYTES:
                body = io.BytesIO(body)
        began = time.perf_counter()
        async with http.request(request.method, request.path, headers=headers, data=body) as answer:
            last = await answer.read()
            if answer.status not in (200, 201):
                raise BenchmarkFailed(f"{request.method} {request.path} was answered {answer.status}.")
        durations.append((time.perf_counter() - began) * 1000)

    async def client(http: aiohttp.ClientSession, number: int, end: float) -> None:
        sent = 0
        while time.monotonic() < end or sent < at_least:
            await one(http, make(number, sent))
            sent += 1

    async with connect(url, str(CA)) as http:
        # The first request of each client opens its connection; that is not measured.
        await asyncio.gather(*(one(http, make(number, -1)) for number in range(clients)))
        durations.clear()
        began, end = time.time(), time.monotonic() + seconds
        await asyncio.gather(*(client(http, number, end) for number in range(clients)))
        ended = time.time()
    ordered = sorted(durations)
    return Took(len(ordered), began, ended, sum(ordered) / len(ordered), percentile(ordered, 0.5), last)


class Sender:
    """Makes the requests of one pupil, with contents of a given size; no two are the same."""

    def __init__(self, session: str, megabytes: float = 0.0) -> None:
        self.session = session
        self._contents = Contents(1, megabytes or 0.01)
        self._large = megabytes > 0
        self._run = hashlib.sha256(str(time.time_ns()).encode()).hexdigest()[:8]

    def get(self, path: str) -> Request:
        """Read a path of the API."""
        return Request("GET", f"/backend/api/{path}", self.session)

    def save(self, method: str, path: str, client: int, number: int) -> Request:
        """Save a project of 64 KiB, or of the given size."""
        content = self._contents.project({"run": self._run, "client": client, "n": number}, self._large)
        return Request(method, f"/backend/api/{path}", self.session, self._contents.project_form(content), MULTIPART)

    def asset(self, client: int, number: int) -> Request:
        """Upload a costume of 16 KiB that was not uploaded before."""
        body = asset_form(self._contents.asset(f"{self._run} {client} {number}"))
        return Request("POST", "/backend/api/assets/", self.session, body, MULTIPART)


def post(url: str, request: Request) -> Any:
    """Send one request and return its answer as JSON."""

    async def send() -> Any:
        async with connect(url, str(CA)) as http:
            headers = {"Authorization": f"Bearer {request.session}", "Content-Type": request.content_type}
            async with http.request(request.method, request.path, headers=headers, data=request.body) as answer:
                if answer.status not in (200, 201):
                    raise BenchmarkFailed(f"{request.method} {request.path} was answered {answer.status}.")
                return await answer.json()

    return asyncio.run(send())
