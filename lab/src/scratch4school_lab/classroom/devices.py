"""Several devices that save to one project at the same moments: with versions and merging, or without versions."""

from __future__ import annotations

import asyncio
import random

from .browser import Failed
from .contents import read_mark
from .pupil import Classroom, Pupil
from .save_record import Project

# All devices save at full rounds of one clock; at random moments their saves would seldom collide.
ROUND_SECONDS = 2.0
# After 409 a device loads, merges and tries again, a moment apart from the other devices.
MERGE_PAUSE = 0.05


class MergingDevice:
    """A device whose saves count up; before it saves again it merges the counts of the other devices."""

    def __init__(self, name: str, pupil: Pupil, project: Project, classroom: Classroom, chance: random.Random) -> None:
        self._name = name
        self._pupil = pupil
        self._project = project
        self._classroom = classroom
        self._chance = chance
        self._count = 0
        self._tries = 0
        self._base = project.newest
        self._known: dict[str, int] = {}

    async def work(self) -> None:
        """Save once a round, each time until it is acknowledged."""
        while not self._classroom.stop.is_set():
            await next_round(self._classroom)
            self._count += 1
            try:
                while not await self._save():
                    await asyncio.sleep(self._chance.uniform(0, MERGE_PAUSE))
                    await self._merge()
            except Failed:
                await self._recover()

    async def _save(self) -> bool:
        self._known[self._name] = self._count
        self._tries += 1
        mark = {"run": self._classroom.run, "by": self._name, "n": self._tries, "devices": self._known}
        content = self._classroom.contents.project(mark)
        if not await self._pupil.save("device save", self._project, content, self._base):
            return False
        self._base += 1
        self._classroom.save_record.acknowledge_increment(self._project, self._name, self._count)
        return True

    async def _merge(self) -> None:
        answer = await self._pupil.open_project(self._project)
        self._base = answer.version
        for device, count in counts(answer.body).items():
            self._known[device] = max(count, self._known.get(device, 0))

    async def _recover(self) -> None:
        # The save is in doubt; the next one must be based on what is there now.
        while not self._classroom.stop.is_set():
            await self._classroom.pause(self._chance.uniform(0.5, 1.0))
            try:
                return await self._merge()
            except Failed:
                continue


class HastyDevice:
    """A device that names no base version, as the original's front end does: the last write wins."""

    def __init__(self, name: str, pupil: Pupil, project: Project, classroom: Classroom) -> None:
        self._name = name
        self._pupil = pupil
        self._project = project
        self._classroom = classroom

    async def work(self) -> None:
        """Save once a round."""
        number = 0
        while not self._classroom.stop.is_set():
            await next_round(self._classroom)
            number += 1
            mark = {"run": self._classroom.run, "hasty": self._name, "n": number}
            try:
                await self._pupil.save("hasty save", self._project, self._classroom.contents.project(mark), None)
            except Failed:
                continue


async def next_round(classroom: Classroom) -> None:
    """Wait for the next full round of the devices' clock."""
    now = asyncio.get_running_loop().time()
    await classroom.pause(ROUND_SECONDS - now % ROUND_SECONDS)


def counts(data: bytes) -> dict[str, int]:
    """The counts in the devices' common project, by device; empty where the bytes are no such project."""
    mark = read_mark(data) or {}
    found = mark.get("devices")
    return found if isinstance(found, dict) else {}
