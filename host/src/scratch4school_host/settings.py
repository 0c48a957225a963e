"""The settings that the roles write on this host: one JSON file each for slots, backups and transfers, in FOLDER."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import OperatorError
from .files import free_bytes
from .progress import megabytes

if TYPE_CHECKING:
    # Python 3.10 has no such name.
    from typing import Self

FOLDER = Path("/etc/scratch4school/host")


class Settings:
    """The settings of one file."""

    # The file's name, the purpose of the settings in a message, and the playbook that writes them.
    file = ""
    purpose = ""
    playbook = "deploy.yml"

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the settings of this host.

        :raises OperatorError: when the file is missing, or another version of this program needs other settings.
        """
        path = folder / cls.file
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as problem:
            raise OperatorError(
                f"There are no settings for {cls.purpose} on this host; run {cls.playbook}."
            ) from problem
        except (ValueError, TypeError) as problem:
            raise OperatorError(f"{path} is of another version ({problem}); run {cls.playbook} again.") from problem


@dataclass(frozen=True)
class SlotsSettings(Settings):
    """Settings of the installation: its address, its folders, and the containers that the application depends on."""

    host: str
    url: str
    engine: str
    # Containers that a live slot needs, in the order in which they are started.
    dependencies: list[str]
    socket_directory: str
    change_directory: str
    ledger: str
    certificate: str
    data_directory: str
    # How long draining a slot may take before the slot is stopped with open requests.
    drain_seconds: int
    # How long a slot, or a restarted component, may take to become ready.
    ready_seconds: int

    file = "slots.json"
    purpose = "the application's slots"


@dataclass(frozen=True)
class DataSettings(Settings):
    """Settings that backups and transfers share: folders, engine, and limits of their containers."""

    host: str
    engine: str
    image: str
    network: str
    postgres_container: str
    postgres_image: str
    sqlite_directory: str
    uploads: str
    directory: str
    secrets: str
    change_directory: str
    min_free_mb: int
    niceness: int
    memory: str

    # For messages: the inventory's name of `min_free_mb`, and advice when a disk is too full.
    min_free_setting = ""
    more_room = ""

    @property
    def work(self) -> Path:
        """Folder for temporary files of a command; the next command empties it."""
        return Path(self.directory) / "work"

    @property
    def state_file(self) -> Path:
        """File with the step of an import, or with the results of the last backup, drill, check and prune."""
        return Path(self.directory) / "state.json"

    def require_room(self, folder: Path, needed: int, purpose: str) -> None:
        """Check for free disk space, before anything is written.

        :param needed: about how many bytes will be written below the folder.
        :param purpose: subject of the message, such as “This backup”.
        :raises OperatorError: when less than `min_free_mb` would be left.
        """
        free = free_bytes(folder)
        if free < needed + self.min_free_mb * 1_000_000:
            raise OperatorError(
                f"{purpose} needs about {megabytes(needed)} in {folder}, and {megabytes(self.min_free_mb * 1e6)} must "
                f"stay free ({self.min_free_setting}); {megabytes(free)} are free. {self.more_room}"
            )


@dataclass(frozen=True)
class BackupSettings(DataSettings):
    """Settings of backups: their content, the repository, how many are kept, and the timers."""

    school: str
    database_roles: list[str]
    configuration: list[str]
    repository: str
    keep: dict[str, int]
    upload_kib: int
    download_kib: int
    read_percent: int
    failure_command: str
    timers: list[str]

    file = "backup.json"
    purpose = "backups"
    min_free_setting = "backup_min_free_mb"
    more_room = "Free some, mount a larger disk there, or set backup_repository to another machine."

    @property
    def is_local(self) -> bool:
        """Whether the repository is a folder of this host."""
        return self.repository.startswith("/")


@dataclass(frozen=True)
class TransferSettings(DataSettings):
    """Settings of an import or an engine migration: the source, and the application's access to PostgreSQL."""

    app_image: str
    postgres_url: str
    postgres_password_file: str
    # A SQLite file, a dump, or an address of PostgreSQL.
    source_database: str
    # A folder, or an archive of it.
    source_uploads: str
    cut: bool

    file = "transfer.json"
    purpose = "a transfer"
    playbook = "adopt.yml"
    min_free_setting = "adoption_min_free_mb"
    more_room = "Free some, or mount a larger disk there."

    @property
    def report_file(self) -> Path:
        """File with the last inspection's report as JSON; the text is beside it, as report.txt."""
        return Path(self.directory) / "report.json"

    @property
    def files_file(self) -> Path:
        """File with the imported files: size, times and hash of each."""
        return Path(self.directory) / "files.json"

    @property
    def orphans(self) -> Path:
        """Folder for the source's files that no row names."""
        return Path(self.directory) / "orphans"

    @property
    def source(self) -> dict[str, str]:
        """Database and uploads of the source, as the import's state records them."""
        return {"database": self.source_database, "uploads": self.source_uploads}
