"""A Scratch4School in a few dictionaries, with the one fault that a test asks for.

It has the addresses that scripts/classroom uses. It needs no locks, because one event loop answers all requests.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

# One request of a kind in so many goes wrong.
EVERY = 5
PASSWORD = "of all pupils"


@dataclass
class Stored:
    """One project: its owner's name, and all its contents, the newest last."""

    owner: str
    title: str
    thumbnail: bytes
    contents: list[bytes] = field(default_factory=list)

    @property
    def version(self) -> int:
        return len(self.contents)


class FakeSchool:
    """Answers the requests of a class at `url`, within `async with`. `fault` names the fault; "" is none.

    A session's id is the user's name.
    """

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.url = ""
        self.projects: dict[int, Stored] = {}
        self.assets: dict[str, bytes] = {}
        self._ids = itertools.count(1)
        self._turns: dict[str, int] = {}
        app = web.Application(client_max_size=1 << 25, middlewares=[self._wait])
        app.add_routes(
            [
                web.get("/backend/login", self._login),
                web.post("/provider", self._provider),
                web.post("/backend/api/projects", self._create),
                web.get("/backend/api/projects", self._list),
                web.put("/backend/api/projects/{id}", self._update),
                web.delete("/backend/api/projects/{id}", self._delete),
                web.get("/backend/api/projects/{id:[0-9]+}/{what}", self._read),
                web.post("/backend/api/projects/{id}/copy", self._copy),
                web.post("/backend/api/assets/", self._upload),
                web.get("/backend/api/assets/{name}", self._asset),
                web.route("*", "/backend/api/{rest:.*}", self._other),
            ]
        )
        # When it is cleared, every request waits, as at a server that hangs.
        self.answers = asyncio.Event()
        self.answers.set()
        self._runner = web.AppRunner(app, access_log=None)

    async def __aenter__(self) -> FakeSchool:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self._runner.cleanup()

    @property
    def faults(self) -> int:
        """How often a request of the fault's kind has gone wrong."""
        return self._turns.get(self.fault, 0) // EVERY

    def _goes_wrong(self, fault: str) -> bool:
        if self.fault != fault:
            return False
        self._turns[fault] = self._turns.get(fault, 0) + 1
        return self._turns[fault] % EVERY == 0

    @web.middleware
    async def _wait(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        await self.answers.wait()
        return await handler(request)

    async def _login(self, _request: web.Request) -> web.StreamResponse:
        """The provider's first page. It asks for the name, and the next page for the password, as the lab's does."""
        return _page('<form action="/provider"><input name="login"></form>')

    async def _provider(self, request: web.Request) -> web.StreamResponse:
        fields = await request.post()
        if "password" not in fields:
            hidden = f'<input name="user" value="{fields["login"]}">'
            return _page(f'<form action="/provider">{hidden}<input name="password"></form>')
        if fields["password"] != PASSWORD:
            return _page("The password is wrong.")
        raise web.HTTPFound(f"{self.url}/?session_id={fields['user']}")

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        project = Stored(_user(request), request.query["title"], _part(body, "thumbnail"))
        project.contents.append(_part(body, "project_file"))
        number = self._store(project)
        if self._goes_wrong("a create is stored twice"):
            self._store(Stored(project.owner, project.title, project.thumbnail, list(project.contents)))
        if self._goes_wrong("a stored create is answered 500"):
            return web.json_response({"error": "no"}, status=500)
        if self._goes_wrong("a create is not stored"):
            del self.projects[number]
        if self._goes_wrong("a project appears"):
            self._store(Stored(project.owner, "From nowhere", b"", [b"?"]))
        return _json({"id": number, "version": 1}, version=1)

    async def _update(self, request: web.Request) -> web.StreamResponse:
        content = _part(await request.read(), "project_file")
        project = self.projects[int(request.match_info["id"])]
        base = request.query.get("version")
        if base is not None and int(base) != project.version and self.fault != "versions are ignored":
            return _json({"version": project.version}, status=409)
        if self._goes_wrong("a save is refused without a word"):
            return web.json_response({"error": "no"}, status=503, headers={"Retry-After": "1"})
        if self._goes_wrong("a save is acknowledged and not stored"):
            return _json({"version": project.version + 1}, version=project.version + 1)
        if base is None and self._goes_wrong("a save is carried out twice"):
            project.contents.append(content)
        if base is None and self._goes_wrong("a save arrives late"):
            asyncio.get_running_loop().call_later(0.05, project.contents.append, content)
            return web.json_response({"error": "late"}, status=504)
        project.contents.append(content)
        if self._goes_wrong("a stored save is answered 500"):
            return web.json_response({"error": "no"}, status=500)
        if self._goes_wrong("a stored save is not answered"):
            request.transport.abort()  # type: ignore[union-attr]
        return _json({"version": project.version}, version=project.version)

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        if self.fault != "a deletion is forgotten":
            del self.projects[int(request.match_info["id"])]
        return _json({})

    async def _copy(self, request: web.Request) -> web.StreamResponse:
        source = self.projects[int(request.match_info["id"])]
        content = source.contents[0 if self.fault == "a copy is of an old version" else -1]
        copy = Stored(_user(request), f"Copy of {source.title}", source.thumbnail, [content])
        return _json({"id": self._store(copy), "title": copy.title, "version": 1}, status=201)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        listed = [
            {"id": number, "title": project.title}
            for number, project in self.projects.items()
            if project.owner == _user(request)
        ]
        if self._goes_wrong("a project is missing in the list"):
            listed = listed[1:]
        if self._goes_wrong("a project is twice in the list"):
            listed += listed[:1]
        return _json({"projects": listed})

    async def _read(self, request: web.Request) -> web.StreamResponse:
        project = self.projects.get(int(request.match_info["id"]))
        if project is None:
            return _json({"error": "no such project"}, status=404)
        readers: dict[str, Callable[[Stored], Awaitable[web.StreamResponse]]] = {
            "download": self._download,
            "metadata": self._metadata,
            "thumbnail": self._thumbnail,
            "revisions": self._revisions,
        }
        return await readers[request.match_info["what"]](project)

    async def _download(self, project: Stored) -> web.StreamResponse:
        content, version = project.contents[-1], project.version
        if self._goes_wrong("a download is truncated"):
            content = content[: len(content) // 2]
        if version > 1 and self._goes_wrong("a download mixes two saves"):
            middle = len(content) // 2
            content = project.contents[-2][:middle] + content[middle:]
        if version > 1 and self._goes_wrong("a download is of an old version"):
            content, version = project.contents[-2], version - 1
        if version > 1 and self._goes_wrong("row and file are of different saves"):
            content = project.contents[-2]
        if self._goes_wrong("a download is of another project"):
            content = next(other.contents[-1] for other in self.projects.values() if other is not project)
        return web.Response(body=content, headers={"ETag": f'"{version}"'})

    async def _metadata(self, project: Stored) -> web.StreamResponse:
        return _json({"version": project.version}, version=project.version)

    async def _thumbnail(self, project: Stored) -> web.StreamResponse:
        wrong = self._goes_wrong("a thumbnail is truncated")
        return web.Response(body=project.thumbnail[:100] if wrong else project.thumbnail, content_type="image/png")

    async def _revisions(self, project: Stored) -> web.StreamResponse:
        kept = [
            {"version": number, "sha256": hashlib.sha256(content).hexdigest()}
            for number, content in enumerate(project.contents, start=1)
        ]
        if self.fault == "a revision holds something else":
            kept[1]["sha256"] = kept[0]["sha256"]
        return _json({"revisions": kept})

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        asset = _part(await request.read(), "asset")
        md5 = hashlib.md5(asset, usedforsecurity=False).hexdigest()
        if not self._goes_wrong("an asset is not stored"):
            self.assets[md5] = asset
        if self._goes_wrong("an asset gets a second id"):
            md5 = f"{md5}-2"
        return _json({"status": "ok", "assetId": md5})

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        found = self.assets.get(request.match_info["name"].removesuffix(".png"))
        if found is None:
            return _json({"error": "no such asset"}, status=404)
        return web.Response(body=found[:-1] if self._goes_wrong("an asset is truncated") else found)

    async def _other(self, request: web.Request) -> web.StreamResponse:
        user = _user(request)
        if request.path == "/backend/api/user" and self._goes_wrong("an answer is another user's"):
            user = "another user"
        return _json({"user": {"username": user}, "groups": [{"id": 1}], "projects": [], "items": []})

    def _store(self, project: Stored) -> int:
        number = next(self._ids)
        self.projects[number] = project
        return number


def _page(html: str) -> web.Response:
    return web.Response(text=html, content_type="text/html")


def _user(request: web.Request) -> str:
    return request.headers["Authorization"].removeprefix("Bearer ")


def _json(fields: dict[str, Any], status: int = 200, version: int | None = None) -> web.Response:
    return web.json_response(fields, status=status, headers={"ETag": f'"{version}"'} if version is not None else None)


def _part(body: bytes, name: str) -> bytes:
    """The content of one part of a form, by the boundaries that scripts/classroom writes."""
    head = body.index(f'name="{name}"'.encode())
    start = body.index(b"\r\n\r\n", head) + 4
    return body[start : body.index(b"\r\n--classroom", start)]
