"""Where things are in this checkout. Standard library only: it is read before there is a virtual environment."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# The tools that scripts/setup installs.
TOOLS = ROOT / ".venv" / "bin"
SCRIPTS = ROOT / "scripts"
# The state of the lab: keys, certificates, logs. Git ignores it.
STATE = ROOT / ".lab"
LAB_INVENTORY = ROOT / "inventories" / "lab"
# Code that Ansible's modules and scripts/pgbouncer-config share.
MODULE_UTILS = ROOT / "plugins" / "module_utils"
