"""Refusals of preflight for the role `host`: system, room, memory, ports, maintenance mode, and the time of day."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader
from ansible.template import Templar, trust_as_template
from conftest import PLUGINS
from judging import SURVEY as SUITABLE
from preflight import host

SETTINGS = {
    "inventory_hostname": "server",
    "host_data_directory": "/var/lib/scratch4school",
    "host_database_directory": "/rows",
    "host_uploads_directory": "/files",
    "host_min_free_mb": 1000,
    "host_build_mb": 0,
    "host_memory_mb": 1800,
    "host_change_windows": [],
    "host_change_forced": False,
    "host_allow_maintenance": False,
    "__host_systems_tested": ["Debian 13", "Debian 12"],
    "__host_systems_untested": ["Ubuntu 22.04"],
}
SURVEY = {
    **SUITABLE,
    "disk": {"/var/lib": 9000, "/rows": 5000},
    "sizes": {"/rows": 300, "/files": 20000},
    "memory": {**SUITABLE["memory"], "total_mb": 1800},
    "ports": {"443": "ours", "80": ""},
    # A Monday.
    "time": "2026-11-23T10:05:00",
}


def refused(settings: dict[str, Any] | None = None, **surveyed: Any) -> list[str]:
    """Return the refusals of a good host with some facts changed."""
    given = {**SETTINGS, **(settings or {})}
    return [said for rule in host.RULES.host_rules for said in rule(given, {**SURVEY, **surveyed})]


def test_good_host_is_accepted() -> None:
    """Nothing is warned of either."""
    assert refused() == []
    assert list(host.untested_system(SETTINGS, SURVEY)) == []


def test_unsupported_system_is_refused_by_name() -> None:
    """With the systems that are supported."""
    assert refused(system={"distribution": "Fedora", "version": "43"}) == [
        "server runs Fedora 43, which is not supported. Use a server with Debian 13 or Debian 12 (tested), or Ubuntu "
        "22.04 (accepted, untested)."
    ]


def test_untested_system_is_a_warning() -> None:
    """It may work."""
    ubuntu = {"distribution": "Ubuntu", "version": "22.04"}
    assert refused(system=ubuntu) == []
    (said,) = host.untested_system(SETTINGS, {**SURVEY, "system": ubuntu})
    assert said.startswith(
        "server runs Ubuntu 22.04, which is accepted, but this version of Scratch4School was not tested"
    )


@pytest.mark.parametrize(
    ("build", "engine", "sizes", "needed"),
    [
        (0, False, {"/rows": 300, "/files": 20000}, 1000),
        (600, True, {"/rows": 300, "/files": 20000}, 1000 + 600 + 300 + 200),
        (600, False, {"/rows": 300, "/files": 20000}, 1000 + 600 + 500 + 300 + 200),
        ("600", True, {"/rows": None, "/files": None}, 1600),
        (600, True, {}, 1600),
    ],
)
def test_room_is_for_images_engine_database_and_files(
    build: object, engine: bool, sizes: dict[str, int | None], needed: int
) -> None:
    """Only what stays free where nothing is built; folders that are too big to count are left out."""
    survey = {**SURVEY, "engine": {"answers": engine}, "sizes": sizes}
    assert host.needed_mb({**SETTINGS, "host_build_mb": build}, survey) == needed


def test_full_disk_is_refused() -> None:
    """The fullest one counts; the bound itself is enough."""
    assert refused(disk={"/var/lib": 9000, "/rows": 1000}) == []
    assert refused(disk={"/var/lib": 9000, "/rows": 999}) == [
        "Only 999 MB are free for /var/lib/scratch4school on server; 1000 MB are needed. Free some disk space, or "
        "mount a larger disk there."
    ]


def test_survey_reads_the_disk_of_the_database_and_both_sizes() -> None:
    """The database may lie on a disk of its own."""
    assert host.questions(SETTINGS) == {"disks": ["/rows"], "sizes": ["/rows", "/files"]}


def test_little_memory_is_refused() -> None:
    """The bound itself is enough."""
    (said,) = refused(memory={**SURVEY["memory"], "total_mb": 1799})
    assert said.startswith("server has 1799 MB of memory; 1800 MB are needed")


def test_port_of_another_program_is_refused_by_its_name() -> None:
    """Each port by itself; our own proxy may hold one."""
    said = refused(ports={"443": "apache2", "80": "sshd"})
    assert [one.split(".")[0] for one in said] == [
        "Port 443 on server is held by apache2",
        "Port 80 on server is held by sshd",
    ]


@pytest.mark.parametrize(("allowed", "count"), [(False, 1), ("false", 1), (True, 0), ("true", 0)])
def test_host_in_maintenance_mode_is_refused_unless_allowed(allowed: object, count: int) -> None:
    """With its reason, and both ways out."""
    said = refused({"host_allow_maintenance": allowed}, maintenance={"reason": "restore.yml is bringing back 3f2a"})
    assert len(said) == count
    for one in said:
        assert one.startswith("server is in maintenance mode, because restore.yml is bringing back 3f2a.")
        assert "-e undo=true" in one


@pytest.mark.parametrize(("forced", "count"), [(False, 1), ("false", 1), (True, 0), ("true", 0)])
def test_change_outside_of_its_windows_is_refused_unless_forced(forced: object, count: int) -> None:
    """By the host's own clock and zone."""
    windows = ["Mon-Fri 16:00-22:00"]
    said = refused({"host_change_windows": windows, "host_change_forced": forced})
    assert len(said) == count
    assert all(one.startswith("It is Mon 10:05 CET there") for one in said)
    assert refused({"host_change_windows": windows}, time="2026-11-23T16:05:00") == []


@pytest.mark.parametrize("windows", [[], ["Mon-Fri 16:00-22:00", "Sat,Sun 00:00-24:00"], ("Fri 22:00-04:00",)])
def test_change_windows_that_can_be_read_are_accepted(windows: object) -> None:
    """At whatever time, also where it would not be now."""
    assert list(host.windows({"host_change_windows": windows})) == []


@pytest.mark.parametrize(
    ("windows", "said"),
    [
        (
            ["Mon-Fri 16:00-22:00", "Mon-Fry 16:00-22:00"],
            "change_windows has “Mon-Fry 16:00-22:00”, which is no window;",
        ),
        ([16], "change_windows has “16”, which is no window;"),
        ("Mon-Fri 16:00-22:00", "change_windows is 'Mon-Fri 16:00-22:00'; it must be a list"),
        (None, "change_windows is None; it must be a list"),
        (True, "change_windows is True; it must be a list"),
    ],
)
def test_change_windows_that_cannot_be_read_are_refused(windows: object, said: str) -> None:
    """A misspelt window is refused at any hour."""
    (message,) = host.windows({"host_change_windows": windows})
    assert message.startswith(said)


OBSERVED = {"proxy": {"file /etc/a": "1", "container c": "2"}, "app": {}}
RECORDED = {
    "proxy": {"desired": "d1", "observed": {"file /etc/a": "1", "container c": "2"}},
    "app": {"desired": "d2", "observed": {}},
}


@pytest.mark.parametrize(
    ("survey", "desired", "unchanged"),
    [
        ({}, {}, True),
        ({}, {"proxy": "other"}, False),
        ({"recorded": {"app": RECORDED["app"]}}, {}, False),
        ({"recorded": {}}, {}, False),
        ({"observed": {"proxy": {"file /etc/a": "1", "container c": "3"}}}, {}, False),
        ({"observed": {"proxy": {"file /etc/a": "1"}}}, {}, False),
    ],
)
def test_role_is_unchanged_when_settings_and_files_equal_the_recorded_state(
    survey: dict[str, Any], desired: dict[str, str], unchanged: bool
) -> None:
    """As a function, and as the filter of a task."""
    survey = {"observed": OBSERVED, "recorded": RECORDED, **survey}
    desired = {"proxy": "d1", "app": "d2", **desired}
    assert host.unchanged_roles(survey, desired)["proxy"] is unchanged
    filter_loader.add_directory(str(PLUGINS / "filter"))
    templar = Templar(loader=DataLoader(), variables={"survey": survey, "desired": desired})
    found = templar.template(trust_as_template("{{ survey | unchanged_roles(desired) }}"))
    assert found == host.unchanged_roles(survey, desired)


def test_role_without_a_digest_of_a_file_has_changed() -> None:
    """The file is missing, also where it was missing when the state was recorded."""
    missing = {"proxy": {"file /etc/a": ""}}
    survey = {"observed": missing, "recorded": {"proxy": {"desired": "d1", "observed": missing["proxy"]}}}
    assert host.unchanged_roles(survey, {"proxy": "d1"}) == {"proxy": False}
