"""Filter for the digest of a build context, for image tags; plugins/module_utils/build_context.py computes it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from ansible.errors import AnsibleFilterError

# Ansible uses its module_utils setting for modules only; a filter finds the folder relative to itself.
sys.path.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from build_context import BuildContextError, digest


def build_context_digest(path: str, extra: list[str] | None = None) -> str:
    """`'docker/app' | build_context_digest([base])` → 12 hexadecimal digits; they also depend on the texts `extra`."""
    try:
        return digest(path, [str(text) for text in extra or []])
    except (BuildContextError, OSError) as problem:
        raise AnsibleFilterError(str(problem)) from problem


class FilterModule:
    """The class that Ansible loads from a filter plugin."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters of this file by name."""
        return {"build_context_digest": build_context_digest}
