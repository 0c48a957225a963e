"""The commands `slots`, `component`, `clients` and `maintenance`."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from .. import locking, pooler
from ..settings import SlotsSettings
from ..slots import component_restart, maintenance, switching, unit
from ..slots.state import NAMES, Slots


def slots_of(options: Namespace) -> Slots:
    """The slots of this host."""
    return Slots(SlotsSettings.read(options.settings), options.program)


def is_deployed(options: Namespace) -> bool:
    """Whether the settings exist; during the first deploy there are neither settings nor slots."""
    return bool((options.settings / SlotsSettings.file).exists())


def list_slots(options: Namespace) -> None:
    live, found = "", {}
    if is_deployed(options):
        slots = slots_of(options)
        live, found = slots.live(), slots.containers()
    if options.json:
        print(json.dumps({"slot": live, "containers": found}))
        return
    for name in NAMES:
        one = found.get(name, {})
        held = f"{one['release'] or 'no release':<12} {one['state']}" if one else "empty"
        print(f"{name:<6} {held}{' <- live' if name == live else ''}")


@contextmanager
def _exclusive_slots(options: Namespace) -> Iterator[Slots]:
    slots = slots_of(options)
    with slots.exclusively():
        yield slots


def activate(options: Namespace) -> None:
    with _exclusive_slots(options) as slots:
        switching.activate(
            slots,
            options.slot,
            options.run,
            ready_seconds=options.ready_seconds,
            stop_first=options.stop_first,
            confirm_seconds=options.confirm_seconds,
        )


def drain(options: Namespace) -> None:
    with _exclusive_slots(options) as slots:
        switching.drain(slots, options.slot, options.run, confirm_seconds=options.confirm_seconds)


def revert(options: Namespace) -> None:
    with _exclusive_slots(options) as slots:
        switching.revert(slots, options.slot, options.run, options.unconfirmed)


def restart(options: Namespace) -> None:
    with _exclusive_slots(options) as slots:
        unit.restart_under_lock(slots, "systemctl reload", options.run)


def start(options: Namespace) -> None:
    with _exclusive_slots(options) as slots:
        unit.unit_start(slots)


def stop(options: Namespace) -> None:
    with _exclusive_slots(options) as slots:
        unit.unit_stop(slots)


def restart_component(options: Namespace) -> None:
    with (
        _exclusive_slots(options) as slots,
        locking.change_of(slots.changes, run=options.run, verb=f"restart {options.name}") as run,
    ):
        component_restart.restart(slots, options.name, run)


def pause_clients(options: Namespace) -> None:
    # During the first deploy PgBouncer has no client.
    if is_deployed(options):
        with _exclusive_slots(options):
            pooler.pause()


def resume_clients(options: Namespace) -> None:
    if is_deployed(options):
        with _exclusive_slots(options):
            pooler.resume()


def begin_maintenance(options: Namespace) -> None:
    slots = slots_of(options)
    with locking.change_of(slots.changes, run=options.run, verb="maintenance on") as run:
        maintenance.begin(slots, run, options.reason)


def end_maintenance(options: Namespace) -> None:
    slots = slots_of(options)
    with locking.change_of(slots.changes, run=options.run, verb="maintenance off") as run:
        maintenance.end(slots, run)
