"""Begins and ends maintenance mode: no slot is live, and neither a boot nor systemd's unit starts one."""

from __future__ import annotations

from .. import docker, locking, systemd
from ..progress import say
from .state import RUNNING, Slots, container
from .switching import CONFIRM, start_ready


def begin(slots: Slots, run: str, reason: str) -> None:
    """Stop both slots, and let no slot be started until one is activated or `end` is called.

    :param reason: a clause that follows “because”.
    """
    with slots.exclusively():
        found = slots.containers()
        locking.phase(slots.changes, run=run, name="maintenance on")
        locking.start_maintenance(slots.changes, run=run, reason=reason)
        systemd.cancel(CONFIRM)
        for slot, held in found.items():
            if held["state"] in RUNNING:
                docker.must("stop", container(slot))
        say("Maintenance mode is on.")


def end(slots: Slots, run: str) -> None:
    """Start the slot that was live before, and wait until it is ready.

    :raises OperatorError: when it does not become ready in time; maintenance mode stays on.
    """
    with slots.exclusively():
        locking.phase(slots.changes, run=run, name="maintenance off")
        slot = slots.live()
        if slot:
            start_ready(slots, slot, slots.ready_seconds)
        locking.end_maintenance(slots.changes)
        live = f"Slot {slot} is live." if slot else "There is no release that could be live."
        say(f"Maintenance mode is off. {live}")
