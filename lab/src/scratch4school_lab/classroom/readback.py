"""The end of a run: read everything that was acknowledged once more, and delete the projects of the run."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from .browser import Browser, Failed
from .devices import counts
from .pupil import Pupil
from .save_record import Project, SaveRecord

T = TypeVar("T")

# Reading back shares the machine with the server, and is not measured.
AT_ONCE = 12
# A server that is starting again gets time before a project counts as unreadable.
TRIES = 6
PAUSE_SECONDS = 2.0
NOT_THERE = (200, 404)


class ReadBack:
    """Reads back what the pupils saved. `unread` names what could not be read; no promise is judged by it."""

    def __init__(self, save_record: SaveRecord, pupils: Sequence[Pupil], progress: Callable[[int, int], None]) -> None:
        self.unread: list[str] = []
        self._ledger = save_record
        self._pupils = {pupil.name: pupil for pupil in pupils}
        self._progress = progress

    async def everything(self) -> None:
        """Read every list, then every project and asset; a server error is tried again."""
        # The lists come first: they show which creates in doubt exist, to be read with the others.
        lists = [(f"the list of {name}", pupil.read_list) for name, pupil in self._pupils.items()]
        await self._all(lists)
        projects = [project for name in self._pupils for project in self._ledger.alive(name)]
        browser = next(iter(self._pupils.values())).browser
        rest: list[tuple[str, Callable[[], Awaitable[object]]]] = []
        rest += [(str(project), self._bound(self._project, project)) for project in projects]
        rest += [(f"asset {md5}", self._bound(self._asset, browser, md5)) for md5 in self._ledger.assets]
        await self._all(rest)

    async def contents(self) -> None:
        """Read every project's content and every asset, during the load.

        Lists are read at the end only: while pupils create and delete, a list need not agree with the save record.
        """
        projects = [project for name in self._pupils for project in self._ledger.alive(name)]
        browser = next(iter(self._pupils.values())).browser
        work: list[tuple[str, Callable[[], Awaitable[object]]]] = []
        work += [(str(project), self._bound(self._content, project)) for project in projects]
        work += [(f"asset {md5}", self._bound(self._asset, browser, md5)) for md5 in self._ledger.assets]
        await self._all(work)

    async def delete_projects(self) -> int:
        """Delete the projects of this run; returns how many could not be deleted."""
        left = 0

        async def delete(project: Project) -> None:
            nonlocal left
            try:
                await self._pupils[project.owner].delete_project(project)
            except Failed:
                left += 1

        projects = [project for name in self._pupils for project in self._ledger.alive(name)]
        await side_by_side(AT_ONCE, [self._bound(delete, project) for project in projects])
        return left

    @staticmethod
    def _bound(work: Callable[..., Awaitable[object]], *arguments: object) -> Callable[[], Awaitable[object]]:
        return lambda: work(*arguments)

    async def _all(self, work: list[tuple[str, Callable[[], Awaitable[object]]]]) -> None:
        done = 0

        async def read_again(what: str, read: Callable[[], Awaitable[object]]) -> None:
            nonlocal done
            for attempt in range(TRIES):
                try:
                    await read()
                    break
                except Failed as failed:
                    if failed.refused or attempt == TRIES - 1:
                        self.unread.append(what)
                        break
                    await asyncio.sleep(PAUSE_SECONDS)
            done += 1
            self._progress(done, len(work))

        await side_by_side(AT_ONCE, [self._bound(read_again, what, read) for what, read in work])

    async def _project(self, project: Project) -> None:
        browser, floor = self._pupils[project.owner].browser, project.newest
        path = f"/api/projects/{project.id}"
        metadata = await browser.ask("metadata", "GET", f"{path}/metadata", expected=NOT_THERE)
        answer = await browser.ask("download", "GET", f"{path}/download", expected=NOT_THERE)
        if 404 in (metadata.status, answer.status):
            return self._ledger.missing(project)
        self._ledger.read_version(project, floor, metadata.json()["version"])
        self._ledger.read_finally(project, answer.version, hashlib.sha256(answer.body).hexdigest(), answer.body)
        if project.contended:
            self._ledger.read_increments(project, counts(answer.body))
            await self._revisions(browser, project, path)

    async def _content(self, project: Project) -> None:
        browser, floor = self._pupils[project.owner].browser, project.newest
        answer = await browser.ask("download", "GET", f"/api/projects/{project.id}/download", expected=NOT_THERE)
        if answer.status == 404:
            # Its owner may be deleting it at this moment; the save record knows.
            return self._ledger.missing(project)
        self._ledger.read(project, floor, answer.version, hashlib.sha256(answer.body).hexdigest(), answer.body)

    async def _revisions(self, browser: Browser, project: Project, path: str) -> None:
        answer = await browser.ask("revisions", "GET", f"{path}/revisions")
        listed = [(revision["version"], revision["sha256"]) for revision in answer.json()["revisions"]]
        self._ledger.read_revisions(project, listed)

    async def _asset(self, browser: Browser, md5: str) -> None:
        answer = await browser.ask("asset", "GET", f"/api/assets/{md5}.png", expected=NOT_THERE)
        found = hashlib.md5(answer.body, usedforsecurity=False).hexdigest() if answer.status == 200 else None
        self._ledger.read_asset(md5, found)


async def side_by_side(at_once: int, work: Iterable[Callable[[], Awaitable[T]]]) -> None:
    """Do all pieces of work, `at_once` of them at a time; the first exception ends it."""
    waiting = iter(work)

    async def worker() -> None:
        for piece in waiting:
            await piece()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(worker())
    except ExceptionGroup as failed:
        # The first one is the cause; the others were cancelled.
        raise failed.exceptions[0] from None
