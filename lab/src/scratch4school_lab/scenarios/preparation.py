"""Deploys the hosts of all workers: the first from nothing, the others from a snapshot of it.

scripts/test starts it beside the parts that need no lab. Run again it finds the work done.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..hosts import containers, plan
from ..hosts.plan import Host
from .lab_hosts import CA, existing_hosts, http_status, lab, wait_for
from .playbooks import VERIFIED, play


def bring_up(count: int) -> None:
    """Have a lab with at least so many hosts, before further kinds of host take their numbers."""
    # First with the hosts that exist: before this there may be no engine to ask for them.
    lab("up")
    if len(existing_hosts()) < count:
        lab("up", "--hosts", str(count))


def answers_as_itself(host: Host) -> bool:
    """Whether the host's proxy has the host's own certificate; a restored host has another one until its deploy."""
    context = ssl.create_default_context(cafile=CA)
    try:
        with (
            socket.create_connection(("127.0.0.1", host.https_port), timeout=60) as plain,
            context.wrap_socket(plain, server_hostname=host.name),
        ):
            return True
    except OSError:
        return False


def is_deployed(host: Host) -> bool:
    """Whether an installation with the host's own settings answers."""
    return answers_as_itself(host) and http_status(host) == 200


# The first host's deploy has verified the same images at full scale.
QUICK = ("--extra-vars", "release_observe_seconds=5 app_verify_quick=true")


def deploy(host: Host, *arguments: str) -> None:
    """Deploy this checkout and have it verified."""
    run = play("deploy.yml", *arguments, host=host)
    assert run.status == 0, run.output[-4000:]
    assert VERIFIED in run.output, run.output[-4000:]


def check_kinds(hosts: list[Host]) -> None:
    """Fail where a host, which a worker is to have, is of a kind that the first host's snapshot cannot replace."""
    known = containers.describe_all()
    for host in hosts:
        kind = (known[host.name]["system"], known[host.name]["database"])
        assert kind == (plan.SYSTEMS[0], plan.DATABASES[0]), (
            f"{host.name} is {', '.join(kind)}, and a worker needs {plan.SYSTEMS[0]}, {plan.DATABASES[0]}; "
            "run `scripts/lab down` first."
        )


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print the duration of a step."""
    started = time.monotonic()
    yield
    print(f"{title:<40}{time.monotonic() - started:6.1f} s", flush=True)


def prepare(count: int) -> None:
    """Have a deployed host for each of `count` workers."""
    first, *others = plan.hosts(count)
    check_kinds(others)
    if not is_deployed(first):
        with step(f"{first.name}: deploy"):
            deploy(first)
    others = [host for host in others if not is_deployed(host)]
    if others:
        with step(f"{first.name}: snapshot"):
            lab("snapshot", str(first.number))
            wait_for(lambda: http_status(first) == 200)
    for host in others:
        with step(f"{host.name}: restore"):
            lab("restore", str(host.number))
        with step(f"{host.name}: deploy"):
            deploy(host, *QUICK)


def main(arguments: list[str]) -> int:
    """Prepare the hosts of so many workers; returns 0 when they are deployed."""
    # Set by scripts/test for this process only, and not for Ansible.
    os.environ.pop("PYTHONPATH", None)
    # An exception, so that the playbook that runs is ended too.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    count = int(arguments[0])
    bring_up(count)
    prepare(count)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
