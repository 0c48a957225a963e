"""Makes plugins/ importable for tests the way Ansible does for playbooks, and runs modules without a host."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import ansible.module_utils
import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"

# When Ansible packs a module for a host it lays our module_utils beside its own; here both are one package likewise.
ansible.module_utils.__path__.append(str(PLUGINS / "module_utils"))
# Filters and lookups find it by their own place.
sys.path.append(str(PLUGINS / "module_utils"))


def load(path: Path) -> ModuleType:
    """Import a file by its place: filter and module files share names, so no search path can tell them apart."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its own module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class ModuleEnded(Exception):
    """Stands for the end of a module's process; holds what it answered."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(json.dumps(answer, default=str))
        self.answer = answer


@pytest.fixture
def run_module(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Return a function that runs one of our modules in this process and returns its answer, `failed` included."""

    def finish(_module: basic.AnsibleModule, **answer: Any) -> None:
        raise ModuleEnded(answer)

    def fail(_module: basic.AnsibleModule, msg: str, **answer: Any) -> None:
        raise ModuleEnded({"failed": True, "msg": msg, **answer})

    monkeypatch.setattr(basic.AnsibleModule, "exit_json", finish)
    monkeypatch.setattr(basic.AnsibleModule, "fail_json", fail)

    def run(name: str, /, *, check_mode: bool = False, **arguments: object) -> dict[str, Any]:
        module = load(PLUGINS / "modules" / f"{name}.py")
        with patch_module_args({**arguments, "_ansible_check_mode": check_mode}), pytest.raises(ModuleEnded) as ended:
            module.main()
        return ended.value.answer

    return run


@pytest.fixture(scope="session")
def filters() -> dict[str, Callable[..., Any]]:
    """All our filters by name, as playbooks see them."""
    found: dict[str, Callable[..., Any]] = {}
    for path in sorted((PLUGINS / "filter").glob("*.py")):
        found.update(load(path).FilterModule().filters())
    return found
