"""What the application does in an adoption: rows alone, in a container of its image that ends."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from scratch4school_backup.base import Problem, empty_folder, say
from scratch4school_backup.containers import APPLICATION_USER, FILES_GROUP, Containers, last_words
from scratch4school_backup.engines import SQLITE_FILE
from scratch4school_backup.live import OWNER

from .settings import Settings

PASSWORDS = "/run/secrets"

Mounts = list[tuple[Path, str, str]]


@dataclass(frozen=True)
class Database:
    """A database as a container of the application comes to it."""

    url: str
    mounts: Mounts = field(default_factory=list)
    network: str = "none"
    password_file: str = ""
    role: str = ""

    def told(self, which: str) -> tuple[list[str], Mounts]:
        """The container's settings, and all that it sees, for the database that is called so (`OLD_`, or none)."""
        settings, mounts = [f"SCRATCH4SCHOOL_{which}DATABASE_URL={self.url}"], list(self.mounts)
        if self.password_file:
            inside = f"{PASSWORDS}/{which.lower()}password"
            settings.append(f"SCRATCH4SCHOOL_{which}DATABASE_PASSWORD_FILE={inside}")
            mounts.append((Path(self.password_file), inside, "ro"))
        if self.role:
            settings.append(f"SCRATCH4SCHOOL_{which}DATABASE_ROLE={self.role}")
        return settings, mounts


def live(settings: Settings) -> Database:
    """This host's own database."""
    return in_postgres(settings) if settings.engine == "postgres" else in_sqlite(Path(settings.sqlite_directory))


def in_postgres(settings: Settings) -> Database:
    """This host's PostgreSQL, as the owner of its tables."""
    return Database(
        settings.postgres_url, network=settings.network, password_file=settings.postgres_password_file, role=OWNER
    )


def in_sqlite(folder: Path) -> Database:
    """The file of ours in a folder."""
    return Database(f"sqlite:////rows/{SQLITE_FILE}", [(folder, "/rows", "rw")])


def empty_sqlite(folder: Path) -> Database:
    """A place for a file that is not there yet."""
    empty_folder(folder)
    if os.geteuid() == 0:
        os.chown(folder, APPLICATION_USER, FILES_GROUP)
    return in_sqlite(folder)


def look(containers: Containers, settings: Settings, old: Database) -> str:
    """What the old rows are, as JSON."""
    return _run(containers, settings, ["adopt", "look"], old=old, quiet=True)


def migrate(containers: Containers, settings: Settings, new: Database) -> None:
    """Our newest schema in a database that is empty."""
    _run(containers, settings, ["db", "upgrade"], new=new)


def transfer(containers: Containers, settings: Settings, old: Database, new: Database) -> None:
    """The old rows into the new database; Problem with the application's own sentence when it refuses."""
    _run(containers, settings, ["adopt", "transfer", *_cut(settings)], old=old, new=new)


def compare(
    containers: Containers, settings: Settings, old: Database, new: Database, refuse: bool = True
) -> tuple[str, list[str]]:
    """Both held against each other: the sum in a sentence, and the first differences, by default a Problem."""
    said = _run(containers, settings, ["adopt", "compare", *_cut(settings)], old=old, new=new, refuse=refuse)
    lines = said.splitlines() or [""]
    differences = [line.removeprefix("DIFFERENT: ") for line in lines if line.startswith("DIFFERENT: ")]
    # A program that broke off has said nothing of what it did not come to.
    verdict = re.fullmatch(r"[\d,]+ rows are the same, ([\d,]+) differ", lines[-1])
    if not verdict or (verdict[1] == "0") != (not differences):
        raise Problem(f"The comparison did not come to its end: {lines[-1] or 'it said nothing'}.")
    return lines[-1], differences


def _cut(settings: Settings) -> list[str]:
    return ["--cut"] * settings.cut


def _run(
    containers: Containers, settings: Settings, words: list[str], *,
    old: Database | None = None, new: Database | None = None, quiet: bool = False, refuse: bool = True,
) -> str:  # fmt: skip
    told: list[str] = []
    mounts: Mounts = []
    for which, database in (("OLD_", old), ("", new)):
        if database:
            environment, places = database.told(which)
            told += environment
            mounts += places
    command = containers.command(
        *words,
        image=settings.app_image,
        user=f"{APPLICATION_USER}:{FILES_GROUP}",
        mounts=list(dict.fromkeys(mounts)),
        network=next((one.network for one in (new, old) if one and one.network != "none"), "none"),
        environment=told,
    )
    return _listen(containers.start(command), quiet, refuse)


def _listen(process: subprocess.Popen[bytes], quiet: bool, refuse: bool) -> str:
    """Show what it says while it says it; returns all of that."""
    said = []
    with process:
        for raw in process.stdout or ():
            line = raw.decode(errors="replace")
            said.append(line)
            if not quiet:
                say(f"      {line.rstrip()}")
        complaints = process.stderr.read() if process.stderr else b""
    # 1 is a difference; all else is its own refusal, or a fault.
    if process.returncode and (refuse or process.returncode != 1):
        words = last_words(complaints) if complaints.strip() else last_words("".join(said))
        raise Problem(words.removeprefix("scratch4school: "))
    return "".join(said)
