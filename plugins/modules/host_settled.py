#!/usr/bin/python
"""Writes down which roles ran to their end on a host, and what they left there; or forgets it before they run."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.host_survey import Engine, observe, stamp, void

DOCUMENTATION = r"""
module: host_settled
short_description: Stamp roles that have nothing left to do
description:
  - Reads what each role manages on the host as M(host_survey) does, and keeps that beside the digest of what was
    wanted. A later run whose wish and host are both the same need not run the role.
  - Before a role changes anything its record must be void. A run that is cut short would otherwise leave a changed host
    with a record that says that nothing is left to do.
  - The stamp is about a change and is none itself, so this module never reports one.
options:
  path:
    description: The file with the stamps; root's alone.
    type: path
    required: true
  state:
    description: C(recorded) writes down what the roles left; C(void) forgets it.
    type: str
    choices: [recorded, void]
    default: recorded
  roles:
    description: Roles whose record is made void.
    type: list
    elements: str
    default: []
  desired:
    description: Digest of what was wanted, by role, to be recorded.
    type: dict
    default: {}
  managed:
    description: What each of these roles manages on the host, as for M(host_survey).
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
author:
  - The Scratch4School deployment project
"""

EXAMPLES = r"""
- name: Remember what was done
  host_settled:
    path: /var/lib/scratch4school/change/settled.json
    desired: {proxy: 0a1b2c}
    managed: {proxy: {containers: [scratch4school-proxy]}}
"""

RETURN = r"""
unsettled:
  description: Roles of which something is missing, stopped or ill, so that they could not be stamped.
  returned: success
  type: list
  elements: str
"""


def main() -> None:
    """Look, and write."""
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
    observed = observe(engine, engine.containers(), module.params["managed"]) if recording else {}
    try:
        if recording and not module.check_mode:
            stamp(module.params["path"], module.params["desired"], observed)
        elif not module.check_mode:
            void(module.params["path"], module.params["roles"])
    except OSError as problem:
        module.fail_json(msg=f"The record in {module.params['path']} could not be written: {problem.strerror}.")
    module.exit_json(
        changed=False, unsettled=sorted(role for role, facts in observed.items() if not all(facts.values()))
    )


if __name__ == "__main__":
    main()
