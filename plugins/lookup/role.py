"""Returns what a role manages on a host, and the digest of all that it would do there, without running it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible import context
from ansible.errors import AnsibleLookupError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.lookup import LookupBase
from ansible.utils.vars import load_extra_vars

# Ansible hands its module_utils setting to modules only; a lookup finds the same folder by its own place.
sys.path.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from preflight.rules import options_by_name
from preflight.settings import typed

DOCUMENTATION = r"""
name: role
short_description: Things that roles manage on a host, or digests of the roles' settings
description:
  - The variable C(__<role>_managed) lists what a role manages. plugins/module_utils/host_survey.py describes the keys
    that are read on the host. This lookup reads two more. C(points) names entry points beside C(main) whose options
    count. C(sources) names files on the control node whose content counts.
  - The digest changes with the role's own files, those of the role C(container), our plugins, the pinned tools, the
    values of all options of the entry points, and the sources.
options:
  _terms:
    description: Names of roles.
    required: true
  want:
    description: Kind of result.
    type: str
    choices: [managed, digest]
    required: true
author:
  - The Scratch4School deployment project
"""

EXAMPLES = r"""
host_managed: "{{ lookup('role', 'database', 'proxy', want='managed') }}"
"""

RETURN = r"""
_raw:
  description: >-
    One dictionary, role to what was wanted of it; roles that manage nothing are left out.
  type: list
"""

ROOT = Path(__file__).resolve().parents[2]


def tree_digest(paths: Iterable[Path]) -> str:
    """Digest of files and of all files below folders, names included; what Python compiles for itself is left out."""
    total = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                content = file.read_bytes()
                total.update(f"{file.relative_to(ROOT)} {len(content)} ".encode() + content)
    return total.hexdigest()


def extra_variables() -> dict[str, Any]:
    """Return the variables that the command line sets with `-e`."""
    return dict(load_extra_vars(DataLoader())) if context.CLIARGS.get("extra_vars") else {}


class LookupModule(LookupBase):
    """The class that Ansible loads from a lookup file."""

    def run(self, terms: list[str], variables: Mapping[str, Any] | None = None, **options: Any) -> list[Any]:
        """See RETURN."""
        self.set_options(var_options=variables, direct=options)
        digest = self.get_option("want") == "digest"
        ours = (
            tree_digest([ROOT / "plugins", ROOT / "roles" / "container", ROOT / "requirements.lock"]) if digest else ""
        )
        answer = {}
        for role in terms:
            values = _Values(self, ROOT / "roles" / role, variables or {})
            managed = values.get(f"__{role}_managed", {})
            if managed:
                answer[role] = self._digest(ours, values, managed) if digest else managed
        return [answer]

    def load(self, path: Path) -> dict[str, Any]:
        """A YAML file of ours, whose templates may be worked out."""
        # `unsafe` is only that it is not copied, which takes longer than all else; nothing here changes it.
        return (
            self._loader.load_from_file(str(path), unsafe=True, trusted_as_template=True) or {}
            if path.is_file()
            else {}
        )

    def template(self, value: Any, variables: Mapping[str, Any]) -> Any:
        """Work a value out as the role would see it."""
        return self._templar.copy_with_new_env(available_variables=variables).template(value)

    @staticmethod
    def _digest(ours: str, values: _Values, managed: Mapping[str, Any]) -> str:
        points = ["main", *managed.get("points", [])]
        wanted = {name: values.typed(name) for name in values.options(points)}
        sources = []
        for source in managed.get("sources", []):
            try:
                sources.append(hashlib.sha256(Path(source).expanduser().read_bytes()).hexdigest())
            except OSError as problem:
                raise AnsibleLookupError(f"{source} cannot be read: {problem.strerror}.") from problem
        content = json.dumps(
            [ours, tree_digest([values.folder]), wanted, sources, managed], sort_keys=True, default=str
        )
        return hashlib.sha256(content.encode()).hexdigest()


class _Values:
    """The variables that a role would see: its own vars before all, its defaults last."""

    def __init__(self, lookup: LookupModule, folder: Path, variables: Mapping[str, Any]) -> None:
        self.folder = folder
        self._lookup = lookup
        # The fast reader, because nothing in argument specs is a template.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        specs = folder / "meta" / "argument_specs.yml"
        self._specs: dict[str, Any] = (
            yaml.load(specs.read_text(), Loader=loader)["argument_specs"] if specs.is_file() else {}
        )
        self._options = options_by_name(self._specs.values())
        self._seen = {
            **lookup.load(folder / "defaults" / "main.yml"),
            **variables,
            **lookup.load(folder / "vars" / "main.yml"),
            # `-e` outranks all, also here.
            **extra_variables(),
            # Else it would be that of the role that asks.
            "role_path": str(folder),
        }

    def options(self, points: Iterable[str]) -> list[str]:
        """Names of the settings of these entry points; facts of other roles, such as host_survey, are no settings."""
        names = {name for point in points for name in self._specs[point].get("options") or {}}
        return sorted(name for name in names if name.startswith(f"{self.folder.name}_"))

    def typed(self, name: str) -> Any:
        """The option's value; `-e name=16`, which arrives as a text, is the number 16."""
        return typed(self.get(name), self._options.get(name, {}))

    def get(self, name: str, default: Any = None) -> Any:
        """The variable's value, templates worked out."""
        return self._lookup.template(self._seen[name], self._seen) if name in self._seen else default
