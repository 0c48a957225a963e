"""Refusals of the role `host`: a host that is not supported, is too small, or must not be changed now."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import change_windows

from .rules import Messages, Questions, Rules, Settings, Survey
from .settings import is_true, whole_number

RULES = Rules(
    "host",
    bounds={
        "host_min_free_mb": whole_number(0),
        "host_memory_mb": whole_number(0),
    },
)
# Megabytes that Docker Engine takes where it has to be installed.
ENGINE_MB = 500
# Pupils go on saving while a release is made: room for a hundredth of their files.
SHARE_OF_FILES = 100


@RULES.refuses_settings
def windows(settings: Settings) -> Messages:
    """A window that cannot be read is refused at any time of day."""
    refusal = _window_refusal(settings["host_change_windows"])
    yield from [refusal] if refusal else []


@RULES.asks_host
def questions(settings: Settings) -> Questions:
    """The disk of the database, which may be another one, and the sizes from which `needed_mb` computes the sum."""
    folders = [settings["host_database_directory"], settings["host_uploads_directory"]]
    return {"disks": folders[:1], "sizes": folders}


@RULES.refuses_host
def system(settings: Settings, survey: Survey) -> Messages:
    """Only systems that were tested, or are close to one."""
    tested, untested = settings["__host_systems_tested"], settings["__host_systems_untested"]
    if _name(survey) not in [*tested, *untested]:
        yield (
            f"{settings['inventory_hostname']} runs {_name(survey)}, which is not supported. Use a server with "
            f"{' or '.join(tested)} (tested), or {' or '.join(untested)} (accepted, untested)."
        )


@RULES.warns_of_host
def untested_system(settings: Settings, survey: Survey) -> Messages:
    """Warn of an untested system."""
    if _name(survey) in settings["__host_systems_untested"]:
        yield (
            f"{settings['inventory_hostname']} runs {_name(survey)}, which is accepted, but this version of "
            f"Scratch4School was not tested on it. Tested are {' and '.join(settings['__host_systems_tested'])}."
        )


@RULES.refuses_host
def disk(settings: Settings, survey: Survey) -> Messages:
    """The fullest of the disks that will be written to."""
    free, needed = min(survey["disk"].values()), needed_mb(settings, survey)
    if free < needed:
        yield (
            f"Only {free} MB are free for {settings['host_data_directory']} on {settings['inventory_hostname']}; "
            f"{needed} MB are needed. Free some disk space, or mount a larger disk there."
        )


def needed_mb(settings: Settings, survey: Survey) -> int:
    """Megabytes that the run needs, and that stay free after it.

    Beside the images an engine where there is none. A new release may come with a migration, which may write every
    table anew before the previous one is dropped.
    """
    least, build = int(settings["host_min_free_mb"]), int(settings["host_build_mb"])
    if build <= 0:
        return least
    engine = 0 if survey["engine"]["answers"] else ENGINE_MB
    database = survey["sizes"].get(settings["host_database_directory"]) or 0
    files = survey["sizes"].get(settings["host_uploads_directory"]) or 0
    return least + build + engine + database + files // SHARE_OF_FILES


@RULES.refuses_host
def memory(settings: Settings, survey: Survey) -> Messages:
    """Two releases run side by side during a switch."""
    total, needed = survey["memory"]["total_mb"], int(settings["host_memory_mb"])
    if total < needed:
        yield (
            f"{settings['inventory_hostname']} has {total} MB of memory; {needed} MB are needed, because two releases "
            "run side by side during a switch. Give the host more memory, or set host_memory_mb lower at your own risk."
        )


@RULES.refuses_host
def ports(settings: Settings, survey: Survey) -> Messages:
    """The proxy publishes them."""
    for port, holder in survey["ports"].items():
        if holder not in ("", "ours"):
            yield (
                f"Port {port} on {settings['inventory_hostname']} is held by {holder}. Stop that service, or choose "
                "another port with proxy_https_port or proxy_http_port."
            )


@RULES.refuses_host
def maintenance(settings: Settings, survey: Survey) -> Messages:
    """A change is refused until an interrupted restore or import is completed or undone."""
    if survey["maintenance"] and not is_true(settings["host_allow_maintenance"]):
        yield (
            f"{settings['inventory_hostname']} is in maintenance mode, because {survey['maintenance']['reason']}. Run "
            "that playbook again to complete it, or with -e undo=true to undo it."
        )


@RULES.refuses_host
def time_of_day(settings: Settings, survey: Survey) -> Messages:
    """Outside of the windows nothing is changed unless the sysadmin forces it."""
    if not is_true(settings["host_change_forced"]):
        refusal = _window_refusal(
            settings["host_change_windows"], datetime.fromisoformat(survey["time"]), survey["zone"]
        )
        yield from [refusal] if refusal else []


def unchanged_roles(survey: Survey, desired: Mapping[str, str]) -> dict[str, bool]:
    """Role to whether it is unchanged: settings and files equal its recorded state, and each file has a digest.

    :param desired: role to the digest of its settings.
    """
    return {
        role: all(observed.values())
        and survey["recorded"].get(role) == {"desired": desired[role], "observed": observed}
        for role, observed in survey["observed"].items()
    }


def _window_refusal(texts: object, moment: datetime | None = None, zone: str = "") -> str:
    """Why the host must not be changed at that moment; without one, only what cannot be read of the windows."""
    try:
        refusal = change_windows.problem(texts, moment or datetime.min, zone)
    except change_windows.ChangeWindowError as error:
        return str(error)
    return refusal if moment else ""


def _name(survey: Survey) -> str:
    return f"{survey['system']['distribution']} {survey['system']['version']}"
