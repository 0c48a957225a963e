"""Refusals of the role `release`: a confirmation that comes too early, and releases that cannot be live.

The functions below the rules run after preflight, in the role's own tasks: they judge what the host answered.
`plugins/filter/preflight.py` makes filters of them. A described release is what `app/describe` returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import schema_revisions

from scratch4school_host import audit_log, ledger

from .rules import Messages, Rules, Settings, Survey
from .settings import whole_number

RULES = Rules(
    "release",
    bounds={
        "release_ready_seconds": whole_number(1),
        "release_observe_seconds": whole_number(0),
        "release_confirm_seconds": whole_number(0),
        "release_drain_seconds": whole_number(0),
        "release_keep": whole_number(1),
    },
)
# Seconds that the verification may take after the time of observation.
VERIFICATION = 60


@RULES.refuses_settings
def confirm_seconds(settings: Settings) -> Messages:
    """The host reverts by itself when the control node has not confirmed the release within these seconds."""
    seconds = int(settings["release_confirm_seconds"])
    least = int(settings["release_observe_seconds"]) + VERIFICATION
    if 0 < seconds < least:
        yield (
            f"release_confirm_seconds is {seconds}, and the host would revert before the run could confirm the "
            f"release; write 0 (never) or at least {least}, a minute more than release_observe_seconds."
        )


def component_refusal(component: str, components: Sequence[str], host: str) -> str:
    """Why there is no such component to restart; '' when there is, or when none was asked for."""
    if component in ("", *components):
        return ""
    return (
        f"There is no component “{component}” on {host}; type -e component= with one of {', '.join(components)}, or "
        "omit it to restart the application."
    )


def schema_refusal(release: Mapping[str, Any], revision: str, described: Iterable[Mapping[str, Any]], host: str) -> str:
    """Why a release cannot be live with the database at `revision`; '' when it can.

    :param described: the releases on the host, which may know revisions that this release does not know.
    """
    if schema_revisions.is_compatible(release, revision, described):
        return ""
    return (
        f"Release {release['id']} is incompatible with the database of {host}, which is at revision {revision}. Run "
        "deploy.yml from a checkout that knows this revision, or restore a backup from before it with restore.yml."
    )


def compatible_release(backup: Mapping[str, Any], here: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """The release that is live after a restore: an id, `new` for this checkout's, or `current`; '' without one.

    :param backup: its `release` and `schema`; empty for the data from before the restore.
    :param here: the described release of this checkout; it migrates an older schema.
    :param known: what the module `release_ledger` read: `releases` and `descriptions`.
    """
    if not backup:
        return "current" if known["releases"] else ""
    if backup["release"] in known["releases"] and backup["release"] in known["descriptions"]:
        return str(backup["release"])
    is_older = backup["schema"] <= here["schema"]["head"]
    if is_older or schema_revisions.is_compatible(here, backup["schema"], known["descriptions"].values()):
        return "new"
    return ""


def compatibility_refusal(backup: Mapping[str, Any], compatible: str, host: str) -> str:
    """Why a backup is not restored: no release is compatible with it. '' when one is, or without a backup."""
    if compatible or not backup:
        return ""
    return (
        f"Backup {backup['id']} has schema revision {backup['schema']}, with which neither this checkout nor a release "
        f"on {host} is compatible. Run restore.yml from a checkout that is at least as new as release "
        f"{backup['release']}."
    )


def contract_refusal(pending: Iterable[Mapping[str, str]], described: Iterable[Mapping[str, Any]], keep: object) -> str:
    """Why the pending contracts must wait; '' when each release on the host can live without what they remove.

    :param pending: the pending migrations, each with `revision` and `kind`.
    :param keep: release_keep.
    """
    contracts = [one["revision"] for one in pending if one["kind"] == "contract"]
    obstacles = schema_revisions.contract_obstacles(described, contracts)
    if not obstacles:
        return ""
    return (
        f"A rollback to {', '.join(obstacles)} would be impossible: the revisions {', '.join(contracts)} remove what "
        f"they need. Deploy until they are no longer kept (release_keep is {keep}), or omit app_migrate_contract."
    )


def is_up_to_date(
    survey: Survey, release: str, unchanged: Mapping[str, bool], missing_images: Sequence[object]
) -> bool:
    """Whether a deploy has nothing to do: the release is live and ready, has its standby, and no role has changed.

    :param release: the id of this checkout's release.
    :param unchanged: role to whether it is unchanged.
    """
    other = "green" if survey["slot"] == "blue" else "blue"
    standby = survey["containers"].get(f"scratch4school-app-{other}") or {"state": "", "labels": {}}
    changes = audit_log.runs(survey["audit_log"])
    return (
        all(unchanged.values())
        and not missing_images
        and bool(survey["ready"]["ok"])
        and survey["ready"]["release"] == release
        and ledger.parse(survey["ledger"]).current == release
        and standby["state"] in ("created", "exited")
        and standby["labels"].get("scratch4school.release") == release
        and not survey["lock"]
        and bool(changes)
        and changes[-1].outcome == "done"
    )
