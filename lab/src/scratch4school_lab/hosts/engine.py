"""The machine's Docker Engine: installed and started where there is none; only such an engine is stopped again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from ..checkout import STATE
from ..shell import SEARCH_PATH, LabError, docker, find, log, run, wait_until

PID_FILE = STATE / "dockerd.pid"
ENGINE_LOG = STATE / "dockerd.log"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# The engine starts and stops in seconds; a machine may be many times slower.
PATIENCE_SECONDS = 300


def answers() -> bool:
    return find("docker") is not None and docker("version", why="", check=False).returncode == 0


def missing_packages(engine_runs: bool) -> list[str]:
    """The Debian packages that this machine lacks for a lab."""
    packages_of = {"ssh": "openssh-client", "openssl": "openssl", "mmdebstrap": "mmdebstrap", "docker": "docker.io"}
    if not engine_runs:
        packages_of |= {"dockerd": "docker.io", "iptables": "iptables"}
    packages = {package for program, package in packages_of.items() if find(program) is None}
    if not KEYRING.exists():
        packages.add("debian-archive-keyring")
    return sorted(packages)


def install(packages: list[str]) -> None:
    """Install Debian packages on this machine; LabError where this process may not."""
    names = " ".join(packages)
    if os.geteuid() != 0 or find("apt-get") is None:
        raise LabError(f"This machine lacks {names}; install them (as root: apt-get install {names}) and try again.")
    run("apt-get", "update", "-q", why="The package lists could not be fetched")
    # Debian 13 has the client in a package of its own; on Debian 12 and Ubuntu docker.io holds it.
    if "docker.io" in packages and run("apt-cache", "show", "docker-cli", why="", check=False).returncode == 0:
        packages = [*packages, "docker-cli"]
    run("apt-get", "install", "-qy", "--no-install-recommends", *packages, why=f"{names} could not be installed")


def start() -> str:
    """Start the installed engine and wait until it answers; returns how it was started, for the phase's line."""
    if os.geteuid() != 0:
        raise LabError("No Docker Engine answers here; start it, or run this as root.")
    if Path("/run/systemd/system").is_dir():
        run("systemctl", "start", "docker", why="The Docker Engine could not be started")
        how = "started by systemd; it stays when the lab is removed"
    else:
        _start_without_systemd()
        how = "started, log .lab/dockerd.log"
    wait_until(answers, PATIENCE_SECONDS, "The Docker Engine does not answer; its log is .lab/dockerd.log.")
    return how


def _start_without_systemd() -> None:
    # Not `service docker start`: its script raises ulimits first and fails where that is forbidden.
    program = find("dockerd")
    if program is None:
        raise LabError("No Docker Engine answers here, and dockerd is not installed.")
    with ENGINE_LOG.open("ab") as stream:
        subprocess.Popen(
            [program, "--pidfile", str(PID_FILE)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            env={**os.environ, "PATH": SEARCH_PATH},
        )


def own_pid() -> int | None:
    """The process id of the engine that this lab started, if it still runs."""
    try:
        pid = int(PID_FILE.read_text())
        # A pid file may outlive its process, and another program may have the number now.
        return pid if Path(f"/proc/{pid}/comm").read_text().strip() == "dockerd" else None
    except (OSError, ValueError):
        return None


def stop() -> bool:
    """Stop the engine if this lab started it; returns whether it did."""
    pid = own_pid()
    if pid is None:
        return False
    log(f"stopping dockerd, process {pid}")
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: own_pid() is None, PATIENCE_SECONDS, f"The Docker Engine (process {pid}) does not stop.")
    # Its containerd ends a moment later; a new engine that starts before would find the old socket.
    time.sleep(0.5)
    return True


def check_cgroups(root: Path = Path("/sys/fs/cgroup")) -> None:
    """LabError where the kernel offers no cgroup-v2 tree, without which systemd does not boot in a container."""
    if not any((root / place / "cgroup.procs").exists() for place in (".", "unified")):
        raise LabError(
            "This machine has no cgroup-v2 tree at /sys/fs/cgroup or /sys/fs/cgroup/unified; "
            "mount one (mkdir /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified)."
        )
