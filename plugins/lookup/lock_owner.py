"""Names the process on the control node that changes a host, so that a lock it left behind can be recognised."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.lookup import LookupBase

# Ansible hands its module_utils setting to modules only; a lookup finds the same folder by its own place.
sys.path.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from scratch4school_host import locking

DOCUMENTATION = r"""
name: lock_owner
short_description: Describe the running ansible-playbook as the owner of a host's lock
description:
  - Who asks, on which machine since its last start, which process that is, and the verb that was typed.
author:
  - The Scratch4School deployment project
"""


class LookupModule(LookupBase):
    """The class that Ansible loads from a lookup file."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **options: Any) -> list[dict[str, Any]]:
        """Templates are worked out in processes that live for one task; the run is the process that they came from."""
        parent = multiprocessing.parent_process()
        pid = parent.pid if parent and parent.pid else os.getpid()
        verb = Path((context.CLIARGS.get("args") or ("ansible",))[0]).stem
        return [{**locking.owner(), "pid": pid, "started": locking.started(pid), "verb": verb}]
