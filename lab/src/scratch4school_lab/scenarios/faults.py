"""Faults during a change: when the change reaches a phase, and what happens to it then."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..hosts.plan import Host
from .lab_hosts import LAB, PATIENCE_SECONDS, http_status, live_slot, on_host, wait_for
from .playbooks import Run, finish, start

AUDIT_LOG = "/var/lib/scratch4school/change/audit.jsonl"
CURRENT = "/var/lib/scratch4school/run/app/current"
# Docker gives the lowest free address; a few below the container's may be free too.
MOST_OTHERS = 10
HELD_SECONDS = 3600
HOLDERS = f"FROM pg_stat_activity WHERE query LIKE '%pg_sleep({HELD_SECONDS})%' AND pid <> pg_backend_pid()"


class AuditLog:
    """The audit log of a host, line by line as it is written."""

    def __init__(self, lines: queue.Queue[dict[str, Any]]) -> None:
        self._lines = lines

    def wait_for(self, phase: str, process: subprocess.Popen[str]) -> dict[str, Any]:
        """Wait until the playbook reaches the phase, and return its line; fail when the playbook ends before."""
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            ended = process.poll() is not None
            try:
                line = self._lines.get(timeout=0.5)
            except queue.Empty:
                assert not ended, f"the playbook ended before the phase {phase}:\n{process.communicate()[0][-4000:]}"
                continue
            if line["phase"] == phase:
                return line
        raise AssertionError(f"the playbook did not reach the phase {phase} within {PATIENCE_SECONDS} seconds")


@contextmanager
def audit_log(host: Host) -> Iterator[AuditLog]:
    """Follow the audit log from now on."""
    lines: queue.Queue[dict[str, Any]] = queue.Queue()
    following = subprocess.Popen(
        [str(LAB), "ssh", host.name, f"sudo timeout 3600 tail --lines 0 --retry --follow=name {AUDIT_LOG}"],
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
        yield AuditLog(lines)
    finally:
        following.kill()
        following.wait()
        reader.join(timeout=10)
        if following.stdout:
            following.stdout.close()


def live_release(host: Host) -> str:
    """The release in the slot that the proxy points at."""
    label = '{{index .Config.Labels "scratch4school.release"}}'
    return on_host(f"sudo docker inspect --format '{label}' {live_slot(host)}", host).strip()


def switched_at(host: Host) -> float:
    """When the proxy was last switched, in seconds since the epoch; a lab host has this machine's clock."""
    return float(on_host(f"sudo stat --format %.Y {CURRENT}", host))


def finish_and_time_failure(process: subprocess.Popen[str]) -> tuple[Run, float]:
    """Wait for the end of a playbook; returns also when its first task failed, in seconds since the epoch."""
    assert process.stdout
    failed_at, lines = 0.0, []
    with process.stdout as output:
        for line in output:
            failed_at = failed_at or (time.time() if re.match(r" *\d+:\d\d +failed: ", line) else 0.0)
            lines.append(line)
    return Run(process.wait(), "".join(lines)), failed_at


def kill_control_node(process: subprocess.Popen[str]) -> Run:
    """Send SIGKILL to the playbook and everything that it started on this machine; returns its output until then."""
    os.killpg(process.pid, signal.SIGKILL)
    return finish(process)


@contextmanager
def started(playbook: str, *arguments: str, **where: Any) -> Iterator[subprocess.Popen[str]]:
    """A running playbook; it is killed if it still runs at the end, after a failed test."""
    process = start(playbook, *arguments, **where)
    try:
        yield process
    finally:
        if process.poll() is None:
            kill_control_node(process)


def cut_power(host: Host) -> None:
    """Kill every process of the host at once."""
    subprocess.run(["docker", "kill", host.name], check=True, capture_output=True)


def restore_power(host: Host) -> None:
    """Boot the host, and wait until its installation answers."""
    subprocess.run(["docker", "start", host.name], check=True, capture_output=True)
    wait_for(lambda: http_status(host) == 200)


@contextmanager
def ssh_cut(host: Host) -> Iterator[None]:
    """Reset every SSH connection to the host, open and new ones. HTTPS is not affected."""
    rule = ["INPUT", "--protocol", "tcp", "--dport", "22", "--jump", "REJECT", "--reject-with", "tcp-reset"]
    # Not by SSH, which the rule rejects.
    iptables = ["docker", "exec", host.name, "iptables"]
    subprocess.run([*iptables, "--insert", *rule], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run([*iptables, "--delete", *rule], check=True, capture_output=True)


@contextmanager
def full_disk(host: Host, folder: str) -> Iterator[None]:
    """A file system of 64 kB in place of a folder, so that writes there find no space left.

    The host's own disk cannot be filled: this machine and all lab hosts share it.
    """
    on_host(f"sudo mount -t tmpfs -o size=64k,mode=0755 tmpfs {folder}", host)
    try:
        yield
    finally:
        on_host(f"sudo umount {folder}", host)


def address_of(host: Host, container: str) -> str:
    """The address of a container in its network; empty while it does not run."""
    return _inspect(host, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container)


def image_of(host: Host, container: str) -> str:
    """The digest of a container's image."""
    return _inspect(host, "{{.Image}}", container)


def _inspect(host: Host, template: str, container: str) -> str:
    return on_host(f"sudo docker inspect --format '{template}' {container}", host).strip()


@contextmanager
def address_taken(host: Host, container: str) -> Iterator[str]:
    """Stop a container, and start others in its network until one of them has its address; yields the address.

    At the end the others are removed, and the container runs.
    """
    address, others = address_of(host, container), list[str]()
    network = _inspect(host, "{{.HostConfig.NetworkMode}}", container)
    other = f"--network {network} --entrypoint sleep {_inspect(host, '{{.Config.Image}}', container)} 3600"
    on_host(f"sudo docker stop --time 5 {container}", host)
    try:
        while not others or address_of(host, others[-1]) != address:
            assert len(others) < MOST_OTHERS, f"none of {MOST_OTHERS} containers was given {address}"
            others += on_host(f"sudo docker run --detach --rm {other}", host).split()
        yield address
    finally:
        on_host(f"sudo docker start {container}", host)
        if others:
            on_host(f"sudo docker rm --force {' '.join(others)}", host)


@contextmanager
def held_lock(host: Host, table: str) -> Iterator[None]:
    """A transaction that has read a table and does not end, as in a forgotten psql."""
    sql = f"BEGIN; LOCK TABLE {table} IN ACCESS SHARE MODE; SELECT pg_sleep({HELD_SECONDS});"
    holder = f"sudo docker exec scratch4school-postgres psql -U postgres -d scratch4school -c '{sql}'"
    holding = subprocess.Popen(
        [str(LAB), "ssh", host.name, holder],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: _is_held(host))
        yield
    finally:
        psql(host, f"SELECT pg_terminate_backend(pid) {HOLDERS}")
        holding.wait()


def _is_held(host: Host) -> bool:
    return "1" in psql(host, f"SELECT count(*) {HOLDERS}")


def psql(host: Host, sql: str) -> str:
    """PostgreSQL's answer to its superuser, who does not connect through PgBouncer."""
    quoted = sql.replace("'", "'\"'\"'")
    return on_host(f"sudo docker exec scratch4school-postgres psql -U postgres -d scratch4school -Atc '{quoted}'", host)
