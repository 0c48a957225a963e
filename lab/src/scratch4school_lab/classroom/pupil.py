"""A pupil: one operation after the other; the save record checks each answer."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import quote

from .browser import Answer, Browser, Failed
from .contents import MULTIPART, Content, Contents, asset_form
from .save_record import Project, Save, SaveRecord

# The mix of the original's measurement: 10 % new projects, 35 % saves, 15 % assets, the rest mostly reads.
WEIGHTS = {
    "create": 9,
    "copy": 1,
    "update": 35,
    "upload": 15,
    "share": 1,
    "delete": 2,
    "open": 12,
    "open_shared": 2,
    "read_list": 6,
    "read_thumbnail": 5,
    "read_asset": 1,
    "ask_recent": 2,
    "ask_user": 2,
    "ask_groups": 1,
    "ask_shared": 2,
    "ask_backpack": 1,
    "ask_status": 3,
}
# A class uploads the same costumes of the library again and again, beside those that pupils draw.
COMMON_ASSETS = 20
COMMON_SHARE = 0.3
# After a failure a pupil reads the message before the next try; a server that is down gets no burst of requests.
PAUSE_AFTER_FAILURE = 0.5
# Shared projects that classmates may open; a bound, so that the list does not grow with the run.
MOST_SHARED = 50


@dataclass
class Classroom:
    """State that the pupils of one run share; `stop` ends the load. No other run has the same `run`."""

    run: str
    save_record: SaveRecord
    contents: Contents
    large_share: float = 0.0
    think: float = 0.0
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    # Shared projects by the number of the group.
    shared: defaultdict[int, list[Project]] = field(default_factory=lambda: defaultdict(list))

    async def pause(self, seconds: float) -> None:
        """Wait, but no longer than the load lasts."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stop.wait(), seconds)


class Pupil:
    """One user with one browser. Only a careful pupil names the version that a save is based on."""

    def __init__(self, name: str, browser: Browser, classroom: Classroom, chance: random.Random, careful: bool) -> None:
        self.name = name
        self.browser = browser
        self.username = ""
        self.groups: list[int] = []
        self._classroom = classroom
        self._ledger = classroom.save_record
        self._chance = chance
        self._careful = careful
        self._number = 0
        self._assets: list[str] = []
        operations: dict[str, Callable[[], Awaitable[object]]] = {name: getattr(self, name) for name in WEIGHTS}
        self._operations, self._weights = list(operations.values()), list(WEIGHTS.values())

    async def arrive(self) -> None:
        """Ask for the own name, groups and projects. This has to come before the first save."""
        self.username = (await self.browser.ask("user", "GET", "/api/user")).json()["user"]["username"]
        await self.ask_groups()
        listed = (await self.browser.ask("list", "GET", "/api/projects")).json()["projects"]
        self._ledger.expect_earlier(self.name, [project["id"] for project in listed])

    async def work(self) -> None:
        """Do one operation after the other until the load ends."""
        while not self._classroom.stop.is_set():
            (operation,) = self._chance.choices(self._operations, self._weights)
            if not self._alive():
                operation = self.create
            try:
                await operation()
            except Failed:
                await self._classroom.pause(PAUSE_AFTER_FAILURE * self._chance.uniform(0.5, 1.5))
            if self._classroom.think:
                await self._classroom.pause(self._classroom.think * self._chance.uniform(0.5, 1.5))

    # Changes

    async def create(self) -> Project:
        """Save a new project."""
        self._number += 1
        title = f"Classroom {self._classroom.run} {self.name} {self._number}"
        content = self._content()
        save = self._ledger.send_create(self.name, title, content.sha256)
        answer = await self._send("create", "POST", f"/api/projects?title={quote(title)}", save, content)
        created = answer.json()
        self._ledger.acknowledge_create(save, created["id"], created["version"])
        return save.project

    async def update(self) -> None:
        """Save over an own project."""
        project = self._own()
        if self._careful and project.doubts:
            # To name a version the pupil has to know it, so a project in doubt is read first.
            await self.open_project(project)
        await self.save("update", project, self._content(), project.newest if self._careful else None)

    async def save(self, operation: str, project: Project, content: Content, base: int | None) -> bool:
        """Send one save, based on version `base` if that is given; False when a newer version exists (409)."""
        save = self._ledger.send(project, content.sha256, base)
        path = f"/api/projects/{project.id}" + (f"?version={base}" if base is not None else "")
        # Only a save in doubt, or another device, can have raised the version of a pupil's own project.
        late = base is not None and (project.contended or project.doubts > 1)
        answer = await self._send(operation, "PUT", path, save, content, (200, 409) if late else (200,))
        if answer.status == 409:
            self._ledger.refuse(save)
            self.browser.records.conflicts += 1
            return False
        self._ledger.acknowledge(save, answer.json()["version"])
        return True

    async def upload(self) -> None:
        """Upload a costume: a common one, or a new one."""
        if self._chance.random() < COMMON_SHARE:
            asset = self._classroom.contents.asset(f"common {self._chance.randrange(COMMON_ASSETS)}")
        else:
            self._number += 1
            asset = self._classroom.contents.asset(f"{self._classroom.run} {self.name} {self._number}")
        md5 = hashlib.md5(asset, usedforsecurity=False).hexdigest()
        answer = await self.browser.ask(
            "asset upload", "POST", "/api/assets/", body=asset_form(asset), content_type=MULTIPART
        )
        self._ledger.acknowledge_asset(md5, answer.json()["assetId"])
        self._assets.append(md5)

    async def share(self) -> None:
        """Share a project with the own class. It is not deleted later, because classmates may be opening it."""
        project = self._own()
        if not self.groups:
            return
        project.shared = True
        body = json.dumps({"group_ids": self.groups}).encode()
        await self.browser.ask("share", "POST", f"/api/projects/{project.id}/share", body=body)
        for group in self.groups:
            if len(self._classroom.shared[group]) < MOST_SHARED:
                self._classroom.shared[group].append(project)

    async def copy(self) -> None:
        """Copy a classmate's shared project, or else an own one."""
        source = self._of_classmates() or self._own()
        copy = self._ledger.send_copy(self.name, source)
        try:
            answer = await self.browser.ask("copy", "POST", f"/api/projects/{source.id}/copy", expected=(201,))
        except Failed as failed:
            if failed.refused:
                self._ledger.refuse_copy(copy)
            raise
        copied = answer.json()
        self._ledger.acknowledge_copy(copy, copied["id"], copied["title"])

    async def delete(self) -> None:
        """Delete an own project, but never the last one."""
        candidates = [project for project in self._alive() if not project.shared]
        if len(candidates) > 1:
            await self.delete_project(self._chance.choice(candidates))

    async def delete_project(self, project: Project) -> None:
        """Delete a project; it is in doubt until the answer."""
        project.deleted = None
        try:
            await self.browser.ask("delete", "DELETE", f"/api/projects/{project.id}")
        except Failed as failed:
            if failed.refused:
                project.deleted = False
            raise
        self._ledger.acknowledge_delete(project)

    # Reads

    async def open(self) -> None:
        """Open an own project, as the editor does: its metadata, then its content."""
        project = self._own()
        floor = project.newest
        metadata = await self.browser.ask("metadata", "GET", f"/api/projects/{project.id}/metadata")
        self._ledger.read_version(project, floor, metadata.json()["version"])
        await self.open_project(project)

    async def open_shared(self) -> None:
        """Open a classmate's shared project, while she goes on saving."""
        project = self._of_classmates()
        if project is not None:
            await self.open_project(project)

    async def open_project(self, project: Project) -> Answer:
        """Download a project and let the save record judge the answer."""
        floor = project.newest
        answer = await self.browser.ask("download", "GET", f"/api/projects/{project.id}/download")
        self._ledger.read(project, floor, answer.version, hashlib.sha256(answer.body).hexdigest(), answer.body)
        return answer

    async def read_list(self) -> None:
        """Read the list of own projects."""
        listed = (await self.browser.ask("list", "GET", "/api/projects")).json()["projects"]
        self._ledger.read_list(self.name, [(project["id"], project["title"]) for project in listed])

    async def read_thumbnail(self) -> None:
        """Read the thumbnail of an own project."""
        project = self._own()
        answer = await self.browser.ask("thumbnail", "GET", f"/api/projects/{project.id}/thumbnail")
        self._ledger.read_picture(project, answer.body == self._classroom.contents.thumbnail)

    async def read_asset(self) -> None:
        """Read an asset that the pupil has uploaded."""
        if self._assets:
            md5 = self._chance.choice(self._assets)
            answer = await self.browser.ask("asset", "GET", f"/api/assets/{md5}.png")
            self._ledger.read_asset(md5, hashlib.md5(answer.body, usedforsecurity=False).hexdigest())

    async def ask_recent(self) -> None:
        """Ask for the last project."""
        await self.browser.ask("recent", "GET", "/api/projects/recent")

    async def ask_user(self) -> None:
        """Ask for the own name."""
        answer = await self.browser.ask("user", "GET", "/api/user")
        self._ledger.read_user(self.username, answer.json()["user"]["username"])

    async def ask_groups(self) -> None:
        """Ask for the own groups."""
        groups = (await self.browser.ask("groups", "GET", "/api/groups")).json()["groups"]
        self.groups = [group["id"] for group in groups]

    async def ask_shared(self) -> None:
        """Ask for the projects that classmates share."""
        await self.browser.ask("shared list", "GET", "/api/projects/shared")

    async def ask_backpack(self) -> None:
        """Ask for the backpack."""
        await self.browser.ask("backpack", "GET", "/api/backpack")

    async def ask_status(self) -> None:
        """Ask for the status, as the editor does every half minute."""
        await self.browser.ask("status", "GET", "/api/status")

    def _alive(self) -> list[Project]:
        return [project for project in self._ledger.alive(self.name) if not project.contended]

    def _own(self) -> Project:
        return self._chance.choice(self._alive())

    def _of_classmates(self) -> Project | None:
        shared = [project for group in self.groups for project in self._classroom.shared[group]]
        others = [project for project in shared if project.owner != self.name]
        return self._chance.choice(others) if others else None

    def _content(self) -> Content:
        self._number += 1
        mark = {"run": self._classroom.run, "by": self.name, "n": self._number}
        large = self._chance.random() < self._classroom.large_share
        return self._classroom.contents.project(mark, large)

    async def _send(
        self, operation: str, method: str, path: str, save: Save, content: Content, expected: tuple[int, ...] = (200,)
    ) -> Answer:
        body = self._classroom.contents.project_form(content)
        try:
            return await self.browser.ask(operation, method, path, expected=expected, body=body, content_type=MULTIPART)
        except Failed as failed:
            if failed.refused:
                self._ledger.refuse(save)
            else:
                self._ledger.doubt(save)
            raise
