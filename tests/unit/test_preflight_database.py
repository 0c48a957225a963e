"""Refusals of preflight for the role `database`: passwords, memory, the other engine, and a network file system."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from preflight import database

SETTINGS: dict[str, Any] = {
    "inventory_hostname": "server",
    "database_engine": "postgres",
    "database_app_password": "a" * 16,
    "database_migrator_password": "b" * 16,
    "database_backup_password": "c" * 16,
    "database_monitor_password": "d" * 16,
    "database_shared_buffers": "256MB",
    "database_memory": "1g",
    "database_data_directories": {"postgres": "/data/postgres", "sqlite": "/data/database"},
    "database_data_directory": "/data/postgres",
    "database_migrates_engine": False,
}
POSTGRES, SQLITE = "/data/postgres/17/PG_VERSION", "/data/database/main.db"


def test_right_settings_are_accepted() -> None:
    """Four passwords, and enough memory."""
    assert list(database.passwords(SETTINGS)) == []
    assert list(database.shared_buffers(SETTINGS)) == []


@pytest.mark.parametrize("name", database.PASSWORDS)
@pytest.mark.parametrize("password", ["short", "", "x" * 15, "two\nlines of a password"])
def test_short_password_is_refused_by_its_name(name: str, password: str) -> None:
    """It is not shown."""
    assert list(database.passwords({**SETTINGS, name: password})) == [
        f"{name} must be one line of at least 16 characters; leave it unset to have one generated."
    ]


def test_equal_passwords_are_refused_with_their_names() -> None:
    """Those that are equal, and no others."""
    (said,) = database.passwords({**SETTINGS, "database_backup_password": "a" * 16})
    assert said.startswith("database_app_password and database_backup_password must be different")
    assert "aaaa" not in said


class Unreadable(Mapping[str, Any]):
    """SQLite's settings, of which no password may be read."""

    def __getitem__(self, name: str) -> Any:
        assert "password" not in name, "reading a password generates it"
        return {**SETTINGS, "database_engine": "sqlite"}[name]

    def __iter__(self) -> Iterator[str]:
        return iter(SETTINGS)

    def __len__(self) -> int:
        return len(SETTINGS)


def test_sqlite_reads_no_password() -> None:
    """A school with SQLite would otherwise have passwords for nothing."""
    assert list(database.passwords(Unreadable())) == []
    assert list(database.shared_buffers(Unreadable())) == []


@pytest.mark.parametrize(
    ("buffers", "memory", "most"),
    [("768MB", "1g", 0), ("769MB", "1g", 768), ("1GB", "1024m", 768), ("100kB", "128m", 0)],
)
def test_buffers_above_three_quarters_of_the_memory_are_refused(buffers: str, memory: str, most: int) -> None:
    """With the most that may be written."""
    said = list(database.shared_buffers({**SETTINGS, "database_shared_buffers": buffers, "database_memory": memory}))
    assert bool(said) is bool(most)
    assert not most or f"write at most {most}MB for database_shared_buffers" in said[0]


def test_survey_reads_both_traces_and_the_disk() -> None:
    """The rules below cannot judge without."""
    assert database.traces_and_disk(SETTINGS) == {"files": [POSTGRES, SQLITE], "disks": ["/data/postgres"]}


@pytest.mark.parametrize(
    ("engine", "there", "found"),
    [
        ("postgres", [], ""),
        ("postgres", [POSTGRES], ""),
        ("postgres", [SQLITE], "sqlite"),
        # Files that a migration has left beside SQLite's file.
        ("sqlite", [POSTGRES, SQLITE], ""),
        ("postgres", [POSTGRES, SQLITE], "sqlite"),
        ("sqlite", [POSTGRES], "postgres"),
    ],
)
def test_host_with_the_other_engine_is_refused(engine: str, there: list[str], found: str) -> None:
    """By the file of each engine; from SQLite there is a way."""
    settings = {**SETTINGS, "database_engine": engine}
    survey = {"files": {path: path in there for path in (POSTGRES, SQLITE)}}
    said = list(database.other_engine(settings, survey))
    assert bool(said) is bool(found)
    if found:
        assert said[0].startswith(f"server runs on {found}; its database is in /data/")
        assert f"Set database_engine: {found}" in said[0]
        assert ("move-to-postgres.yml" in said[0]) is (found == "sqlite")
    for migrates in (True, "true"):
        assert list(database.other_engine({**settings, "database_migrates_engine": migrates}, survey)) == []


@pytest.mark.parametrize(
    ("engine", "disk", "refused"),
    [("sqlite", "nfs4", True), ("sqlite", "fuse.sshfs", True), ("sqlite", "ext4", False), ("postgres", "nfs4", False)],
)
def test_sqlite_on_a_network_file_system_is_refused(engine: str, disk: str, refused: bool) -> None:
    """With the folder and its file system."""
    survey = {"file_systems": {"/data/postgres": disk}}
    said = list(database.network_disk({**SETTINGS, "database_engine": engine}, survey))
    assert bool(said) is refused
    assert not refused or f"/data/postgres on server would be on {disk}" in said[0]
