"""The command scripts/setup: the virtual environments of this checkout, exactly as their lock files say.

uv fills an environment in seconds where pip takes 40; uv itself comes through pip, checked against the same lock.
Standard library only, because this runs before there is any environment.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ..checkout import ROOT, SCRIPTS

DESCRIPTION = """\
Creates or updates .venv in this checkout from requirements.lock. It does nothing while the lock is unchanged."""

EPILOG = """\
The package index is the one in pip's settings (index-url). The certificate authorities are those of this machine.

example:  scripts/setup --lock && scripts/setup    after a change of the dependencies in pyproject.toml"""

AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


class SetupError(Exception):
    """An environment could not be made; the message tells the person what to do."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment: its folder and its lock below the root, and its name in messages."""

    folder: Path
    lock: Path
    name: str

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.folder / "bin" / "python"

    @property
    def record(self) -> Path:
        """The file with the digest of the lock from which it was filled."""
        return self.folder / "lock.sha256"

    def is_up_to_date(self) -> bool:
        """Whether it was filled from the present lock, and its Python works."""
        if not self.record.is_file() or self.record.read_text() != digest(self.lock):
            return False
        return self.python.exists() and succeeds(self.python, "-c", "")

    def finish(self) -> None:
        """Compile its modules, and record its lock."""
        # Ansible starts a process for each task. Where Python may not write compiled modules (PYTHONDONTWRITEBYTECODE,
        # another user's checkout), each process would compile all of them: a third of a run. Ansible compiles
        # collections itself.
        for packages in sorted(self.folder.glob("lib/python3*/site-packages")):
            succeeds(self.python, "-m", "compileall", "-qq", "-x", "ansible_collections", packages)
        self.record.write_text(digest(self.lock))


TOOLS = Environment(ROOT / ".venv", ROOT / "requirements.lock", "The tools")
APPLICATION = Environment(
    ROOT / "docker" / "app" / ".venv", ROOT / "docker" / "app" / "requirements-dev.txt", "The application's test tools"
)
BENCHMARKS = Environment(
    ROOT / "benchmarks" / ".venv", ROOT / "benchmarks" / "requirements.txt", "The drawing tools of the benchmarks"
)
UV = TOOLS.folder / "bin" / "uv"


def digest(file: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def succeeds(*command: str | Path) -> bool:
    """Whether a command can be run and succeeds; its output is dropped."""
    try:
        return subprocess.run([*map(str, command)], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def run(*command: str | Path, error: str) -> None:
    """Run a command, whose output is shown.

    :raises SetupError: with that message, when it does not succeed.
    """
    if subprocess.run([*map(str, command)], cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode:
        raise SetupError(error)


def base_python() -> str:
    """The Python that runs this, or the one that it was made from: .venv may be made anew meanwhile."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def provide_venv() -> None:
    """Have Python's venv module; Debian and Ubuntu have a package of its own for a part of it."""
    if succeeds(base_python(), "-c", "import ensurepip, venv"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SetupError(
            "Python's venv module is missing; install it (Debian, Ubuntu: sudo apt-get install python3-venv), then run "
            "scripts/setup again."
        )
    print("Installing python3-venv …", flush=True)
    for words in (("update",), ("install", "--yes", "--no-install-recommends", "python3-venv")):
        command = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", *words]
        if subprocess.run(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=False).returncode:
            raise SetupError("python3-venv could not be installed; see the errors of apt-get above.")


def pip_setting(name: str) -> str:
    """A setting of pip; empty where there is none."""
    command = [TOOLS.python, "-m", "pip", "config", "get", name]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def adopt_settings() -> None:
    """Give uv and pip the certificate authorities and the package index of this machine.

    Behind a TLS-inspecting proxy only this machine knows the authorities; older pips and uv have lists of their own.
    And uv does not read pip's settings, where a school's package mirror and authority usually are.
    """
    authorities = os.environ.get("SSL_CERT_FILE") or os.environ.get("PIP_CERT") or pip_setting("global.cert")
    authorities = authorities or (str(AUTHORITIES) if AUTHORITIES.is_file() else "")
    if authorities:
        os.environ["PIP_CERT"] = os.environ["SSL_CERT_FILE"] = authorities
    index = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("PIP_INDEX_URL") or pip_setting("global.index-url")
    if index:
        os.environ["UV_DEFAULT_INDEX"] = index
    os.environ["UV_SYSTEM_CERTS"] = "1"
    # The cache and .venv are often on two file systems (a container's volume); without this uv warns each time.
    os.environ.setdefault("UV_LINK_MODE", "copy")


def uv_requirement(lock: str) -> str:
    """The lock's own entry for uv, with its hashes; a second list could differ from it."""
    lines, inside = [], False
    for line in lock.splitlines(keepends=True):
        if line[:1] not in ("", " ", "#", "\n"):
            inside = line.startswith("uv==")
        if inside:
            lines.append(line)
    return "".join(lines)


def install_uv() -> None:
    """Install uv into .venv by pip."""
    with tempfile.TemporaryDirectory() as folder:
        requirement = Path(folder, "uv.txt")
        requirement.write_text(uv_requirement(TOOLS.lock.read_text()))
        command = [TOOLS.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        command += ["--only-binary", ":all:", "--requirement", requirement]
        ended = subprocess.run([*map(str, command)], stderr=subprocess.PIPE, text=True, check=False)
        if ended.returncode:
            print(ended.stderr, end="", file=sys.stderr)
            raise SetupError("pip could not install uv.")


def fill(environment: Environment) -> None:
    """Install exactly the packages of the lock."""
    run(
        *(UV, "pip", "sync", "--quiet", "--python", environment.python, "--require-hashes", environment.lock),
        error=f"{environment.name} could not be installed; see the errors of uv above.",
    )
    environment.finish()


def make_tools() -> None:
    """Make .venv."""
    provide_venv()
    TOOLS.record.unlink(missing_ok=True)
    if not succeeds(TOOLS.python, "-m", "pip", "--version"):
        shutil.rmtree(TOOLS.folder, ignore_errors=True)
        run(base_python(), "-m", "venv", TOOLS.folder, error=f"{TOOLS.folder} could not be made.")
    adopt_settings()
    install_uv()
    fill(TOOLS)


def make_other(environment: Environment) -> None:
    """Make another environment, by the tools in .venv."""
    adopt_settings()
    if not succeeds(environment.python, "-c", ""):
        run(
            *(UV, "venv", "--quiet", "--clear", "--python", TOOLS.python, environment.folder),
            error=f"{environment.folder} could not be made; see the errors of uv above.",
        )
    environment.record.unlink(missing_ok=True)
    fill(environment)


def write_locks() -> None:
    """Write the lock files from the direct dependencies."""
    adopt_settings()
    options = ["--quiet", "--universal", "--generate-hashes", "--no-emit-index-url", "--no-emit-find-links"]
    options += ["--python-version", "3.11", "--custom-compile-command", "scripts/setup --lock"]
    for source, lock in (
        ("pyproject.toml", "requirements.lock"),
        ("benchmarks/requirements.in", "benchmarks/requirements.txt"),
    ):
        run(UV, "pip", "compile", *options, "--output-file", lock, source, error=f"{lock} could not be written.")


def update(environment: Environment) -> None:
    """Make an environment unless it is up to date, and print which of both."""
    folder = environment.folder.relative_to(ROOT)
    if environment.is_up_to_date():
        print(f"{environment.name} in {folder} are up to date.", flush=True)
        return
    started = time.monotonic()
    if environment is TOOLS:
        make_tools()
    else:
        make_other(environment)
    print(f"{environment.name} are in {folder}, made in {time.monotonic() - started:.0f} s.", flush=True)


def main() -> int:
    """Make what the command line asks for; returns 0 when it was made, 1 after an error."""
    parser = argparse.ArgumentParser(
        prog="scripts/setup",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    more = parser.add_mutually_exclusive_group()
    more.add_argument("--app", action="store_true", help="also make docker/app/.venv, for the application's tests")
    more.add_argument(
        "--benchmarks", action="store_true", help="also make benchmarks/.venv, for the plots of benchmarks/run"
    )
    more.add_argument(
        "--lock",
        action="store_true",
        help="then write requirements.lock from pyproject.toml, and benchmarks/requirements.txt from its .in; run "
        "scripts/setup once more to install the result",
    )
    options = parser.parse_args()
    # Two runs at once would delete each other's folders; the second one waits here, and then finds the work done.
    with (SCRIPTS / "setup").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            update(TOOLS)
            if options.app:
                update(APPLICATION)
            if options.benchmarks:
                update(BENCHMARKS)
            if options.lock:
                write_locks()
        except SetupError as error:
            print(f"scripts/setup: {error}", file=sys.stderr)
            return 1
    return 0
