"""What goes wrong with a change in the middle: when it comes to a phase, and what is done to it then."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from conftest import LAB, Place, Run, finish, on_host, serving_slot, start, status, wait_for

JOURNAL = "/var/lib/scratch4school/change/journal.jsonl"
CURRENT = "/var/lib/scratch4school/run/app/current"
# The engine gives the lowest free address; a few below the wanted one may be free too.
STRANGERS = 10


class Journal:
    """The journal of a host's changes, line by line as it is written."""

    def __init__(self, lines: queue.Queue[dict[str, Any]]) -> None:
        self._lines = lines

    def wait_for(self, phase: str, process: subprocess.Popen[str], seconds: float = 240) -> dict[str, Any]:
        """Until the playbook comes to the phase; returns the line. Fails when it ends without."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            ended = process.poll() is not None
            try:
                line = self._lines.get(timeout=0.5)
            except queue.Empty:
                assert not ended, f"it ended before the phase {phase}:\n{process.communicate()[0][-4000:]}"
                continue
            if line["phase"] == phase:
                return line
        raise AssertionError(f"it did not come to the phase {phase} within {seconds} seconds")


@contextmanager
def journal(place: Place) -> Iterator[Journal]:
    """Follow the journal from now on."""
    lines: queue.Queue[dict[str, Any]] = queue.Queue()
    following = subprocess.Popen(
        [str(LAB), "ssh", place.name, f"sudo timeout 900 tail --lines 0 --retry --follow=name {JOURNAL}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def read() -> None:
        assert following.stdout
        for line in following.stdout:
            lines.put(json.loads(line))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield Journal(lines)
    finally:
        following.kill()
        following.wait()
        reader.join(timeout=10)
        if following.stdout:
            following.stdout.close()


def serving_release(place: Place) -> str:
    """The release in the slot that the proxy points at."""
    label = '{{index .Config.Labels "scratch4school.release"}}'
    return on_host(f"sudo docker inspect --format '{label}' {serving_slot(place)}", place.name).strip()


def switched_at(place: Place) -> float:
    """When the proxy was last pointed at another slot, in seconds since the epoch; both machines have one clock."""
    return float(on_host(f"sudo stat --format %.Y {CURRENT}", place.name))


def kill_controller(process: subprocess.Popen[str]) -> Run:
    """SIGKILL to the playbook and all that it started on this machine; returns what it had said until then."""
    os.killpg(process.pid, signal.SIGKILL)
    return finish(process)


@contextmanager
def begun(playbook: str, *arguments: str, **where: Any) -> Iterator[subprocess.Popen[str]]:
    """A verb that is under way; one that a failed test leaves is killed."""
    process = start(playbook, *arguments, **where)
    try:
        yield process
    finally:
        if process.poll() is None:
            kill_controller(process)


def cut_power(place: Place) -> None:
    """End everything on the host at once."""
    subprocess.run(["docker", "kill", place.name], check=True, capture_output=True)


def restore_power(place: Place) -> None:
    """Boot the host, and wait until it serves by itself."""
    subprocess.run(["docker", "start", place.name], check=True, capture_output=True)
    wait_for(lambda: status(place.url) == 200, seconds=120)


@contextmanager
def network_cut(place: Place) -> Iterator[None]:
    """Nobody gets through to the host by SSH; what is connected breaks. Pupils notice nothing."""
    rule = ["INPUT", "--protocol", "tcp", "--dport", "22", "--jump", "REJECT", "--reject-with", "tcp-reset"]
    # Past the network, as somebody at the host's own keyboard.
    at_keyboard = ["docker", "exec", place.name, "iptables"]
    subprocess.run([*at_keyboard, "--insert", *rule], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run([*at_keyboard, "--delete", *rule], check=True, capture_output=True)


@contextmanager
def full_disk(place: Place, folder: str) -> Iterator[None]:
    """A file system of a few kilobytes in place of a folder: what is written there finds no space left.

    Not the host's own disk, which is that of all lab hosts and of the machine that they run on.
    """
    on_host(f"sudo mount -t tmpfs -o size=64k,mode=0755 tmpfs {folder}", place.name)
    try:
        yield
    finally:
        on_host(f"sudo umount {folder}", place.name)


def address_of(place: Place, container: str) -> str:
    """The address that the engine gave a container in its network; empty while it does not run."""
    return _inspect(place, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container)


def image_of(place: Place, container: str) -> str:
    """The digest of the image that a container was made of."""
    return _inspect(place, "{{.Image}}", container)


def _inspect(place: Place, template: str, container: str) -> str:
    return on_host(f"sudo docker inspect --format '{template}' {container}", place.name).strip()


@contextmanager
def address_taken(place: Place, container: str) -> Iterator[str]:
    """A container is stopped, and others join its network until one of them has its address; yields the address.

    Afterwards they are gone, and the container runs.
    """
    former, strangers = address_of(place, container), list[str]()
    network = _inspect(place, "{{.HostConfig.NetworkMode}}", container)
    stranger = f"--network {network} --entrypoint sleep {_inspect(place, '{{.Config.Image}}', container)} 600"
    on_host(f"sudo docker stop --time 5 {container}", place.name)
    try:
        while not strangers or address_of(place, strangers[-1]) != former:
            assert len(strangers) < STRANGERS, f"none of {STRANGERS} containers was given {former}"
            strangers += on_host(f"sudo docker run --detach --rm {stranger}", place.name).split()
        yield former
    finally:
        on_host(f"sudo docker start {container}", place.name)
        if strangers:
            on_host(f"sudo docker rm --force {' '.join(strangers)}", place.name)


@contextmanager
def held_lock(place: Place, table: str) -> Iterator[None]:
    """Somebody's transaction that reads a table and does not end, as of a forgotten psql."""
    sql = f"BEGIN; LOCK TABLE {table} IN ACCESS SHARE MODE; SELECT pg_sleep(600);"
    holder = f"sudo docker exec scratch4school-postgres psql -U postgres -d scratch4school -c '{sql}'"
    holding = subprocess.Popen(
        [str(LAB), "ssh", place.name, holder],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: _is_held(place), seconds=20)
        yield
    finally:
        psql(
            place,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' "
            "AND pid <> pg_backend_pid()",
        )
        holding.wait(timeout=20)


def _is_held(place: Place) -> bool:
    return "1" in psql(
        place,
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()",
    )


def psql(place: Place, sql: str) -> str:
    """What PostgreSQL answers its administrator, who does not come through the pooler."""
    quoted = sql.replace("'", "'\"'\"'")
    return on_host(
        f"sudo docker exec scratch4school-postgres psql -U postgres -d scratch4school -Atc '{quoted}'", place.name
    )
