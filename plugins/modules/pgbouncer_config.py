#!/usr/bin/python
"""Writes pgbouncer.ini and userlist.txt from an intent, and reports which changes need a restart."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.pgbouncer_config import (
    PgbouncerConfigError,
    changes,
    check,
    read_ini,
    read_userlist,
    render_ini,
    render_userlist,
)

DOCUMENTATION = r"""
module: pgbouncer_config
short_description: Write pgbouncer.ini and userlist.txt from an intent
description:
  - Renders both files as C(scripts/pgbouncer-config render) does and replaces each as a whole where it differs.
    Nothing is written when the intent is refused.
  - A diff shows pgbouncer.ini; of userlist.txt it shows only the names.
options:
  path:
    description: The folder of both files. It must exist, unless in check mode.
    type: path
    required: true
  intent:
    description: PgBouncer's settings; see C(scripts/pgbouncer-config render --help).
    type: dict
    required: true
  users:
    description: Passwords by user name, or SCRAM secrets as PostgreSQL stores them.
    type: dict
    required: true
  uid:
    description: User and group of PgBouncer. The group may read pgbouncer.ini; only the user may read userlist.txt.
    type: int
    required: true
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author:
  - The Scratch4School deployment project
"""

EXAMPLES = r"""
- name: Write PgBouncer's configuration and users
  pgbouncer_config:
    path: /etc/scratch4school/pgbouncer
    intent:
      databases: {scratch4school: {host: /run/postgresql}}
    users: "{{ pgbouncer_users }}"
    uid: 10003
"""

RETURN = r"""
differences:
  description: One text for each changed setting, with its values and whether it needs a restart or a RELOAD.
  returned: success
  type: list
  elements: str
restart:
  description: Whether a changed setting needs a restart; for the others a RELOAD is enough.
  returned: success
  type: bool
warnings:
  description: Settings of the intent that are valid and inadvisable.
  returned: when there are any
  type: list
  elements: str
"""


def text_of(file: Path) -> str:
    """Return the text of a file; empty if there is no such file."""
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def names_of(userlist: str) -> str:
    """Return the names in a userlist, without secrets."""
    return "".join(f"{name}\n" for name in read_userlist(userlist)[0])


def put(module: AnsibleModule, file: Path, text: str, owner: str, group: str, mode: int) -> bool:
    """Replace a file as a whole if its text differs, and set owner, group and mode; return whether anything changed."""
    changed = text_of(file) != text
    if changed and not module.check_mode:
        # In the same folder, not in Ansible's temporary folder: Ansible warns when that one is missing.
        descriptor, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as writing:
                writing.write(text)
            module.atomic_move(draft, str(file))
        finally:
            Path(draft).unlink(missing_ok=True)
    if not file.exists():
        return changed
    arguments = {
        "path": str(file),
        "owner": owner,
        "group": group,
        "mode": mode,
        "secontext": [],
        "attributes": None,
    }
    return module.set_fs_attributes_if_different(arguments, changed)


def main() -> None:
    """Render both files, and write those that differ."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "intent": {"type": "dict", "required": True},
            "users": {"type": "dict", "required": True, "no_log": True},
            "uid": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    folder, uid = Path(module.params["path"]), str(module.params["uid"])
    ini, userlist = folder / "pgbouncer.ini", folder / "userlist.txt"
    try:
        # Both are rendered before either is written, so that an error in the second leaves no mixture.
        text = render_ini(module.params["intent"])
        secrets = render_userlist(module.params["users"])
        before, names = text_of(ini), names_of(text_of(userlist))
        changed = put(module, ini, text, "root", uid, 0o640)
        changed = put(module, userlist, secrets, uid, uid, 0o400) or changed
    except (PgbouncerConfigError, OSError) as problem:
        module.fail_json(msg=str(problem))
    differences = changes(read_ini(before), read_ini(text)) if before else []
    for finding in check(read_ini(text)):
        module.warn(finding.text)
    module.exit_json(
        changed=changed,
        differences=[str(difference) for difference in differences],
        restart=any(difference.restart for difference in differences),
        diff=[
            {"before_header": str(ini), "after_header": str(ini), "before": before, "after": text},
            {
                "before_header": str(userlist),
                "after_header": str(userlist),
                "before": names,
                "after": names_of(secrets),
            },
        ],
    )


if __name__ == "__main__":
    main()
