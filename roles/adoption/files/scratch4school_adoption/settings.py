"""What the role wrote down: this host's places, and the old place as the sysadmin describes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratch4school_backup.base import Problem


@dataclass(frozen=True)
class Settings:
    """Settings of this program; those that backups have too are named as there, because the parts are shared."""

    library: str
    host: str
    engine: str
    image: str
    app_image: str
    postgres_image: str
    network: str
    postgres_container: str
    postgres_url: str
    postgres_password_file: str
    sqlite_directory: str
    uploads: str
    directory: str
    secrets: str
    change_directory: str
    slots: str
    floor_mb: int
    niceness: int
    memory: str
    # Where the old rows and files are: a SQLite file, a dump or an address; a folder or an archive.
    old_database: str
    old_uploads: str
    cut: bool

    @classmethod
    def read(cls, path: Path) -> Settings:
        """The settings of this host; Problem when they are not there."""
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError as problem:
            raise Problem("There are no settings for an adoption on this host; run adopt.yml.") from problem
        except (ValueError, TypeError) as problem:
            raise Problem(f"{path} does not fit this program ({problem}); run adopt.yml again.") from problem

    # What a sysadmin can do where there is too little room.
    floor_name = "adoption_floor_mb"
    more_room = "Free some, or mount a larger disk there."

    @property
    def work(self) -> Path:
        """What is only needed while the program runs: copies of the old rows, servers, what an archive held."""
        return Path(self.directory) / "work"

    @property
    def state_file(self) -> Path:
        """How far the adoption is."""
        return Path(self.directory) / "state.json"

    @property
    def report_file(self) -> Path:
        """What the last look found, as JSON; the same as text lies beside it."""
        return Path(self.directory) / "report.json"

    @property
    def files_file(self) -> Path:
        """Which files were brought over, and what they were then."""
        return Path(self.directory) / "files.json"

    @property
    def orphans(self) -> Path:
        """Files of the old place that no row names."""
        return Path(self.directory) / "orphans"

    def as_dict(self) -> dict[str, Any]:
        """The old place, to be told apart from another."""
        return {"database": self.old_database, "uploads": self.old_uploads}
