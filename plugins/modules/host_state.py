#!/usr/bin/python
"""Records in which state a host is when roles have ended, or forgets that before they run."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.host_survey import PREFIX, forget, observe, record
from ansible.module_utils.scratch4school_host.docker import Engine

DOCUMENTATION = r"""
module: host_state
short_description: The recorded state of roles on a host
description:
  - Reads what each role manages on the host as M(host_survey) does, and records that beside the digest of the role's
    settings. A later run in which both digests are the same need not run the role.
  - Before a role changes anything, its record must be void. Otherwise an interrupted run would leave a changed
    host with a record of success.
  - The module never reports a change, because the record only describes one.
options:
  path:
    description: The file with the records; only root may read it.
    type: path
    required: true
  state:
    description: C(recorded) records the state that the roles left; C(void) deletes the record.
    type: str
    choices: [recorded, void]
    default: recorded
  roles:
    description: Roles whose record is made void.
    type: list
    elements: str
    default: []
  desired:
    description: Digest of the settings, by role, to be recorded.
    type: dict
    default: {}
  managed:
    description: Managed things on the host, by role, as for M(host_survey).
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
author:
  - The Scratch4School deployment project
"""

EXAMPLES = r"""
- name: Record the state
  host_state:
    path: /var/lib/scratch4school/change/recorded_state.json
    desired: {proxy: 0a1b2c}
    managed: {proxy: {containers: [scratch4school-proxy]}}
"""

RETURN = r"""
incomplete:
  description: Roles of which something is missing, stopped or unhealthy, so that no state could be recorded.
  returned: success
  type: list
  elements: str
"""


def main() -> None:
    """Read the state, and write."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["recorded", "void"], "default": "recorded"},
            "roles": {"type": "list", "elements": "str", "default": []},
            "desired": {"type": "dict", "default": {}},
            "managed": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    recording = module.params["state"] == "recorded"
    engine = Engine()
    observed = observe(engine, engine.containers(PREFIX), module.params["managed"]) if recording else {}
    try:
        if recording and not module.check_mode:
            record(module.params["path"], module.params["desired"], observed)
        elif not module.check_mode:
            forget(module.params["path"], module.params["roles"])
    except OSError as problem:
        module.fail_json(msg=f"{module.params['path']} could not be written: {problem.strerror}.")
    module.exit_json(
        changed=False, incomplete=sorted(role for role, facts in observed.items() if not all(facts.values()))
    )


if __name__ == "__main__":
    main()
