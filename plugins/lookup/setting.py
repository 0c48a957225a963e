"""Returns a setting that is one role's option, for the wiring of another role."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = r"""
name: setting
short_description: The value of a setting, or else the default of its role
description:
  - A default of a role exists only while that role runs. Written again in C(deploy/group_vars/all), it would hide a
    value that the inventory gives to a whole group, because Ansible prefers that file.
options:
  _terms:
    description: Names of settings.
    required: true
author:
  - The Scratch4School deployment project
"""

EXAMPLES = r"""
host_ports: ["{{ lookup('setting', 'proxy_https_port') }}", "{{ lookup('setting', 'proxy_http_port') }}"]
"""

RETURN = r"""
_raw:
  description: The values.
  type: list
"""

ROLES = Path(__file__).resolve().parents[2] / "roles"


class LookupModule(LookupBase):
    """The class that Ansible loads from a lookup file."""

    def run(self, terms: list[str], variables: Mapping[str, Any] | None = None, **options: Any) -> list[Any]:
        """AnsibleLookupError for a name without a value that has no default in a role either."""
        variables = variables or {}
        return [self._templar.template(variables[name]) if name in variables else self._default(name) for name in terms]

    @staticmethod
    def _default(name: str) -> Any:
        # A role's name begins its options' names.
        loader = DataLoader()
        for file in ROLES.glob("*/defaults/main.yml"):
            if name.startswith(f"{file.parent.parent.name}_"):
                defaults = loader.load_from_file(str(file)) or {}
                if name in defaults:
                    return defaults[name]
        raise AnsibleLookupError(f"{name} has no value, and no role has a default for it.")
