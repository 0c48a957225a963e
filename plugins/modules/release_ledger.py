#!/usr/bin/python
"""Reads a host's ledger of releases and adds to it."""

from __future__ import annotations

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.scratch4school_host.errors import OperatorError
from ansible.module_utils.scratch4school_host.ledger import OUTCOMES, append, make_entry, read, read_descriptions

DOCUMENTATION = r"""
module: release_ledger
short_description: Read a host's ledger of releases, or add an entry
description:
  - The ledger is a file of one JSON object per line that is only appended to. It says which release was activated when,
    by whom, and with which outcome. Docker knows which release runs now; the ledger records which ones were live
    before.
  - A line that a power failure truncated is skipped, with a warning.
  - It works on a host on which nothing is installed yet.
options:
  path:
    description: The ledger. Its folder must exist; the file is created with mode 0640 by the first entry.
    type: path
    required: true
  state:
    description: C(read) returns what is there and changes nothing; C(append) adds one entry, durably.
    type: str
    choices: [read, append]
    default: read
  release:
    description: Id of the release that the entry is about.
    type: str
  by:
    description: Who asked for it.
    type: str
  verb:
    description: Name of the playbook, such as C(deploy) or C(rollback).
    type: str
  outcome:
    description: >-
      C(activated), the release is live from now on; C(verified), it passed its verification while it was live;
      C(failed), it was never live; C(reverted), it was live, and the previous one is again.
    type: str
    choices: [activated, verified, failed, reverted]
  reason:
    description: Reason, in the sysadmin's words or the error's.
    type: str
  slot:
    description: The slot it was started in.
    type: str
  image:
    description: Id of the application's image.
    type: str
  schema:
    description: Revision of the database's schema that it needs.
    type: str
  login:
    description: Digest of the settings that a login depends on.
    type: str
  duration_seconds:
    description: How long the change took.
    type: float
attributes:
  check_mode:
    support: full
author:
  - The Scratch4School deployment project
"""

EXAMPLES = r"""
- name: Read the ledger
  release_ledger:
    path: "{{ release_directory }}/ledger.jsonl"
  register: __release_history

- name: Record the activation
  release_ledger:
    path: "{{ release_directory }}/ledger.jsonl"
    state: append
    release: "{{ __release_id }}"
    by: "{{ release_by }}"
    verb: deploy
    outcome: activated
    slot: blue
"""

RETURN = r"""
descriptions:
  description: Descriptions of the releases that can still be started, by their ids; read from beside the ledger.
  returned: success
  type: dict
entries:
  description: All entries, oldest first, with the one just added.
  returned: success
  type: list
  elements: dict
current:
  description: The release that is live by this account; null before the first.
  returned: success
  type: str
previous:
  description: The release that was live before it; null when there is none.
  returned: success
  type: str
releases:
  description: Every release that was live and not reverted, newest first.
  returned: success
  type: list
  elements: str
damaged:
  description: Numbers of the lines that were left out because they are not whole.
  returned: success
  type: list
  elements: int
entry:
  description: The entry that was added, or would be in check mode.
  returned: when O(state=append)
  type: dict
"""

FIELDS = ("release", "by", "verb", "outcome", "reason", "slot", "image", "schema", "login", "duration_seconds")


def main() -> None:
    """Read, or append and read."""
    needed = ["release", "by", "verb", "outcome"]
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["read", "append"], "default": "read"},
            **{name: {"type": "str"} for name in FIELDS},
            "outcome": {"type": "str", "choices": list(OUTCOMES)},
            "duration_seconds": {"type": "float"},
        },
        required_if=[("state", "append", needed)],
        supports_check_mode=True,
    )
    path = module.params["path"]
    answer: dict[str, object] = {"changed": False}
    try:
        if module.params["state"] == "append":
            entry = make_entry(**{name: module.params[name] for name in FIELDS})
            if not module.check_mode:
                append(path, entry)
            answer = {"changed": True, "entry": entry}
        history = read(path)
        descriptions = read_descriptions(os.path.dirname(path))
    except (OperatorError, OSError) as problem:
        module.fail_json(msg=f"The ledger of releases: {problem}")
    if history.damaged:
        lines = ", ".join(str(number) for number in history.damaged)
        module.warn(
            f"The ledger {path} has damaged lines ({lines}), as a power failure leaves them; they are left out."
        )
    module.exit_json(
        entries=history.entries,
        current=history.current,
        previous=history.previous,
        releases=history.releases,
        damaged=history.damaged,
        descriptions=descriptions,
        **answer,
    )


if __name__ == "__main__":
    main()
