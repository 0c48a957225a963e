"""A deployed lab host for measurements: commands, playbooks, other ways to deploy, and CPU counters."""

from __future__ import annotations

import bisect
import contextlib
import json
import os
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from scratch4school_lab.checkout import ROOT, SCRIPTS, STATE, TOOLS
from scratch4school_lab.hosts import plan as lab

LAB = SCRIPTS / "lab"
ON_HOST = Path(__file__).with_name("on_host")
CA = STATE / "ca.crt"
FOLDER = "/var/lib/scratch4school"
# A program starts on a host within a second; a machine may be many times slower.
START_SECONDS = 120
# Containers by the part that their CPU counts for; one that replaces the application's slot counts as the application.
PARTS = {
    "scratch4school-proxy": "proxy",
    "scratch4school-bench-nginx": "proxy",
    "scratch4school-app-blue": "app",
    "scratch4school-app-green": "app",
    "scratch4school-bench-app": "app",
    "scratch4school-bench-bare": "app",
    "scratch4school-pgbouncer": "pooler",
    "scratch4school-postgres": "database",
}
# The columns of the tables.
CPU_COLUMNS = (*dict.fromkeys(PARTS.values()), "all")


class BenchmarkFailed(Exception):
    """A measurement could not be made; the message says why."""


def lab_hosts() -> int:
    """How many hosts the lab has; a host that systemd calls degraded counts too."""
    status = subprocess.run([LAB, "status"], capture_output=True, text=True, check=False).stdout
    return len(re.findall(r" ssh answers, .* https://localhost:\d+$", status, flags=re.MULTILINE))


class Host:
    """One lab host, by its number; it must be up, and deployed with PostgreSQL."""

    def __init__(self, number: int = 1) -> None:
        self._host = lab.hosts(number)[-1]
        self.name = self._host.name
        # Its own address: the port on this machine's loopback goes through a process of Docker that uses CPU too.
        self.url = f"https://{self._host.address}"
        self.floor_url = f"https://{self._host.address}:9443"

    def run(self, command: str, stdin: bytes | None = None) -> str:
        """Return the output of a command, as root; BenchmarkFailed unless it succeeds."""
        ended = subprocess.run(
            [LAB, "ssh", self.name, f"sudo {command}"], input=stdin, capture_output=True, check=False
        )
        if ended.returncode:
            printed = (ended.stderr or ended.stdout).decode()[-500:]
            raise BenchmarkFailed(f"{self.name}: {command[:80]} failed: {printed}")
        return ended.stdout.decode()

    def script(self, name: str, *arguments: object) -> str:
        """Return the output of one of the programs in on_host/."""
        return self.run(f"python3 - {' '.join(map(str, arguments))}", (ON_HOST / name).read_bytes())

    def sql(self, statements: str) -> str:
        """Return PostgreSQL's answer to its administrator, row by row."""
        psql = "psql --quiet --no-psqlrc --tuples-only --no-align --set=ON_ERROR_STOP=1 --username=postgres"
        command = f"docker exec --interactive scratch4school-postgres {psql} --dbname=scratch4school"
        return self.run(command, statements.encode()).strip()

    def console(self, command: str) -> str:
        """Return the answer of PgBouncer's console."""
        psql = "psql --host /tmp --port 6432 --username pgbouncer --dbname pgbouncer --csv"
        return self.run(f"docker exec scratch4school-pgbouncer {psql} --command '{command}'")

    @contextlib.contextmanager
    def redeployed(self, **options: object) -> Iterator[None]:
        """Run the application with other numbers, or on another database, as on_host/redeploy.py does."""
        arguments = [f"--{name}={shlex.quote(str(value))}" for name, value in options.items()]
        try:
            self.script("redeploy.py", "up", *arguments)
            yield
        finally:
            self.script("redeploy.py", "down")


class Meter:
    """The CPU counters of a host's containers while the context lasts."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lines: list[dict[str, float]] = []

    def __enter__(self) -> Meter:
        program = (ON_HOST / "cpu.py").read_text()
        # The program is an argument, so that the end of its input does not end it.
        command = [LAB, "ssh", self._host.name, f"sudo python3 -u -c {shlex.quote(program)}"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        end = time.monotonic() + START_SECONDS
        while not self._lines:
            if time.monotonic() > end or self._process.poll() is not None:
                self._process.kill()
                raise BenchmarkFailed(f"{self._host.name} sends no CPU counters.")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.append(json.loads(line))

    def between(self, began: float, ended: float) -> dict[str, float]:
        """Seconds of CPU by part (see PARTS) between two moments in seconds since the epoch, and their sum `all`."""
        # The counters are read five times a second; between two readings the use is taken as even.
        while self._lines[-1]["at"] < ended:
            if self._process.poll() is not None:
                raise BenchmarkFailed(f"{self._host.name} stopped sending its CPU counters.")
            time.sleep(0.05)
        sums: dict[str, float] = {}
        for container, part in PARTS.items():
            if container in self._lines[-1]:
                used = self._at(container, ended) - self._at(container, began)
                sums[part] = sums.get(part, 0.0) + used
        return sums | {"all": sum(sums.values())}

    def _at(self, container: str, moment: float) -> float:
        times = [line["at"] for line in self._lines]
        after = min(max(bisect.bisect_left(times, moment), 1), len(times) - 1)
        first, second = self._lines[after - 1], self._lines[after]
        share = (moment - first["at"]) / (second["at"] - first["at"])
        return first[container] + share * (second[container] - first[container])


def play(
    hosts: list[str], playbook: str, *arguments: str, checkout: Path = ROOT, env: dict[str, str] | None = None
) -> str:
    """Run a playbook to its end; returns its output, BenchmarkFailed if it failed."""
    command = [TOOLS / "ansible-playbook", "--inventory", ROOT / "inventories" / "lab"]
    ended = subprocess.run(
        [*map(str, command), "--limit", ",".join([*hosts, "localhost"]), f"deploy/{playbook}", *arguments],
        cwd=checkout,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        printed = f"{ended.stdout[-2000:]}{ended.stderr[-1000:]}"
        raise BenchmarkFailed(f"{playbook} failed on {', '.join(hosts)}:\n{printed}")
    return ended.stdout
