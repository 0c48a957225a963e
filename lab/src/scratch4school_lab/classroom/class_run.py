"""A run of a class: prepare, load, finish, read back. It is bounded in time and requests, and can be stopped."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO, TypeVar

import aiohttp

from .browser import Browser, Failed, connect
from .contents import Contents
from .devices import HastyDevice, MergingDevice
from .pupil import Classroom, Pupil
from .readback import AT_ONCE, ReadBack, side_by_side
from .records import Records
from .save_record import SaveRecord

T = TypeVar("T")

PROGRESS_SECONDS = 5.0
PULSE_SECONDS = 1.0
# After the load, open requests may end. The proxy waits no longer than this; what is still open then is in doubt.
FINISH_SECONDS = 95.0
PREPARE_TRIES = 3
PREPARE_PAUSE = 1.0


class ClassFailed(Exception):
    """The class could not begin; the message tells the person at the keyboard why."""


@dataclass(frozen=True)
class Plan:
    """The load of a class, and the installation that gets it.

    Times are in seconds; `ca` names a file, None means this machine's authorities.
    """

    url: str
    ca: str | None
    seconds: float = 30
    think: float = 0
    max_requests: int = 200_000
    devices: int = 10
    large_share: float = 0.02
    large_megabytes: float = 10
    seed: int = 1
    keep: bool = False


@dataclass
class Outcome:
    """The result of a run: requests of the load and of the rest, the save record, and what could not be read back.

    `phases` has the seconds of each phase by name, `began` the epoch's seconds. `in_time` are the requests that ended
    while the load lasted, `cpu_seconds` the CPU time of this program for them. `checks` counts how often everything was
    read back during the load.
    """

    plan: Plan
    users: int
    save_record: SaveRecord
    began: float = field(default_factory=time.time)
    load: Records = field(default_factory=Records)
    around: Records = field(default_factory=Records)
    phases: dict[str, float] = field(default_factory=dict)
    in_time: int = 0
    cpu_seconds: float = 0.0
    unread: list[str] = field(default_factory=list)
    checks: int = 0
    stopped: str | None = None


class ClassRun:
    """One run against one installation. `sessions` maps each user to the id of a session of the application."""

    def __init__(
        self,
        plan: Plan,
        sessions: dict[str, str],
        say: Callable[[str], None],
        record: TextIO | None = None,
        pulse: Callable[[Outcome], None] | None = None,
    ) -> None:
        self._plan = plan
        self._sessions = sessions
        self._say = say
        self._record = record
        self._pulse = pulse
        self._pupils: list[Pupil] = []
        self._checks: list[asyncio.Task[None]] = []
        self._outcome = Outcome(plan, len(sessions), SaveRecord(record))
        # Differs from run to run: titles and contents of an earlier run must not pass for those of this one.
        run_id = secrets.token_hex(3)
        contents = Contents(plan.seed, plan.large_megabytes)
        self._classroom = Classroom(run_id, self._outcome.save_record, contents, plan.large_share, plan.think)

    def stop(self, why: str) -> None:
        """End the load now; everything that was saved is still read back."""
        if not self._classroom.stop.is_set():
            self._outcome.stopped = why
            self._classroom.stop.set()

    def check(self) -> None:
        """Read back everything that was acknowledged so far, during the load; the outcome counts these checks."""
        self._checks.append(asyncio.get_running_loop().create_task(self._check()))

    async def run(self) -> Outcome:
        """Run the class to its end.

        :raises ClassFailed: when a pupil could not save a first project; a class that lacks pupils is another load.
        """
        async with connect(self._plan.url, self._plan.ca) as http:
            self._pupils = pupils = [
                Pupil(
                    name, self._browser(http, session), self._classroom, self._chance_of(name), careful=number % 2 == 0
                )
                for number, (name, session) in enumerate(self._sessions.items())
            ]
            with self._phase("prepare"):
                writers = await self._prepare(pupils)
            self._count_in(self._outcome.load, pupils)
            with self._phase("load"):
                open_requests = await self._load(writers)
            with self._phase("finish"):
                await self._finish(open_requests)
            self._count_in(self._outcome.around, pupils)
            await self._read_back(pupils)
        return self._outcome

    def _chance_of(self, name: str) -> random.Random:
        return random.Random(f"{self._plan.seed} {name}")

    def _browser(self, http: aiohttp.ClientSession, session: str) -> Browser:
        return Browser(http, session, self._outcome.around, self._count_request)

    def _count_request(self) -> None:
        if self._outcome.load.requests >= self._plan.max_requests:
            self.stop(f"after {self._plan.max_requests:,} requests (--max-requests)")

    @staticmethod
    def _count_in(records: Records, pupils: list[Pupil]) -> None:
        for pupil in pupils:
            pupil.browser.records = records

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._outcome.phases[name] = round(time.monotonic() - started, 2)

    async def _prepare(self, pupils: list[Pupil]) -> list[Callable[[], Awaitable[None]]]:
        """Create a first project for each pupil and the two of the devices; returns the work of the load."""
        await side_by_side(AT_ONCE, [lambda pupil=pupil: self._insist(pupil, pupil.arrive) for pupil in pupils])
        await side_by_side(AT_ONCE, [lambda pupil=pupil: self._insist(pupil, pupil.create) for pupil in pupils])
        self._say(f"prepare: {len(pupils)} users have a first project")
        return [pupil.work for pupil in pupils] + await self._devices(pupils)

    async def _insist(self, pupil: Pupil, work: Callable[[], Awaitable[T]]) -> T:
        """Do what the class cannot begin without; ClassFailed when it does not succeed in a few tries."""
        for attempt in range(PREPARE_TRIES):
            if attempt:
                await asyncio.sleep(PREPARE_PAUSE)
            with contextlib.suppress(Failed):
                return await work()
        last = self._outcome.around.failures[-1]
        raise ClassFailed(f"{pupil.name} could not begin: {last.operation}, {last.status}, {last.message}")

    async def _load(self, writers: list[Callable[[], Awaitable[None]]]) -> list[asyncio.Task[None]]:
        cpu, started = time.process_time(), time.monotonic()
        tasks = [asyncio.create_task(work()) for work in writers]
        reported = started
        while not self._classroom.stop.is_set():
            await self._classroom.pause(min(PULSE_SECONDS, self._plan.seconds - (time.monotonic() - started)))
            elapsed = time.monotonic() - started
            # A task that ends early has failed; its exception is raised again after the open requests have ended.
            if elapsed >= self._plan.seconds or any(task.done() for task in tasks):
                self._classroom.stop.set()
            if self._pulse is not None:
                self._pulse(self._outcome)
            if self._classroom.stop.is_set() or time.monotonic() - reported >= PROGRESS_SECONDS:
                reported = time.monotonic()
                self._say(self._progress_line(elapsed))
                if self._record is not None:
                    self._record.flush()
        self._outcome.cpu_seconds = time.process_time() - cpu
        self._outcome.in_time = self._outcome.load.requests
        return tasks

    async def _check(self) -> None:
        reader = ReadBack(self._outcome.save_record, self._pupils, lambda _done, _of: None)
        await reader.contents()
        self._outcome.unread += reader.unread
        self._outcome.checks += 1

    async def _devices(self, pupils: list[Pupil]) -> list[Callable[[], Awaitable[None]]]:
        """The devices that save to two shared projects: the first pupil's and the second's, or both of one pupil."""
        if not self._plan.devices:
            return []
        merged, hasty = pupils[0], pupils[min(1, len(pupils) - 1)]
        together, overwritten = await self._insist(merged, merged.create), await self._insist(hasty, hasty.create)
        together.contended = overwritten.contended = True
        chance, room = self._chance_of("devices"), self._classroom
        devices = range(1, self._plan.devices + 1)
        merging = [MergingDevice(f"d{n}", merged, together, room, chance).work for n in devices]
        return merging + [HastyDevice(f"h{n}", hasty, overwritten, room).work for n in devices]

    def _progress_line(self, elapsed: float) -> str:
        load = self._outcome.load
        return (
            f"load {elapsed:.0f}/{self._plan.seconds:.0f} s, {load.requests:,} requests, "
            f"{load.requests / max(elapsed, 0.001):.0f}/s, {load.failed:,} failed, {load.conflicts:,} conflicts"
        )

    async def _finish(self, open_requests: list[asyncio.Task[None]]) -> None:
        self._say("finish: open requests may end")
        _, late = await asyncio.wait(open_requests, timeout=FINISH_SECONDS)
        await asyncio.gather(*self._checks)
        for task in late:
            task.cancel()
        for result in await asyncio.gather(*open_requests, return_exceptions=True):
            # A fault of this program must not look like a pupil without failures.
            if isinstance(result, Exception):
                raise result

    async def _read_back(self, pupils: list[Pupil]) -> None:
        reported = time.monotonic()

        def progress(done: int, of: int) -> None:
            nonlocal reported
            if time.monotonic() - reported >= PROGRESS_SECONDS:
                reported = time.monotonic()
                self._say(f"read back: {done:,} of {of:,}")

        reader = ReadBack(self._outcome.save_record, pupils, progress)
        with self._phase("read back"):
            self._say(f"read back: {len(self._outcome.save_record.projects):,} projects were created; each is read")
            await reader.everything()
        self._outcome.unread += reader.unread
        # Projects that broke a promise stay, so that they can be examined.
        if not (self._plan.keep or self._outcome.save_record.breaches or reader.unread):
            with self._phase("delete"):
                left = await reader.delete_projects()
                self._say(f"delete: the projects of this run are deleted{f', except {left}' if left else ''}")
