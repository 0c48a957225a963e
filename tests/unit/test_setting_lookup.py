"""The value of a setting outside the role that has its default."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar, trust_as_template
from conftest import ROOT


def setting(*names: str, **variables: Any) -> list[Any]:
    """Ask the lookup in a play with these variables."""
    lookup_loader.add_directory(str(ROOT / "plugins" / "lookup"))
    templar = Templar(loader=DataLoader(), variables=variables)
    return lookup_loader.get("setting", templar=templar).run([*names], variables=variables)


def test_setting_without_value_has_default_of_its_role() -> None:
    assert setting("proxy_https_port", "database_engine") == [443, "postgres"]


def test_setting_with_template_is_worked_out() -> None:
    port = trust_as_template("{{ first_port + 443 }}")
    assert setting("proxy_https_port", proxy_https_port=port, first_port=8000) == [8443]


def test_setting_without_value_and_default_is_an_error() -> None:
    with pytest.raises(AnsibleError, match=r"proxy_tls_key has no value, and no role has a default for it\."):
        setting("proxy_tls_key")
