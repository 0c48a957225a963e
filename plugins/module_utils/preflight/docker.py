"""Refusals of the role `docker`."""

from __future__ import annotations

from .rules import Rules
from .settings import whole_number

RULES = Rules("docker", bounds={"docker_log_megabytes": whole_number(1)})
