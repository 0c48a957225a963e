"""Starts and stops everything for systemd's unit; a restart of the unit activates the standby, and no request fails."""

from __future__ import annotations

from pathlib import Path

from .. import docker, locking, systemd
from ..errors import OperatorError
from ..progress import say
from .state import NAMES, PROXY, RUNNING, Slots, container, other
from .switching import activate, drain, drain_and_stop

UNIT = "scratch4school.service"
# `unit_stop` makes this file when systemd restarts the unit, and `unit_start` then activates the standby.
MARKER = Path("/run/scratch4school-restart")
# The timer that starts the unit again after a restart of it that was refused.
START_AGAIN, START_AGAIN_SECONDS = "start-again", 2


def start(slots: Slots) -> None:
    """Start everything, from the database to the proxy, but not the standby, and in maintenance mode no slot."""
    for name in slots.dependencies:
        docker.must("start", name)
    slot, found = slots.live(), slots.containers()
    if slot not in found and len(found) == 1:
        slot = next(iter(found))
        slots.switch_to(slot)
    reason = locking.maintenance_reason(slots.changes)
    for name in [container(slot)] * (slot in found and not reason) + [PROXY]:
        docker.must("start", name)
    say(f"Started all but the application, because {reason}." if reason else "Started.")


def stop(slots: Slots) -> None:
    """Stop everything, from the proxy to the database: no new request comes, and open saves are finished."""
    docker.stop(PROXY)
    try:
        running = [slot for slot, found in slots.containers().items() if found["state"] in RUNNING]
    except OperatorError:
        running = list(NAMES)
    for slot in running:
        docker.stop(container(slot))
    for name in reversed(slots.dependencies):
        docker.stop(name)
    say("Stopped.")


def unit_start(slots: Slots) -> None:
    """Start everything for the unit; when systemd restarts the unit, also activate the standby."""
    is_second_half = MARKER.exists()
    MARKER.unlink(missing_ok=True)
    # Also during a restart: `unit_stop` checked only that the live slot runs; another container may be stopped.
    start(slots)
    if is_second_half:
        try:
            restart_under_lock(slots, "systemctl restart")
        except OperatorError:
            # `systemctl restart` must fail, which makes the unit failed although everything runs. systemd does not stop
            # a failed unit, not even at a shutdown. So systemd starts the unit once more afterwards.
            systemd.schedule(START_AGAIN, START_AGAIN_SECONDS, ["systemctl", "start", UNIT])
            raise


def unit_stop(slots: Slots) -> None:
    """Stop everything for the unit; when systemd restarts the unit, only make MARKER for `unit_start`."""
    if systemd.is_restarting(UNIT) and slots.container_of(slots.live()).get("state") == "running":
        MARKER.touch()
    else:
        stop(slots)


def restart(slots: Slots, run: str) -> None:
    """Activate the standby of the live release; when the live slot does not run, start everything instead.

    :raises OperatorError: in maintenance mode, and when there is no standby of the live release.
    """
    slot, found = slots.live(), slots.containers()
    if reason := locking.maintenance_reason(slots.changes):
        raise OperatorError(
            f"Nothing was restarted, because {reason}. Run that playbook again, or undo its work with -e undo=true."
        )
    if found.get(slot, {}).get("state") != "running":
        start(slots)
        return
    standby = found.get(other(slot), {})
    if standby.get("release") != found[slot]["release"]:
        raise OperatorError("There is no standby of the live release, so nothing was restarted; run deploy.yml again.")
    if standby["state"] == "running":
        drain_and_stop(slots, other(slot))
    activate(slots, other(slot), run)
    drain(slots, slot, run)


def restart_under_lock(slots: Slots, verb: str, run: str = "") -> None:
    """Call `restart` under the lock that `run` has, or under a new lock when `run` is ''."""
    with locking.change_of(slots.changes, run=run, verb=verb) as own:
        restart(slots, own)
