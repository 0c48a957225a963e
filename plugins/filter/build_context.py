"""Gives playbooks the digest of a build context, for tags; plugins/module_utils/build_context.py does the work."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from ansible.errors import AnsibleFilterError

# Ansible hands its module_utils setting to modules only; a filter finds the same folder by its own place.
sys.path.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from build_context import BuildContextError, digest


def build_context_digest(path: str, extra: list[str] | None = None) -> str:
    """`'docker/app' | build_context_digest([base])` → 12 hexadecimal digits; `extra` is what else it depends on."""
    try:
        return digest(path, [str(text) for text in extra or []])
    except (BuildContextError, OSError) as problem:
        raise AnsibleFilterError(str(problem)) from problem


class FilterModule:
    """What Ansible asks a filter file for."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Name the filters of this file."""
        return {"build_context_digest": build_context_digest}
