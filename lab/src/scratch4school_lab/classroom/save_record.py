"""The save record: which saves were acknowledged, which are in doubt, and whether what is read agrees with them.

Versions decide. An acknowledged save owns its version. A save whose answer never came, or was an error, is in doubt: it
may be there or not. One rule therefore holds for a single writer, for devices that merge, and for last write wins.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import TextIO

from .contents import describe


class Promise(Enum):
    """A way to break a promise; the value is the column of the report."""

    LOST = "lost"
    TORN = "torn"
    DUPLICATE = "duplicates"
    ORPHAN = "orphans"


class State(Enum):
    """The state of a save. One that was not answered is as much in doubt as one that was answered with an error."""

    IN_DOUBT = "in doubt"
    ACKNOWLEDGED = "acknowledged"
    # A pupil read it, so it was stored, although no answer acknowledged it.
    SEEN = "seen"
    REFUSED = "refused"


@dataclass(frozen=True)
class Breach:
    """One broken promise: when it was noticed (seconds since the epoch) and what was found."""

    promise: Promise
    at: float
    message: str


@dataclass(eq=False, slots=True)
class Save:
    """One save that was sent; `base` is the version that it named, `floor` the newest one known when it was sent."""

    operation: int
    project: Project
    sha256: str
    base: int | None
    floor: int
    sent: float
    state: State = State.IN_DOUBT
    version: int | None = None


@dataclass(eq=False)
class Project:
    """One project as the save record knows it; `id` is None until an answer or a list has it.

    `versions` are the saves that are known to be stored. `source` is the project that a copy was made from; the first
    content of a copy is known only after it was read.
    """

    owner: str
    title: str
    id: int | None = None
    source: Project | None = None
    source_floor: int = 0
    saves: list[Save] = field(default_factory=list)
    versions: dict[int, Save] = field(default_factory=dict)
    newest: int = 0
    shared: bool = False
    # Several devices save to it at once.
    contended: bool = False
    # True once a deletion was acknowledged, None while one is in doubt.
    deleted: bool | None = False

    @property
    def doubts(self) -> int:
        """How many saves are in doubt."""
        return sum(save.state is State.IN_DOUBT for save in self.saves)

    def may_hold(self, save: Save) -> bool:
        """Whether this project can have a save's content: its own, or one of the project that it was copied from."""
        return save.project is self or (self.source is not None and self.source.may_hold(save))

    def __str__(self) -> str:
        return f"project {self.id} of {self.owner}"


class SaveRecord:
    """Keeps what was sent and answered, and judges what is read. Times are seconds since the epoch.

    `record`, where given, gets a JSON line for each acknowledged save, copy and deletion, and for each save in doubt.
    """

    def __init__(self, record: TextIO | None = None) -> None:
        self.breaches: list[Breach] = []
        self.projects: list[Project] = []
        self.acknowledged = 0
        self._of: defaultdict[str, list[Project]] = defaultdict(list)
        self._noted: set[tuple[Promise, str]] = set()
        self._by_id: dict[int, Project] = {}
        self._contents: dict[str, Save] = {}
        self._earlier: dict[str, set[int]] = {}
        self._assets: set[str] = set()
        self._increments: defaultdict[Project, dict[str, int]] = defaultdict(dict)
        self._operations = 0
        self._record = record

    def count(self, promise: Promise) -> int:
        """How often a promise was broken."""
        return sum(breach.promise is promise for breach in self.breaches)

    @property
    def in_doubt(self) -> int:
        """How many saves are in doubt."""
        return sum(project.doubts for project in self.projects)

    @property
    def assets(self) -> list[str]:
        """The ids of all assets whose upload was acknowledged."""
        return sorted(self._assets)

    def alive(self, owner: str) -> list[Project]:
        """The projects of a user that are known to exist."""
        return [project for project in self._of[owner] if project.id is not None and project.deleted is False]

    # Requests and their answers

    def send_create(self, owner: str, title: str, sha256: str) -> Save:
        """A new project is about to be sent; its title must not have been used before."""
        return self.send(self._add(Project(owner, title)), sha256, None)

    def send(self, project: Project, sha256: str, base: int | None) -> Save:
        """A save is about to be sent, based on version `base` if it says so."""
        self._operations += 1
        save = Save(self._operations, project, sha256, base, project.newest, time.time())
        project.saves.append(save)
        self._contents[sha256] = save
        return save

    def acknowledge_create(self, save: Save, project_id: int, version: int) -> None:
        """A new project was answered with its id."""
        self._adopt(save.project, project_id)
        self.acknowledge(save, version)

    def acknowledge(self, save: Save, version: int) -> None:
        """A save was answered with its version. A version that cannot be true is a lost save."""
        project = save.project
        holder = project.versions.get(version, save)
        if save.version not in (None, version):
            self._break(Promise.LOST, f"{project}: a save was read as version {save.version}, answered as {version}")
        elif holder is not save:
            self._break(Promise.LOST, f"{project}: two saves were acknowledged as version {version}")
        elif save.base is not None and version != save.base + 1:
            self._break(Promise.LOST, f"{project}: a save based on {save.base} was acknowledged as version {version}")
        elif version <= save.floor:
            self._break(Promise.LOST, f"{project}: version {version} was acknowledged after version {save.floor}")
        save.state = State.ACKNOWLEDGED
        self.acknowledged += 1
        self._store(save, version)
        self._write("acknowledged", project, save)

    def refuse(self, save: Save) -> None:
        """A save was refused (409, 4xx), so it must not be stored."""
        if save.state is State.SEEN:
            self._break(Promise.DUPLICATE, f"{save.project}: version {save.version} was refused and yet stored")
        save.state = State.REFUSED
        if save.project.id is None:
            self._remove(save.project)

    def doubt(self, save: Save) -> None:
        """A save was answered with an error, or not at all."""
        self._write("in doubt", save.project, save)

    def send_copy(self, owner: str, source: Project) -> Project:
        """A copy is about to be requested; its content is known after it was read."""
        return self._add(Project(owner, f"Copy of {source.title}", source=source, source_floor=source.newest))

    def refuse_copy(self, copy: Project) -> None:
        """A copy was refused, so it must not exist."""
        self._remove(copy)

    def acknowledge_copy(self, copy: Project, project_id: int, title: str) -> None:
        """A copy was answered with its id, and with the title that the application gave it."""
        copy.title = title
        self._adopt(copy, project_id)
        copy.newest = 1
        self._write("copied", copy)

    def acknowledge_delete(self, project: Project) -> None:
        """A deletion was acknowledged."""
        project.deleted = True
        self._write("deleted", project)

    def acknowledge_asset(self, md5: str, asset_id: str) -> None:
        """An upload was answered. Assets are named by their content, so another id is a second one for the asset."""
        if asset_id != md5:
            self._break(Promise.DUPLICATE, f"asset {md5} was given a second id, {asset_id!r}")
        self._assets.add(md5)

    def acknowledge_increment(self, project: Project, device: str, count: int) -> None:
        """A save to the devices' common project was acknowledged; `count` is the device's number in it."""
        self._increments[project][device] = count

    # Reads

    def read_version(self, project: Project, floor: int, version: int) -> None:
        """Judge a version that was read; version `floor` was known when the request was sent."""
        if version < floor:
            self._break(Promise.LOST, f"{project}: version {version} was read after version {floor} existed")

    def read(self, project: Project, floor: int, version: int, sha256: str, data: bytes) -> None:
        """Judge a project's content that was read as `version`; version `floor` was known when the request was sent."""
        self.read_version(project, floor, version)
        save = self._contents.get(sha256)
        if project.source is not None and version == 1:
            self._read_copy(project, save, data)
        elif save is None:
            self._break(Promise.TORN, f"{project}, version {version}: {describe(data)}")
        elif save.project is not project:
            self._break(Promise.TORN, f"{project}, version {version}: the content of {save.project}")
        elif save.state is State.REFUSED:
            self._break(Promise.DUPLICATE, f"{project}: version {version} was refused and yet stored")
        elif project.versions.get(version, save) is not save or save.version not in (None, version):
            self._break(Promise.TORN, f"{project}, version {version}: the content of version {save.version}")
        elif save.base is not None and version != save.base + 1:
            self._break(Promise.LOST, f"{project}: a save based on {save.base} became version {version}")
        else:
            if save.state is State.IN_DOUBT and save.version is None:
                save.state = State.SEEN
            self._store(save, version)

    def read_finally(self, project: Project, version: int, sha256: str, data: bytes) -> None:
        """Judge a project at the end: every acknowledged save counts once, each one in doubt at most once."""
        self.read(project, project.newest, version, sha256, data)
        doubts = project.doubts
        least = len(project.versions) + (1 if project.source is not None and 1 not in project.versions else 0)
        if version < least:
            missing = least - version
            self._break(Promise.LOST, f"{project}: {least} saves are known and version is {version}: {missing} lost")
        elif version > least + doubts:
            self._break(
                Promise.DUPLICATE,
                f"{project}: {least} saves are known, {doubts} in doubt, and version is {version}: one counted twice",
            )

    def missing(self, project: Project) -> None:
        """A project that was acknowledged and not deleted cannot be opened."""
        if project.deleted is False:
            self._break(Promise.LOST, f"{project} is gone")

    def read_picture(self, project: Project, same: bool) -> None:
        """Judge a thumbnail: `same` tells whether it is the one that was sent."""
        if not same:
            self._break(Promise.TORN, f"{project}: its thumbnail is not the one that was sent")

    def read_asset(self, md5: str, found: str | None) -> None:
        """Judge an asset by the MD5 of its bytes; None where it does not exist."""
        if found is None:
            self._break(Promise.LOST, f"asset {md5} is gone")
        elif found != md5:
            self._break(Promise.TORN, f"asset {md5}: other bytes, {found}")

    def read_user(self, expected: str, found: str) -> None:
        """Judge as whom a user was answered; an answer meant for another user is a torn read too."""
        if expected != found:
            self._break(Promise.TORN, f"{expected} was answered as {found}")

    def read_increments(self, project: Project, found: dict[str, int]) -> None:
        """Judge the devices' project at the end: it must contain every acknowledged count of each device."""
        for device, count in sorted(self._increments[project].items()):
            lost = count - found.get(device, 0)
            for number in range(max(0, lost)):
                self._break(Promise.LOST, f"{project}: {device}'s save {count - number} is not in it")

    def expect_earlier(self, owner: str, listed: Iterable[int]) -> None:
        """The projects that a user had before the run; they have to stay in the list."""
        self._earlier[owner] = set(listed)

    def read_revisions(self, project: Project, listed: list[tuple[int, str]]) -> None:
        """Judge a project's saved versions, given with their SHA-256: each must be what was acknowledged as it."""
        for version, sha256 in listed:
            known = project.versions.get(version)
            if known is not None and known.sha256 != sha256:
                self._break(
                    Promise.LOST,
                    f"{project}: saved version {version} is not the acknowledged one",
                )

    def read_list(self, owner: str, listed: list[tuple[int, str]]) -> None:
        """Judge a user's list of projects, given as ids and titles; only that user may create projects meanwhile."""
        times = Counter(project_id for project_id, _ in listed)
        for project_id, number in times.items():
            if number > 1:
                self._break(Promise.DUPLICATE, f"project {project_id} is {number} times in the list of {owner}")
        own = self._of[owner]
        for project in own:
            if project.id is not None and project.deleted is False and project.id not in times:
                self._break(Promise.ORPHAN, f"{project} was acknowledged and is in no list")
            elif project.deleted is True and project.id in times:
                self._break(Promise.ORPHAN, f"{project} was deleted and is in the list")
        for project_id in sorted(self._earlier.get(owner, set()) - set(times)):
            self._break(Promise.ORPHAN, f"project {project_id} of {owner} existed before the run and is in no list")
        self._explain_unknown(owner, own, listed)

    def _explain_unknown(self, owner: str, own: list[Project], listed: list[tuple[int, str]]) -> None:
        earlier = self._earlier.get(owner, set())
        for project_id, title in listed:
            if project_id in self._by_id or project_id in earlier:
                continue
            in_doubt = next((project for project in own if project.id is None and project.title == title), None)
            if in_doubt is not None:
                self._adopt(in_doubt, project_id)
            elif any(project.title == title for project in own):
                self._break(Promise.DUPLICATE, f"project {project_id} of {owner} is a second “{title}”")
            else:
                self._break(Promise.ORPHAN, f"project {project_id} of {owner}, “{title}”, was created by no pupil")

    def _read_copy(self, project: Project, save: Save | None, data: bytes) -> None:
        source, known = project.source, project.versions.get(1)
        if save is None:
            self._break(Promise.TORN, f"{project}, a copy: {describe(data)}")
        elif not project.may_hold(save):
            self._break(Promise.TORN, f"{project}, a copy of {source}: the content of {save.project}")
        elif (version := save.version if save.project is source else 1) is not None and version < project.source_floor:
            self._break(
                Promise.LOST, f"{project}: a copy of version {version}, made after version {project.source_floor}"
            )
        elif known is not None and known.sha256 != save.sha256:
            self._break(Promise.TORN, f"{project}: a copy whose content changed")
        else:
            project.versions.setdefault(1, save)

    def _add(self, project: Project) -> Project:
        self.projects.append(project)
        self._of[project.owner].append(project)
        return project

    def _remove(self, project: Project) -> None:
        self.projects.remove(project)
        self._of[project.owner].remove(project)

    def _adopt(self, project: Project, project_id: int) -> None:
        if self._by_id.get(project_id, project) is not project:
            self._break(Promise.DUPLICATE, f"project {project_id} was given to two creates")
        project.id = project_id
        self._by_id[project_id] = project

    def _store(self, save: Save, version: int) -> None:
        save.version = version
        save.project.versions.setdefault(version, save)
        save.project.newest = max(save.project.newest, version)

    def _break(self, promise: Promise, message: str) -> None:
        # A list that lacks a project lacks it at each reading; that is one orphan.
        if (promise, message) not in self._noted:
            self._noted.add((promise, message))
            self.breaches.append(Breach(promise, time.time(), message))

    def _write(self, event: str, project: Project, save: Save | None = None) -> None:
        if self._record is None:
            return
        line = {"time": round(time.time(), 3), "event": event, "user": project.owner, "project": project.id}
        if save is not None:
            line |= {"operation": save.operation, "base": save.base, "version": save.version, "sha256": save.sha256}
        self._record.write(json.dumps(line) + "\n")
