"""The ledger: what was acknowledged, what is in doubt, and whether what is read agrees with it.

Versions decide. An acknowledged save owns its version; a save whose answer never came, or was an error, is in doubt and
may turn up or not. So one rule holds for a single writer, for devices that merge and for last write wins.
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
    """What must never happen; the value is the column of the report."""

    LOST = "lost"
    TORN = "torn"
    DUPLICATE = "duplicates"
    ORPHAN = "orphans"


class State(Enum):
    """How a save stands: one that was sent and not answered is as much in doubt as one answered with an error."""

    IN_DOUBT = "in doubt"
    ACKNOWLEDGED = "acknowledged"
    # Read by somebody, and therefore there, though its answer never said so.
    SEEN = "seen"
    REFUSED = "refused"


@dataclass(frozen=True)
class Breach:
    """One broken promise: when it was noticed (seconds since the epoch) and a sentence."""

    promise: Promise
    at: float
    sentence: str


@dataclass(eq=False, slots=True)
class Save:
    """One save that was sent; `base` is the version that it named, `floor` what was known to be there when it left."""

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
    """One project as the ledger knows it; `id` is None until an answer or a list told it.

    `versions` are the saves that are known to be there. Of a copy `source` is the project that it was made from, and
    its first content is known only once it was read.
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
    # Several write to it at once.
    contended: bool = False
    # True once a deletion was acknowledged, None while one is in doubt.
    deleted: bool | None = False

    @property
    def doubts(self) -> int:
        """How many saves may be there or not."""
        return sum(save.state is State.IN_DOUBT for save in self.saves)

    def may_hold(self, save: Save) -> bool:
        """Whether a save's content can be this project's: its own, or that of what it was copied from."""
        return save.project is self or (self.source is not None and self.source.may_hold(save))

    def __str__(self) -> str:
        return f"project {self.id} of {self.owner}"


class Ledger:
    """Keeps what was sent and answered, and judges what is read. Times are seconds since the epoch.

    `journal`, where given, gets a JSON line for each thing that was acknowledged or came into doubt, as it happens.
    """

    def __init__(self, journal: TextIO | None = None) -> None:
        self.breaches: list[Breach] = []
        self.projects: list[Project] = []
        self.acknowledged = 0
        self._of: defaultdict[str, list[Project]] = defaultdict(list)
        self._noted: set[tuple[Promise, str]] = set()
        self._by_id: dict[int, Project] = {}
        self._contents: dict[str, Save] = {}
        self._former: dict[str, set[int]] = {}
        self._assets: set[str] = set()
        self._increments: defaultdict[Project, dict[str, int]] = defaultdict(dict)
        self._operations = 0
        self._journal = journal

    def count(self, promise: Promise) -> int:
        """How often a promise was broken."""
        return sum(breach.promise is promise for breach in self.breaches)

    @property
    def in_doubt(self) -> int:
        """How many saves may be there or not."""
        return sum(project.doubts for project in self.projects)

    @property
    def assets(self) -> list[str]:
        """The ids of all assets whose upload was acknowledged."""
        return sorted(self._assets)

    def alive(self, owner: str) -> list[Project]:
        """The projects of a user that are known to be there."""
        return [project for project in self._of[owner] if project.id is not None and project.deleted is False]

    # What is sent, and how it was answered

    def send_create(self, owner: str, title: str, sha256: str) -> Save:
        """A new project is about to be sent; its title must be one that was never used."""
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
        """A save was answered with the version that it became; one that cannot be true is a lost save."""
        project = save.project
        holder = project.versions.get(version, save)
        if save.version not in (None, version):
            self._break_(Promise.LOST, f"{project}: a save was read as version {save.version}, answered as {version}")
        elif holder is not save:
            self._break_(Promise.LOST, f"{project}: two saves were acknowledged as version {version}")
        elif save.base is not None and version != save.base + 1:
            self._break_(Promise.LOST, f"{project}: a save based on {save.base} was acknowledged as version {version}")
        elif version <= save.floor:
            self._break_(Promise.LOST, f"{project}: version {version} was acknowledged after version {save.floor}")
        save.state = State.ACKNOWLEDGED
        self.acknowledged += 1
        self._settle(save, version)
        self._write("acknowledged", project, save)

    def refuse(self, save: Save) -> None:
        """A save was turned away (409, 4xx), so it must not be there."""
        if save.state is State.SEEN:
            self._break_(Promise.DUPLICATE, f"{save.project}: version {save.version} was carried out and turned away")
        save.state = State.REFUSED
        if save.project.id is None:
            self._remove(save.project)

    def doubt(self, save: Save) -> None:
        """A save was answered with an error, or not at all."""
        self._write("in doubt", save.project, save)

    def send_copy(self, owner: str, source: Project) -> Project:
        """A copy is about to be made; its content is known once it was read."""
        return self._add(Project(owner, f"Copy of {source.title}", source=source, source_floor=source.newest))

    def refuse_copy(self, copy: Project) -> None:
        """A copy was turned away, so it must not be there."""
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
        """An upload was answered; assets are named by their content, so any other id is a second one for it."""
        if asset_id != md5:
            self._break_(Promise.DUPLICATE, f"asset {md5} was given a second id, {asset_id!r}")
        self._assets.add(md5)

    def acknowledge_increment(self, project: Project, device: str, count: int) -> None:
        """A device's save to the devices' common project was acknowledged, which counts so many of its saves."""
        self._increments[project][device] = count

    # What is read

    def read_version(self, project: Project, floor: int, version: int) -> None:
        """Judge a version that was read by somebody who knew of version `floor` when asking."""
        if version < floor:
            self._break_(Promise.LOST, f"{project}: version {version} was read after version {floor} was there")

    def read(self, project: Project, floor: int, version: int, sha256: str, data: bytes) -> None:
        """Judge a project's content that was read as `version`, by somebody who knew of version `floor` when asking."""
        self.read_version(project, floor, version)
        save = self._contents.get(sha256)
        if project.source is not None and version == 1:
            self._read_copy(project, save, data)
        elif save is None:
            self._break_(Promise.TORN, f"{project}, version {version}: {describe(data)}")
        elif save.project is not project:
            self._break_(Promise.TORN, f"{project}, version {version}: the content of {save.project}")
        elif save.state is State.REFUSED:
            self._break_(Promise.DUPLICATE, f"{project}: version {version} was carried out and turned away")
        elif project.versions.get(version, save) is not save or save.version not in (None, version):
            self._break_(Promise.TORN, f"{project}, version {version}: the content of version {save.version}")
        elif save.base is not None and version != save.base + 1:
            self._break_(Promise.LOST, f"{project}: a save based on {save.base} became version {version}")
        else:
            if save.state is State.IN_DOUBT and save.version is None:
                save.state = State.SEEN
            self._settle(save, version)

    def read_finally(self, project: Project, version: int, sha256: str, data: bytes) -> None:
        """Judge what is there at the end: every acknowledged save counted, each in doubt at most once."""
        self.read(project, project.newest, version, sha256, data)
        doubts = project.doubts
        least = len(project.versions) + (1 if project.source is not None and 1 not in project.versions else 0)
        if version < least:
            missing = least - version
            self._break_(Promise.LOST, f"{project}: {least} saves are known and version is {version}: {missing} lost")
        elif version > least + doubts:
            self._break_(
                Promise.DUPLICATE,
                f"{project}: {least} saves are known, {doubts} in doubt, and version is {version}: one counted twice",
            )

    def missing(self, project: Project) -> None:
        """A project that was acknowledged, and not deleted, cannot be opened."""
        if project.deleted is False:
            self._break_(Promise.LOST, f"{project} is gone")

    def read_picture(self, project: Project, same: bool) -> None:
        """Judge a thumbnail: is it the one that was sent?"""
        if not same:
            self._break_(Promise.TORN, f"{project}: its thumbnail is not the one that was sent")

    def read_asset(self, md5: str, found: str | None) -> None:
        """Judge an asset by the MD5 of its bytes; None where it is not there."""
        if found is None:
            self._break_(Promise.LOST, f"asset {md5} is gone")
        elif found != md5:
            self._break_(Promise.TORN, f"asset {md5}: other bytes, {found}")

    def read_user(self, expected: str, found: str) -> None:
        """Judge who the application thinks is asking: an answer to somebody else's question is a torn read too."""
        if expected != found:
            self._break_(Promise.TORN, f"{expected} was answered as {found}")

    def read_increments(self, project: Project, found: dict[str, int]) -> None:
        """Judge a project at the end by what it counts: every acknowledged count of a device must be in it."""
        for device, count in sorted(self._increments[project].items()):
            lost = count - found.get(device, 0)
            for number in range(max(0, lost)):
                self._break_(Promise.LOST, f"{project}: {device}'s save {count - number} is not in it")

    def expect_former(self, owner: str, listed: Iterable[int]) -> None:
        """What a user had before; it has to stay in the list."""
        self._former[owner] = set(listed)

    def read_revisions(self, project: Project, listed: list[tuple[int, str]]) -> None:
        """Judge a project's kept versions, given with their SHA-256: each must hold what was acknowledged as it."""
        for version, sha256 in listed:
            known = project.versions.get(version)
            if known is not None and known.sha256 != sha256:
                self._break_(Promise.LOST, f"{project}: the revision {version} is not what was saved as it")

    def read_list(self, owner: str, listed: list[tuple[int, str]]) -> None:
        """Judge a user's list of projects, given as ids and titles; only its owner may be creating meanwhile."""
        times = Counter(project_id for project_id, _ in listed)
        for project_id, number in times.items():
            if number > 1:
                self._break_(Promise.DUPLICATE, f"project {project_id} is {number} times in the list of {owner}")
        own = self._of[owner]
        for project in own:
            if project.id is not None and project.deleted is False and project.id not in times:
                self._break_(Promise.ORPHAN, f"{project} was acknowledged and is in no list")
            elif project.deleted is True and project.id in times:
                self._break_(Promise.ORPHAN, f"{project} was deleted and is in the list")
        for project_id in sorted(self._former.get(owner, set()) - set(times)):
            self._break_(Promise.ORPHAN, f"project {project_id} of {owner} was there before and is in no list")
        self._explain_unknown(owner, own, listed)

    def _explain_unknown(self, owner: str, own: list[Project], listed: list[tuple[int, str]]) -> None:
        former = self._former.get(owner, set())
        for project_id, title in listed:
            if project_id in self._by_id or project_id in former:
                continue
            in_doubt = next((project for project in own if project.id is None and project.title == title), None)
            if in_doubt is not None:
                self._adopt(in_doubt, project_id)
            elif any(project.title == title for project in own):
                self._break_(Promise.DUPLICATE, f"project {project_id} of {owner} is a second “{title}”")
            else:
                self._break_(Promise.ORPHAN, f"project {project_id} of {owner}, “{title}”, was created by nobody")

    def _read_copy(self, project: Project, save: Save | None, data: bytes) -> None:
        source, known = project.source, project.versions.get(1)
        if save is None:
            self._break_(Promise.TORN, f"{project}, a copy: {describe(data)}")
        elif not project.may_hold(save):
            self._break_(Promise.TORN, f"{project}, a copy of {source}: the content of {save.project}")
        elif (version := save.version if save.project is source else 1) is not None and version < project.source_floor:
            self._break_(
                Promise.LOST, f"{project}: a copy of version {version}, made after version {project.source_floor}"
            )
        elif known is not None and known.sha256 != save.sha256:
            self._break_(Promise.TORN, f"{project}: a copy whose content changed")
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
            self._break_(Promise.DUPLICATE, f"project {project_id} was given to two creates")
        project.id = project_id
        self._by_id[project_id] = project

    def _settle(self, save: Save, version: int) -> None:
        save.version = version
        save.project.versions.setdefault(version, save)
        save.project.newest = max(save.project.newest, version)

    def _break_(self, promise: Promise, sentence: str) -> None:
        # A list that lacks a project lacks it each time it is looked at; that is one orphan.
        if (promise, sentence) not in self._noted:
            self._noted.add((promise, sentence))
            self.breaches.append(Breach(promise, time.time(), sentence))

    def _write(self, event: str, project: Project, save: Save | None = None) -> None:
        if self._journal is None:
            return
        line = {"time": round(time.time(), 3), "event": event, "user": project.owner, "project": project.id}
        if save is not None:
            line |= {"operation": save.operation, "base": save.base, "version": save.version, "sha256": save.sha256}
        self._journal.write(json.dumps(line) + "\n")
