"""Refusals of the role `lock`."""

from __future__ import annotations

from .rules import Rules
from .settings import whole_number

RULES = Rules("lock", bounds={"lock_stale_minutes": whole_number(1)})
