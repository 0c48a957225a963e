"""The six checks, one for each promise. Each sends concurrent requests to the running service."""

import random
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ..database.database import Database
from ..database.tables import assets, groups, oauth_sessions, project_revisions, user_groups, users
from ..database.tables import projects as project_rows
from ..login.claims import Identity
from ..projects import projects
from ..projects.projects import Content
from .interrupted_saves import cut_saves
from .pooler import PoolWatcher
from .stage import Answer, Client, Scale, Stage, Visitor, incoming, project_content, project_file

_SAVE_SECONDS = 60


class CheckFailed(Exception):
    """A promise was not kept; the message says how."""


class CommitRefused(Exception):
    """The failure with which the last check ends its own commits."""


@dataclass(frozen=True)
class Check:
    """One check: `run` returns a remark for its line, or None, and raises if the promise was not kept.

    `promise` names numbers of the scale in braces.
    """

    name: str
    promise: str
    run: Callable[[Stage], str | None]

    def line(self, scale: Scale) -> str:
        """The line of this check at this scale."""
        return f"{self.name:<17} {self.promise.format_map(vars(scale))}"


def no_lost_update(stage: Stage) -> str:
    """Devices add to one project, each with the version that it read: every acknowledged addition is there."""
    visitor = stage.sign_in(stage.identity("devices"))
    with stage.client(visitor) as client:
        project_id = _create(client, [])
    devices, saves = stage.scale.devices, stage.scale.saves
    conflicts = sum(
        stage.together(devices, lambda device, start: _add_saves(stage, visitor, project_id, device, start))
    )
    with stage.client(visitor) as client:
        version, content = _load(client, project_id)
    acknowledged = {f"{device}-{number}" for device in range(devices) for number in range(saves)}
    lost = acknowledged.difference(content)
    _require(not lost, f"{len(lost)} of {len(acknowledged)} acknowledged saves are lost")
    _require(len(content) == len(acknowledged), f"the project holds {len(content)} saves")
    _require(version == len(acknowledged) + 1, f"the version is {version} after {len(acknowledged)} saves")
    return f"{conflicts} conflicts answered with 409 and tried again"


def stale_save_refused(stage: Stage) -> str | None:
    """Devices save from one version: one wins, the others get 409 and the current version; the winner's work stays."""
    visitor = stage.sign_in(stage.identity("stale"))
    with stage.client(visitor) as client:
        project_id = _create(client, "first")

    def save(device: int, start: threading.Barrier) -> tuple[int, int]:
        with stage.client(visitor) as client:
            start.wait()
            answer = _save(client, project_id, f"device {device}", 1)
        return answer.status, answer.json.get("version")

    answers = stage.together(stage.scale.devices, save)
    winners = [device for device, (status, _) in enumerate(answers) if status == 200]
    _require(len(winners) == 1, f"{len(winners)} saves from the same version were accepted")
    refused = [answer for answer in answers if answer[0] != 200]
    _require(all(answer == (409, 2) for answer in refused), f"refusals were {sorted(set(refused))}, not 409, version 2")
    with stage.client(visitor) as client:
        _require(_load(client, project_id) == (2, f"device {winners[0]}"), "the winner's work was overwritten")
        silent = _save(client, project_id, "names no version", None)
        _require(silent.status == 200, f"a save that names no version got {silent.status}")
    kept = stage.database.read(
        lambda connection: connection.scalars(
            sa.select(project_revisions.c.version)
            .where(project_revisions.c.project_id == project_id)
            .order_by(project_revisions.c.version)
        ).all()
    )
    expected = [1, 2, 3][-(stage.settings.keep_revisions + 1) :]
    _require(list(kept) == expected, f"revisions {list(kept)} were kept, not {expected}")
    return None


def asset_once(stage: Stage) -> str | None:
    """Many clients send the same bytes at once, then a second type: equal answers, one row and one file per type."""
    visitor = stage.sign_in(stage.identity("assets"))
    content = b"\x89PNG\r\n\x1a\n" + secrets.token_bytes(4096)

    def upload(_index: int, start: threading.Barrier) -> tuple[int, str]:
        with stage.client(visitor) as client:
            start.wait()
            answer = client.send("POST", "/api/assets/", "asset", "a.png", content, type="costume", format="png")
        return answer.status, answer.json.get("assetId", "")

    answers = set(stage.together(stage.scale.uploads, upload))
    _require(len(answers) == 1, f"the answers were not all the same: {sorted(answers)}")
    status, asset_id = answers.pop()
    _require(status == 200, f"the uploads got {status}")
    _require_stored_once(stage, asset_id, ["costume"])
    with stage.client(visitor) as client:
        second = client.send("POST", "/api/assets/", "asset", "a.png", content, type="thumbnail", format="png")
        _require(second.status == 200, f"the same bytes as a second type got {second.status}")
        _require(client.get(f"/api/assets/{asset_id}").body == content, "the asset came back changed")
    _require_stored_once(stage, asset_id, ["costume", "thumbnail"])
    return None


def first_logins(stage: Stage) -> str | None:
    """First logins of new users, each by many devices at once: no login fails, each user and group exists once.

    The devices log in by the application's own function, because only the identity provider's part is missing here.
    Over HTTP the check then asks whether the service accepts the sessions and knows the user and the groups.
    """
    for number in range(stage.scale.users):
        identity = stage.identity(f"login{number}", groups=3)
        _require_logged_in_once(stage, identity)
    return None


def pooling(stage: Stage) -> str:
    """Many clients save and list at the same time: no error, and the server connections stay within the pool."""
    visitor = stage.sign_in(stage.identity("pool"))
    clients = stage.scale.clients
    content = project_file("pool")

    def visit(_index: int, start: threading.Barrier) -> tuple[int, int]:
        with stage.client(visitor) as client:
            start.wait()
            saved = client.send("POST", "/api/projects?title=Verification", "project_file", "p.sb3", content)
            return saved.status, client.get("/api/projects").status

    with PoolWatcher(stage.settings, stage.database) as watcher:
        answers = stage.together(clients, visit)
    bad = [answer for answer in answers if answer != (200, 200)]
    _require(not bad, f"{len(bad)} of {clients} clients met an error: {sorted(set(bad))}")
    rows = stage.database.read(
        lambda connection: connection.scalar(
            sa.select(sa.func.count()).where(project_rows.c.owner_id == visitor.user_id)
        )
    )
    _require(rows == clients, f"{rows} projects were saved by {clients} clients")
    if watcher.limit is not None:
        _require(watcher.samples > 0, "the pooler's console gave no figures")
        _require(watcher.most > 0, "not one request went through the pooler")
        for most, who in ((watcher.most, "the pooler"), (watcher.most_backends, "PostgreSQL")):
            _require(most <= watcher.limit, f"{who} counted {most} server connections, the pool allows {watcher.limit}")
    return watcher.remark()


def failed_commit(stage: Stage) -> str | None:
    """Saves fail before their commit while others read: the old work stays whole, and no file is left over.

    The commits of this process fail after all their statements. On PostgreSQL a save of the service fails as well: it
    loses its connection at each try, or its statement at the small scale.
    """
    visitor = stage.sign_in(stage.identity("commit"))
    with stage.client(visitor) as client:
        project_id = _create(client, "kept")
    files = _files(stage, visitor)
    _refuse_commits(stage, visitor, project_id)
    remark = None if stage.database.is_sqlite else _cut_save(stage, visitor, project_id)
    after = _files(stage, visitor)
    _require(after == files, f"{len(after)} files afterwards, {len(files)} before, or their bytes changed")
    with stage.client(visitor) as client:
        _require(_load(client, project_id) == (1, "kept"), "the old work is gone")
        _require(_save(client, project_id, "new", 1).status == 200, "the next save was refused")
    return remark


ALL = (
    Check("Projects", "no lost update: {devices} devices x {saves} saves", no_lost_update),
    Check("Versions", "a stale save gets 409 and overwrites nothing: {devices} devices", stale_save_refused),
    Check("Assets", "same upload {uploads} times at once: one row, one file", asset_once),
    Check(
        "Users and groups",
        "first logins of {users} users, {logins} at once of each: each user and group once",
        first_logins,
    ),
    Check("Pooling", "{clients} clients at once: no error, connections within the pool", pooling),
    Check(
        "Files",
        "a save whose commit fails leaves no half file and loses none: {failing_saves} saves, {readers} readers",
        failed_commit,
    ),
)


class _FailingDatabase(Database):
    """The real database, except that every commit fails after all its statements have run."""

    def _commit(self, transaction: sa.RootTransaction) -> None:
        transaction.rollback()
        raise CommitRefused


def _require_logged_in_once(stage: Stage, identity: Identity) -> None:
    def log_in(_index: int, start: threading.Barrier) -> str:
        start.wait()
        return stage.sign_in(identity).session_id

    sessions = stage.together(stage.scale.logins, log_in)
    names = [group.external_id for group in identity.groups]
    for what, statement, expected in (
        ("users", sa.select(users.c.id).where(users.c.id == identity.user_id), 1),
        ("groups", sa.select(groups.c.id).where(groups.c.external_id.in_(names)), len(names)),
        ("memberships", sa.select(user_groups.c.group_id).where(user_groups.c.user_id == identity.user_id), len(names)),
        ("sessions", sa.select(oauth_sessions.c.id).where(oauth_sessions.c.id.in_(sessions)), len(sessions)),
    ):
        found = len(stage.database.read(lambda connection, query=statement: connection.execute(query).all()))
        _require(found == expected, f"{found} {what} instead of {expected}")
    with stage.client(Visitor(identity.user_id, sessions[0])) as client:
        who, where = client.get("/api/user"), client.get("/api/groups")
    _require(who.status == 200, f"the service answered {who.status} to a new session")
    _require(
        who.json["user"]["user_id"] == identity.user_id, "the service takes a new session for that of another user"
    )
    _require(where.status == 200, f"the service answered {where.status} to the question for groups")
    known = sorted(group["external_id"] for group in where.json["groups"])
    _require(known == sorted(names), f"the service knows {len(known)} groups of the user instead of {len(names)}")


def _files(stage: Stage, visitor: Visitor) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in stage.store.files_of(visitor.user_id)}


def _refuse_commits(stage: Stage, visitor: Visitor, project_id: int) -> None:
    saves = stage.scale.failing_saves
    failing = _FailingDatabase(stage.settings.database, saves)

    def fail_or_read(index: int, start: threading.Barrier) -> bool:
        if index >= saves:
            return _reads_old_work(stage, visitor, project_id, start)
        with incoming(stage.store, project_file(f"lost {index}")) as file:
            start.wait()
            return _save_fails(stage, failing, project_id, visitor.user_id, Content(file, None), index)

    try:
        outcomes = stage.together(saves + stage.scale.readers, fail_or_read)
    finally:
        failing.dispose()
    _require(all(outcomes[:saves]), "a save was acknowledged although its commit failed")
    _require(all(outcomes[saves:]), "a reader saw other content than the old work")


def _cut_save(stage: Stage, visitor: Visitor, project_id: int) -> str:
    """A save through the service that is cut at each try, beside readers; returns the remark."""
    answered = threading.Event()
    what = "connection" if stage.scale.cuts_connections else "statement"

    def cut_save_or_read(index: int, start: threading.Barrier) -> int:
        if index == 0:
            return cut_saves(stage.database, project_id, start, answered, stage.scale.cuts_connections)
        if index > 1:
            return int(_reads_old_work(stage, visitor, project_id, start))
        try:
            with stage.client(visitor) as client:
                start.wait()
                return _save(client, project_id, "cut off", 1).status
        finally:
            answered.set()

    cut, status, *readers = stage.together(2 + stage.scale.readers, cut_save_or_read)
    _require(cut > 0, "no save of the service reached the database")
    _require(status == 503, f"a save whose {what} was cut {cut} times got {status}")
    _require(all(readers), "a reader saw other content than the old work")
    return f"one save's {what} cut {cut} times: 503"


def _reads_old_work(stage: Stage, visitor: Visitor, project_id: int, start: threading.Barrier) -> bool:
    with stage.client(visitor) as client:
        start.wait()
        return all(_load(client, project_id) == (1, "kept") for _ in range(5))


def _save_fails(stage: Stage, failing: Database, project_id: int, user_id: str, content: Content, index: int) -> bool:
    keep = stage.settings.keep_revisions
    try:
        if index == 0:
            projects.create(failing, stage.store, user_id, "Verification", content, keep)
        else:
            projects.save(failing, stage.store, project_id, user_id, None, content, 1, keep)
    except CommitRefused:
        return True
    return False


def _add_saves(stage: Stage, visitor: Visitor, project_id: int, device: int, start: threading.Barrier) -> int:
    """Save repeatedly on top of the others' saves; returns the number of conflicts."""
    conflicts = 0
    give_up = time.monotonic() + _SAVE_SECONDS
    with stage.client(visitor) as client:
        start.wait()
        for number in range(stage.scale.saves):
            while True:
                version, content = _load(client, project_id)
                _require(isinstance(content, list), "a reader got a torn file")
                answer = _save(client, project_id, [*content, f"{device}-{number}"], version)
                if answer.status == 200:
                    break
                _require(answer.status == 409, f"a save got {answer.status}")
                _require(time.monotonic() < give_up, "the devices did not finish in time")
                conflicts += 1
                time.sleep(random.uniform(0, 0.2))  # noqa: S311
    return conflicts


def _create(client: Client, content: object) -> int:
    answer = client.send("POST", "/api/projects?title=Verification", "project_file", "p.sb3", project_file(content))
    _require(answer.status == 200, f"creating a project got {answer.status}")
    return int(answer.json["id"])


def _load(client: Client, project_id: int) -> tuple[int, Any]:
    """Version and content, in this order, so that a save in between makes the next save a conflict, not a loss."""
    metadata = client.get(f"/api/projects/{project_id}/metadata")
    _require(metadata.status == 200, f"reading a project's metadata got {metadata.status}")
    download = client.get(f"/api/projects/{project_id}/download")
    _require(download.status == 200, f"reading a project got {download.status}")
    return metadata.json["version"], project_content(download.body)


def _save(client: Client, project_id: int, content: object, version: int | None) -> Answer:
    query = "" if version is None else f"?version={version}"
    return client.send("PUT", f"/api/projects/{project_id}{query}", "project_file", "p.sb3", project_file(content))


def _require_stored_once(stage: Stage, asset_id: str, types: list[str]) -> None:
    rows = stage.database.read(
        lambda connection: connection.execute(sa.select(assets).where(assets.c.md5 == asset_id)).all()
    )
    found = sorted(row.asset_type for row in rows)
    _require(found == types, f"rows of the types {found} instead of {types}")
    files = sorted(path.parent.name for path in (stage.store.root / "assets").glob(f"*/{asset_id}*"))
    _require(files == types, f"files in {files} instead of {types}")


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise CheckFailed(otherwise)
