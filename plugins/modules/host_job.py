#!/usr/bin/python
"""Starts work that takes long on a host, and reads what it says; the action plugin of the same name shows it."""

from __future__ import annotations

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: host_job
short_description: Run a program that takes long, and show what it says while it runs
description:
  - systemd runs the program on the host, so it goes on when the control node dies or the network is cut.
  - What it prints is shown as it comes, and all of it is the task's C(stdout). Its exit status decides whether the
    task failed, with its error output as the cause.
options:
  name:
    description: Name of the job, by which systemd knows it. There is one of a name at a time.
    type: str
    required: true
  argv:
    description: The program and its arguments.
    type: list
    elements: str
    required: true
  offset:
    description: Used by the action plugin, from where on to read what was said; less than 0 starts the job.
    type: int
    default: -1
author:
  - The Scratch4School deployment project
"""

EXAMPLES = r"""
- name: Make a backup
  host_job:
    name: backup
    argv: [/usr/local/lib/scratch4school-backup/backups, take]
"""

RETURN = r"""
stdout:
  description: What the program printed.
  returned: always
  type: str
stderr:
  description: What it printed as errors.
  returned: always
  type: str
rc:
  description: Its exit status.
  returned: when it ended
  type: int
"""

FOLDER = "/run/scratch4school-jobs"
# What a look waits for before it answers that nothing new was said.
PATIENCE = 4.0
SCRIPT = '"$@" >"$0/said" 2>"$0/errors"; echo $? >"$0/status.new"; mv "$0/status.new" "$0/status"'


def runs(module: AnsibleModule, unit: str) -> bool:
    """Whether systemd has a job of that name; also one that is on its way out, or of which nothing is heard."""
    status, state, _ = module.run_command(["systemctl", "is-active", unit])
    return status == 0 or state.strip() not in ("inactive", "failed", "unknown")


def start(module: AnsibleModule, folder: Path, unit: str) -> None:
    """Have systemd run it; refused while one of the same name runs."""
    if runs(module, unit):
        module.fail_json(msg=f"{module.params['name']} runs already on this host; try again when it has ended.")
    module.run_command(["systemctl", "reset-failed", unit])
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    run = ["systemd-run", "--quiet", "--collect", f"--unit={unit}", "sh", "-c", SCRIPT, str(folder)]
    status, _, words = module.run_command([*run, *module.params["argv"]])
    if status:
        module.fail_json(msg=f"systemd cannot run {module.params['name']}: {words.strip()}")


def look(module: AnsibleModule, folder: Path, unit: str, offset: int) -> dict[str, object]:
    """What was said since, and how it ended if it has."""
    end = time.monotonic() + PATIENCE
    said, status = b"", ""
    while not said and not status and time.monotonic() < end:
        # The status first: what was said before it was written is complete then.
        status = text(folder / "status")
        said = content(folder / "said")[offset:]
        if not said and not status:
            time.sleep(0.2)
    ended = not said and not status and not runs(module, unit)
    if ended:
        # It may have spoken and come to its end since the last look.
        status = text(folder / "status")
        said = content(folder / "said")[offset:]
    errors = text(folder / "errors")
    if ended and not status:
        # Somebody stopped it, the kernel did for want of memory, or the machine was started anew.
        cut = f"{unit} was ended from outside; look at `journalctl -u {unit}`."
        status, errors = "1", f"{errors}\n{cut}".strip()
    answer: dict[str, object] = {"text": said.decode("utf-8", "replace"), "offset": offset + len(said)}
    if status:
        answer.update(rc=int(status), stderr=errors)
    return answer


def content(path: Path) -> bytes:
    """A file's bytes; none where there is no file yet."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def text(path: Path) -> str:
    """A file's text, without the space around it."""
    return content(path).decode("utf-8", "replace").strip()


def main() -> None:
    """Start it, or look at it."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "argv": {"type": "list", "elements": "str", "required": True},
            "offset": {"type": "int", "default": -1},
        }
    )
    folder = Path(FOLDER) / module.params["name"]
    unit = f"scratch4school-{module.params['name']}-job"
    offset = module.params["offset"]
    if offset < 0:
        start(module, folder, unit)
        offset = 0
    module.exit_json(changed=True, **look(module, folder, unit, offset))


if __name__ == "__main__":
    main()
