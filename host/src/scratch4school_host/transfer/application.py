"""Has the application inspect, copy and compare rows, each in a container that ends afterwards."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..containers import APPLICATION_USER, FILES_GROUP, Containers, Mount
from ..databases.engines import OWNER, SQLITE_FILE
from ..docker import last_message
from ..errors import OperatorError
from ..files import empty_folder
from ..progress import Progress, say
from ..settings import TransferSettings

PASSWORDS = "/run/secrets"
# The application's output: the prefix of a line with a difference, and its last line.
DIFFERENT = "DIFFERENT: "
VERDICT = re.compile(r"[\d,]+ rows are the same, ([\d,]+) differ")


@dataclass(frozen=True)
class Database:
    """The address of a database in a container of the application, with the mounts and network that it needs."""

    url: str
    mounts: list[Mount] = field(default_factory=list)
    network: str = "none"
    password_file: str = ""
    role: str = ""

    def environment(self, prefix: str) -> tuple[list[str], list[Mount]]:
        """The container's variables and mounts; `prefix` is `SOURCE_` for the source, '' for the target."""
        variables, mounts = [f"SCRATCH4SCHOOL_{prefix}DATABASE_URL={self.url}"], list(self.mounts)
        if self.password_file:
            inside = f"{PASSWORDS}/{prefix.lower()}password"
            variables.append(f"SCRATCH4SCHOOL_{prefix}DATABASE_PASSWORD_FILE={inside}")
            mounts.append((Path(self.password_file), inside, "ro"))
        if self.role:
            variables.append(f"SCRATCH4SCHOOL_{prefix}DATABASE_ROLE={self.role}")
        return variables, mounts


def live(settings: TransferSettings) -> Database:
    """The live database of this host."""
    return in_postgres(settings) if settings.engine == "postgres" else in_sqlite(Path(settings.sqlite_directory))


def in_postgres(settings: TransferSettings) -> Database:
    """The database in this host's PostgreSQL, with the role that owns its tables."""
    return Database(
        settings.postgres_url, network=settings.network, password_file=settings.postgres_password_file, role=OWNER
    )


def in_sqlite(folder: Path) -> Database:
    """The SQLite file in a folder."""
    return Database(f"sqlite:////rows/{SQLITE_FILE}", [(folder, "/rows", "rw")])


def empty_sqlite(folder: Path) -> Database:
    """Empty a folder for a SQLite file that the application will make."""
    empty_folder(folder)
    if os.geteuid() == 0:
        os.chown(folder, APPLICATION_USER, FILES_GROUP)
    return in_sqlite(folder)


def inspect(containers: Containers, settings: TransferSettings, source: Database) -> str:
    """Read the source's numbers of rows, named files and faults, as JSON."""
    return _run(containers, settings, ["import", "inspect"], source=source, quiet=True)


def migrate(containers: Containers, settings: TransferSettings, target: Database) -> None:
    """Migrate the schema of a database to the newest revision; an empty database gets all tables."""
    _run(containers, settings, ["db", "upgrade"], target=target)


def transfer(containers: Containers, settings: TransferSettings, source: Database, target: Database) -> None:
    """Copy the source's rows over the target's; OperatorError with the application's message when it refuses."""
    _run(containers, settings, ["import", "transfer", *_cut(settings)], source=source, target=target)


def compare(
    containers: Containers, settings: TransferSettings, source: Database, target: Database, refuse: bool = True
) -> tuple[str, list[str]]:
    """Compare two databases row by row; returns the result as one line, and the first differences.

    :param refuse: raise OperatorError when they differ.
    :raises OperatorError: also when the comparison did not come to its end.
    """
    command = ["import", "compare", *_cut(settings)]
    output = _run(containers, settings, command, source=source, target=target, refuse=refuse)
    lines = output.splitlines() or [""]
    differences = [line.removeprefix(DIFFERENT) for line in lines if line.startswith(DIFFERENT)]
    # Without its last line, the program has not compared all rows.
    verdict = VERDICT.fullmatch(lines[-1])
    if not verdict or (verdict[1] == "0") != (not differences):
        raise OperatorError(f"The comparison did not finish: {lines[-1] or 'it printed nothing'}.")
    return lines[-1], differences


def make_same(
    containers: Containers, settings: TransferSettings, source: Database, target: Database, progress: Progress
) -> None:
    """Copy the source's rows over the target's and compare them, in two phases; OperatorError when they differ."""
    with progress.phase("transfer", "to the new database"):
        transfer(containers, settings, source, target)
    with progress.phase("compare", "row by row"):
        progress.sum_up(compare(containers, settings, source, target)[0])


def rehearse(
    containers: Containers,
    settings: TransferSettings,
    source: Database,
    make_target: Callable[[], Database],
    progress: Progress,
) -> None:
    """Copy the source's rows into an empty database and compare them, in three phases; OperatorError when they differ.

    :param make_target: makes the empty database; it may start a server for it.
    """
    with progress.phase("schema", "in a database of the rehearsal's own"):
        target = make_target()
        migrate(containers, settings, target)
    make_same(containers, settings, source, target, progress)


def _cut(settings: TransferSettings) -> list[str]:
    return ["--cut"] * settings.cut


def _run(
    containers: Containers, settings: TransferSettings, words: list[str], *,
    source: Database | None = None, target: Database | None = None, quiet: bool = False, refuse: bool = True,
) -> str:  # fmt: skip
    variables: list[str] = []
    mounts: list[Mount] = []
    for prefix, database in (("SOURCE_", source), ("", target)):
        if database:
            environment, places = database.environment(prefix)
            variables += environment
            mounts += places
    command = containers.command(
        *words,
        image=settings.app_image,
        user=f"{APPLICATION_USER}:{FILES_GROUP}",
        mounts=list(dict.fromkeys(mounts)),
        network=next((one.network for one in (target, source) if one and one.network != "none"), "none"),
        environment=variables,
    )
    return _listen(containers.start(command), quiet, refuse)


def _listen(process: subprocess.Popen[bytes], quiet: bool, refuse: bool) -> str:
    """Print a program's output while it runs, and return it; OperatorError when the program fails."""
    output = []
    with process:
        for raw in process.stdout or ():
            line = raw.decode(errors="replace")
            output.append(line)
            if not quiet:
                say(f"      {line.rstrip()}")
        errors = process.stderr.read() if process.stderr else b""
    # Status 1 means that the databases differ; any other one is a refusal or a fault.
    if process.returncode and (refuse or process.returncode != 1):
        message = last_message(errors) if errors.strip() else last_message("".join(output))
        raise OperatorError(message.removeprefix("scratch4school: "))
    return "".join(output)
