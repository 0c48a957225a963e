"""Activates, reverts and drains slots. It runs on the host, so a lost control node leaves no step half done.

The role `app` creates the containers; this module starts and stops them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from .. import docker, ledger, locking, systemd
from ..errors import OperatorError
from ..progress import say
from .state import RUNNING, Slots, container, other

# After this many restarts by Docker, a container is not waited for any longer.
HOPELESS_RESTARTS = 3
POLL_SECONDS = 0.3
# The name of the timer that reverts an activation that was not confirmed in time.
CONFIRM = "confirm"


def wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition is true; returns False when it is still false after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)
    return True


def start_ready(slots: Slots, slot: str, seconds: float) -> None:
    """Start a slot and wait until it is ready.

    :raises OperatorError: when it is not ready after `seconds`, with the cause and the container's last lines.
    """
    began = time.monotonic()
    docker.must("start", container(slot))
    why = ""
    while not why or time.monotonic() - began < seconds:
        why = slots.why_not_ready(slot)
        if not why:
            say(f"Slot {slot} is ready after {time.monotonic() - began:.1f} s.")
            return
        if slots.container_of(slot).get("restarts", 0) >= HOPELESS_RESTARTS:
            why = "its process exits at once"
            break
        time.sleep(POLL_SECONDS)
    raise OperatorError(
        f"{container(slot)} did not become ready within {time.monotonic() - began:.0f} seconds: {why}\n"
        f"Its last lines:\n{docker.logs(container(slot))}"
    )


def activate(
    slots: Slots,
    slot: str,
    run: str,
    *,
    ready_seconds: float | None = None,
    stop_first: bool = False,
    confirm_seconds: float = 0,
) -> None:
    """Start a slot, and switch to it when it is ready. If a step fails, the previous slot is live afterwards.

    :param ready_seconds: how long it may take to become ready; without it, what the settings say.
    :param stop_first: stop the previous slot first, because the host has not enough memory for both.
    :param confirm_seconds: have systemd revert after this time, unless the previous slot was drained; 0 for never.
    :raises OperatorError: when a step failed, with the cause.
    """
    ready_seconds = ready_seconds or slots.ready_seconds
    previous = slots.live() if slots.live() != slot else ""
    was_live = not previous and slots.container_of(slot).get("state") == "running"
    locking.phase(slots.changes, run=run, name="start")
    # The revert is scheduled before the live slot is stopped, and once more before the switch, with the full time.
    scheduled = confirm_seconds > 0 and previous != ""
    try:
        if stop_first and previous:
            if scheduled:
                schedule_revert(slots, previous, run, ready_seconds + confirm_seconds)
            docker.must("stop", container(previous))
        start_ready(slots, slot, ready_seconds)
        locking.phase(slots.changes, run=run, name="switch")
        if scheduled:
            schedule_revert(slots, previous, run, confirm_seconds)
        slots.switch_to(slot)
        locking.end_maintenance(slots.changes)
    # OSError: on a full disk neither the audit log nor the link can be written.
    except (OperatorError, OSError) as problem:
        # A link that was not moved is not written again: the disk may be full. If it was moved and the previous slot
        # was stopped, that slot is started before the link is moved back.
        moved = previous != "" and slots.live() == slot
        if moved and not stop_first:
            slots.switch_to(previous)
        if not was_live:
            docker.stop(container(slot))
        if previous and stop_first:
            say(f"Slot {previous} is started again.")
            try:
                start_ready(slots, previous, ready_seconds)
            finally:
                if moved:
                    slots.switch_to(previous)
        systemd.cancel(CONFIRM)
        raise OperatorError(str(problem)) from problem
    say(f"Slot {slot} is live.")


def schedule_revert(slots: Slots, slot: str, run: str, seconds: float) -> None:
    """Have systemd revert to a slot after `seconds`, unless the timer is cancelled before."""
    command = [*slots.program, "slots", "revert", slot, "--run", run, "--unconfirmed"]
    systemd.schedule(CONFIRM, seconds, command)


def revert(slots: Slots, slot: str, run: str, unconfirmed: bool = False) -> None:
    """Switch back to the previous slot, and drain the other one.

    :param unconfirmed: systemd calls, because the run did not confirm in time; does nothing when the run has ended.
    """
    if unconfirmed and (locking.read_lock(slots.changes) or {}).get("run") != run:
        return
    began = time.monotonic()
    failed = other(slot)
    if slots.container_of(slot).get("state") != "running":
        start_ready(slots, slot, slots.ready_seconds)
    moved = slots.live() != slot
    slots.switch_to(slot)
    locking.end_maintenance(slots.changes)
    if moved:
        say(f"Slot {slot} is live again after {time.monotonic() - began:.1f} s.")
    if not unconfirmed:
        systemd.cancel(CONFIRM)
    # The slot is live; a full disk, or a lost lock, must not stop the rest of the revert.
    with suppress(OperatorError, OSError):
        locking.phase(slots.changes, run=run, name="revert")
    held = slots.container_of(failed)
    if held.get("state") in RUNNING:
        say(f"The last lines of slot {failed}:\n{docker.logs(container(failed))}")
        drain_and_stop(slots, failed)
    if unconfirmed:
        why = "the new release was not confirmed in time"
        if moved and held:
            entry = ledger.make_entry(
                release=held.get("release"), by=locking.account(), verb="confirm", outcome="reverted", reason=why
            )
            ledger.append(slots.ledger, entry)
        locking.end(slots.changes, run=run, outcome="failed", reason=why)


def drain(slots: Slots, slot: str, run: str, *, confirm_seconds: float = 0) -> None:
    """Stop a slot when its open requests are answered.

    :param confirm_seconds: if not 0, the live slot may be drained, as before a migration that must be the only writer.
        systemd starts it again after this time, unless another slot was activated.
    :raises OperatorError: for the live slot, without `confirm_seconds`.
    """
    if slots.live() == slot and not confirm_seconds:
        back = f"scratch4schoolctl slots revert {other(slot)} --run {run}"
        raise OperatorError(f"Slot {slot} is live, so it is not drained; type `{back}` first.")
    systemd.cancel(CONFIRM)
    if confirm_seconds:
        schedule_revert(slots, slot, run, confirm_seconds)
    locking.phase(slots.changes, run=run, name="drain")
    drain_and_stop(slots, slot, lambda: locking.phase(slots.changes, run=run, name="stop"))


def drain_and_stop(slots: Slots, slot: str, before_stop: Callable[[], None] = lambda: None) -> None:
    """Wait until no request is in flight, at most `drain_seconds` of the settings; then stop the container.

    Two zero readings mean that the queue is empty. One is not enough: `in_flight` does not count a request that waits
    in the socket's queue, and gunicorn drops its queue when it stops. After the switch no request is added to the
    queue, and a process accepts a waiting request within the pause before the second reading.
    """
    began = time.monotonic()
    empty = 0
    while empty < 2 and time.monotonic() - began < slots.drain_seconds:
        time.sleep(POLL_SECONDS)
        empty = empty + 1 if slots.in_flight(slot) == 0 else 0
    say(
        f"Slot {slot} had no open request after {time.monotonic() - began:.1f} s."
        if empty == 2
        else f"Slot {slot} is stopped with {slots.in_flight(slot)} open requests."
    )
    before_stop()
    docker.must("stop", container(slot))
