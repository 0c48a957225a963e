"""What the role wrote down: this host's places, and the old place as the sysadmin describes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratch4school_backup.base import HostSettings


@dataclass(frozen=True)
class Settings(HostSettings):
    """What an adoption is told beside what every program on the host is."""

    library: str
    app_image: str
    postgres_url: str
    postgres_password_file: str
    # Where the old rows and files are: a SQLite file, a dump or an address; a folder or an archive.
    old_database: str
    old_uploads: str
    cut: bool

    purpose = "an adoption"
    verb = "adopt.yml"
    floor_name = "adoption_floor_mb"
    more_room = "Free some, or mount a larger disk there."

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
