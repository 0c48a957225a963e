#!/usr/bin/python
"""Packs a Docker build context on the control node into a deterministic archive."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.build_context import BuildContextError, archive, context_files, digest

DOCUMENTATION = r"""
module: build_context
short_description: Pack a Docker build context into a deterministic archive
description:
  - Writes the files that Docker would send to a tar archive; C(plugins/module_utils/build_context.py) documents the
    supported part of C(.dockerignore). The same files give the same bytes, independent of owner, times and umask.
  - Reads the control node's checkout, so run it with C(delegate_to=localhost) and C(become=false).
options:
  path:
    description: The folder with the Dockerfile.
    type: path
    required: true
  dest:
    description: The archive to write; compressed when the name ends in C(.gz) or C(.tgz). Its folder must exist.
    type: path
    required: true
  extra:
    description: Further texts that the image depends on, such as the base image's name; they change the digest only.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
author:
  - The Scratch4School deployment project
"""

EXAMPLES = r"""
- name: Pack the application's build context
  build_context:
    path: "{{ playbook_dir }}/../docker/app"
    dest: "{{ images_workspace }}/app.tar.gz"
    extra: ["{{ images_base }}"]
  delegate_to: localhost
  become: false
  register: __images_context
"""

RETURN = r"""
digest:
  description: 12 hexadecimal digits of the files and of C(extra), equal to those of the filter C(build_context_digest).
  returned: success
  type: str
files:
  description: The relative paths that were packed, sorted.
  returned: success
  type: list
  elements: str
sha256:
  description: Checksum of the archive.
  returned: success
  type: str
"""


def write_atomically(dest: Path, content: bytes) -> None:
    """Replace dest as a whole, so that an interrupted run leaves either the previous archive or the new one."""
    descriptor, temporary = tempfile.mkstemp(dir=dest.parent, prefix=f".{dest.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)
        Path(temporary).replace(dest)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def main() -> None:
    """Write the archive if it differs."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "extra": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    path, dest = Path(module.params["path"]), Path(module.params["dest"])
    if dest.resolve().is_relative_to(path.resolve()):
        module.fail_json(msg=f"The archive {dest} would lie inside the build context {path} and pack itself.")
    try:
        files = context_files(path)
        content = archive(path, compress=dest.name.endswith((".gz", ".tgz")))
        changed = not dest.is_file() or dest.read_bytes() != content
        if changed and not module.check_mode:
            write_atomically(dest, content)
        module.exit_json(
            changed=changed,
            digest=digest(path, module.params["extra"]),
            files=files,
            sha256=hashlib.sha256(content).hexdigest(),
        )
    except (BuildContextError, OSError) as problem:
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
