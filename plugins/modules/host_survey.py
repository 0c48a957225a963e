#!/usr/bin/python
"""Collects the facts about a host that preflight needs, in one round trip."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.host_survey import survey

DOCUMENTATION = r"""
module: host_survey
short_description: The facts about a host that preflight needs
description:
  - Asks kernel, engine and application directly and changes nothing. It works on a host without an engine, and needs
    no package there beside Python itself.
options:
  data_directory:
    description: Folder of everything that must survive.
    type: path
    required: true
  socket_directory:
    description: Folder with one folder per slot, and the link C(current) to the live one.
    type: path
    required: true
  ledger:
    description: The ledger of releases.
    type: path
    required: true
  change_directory:
    description: Folder of the lock, the audit log and the recorded state.
    type: path
    required: true
  ports:
    description: TCP ports of which it is asked which program uses them.
    type: list
    elements: int
    default: []
  required_urls:
    description: Addresses of the identity provider that the host should reach.
    type: list
    elements: str
    default: []
  required_urls_by_post:
    description: Those of them that are asked by POST, as a token address is.
    type: list
    elements: str
    default: []
  questions:
    description: Questions of the rules of preflight; the keys are described in plugins/module_utils/host_survey.py.
    type: dict
    default: {}
  managed:
    description: Managed things on the host, by role; the keys are described at C(Observer) there.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
author:
  - The Scratch4School deployment project
"""

EXAMPLES = r"""
- name: Survey the host
  host_survey:
    data_directory: /var/lib/scratch4school
    socket_directory: /var/lib/scratch4school/run/app
    ledger: /var/lib/scratch4school/releases/ledger.jsonl
    change_directory: /var/lib/scratch4school/change
    ports: [443, 80]
  register: __host_survey
"""

RETURN = r"""
survey:
  description: >-
    C(system), C(memory), C(disk), C(file_systems), C(folders), C(sizes) and C(files) by path, C(ports),
    C(authorities), C(engine), C(images) (tags), C(containers) by name, C(slot), C(ready), C(provider) by address,
    C(calendars) and C(programs) by text, C(ledger), C(audit_log), C(lock), C(maintenance), C(observed) and
    C(recorded) by role, and C(time) and C(zone) by the host's own clock.
  returned: success
  type: dict
"""


def main() -> None:
    """Ask, and hand over the answers."""
    paths = {
        name: {"type": "path", "required": True}
        for name in ("data_directory", "socket_directory", "ledger", "change_directory")
    }
    kinds = {"ports": "int", "required_urls": "str", "required_urls_by_post": "str"}
    lists = {name: {"type": "list", "elements": kind, "default": []} for name, kind in kinds.items()}
    dicts = {name: {"type": "dict", "default": {}} for name in ("questions", "managed")}
    module = AnsibleModule(argument_spec={**paths, **lists, **dicts}, supports_check_mode=True)
    module.exit_json(changed=False, survey=survey(**module.params))


if __name__ == "__main__":
    main()
