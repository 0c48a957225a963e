"""Builds scratch4schoolctl from this checkout, and says where the file is."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.lookup import LookupBase

sys.path.append(str(Path(__file__).resolve().parents[2] / "host"))

import build_program

DOCUMENTATION = r"""
name: host_program
short_description: Build scratch4schoolctl, and return the path or the digest of the file on the control node
description:
  - The program is one file, which host/build_program.py makes of host/src. The same sources give the same bytes.
  - The file is in the temporary folder of this run, and its name contains its digest.
options:
  want:
    description: C(path), where the file is, or C(digest), which changes with its content and is the same in every run.
    type: str
    choices: [path, digest]
    default: path
author:
  - The Scratch4School deployment project
"""

EXAMPLES = r"""
- name: Install scratch4schoolctl
  ansible.builtin.copy:
    src: "{{ lookup('host_program') }}"
    dest: /usr/local/sbin/scratch4schoolctl
    mode: "0755"
"""

RETURN = r"""
_raw:
  description: The path of the file, or its digest.
  type: list
  elements: str
"""


class LookupModule(LookupBase):
    """The class that Ansible loads from a lookup file."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **options: Any) -> list[str]:
        """Templates are worked out in several processes at once, so the file gets its name when it is whole."""
        self.set_options(var_options=variables, direct=options)
        content = build_program.build()
        digest = hashlib.sha256(content).hexdigest()[:16]
        if self.get_option("want") == "digest":
            return [digest]
        path = Path(constants.DEFAULT_LOCAL_TMP) / f"scratch4schoolctl-{digest}"
        if not path.exists():
            part = path.with_name(f"{path.name}.{os.getpid()}")
            part.write_bytes(content)
            part.replace(path)
        return [str(path)]
