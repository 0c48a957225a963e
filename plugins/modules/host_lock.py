#!/usr/bin/python
"""Takes the lock of a host, notes the phases of a change in the audit log, and gives the lock back."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.scratch4school_host import audit_log, locking
from ansible.module_utils.scratch4school_host.errors import OperatorError

DOCUMENTATION = r"""
module: host_lock
short_description: The lock of a host, and the audit log of its changes
description:
  - The lock is a file on the host that lets one change at a time run there. It contains the person, the command, the
    reason, the start and the phase; the refusal of a second change shows them. A lock whose owner is known to be dead
    is taken over, by the rules of host/src/scratch4school_host/locking.py.
  - The audit log is a file of one JSON object per line that is only appended to.
  - It works on a host on which nothing is installed yet.
options:
  path:
    description: Folder of both on the host; C(begin) creates it.
    type: path
    required: true
  state:
    description: >-
      C(read) returns both; C(begin) acquires the lock; C(phase) records a phase, which is also the heartbeat; C(end)
      releases the lock; C(unlocked) removes the lock of another change.
    type: str
    choices: [read, begin, phase, end, unlocked]
    default: read
  run:
    description: Name of this change; the same for all its phases.
    type: str
  verb:
    description: Name of the playbook, such as C(deploy).
    type: str
  reason:
    description: Reason, in the sysadmin's words or the error's.
    type: str
    default: ""
  release:
    description: Id of the release that is to be live at the end.
    type: str
  phase:
    description: The phase that the run has reached.
    type: str
  outcome:
    description: Outcome of the change.
    type: str
    choices: [done, failed, broken]
  owner:
    description: Result of the lookup C(lock_owner), the owner of the lock.
    type: dict
  dead_run:
    description: The run whose owner is known to be dead.
    type: str
  stale_seconds:
    description: Seconds without a heartbeat after which another change may take this lock over.
    type: float
    default: 1800
attributes:
  check_mode:
    support: full
    details: Nothing is taken and nothing written; a lock of another change is still refused.
author:
  - The Scratch4School deployment project
"""

EXAMPLES = r"""
- name: Take the lock
  host_lock:
    path: "{{ lock_directory }}"
    state: begin
    run: "{{ lock_run_id }}"
    verb: deploy
    owner: "{{ lookup('lock_owner') }}"
"""

RETURN = r"""
lock:
  description: The content of the lock; null when nothing changes.
  returned: success
  type: dict
message:
  description: A text for the sysadmin, such as that a lock was taken over; may be empty.
  returned: success
  type: str
audit_log:
  description: The text of the audit log.
  returned: when O(state=read)
  type: str
"""


def main() -> None:
    """Do what `state` says, and return the lock as it is then."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["read", "begin", "phase", "end", "unlocked"], "default": "read"},
            "run": {"type": "str"},
            "verb": {"type": "str"},
            "reason": {"type": "str", "default": ""},
            "release": {"type": "str"},
            "phase": {"type": "str"},
            "outcome": {"type": "str", "choices": list(locking.OUTCOMES)},
            "owner": {"type": "dict"},
            "dead_run": {"type": "str"},
            "stale_seconds": {"type": "float", "default": float(locking.STALE_SECONDS)},
        },
        required_if=[
            ("state", "begin", ["run", "verb", "owner"]),
            ("state", "phase", ["run", "phase"]),
            ("state", "end", ["run", "outcome"]),
        ],
        supports_check_mode=True,
    )
    try:
        answer = _read(module) if module.check_mode or module.params["state"] == "read" else _act(module)
    except (OperatorError, OSError) as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(changed=answer.pop("changed", False), lock=locking.read_lock(module.params["path"]), **answer)


def _read(module: AnsibleModule) -> dict[str, object]:
    params = module.params
    lock = locking.read_lock(params["path"])
    if params["state"] == "begin" and lock and not locking.why_stale(lock, params["dead_run"]):
        raise OperatorError(locking.refusal(lock))
    return {"message": "", "audit_log": audit_log.read(params["path"])}


def _act(module: AnsibleModule) -> dict[str, object]:
    """Change the lock and the audit log; only a lock that is removed is reported as changed."""
    params = module.params
    folder, message = params["path"], ""
    if params["state"] == "begin":
        message = locking.begin(
            folder,
            run=params["run"],
            verb=params["verb"],
            owner=params["owner"],
            reason=params["reason"],
            release=params["release"],
            dead_run=params["dead_run"],
            stale_seconds=params["stale_seconds"],
        )
    elif params["state"] == "phase":
        locking.phase(folder, run=params["run"], name=params["phase"], release=params["release"])
    elif params["state"] == "end":
        locking.end(folder, run=params["run"], outcome=params["outcome"], reason=params["reason"])
    else:
        message = locking.unlock(folder, by=str((params["owner"] or {}).get("by")), reason=params["reason"])
        return {"message": message, "changed": bool(message)}
    return {"message": message}


if __name__ == "__main__":
    main()
