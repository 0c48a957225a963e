"""Judges an inventory as roles/host/tasks/settings.yml does, in this process: the lookup with the real roles."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, init_plugin_loader, lookup_loader
from ansible.template import Templar
from ansible.utils.collection_loader import AnsibleCollectionConfig
from certificates import make
from conftest import PLUGINS, ROOT

HOSTNAME = "scratch.school.de"
# The result of host_survey for a suitable host. A rule on a new fact needs that fact here, and nowhere else.
SURVEY = {
    "system": {"distribution": "Debian", "version": "13"},
    "disk": {"/var/lib": 90000},
    "sizes": {},
    "engine": {"answers": True},
    "memory": {"total_mb": 4000},
    "ports": {"443": "", "80": ""},
    "maintenance": {},
    "time": "2026-11-23T10:05:00",
    "zone": "CET",
    "provider": {},
    "calendars": {},
    "programs": {},
    "folders": {},
    "files": {
        "/var/lib/scratch4school/postgres/17/PG_VERSION": False,
        "/var/lib/scratch4school/database/main.db": False,
    },
    "file_systems": {"/var/lib/scratch4school/postgres": "ext4"},
}


class Inventory:
    """One host with settings that are right, and what is said when some of them are others."""

    def __init__(self, folder: Path) -> None:
        """The certificate, the key and what would be made for the school lie below the folder."""
        # `ansible.builtin.vars` in a template is looked for as one looks for what a collection has.
        if AnsibleCollectionConfig.collection_finder is None:
            init_plugin_loader()
        lookup_loader.add_directory(str(PLUGINS / "lookup"))
        filter_loader.add_directory(str(PLUGINS / "filter"))
        self.folder = folder
        self.loader = DataLoader()
        certificate, key = make(folder, (HOSTNAME,))
        self.right: dict[str, Any] = {
            "scratch4school_url": f"https://{HOSTNAME}",
            "proxy_tls_certificate": certificate,
            "proxy_tls_key": key,
            "app_oidc_client_id": "scratch4school",
            "app_oidc_client_secret": "as-long-as-the-provider-made-it",
            "app_oidc_authorize_url": "https://school.de/iserv/oauth/v2/auth",
            "app_oidc_token_url": "https://school.de/iserv/oauth/v2/token",
            "app_oidc_jwks_url": "https://school.de/iserv/public/jwk",
        }
        magic = {
            "inventory_hostname": "server",
            "inventory_dir": str(folder),
            "playbook_dir": str(ROOT / "deploy"),
            "role_path": str(ROOT / "roles" / "host"),
            "group_names": ["scratch4school"],
            "groups": {"all": ["server"], "ungrouped": [], "scratch4school": ["server"]},
            "ansible_connection": "local",
            "ansible_check_mode": False,
        }
        self.around = {
            **self.load("roles/host/defaults/main.yml"),
            **{
                name: value
                for file in sorted((ROOT / "deploy" / "group_vars" / "all").glob("*.yml"))
                for name, value in self.load(str(file.relative_to(ROOT))).items()
            },
            **magic,
            **self.load("roles/host/vars/main.yml"),
        }

    def load(self, path: str) -> dict[str, Any]:
        """A YAML file of the repository, its templates trusted."""
        return dict(self.loader.load_from_file(str(ROOT / path), trusted_as_template=True))

    def variables(self, settings: dict[str, Any], without: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return the host's variables with these settings on top of the right ones, and without those."""
        known = {**self.around, **self.right, **settings}
        return {name: value for name, value in known.items() if name not in without}

    def value(self, name: str, variables: dict[str, Any]) -> Any:
        """A variable, its templates resolved."""
        return Templar(loader=self.loader, variables=variables).template(variables[name])

    def lookup(self, name: str, variables: dict[str, Any], *terms: str, **options: Any) -> Any:
        """Return the result of one of our lookups."""
        templar = Templar(loader=self.loader, variables=variables)
        plugin = lookup_loader.get(name, loader=self.loader, templar=templar)
        with warnings.catch_warnings():
            # pytest makes errors of them, Ansible does not: Jinja remarks on a backslash in a role's expression.
            warnings.simplefilter("ignore", DeprecationWarning)
            return plugin.run(list(terms), variables=variables, **options)[0]

    def wrong(self, **settings: Any) -> list[str]:
        """Return the refusals of settings by themselves, without the roles' rules."""
        return self.lookup("preflight", self.variables(settings), want="settings", by_rules=False)

    def refused(self, *, without: tuple[str, ...] = (), **settings: Any) -> list[str]:
        """All messages that a sysadmin reads, as roles/host/tasks/settings.yml puts them together."""
        variables = self.variables(settings, without)
        path = ROOT / "roles" / "host" / "tasks" / "settings.yml"
        task = self.loader.load_from_file(str(path), trusted_as_template=True)[0]
        asking = {**variables, **task["vars"]}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return list(Templar(loader=self.loader, variables=asking).template(asking["__host_refusals"]))

    def made(self) -> list[str]:
        """Names of the secrets that were generated."""
        return sorted(path.name for path in (self.folder / ".secrets").glob("*"))
