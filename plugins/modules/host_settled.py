#!/usr/bin/python
"""Writes down which roles ran to their end on a host, and what they left there."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.host_survey import Engine, observe, stamp

DOCUMENTATION = r"""
module: host_settled
short_description: Stamp roles that have nothing left to do
description:
  - Reads what each role manages on the host as M(host_survey) does, and keeps that beside the digest of what was
    wanted. A later run whose wish and host are both the same need not run the role.
  - The stamp is about a change and is none itself, so this module never reports one.
options:
  path:
    description: The file with the stamps; root's alone.
    type: path
    required: true
  desired:
    description: Digest of what was wanted, by role.
    type: dict
    required: true
  managed:
    description: What each of these roles manages on the host, as for M(host_survey).
    type: dict
    required: true
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
            "desired": {"type": "dict", "required": True},
            "managed": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    engine = Engine()
    observed = observe(engine, engine.containers(), module.params["managed"])
    if not module.check_mode:
        try:
            stamp(module.params["path"], module.params["desired"], observed)
        except OSError as problem:
            module.fail_json(
                msg=f"What was done could not be written down in {module.params['path']}: {problem.strerror}."
            )
    module.exit_json(changed=False, unsettled=sorted(role for role, digest in observed.items() if not digest))


if __name__ == "__main__":
    main()
