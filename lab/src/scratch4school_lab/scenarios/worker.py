"""The lab host that this pytest process works on: the first, or one for each worker of pytest-xdist."""

from __future__ import annotations

import os

from ..hosts.plan import Host


def host_of(worker: str, count: int) -> Host:
    """The host of one of `count` workers, named as pytest-xdist does ("gw0"); the first host for "", no worker.

    A worker that takes the place of a crashed one has the next number, and gets the host of an earlier one.
    """
    return Host(1 + int(worker.removeprefix("gw") or 0) % count)


WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
HOST = host_of(os.environ.get("PYTEST_XDIST_WORKER", ""), WORKERS)
