"""The engine's settings: ours are added to those of the school."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from conftest import ROOT

OURS = {"max-size": "50m", "max-file": "3"}


def written(found: dict[str, Any]) -> Any:
    """What the role writes over the engine's settings `found`."""
    loader = DataLoader()
    role = loader.load_from_file(str(ROOT / "roles/docker/vars/main.yml"), trusted_as_template=True)
    variables = {**role, "__docker_daemon_found": found, "docker_log_megabytes": 50}
    return Templar(loader=loader, variables=variables).template(variables["__docker_daemon"])


@pytest.mark.parametrize("log_options", [None, {}, {"max-size": "10m", "max-file": "3"}])
def test_changed_log_limit_is_written(log_options: dict[str, str] | None) -> None:
    """Also over the limit of the first run; the school's other settings stay."""
    found = {"data-root": "/srv/docker", "live-restore": False}
    if log_options is not None:
        found |= {"log-driver": "json-file", "log-opts": log_options}
    assert written(found) == {
        "data-root": "/srv/docker",
        "live-restore": False,
        "log-driver": "json-file",
        "log-opts": OURS,
    }


@pytest.mark.parametrize(
    "found",
    [
        {"log-driver": "journald"},
        {"log-driver": "local", "log-opts": {"max-size": "10m"}},
        {"log-opts": {"max-size": "10m", "max-file": "5"}},
        {"log-opts": {"max-size": "7m"}},
        {"log-opts": {"max-file": "3"}},
        {"log-opts": {"labels": "3"}},
        {"log-opts": {"max-size": "10m", "max-file": "3", "labels": "school"}},
    ],
)
def test_log_settings_of_school_are_kept(found: dict[str, Any]) -> None:
    """Another driver, or options of another form than ours."""
    assert written(found) == {"live-restore": True, **found}
