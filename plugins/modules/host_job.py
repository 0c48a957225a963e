#!/usr/bin/python
"""Starts a long program on a host, and reads its output; the action plugin of the same name shows it."""

from __future__ import annotations

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: host_job
short_description: Run a long program, and show its output while it runs
description:
  - systemd runs the program on the host, so it continues when the control node dies or the network fails.
  - Its output is shown as it comes, and all of it is the task's C(stdout). Its exit status decides whether the task
    failed, with its error output as the cause.
options:
  name:
    description: Name of the job, by which systemd knows it. One job of a name runs at a time.
    type: str
    required: true
  argv:
    description: The program and its arguments.
    type: list
    elements: str
    required: true
  offset:
    description: Used by the action plugin, from where on to read the output; less than 0 starts the job.
    type: int
    default: -1
author:
  - The Scratch4School deployment project
"""

EXAMPLES = r"""
- name: Create a backup
  host_job:
    name: backup
    argv: [/usr/local/sbin/scratch4schoolctl, backup, create]
"""

RETURN = r"""
stdout:
  description: Standard output of the program.
  returned: always
  type: str
stderr:
  description: Standard error of the program.
  returned: always
  type: str
rc:
  description: Its exit status.
  returned: when it ended
  type: int
"""

FOLDER = "/run/scratch4school-jobs"
# Seconds to wait for new output before an answer without any.
WAIT_SECONDS = 4.0
SCRIPT = '"$@" >"$0/said" 2>"$0/errors"; echo $? >"$0/status.new"; mv "$0/status.new" "$0/status"'


def runs(module: AnsibleModule, unit: str) -> bool:
    """Whether systemd has a job of that name; also one that is exiting, or whose state is unknown."""
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
    status, _, errors = module.run_command([*run, *module.params["argv"]])
    if status:
        module.fail_json(msg=f"systemd cannot run {module.params['name']}: {errors.strip()}")


def read(module: AnsibleModule, folder: Path, unit: str, offset: int) -> dict[str, object]:
    """The output since then, and how it ended if it has."""
    end = time.monotonic() + WAIT_SECONDS
    output, status = b"", ""
    while not output and not status and time.monotonic() < end:
        # The status first: the output is complete when it was written.
        status = text(folder / "status")
        output = content(folder / "said")[offset:]
        if not output and not status:
            time.sleep(0.2)
    ended = not output and not status and not runs(module, unit)
    if ended:
        # It may have printed something and ended since the last reading.
        status = text(folder / "status")
        output = content(folder / "said")[offset:]
    errors = text(folder / "errors")
    if ended and not status:
        # It was stopped by hand, killed for want of memory, or the machine was restarted.
        cut = f"{unit} was ended from outside; look at `journalctl -u {unit}`."
        status, errors = "1", f"{errors}\n{cut}".strip()
    answer: dict[str, object] = {"text": output.decode("utf-8", "replace"), "offset": offset + len(output)}
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
    """Start it, or read its output."""
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
    module.exit_json(changed=True, **read(module, folder, unit, offset))


if __name__ == "__main__":
    main()
