#!/usr/bin/python
"""Takes the lock of a host, journals what a change does, and gives the lock back."""

from __future__ import annotations

from ansible.module_utils import host_change
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: host_change
short_description: The one lock for everything that changes a host, and its journal
description:
  - The lock is a file on the host that says who changes it, why, since when, and in which phase that is. A second
    change is refused with that. A lock whose holder is known to be dead is taken over, by rules that stand in
    plugins/module_utils/host_change.py.
  - The journal is a file of one JSON object per line that only grows.
options:
  path:
    description: Folder of both on the host; C(begin) makes it.
    type: path
    required: true
  state:
    description: >-
      C(read) says what is there; C(begin) takes the lock; C(phase) notes a phase, which is also the heartbeat; C(end)
      gives the lock back; C(unlocked) takes it from whoever holds it.
    type: str
    choices: [read, begin, phase, end, unlocked]
    default: read
  run:
    description: Name of this change; the same for all its phases.
    type: str
  verb:
    description: What is done, such as C(deploy).
    type: str
  reason:
    description: Why, in the operator's words or the error's.
    type: str
    default: ""
  release:
    description: Id of the release that is to serve at the end.
    type: str
  phase:
    description: What the run has come to.
    type: str
  outcome:
    description: How it ended.
    type: str
    choices: [done, failed, broken]
  owner:
    description: What the lookup C(change_owner) says of the process that asks.
    type: dict
  gone:
    description: The run whose holder is known to be dead.
    type: str
  stale_seconds:
    description: Silence after which a lock may be taken over.
    type: float
    default: 1800
attributes:
  check_mode:
    support: full
    details: Nothing is taken and nothing written; a lock that somebody holds is refused all the same.
author:
  - The Scratch4School deployment project
"""

EXAMPLES = r"""
- name: Take the lock
  host_change:
    path: "{{ journal_directory }}"
    state: begin
    run: "{{ journal_run }}"
    verb: deploy
    owner: "{{ lookup('change_owner') }}"
"""

RETURN = r"""
lock:
  description: The lock as it lies there; null when nothing changes.
  returned: success
  type: dict
said:
  description: A sentence for the operator, such as that a lock was taken over; may be empty.
  returned: success
  type: str
journal:
  description: The journal's text.
  returned: when O(state=read)
  type: str
"""


def main() -> None:
    """Do one of the five, and say what the lock is then."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["read", "begin", "phase", "end", "unlocked"], "default": "read"},
            "run": {"type": "str"},
            "verb": {"type": "str"},
            "reason": {"type": "str", "default": ""},
            "release": {"type": "str"},
            "phase": {"type": "str"},
            "outcome": {"type": "str", "choices": list(host_change.OUTCOMES)},
            "owner": {"type": "dict"},
            "gone": {"type": "str"},
            "stale_seconds": {"type": "float", "default": float(host_change.STALE_SECONDS)},
        },
        required_if=[
            ("state", "begin", ["run", "verb", "owner"]),
            ("state", "phase", ["run", "phase"]),
            ("state", "end", ["run", "outcome"]),
        ],
        supports_check_mode=True,
    )
    try:
        answer = _look(module) if module.check_mode or module.params["state"] == "read" else _act(module)
    except (host_change.ChangeError, OSError) as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(changed=answer.pop("changed", False), lock=host_change.read_lock(module.params["path"]), **answer)


def _look(module: AnsibleModule) -> dict[str, object]:
    params = module.params
    lock = host_change.read_lock(params["path"])
    if params["state"] == "begin" and lock and not host_change.why_stale(lock, params["gone"], params["stale_seconds"]):
        raise host_change.ChangeError(host_change.refusal(lock))
    return {"said": "", "journal": host_change.read_journal(params["path"])}


def _act(module: AnsibleModule) -> dict[str, object]:
    """The lock and the journal are about a change and are none themselves, but for a lock that is broken."""
    params = module.params
    folder, said = params["path"], ""
    if params["state"] == "begin":
        said = host_change.begin(
            folder,
            run=params["run"],
            verb=params["verb"],
            owner=params["owner"],
            reason=params["reason"],
            release=params["release"],
            gone=params["gone"],
            stale_seconds=params["stale_seconds"],
        )
    elif params["state"] == "phase":
        host_change.phase(folder, run=params["run"], name=params["phase"], release=params["release"])
    elif params["state"] == "end":
        host_change.end(folder, run=params["run"], outcome=params["outcome"], reason=params["reason"])
    else:
        said = host_change.unlock(folder, by=str((params["owner"] or {}).get("by")), reason=params["reason"])
        return {"said": said, "changed": bool(said)}
    return {"said": said}


if __name__ == "__main__":
    main()
