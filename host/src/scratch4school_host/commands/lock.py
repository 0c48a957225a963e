"""The commands `lock show` and `lock release`."""

from __future__ import annotations

import json
from argparse import Namespace

from .. import locking
from ..settings import SlotsSettings


def show(options: Namespace) -> None:
    lock = locking.read_lock(SlotsSettings.read(options.settings).change_directory)
    if options.json:
        print(json.dumps(lock))
    else:
        print(locking.refusal(lock) if lock else "The host is not locked.")


def release(options: Namespace) -> None:
    folder = SlotsSettings.read(options.settings).change_directory
    held = locking.unlock(folder, by=locking.account(), reason=options.reason)
    print(f"Unlocked: {held}." if held else "The host was not locked.")
