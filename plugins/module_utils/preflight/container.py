"""Refusals of the role `container`."""

from __future__ import annotations

from .rules import Rules
from .settings import whole_number

RULES = Rules("container", bounds={"container_ready_seconds": whole_number(1)})
