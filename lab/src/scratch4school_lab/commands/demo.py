"""The command scripts/demo: install the tools, start a lab host, deploy on it, and let a pupil save a project.

Standard library only, because a newcomer runs it first.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from ..checkout import ROOT, TOOLS

DESCRIPTION = """\
From nothing to a verified deployment: installs the tools, starts a throw-away host, deploys Scratch4School on it, and
lets a pupil save a project. It takes about seven minutes the first time."""

PHASES: list[tuple[str, list[str]]] = [
    ("Tools", ["scripts/setup"]),
    ("Lab host", ["scripts/lab", "up"]),
    ("Deploy", [str(TOOLS / "ansible-playbook"), "--inventory", "inventories/lab", "deploy/deploy.yml"]),
    ("A pupil's first save", [str(TOOLS / "pytest"), "--verbose", "--no-header", "tests/scenarios/test_pupil.py"]),
]

RESULT = """\
Scratch4School runs at  https://localhost:8443  (its certificate is the lab's own: .lab/ca.crt)
  log in as a pupil     pupil01   password  {password}
  log in as a teacher   lehrer1   password  {password}
  open a shell there    scripts/lab ssh scratch4school-lab-1
  remove the host       scripts/lab down
"""


def main() -> int:
    """Run the phases one after the other; print how long each took, or which one failed."""
    argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    began = time.monotonic()
    environment = {**os.environ, "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"}
    durations = []
    for number, (name, command) in enumerate(PHASES, start=1):
        print(f"\n=== {number}/{len(PHASES)} {name} ===", flush=True)
        started = time.monotonic()
        status = subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, check=False).returncode
        durations.append((name, time.monotonic() - started))
        if status:
            print(
                f"\n{name} failed; the lines above say why. Correct that, then run scripts/demo again.", file=sys.stderr
            )
            return 1
    print("\n=== Done ===")
    for name, seconds in durations:
        print(f"  {name:<24}{seconds:6.0f} s")
    print(f"  {'all':<24}{time.monotonic() - began:6.0f} s\n")
    # All accounts of the lab's identity provider have this password.
    password = (ROOT / "docker" / "lab-idp" / "password.txt").read_text().strip()
    print(RESULT.format(password=password), end="")
    return 0
