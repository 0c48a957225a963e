"""Requests of a small school with a few people and projects."""

import base64
import io
import re
from dataclasses import dataclass, field
from typing import Any

from helpers import Device

BASE64 = base64.b64encode(b"content").decode()
ITEM = {"type": "costume", "mime": "image/png", "name": "Hut", "body": BASE64, "thumbnail": BASE64}


@dataclass(frozen=True)
class Ask:
    """A request of a route and its expected status; `at` replaces names in the braces of the address."""

    who: str
    status: int
    query: str = ""
    at: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.who} {self.at or ''}{self.query} {list(self.files) or list(self.options) or ''}"


@dataclass(frozen=True)
class School:
    """Devices of several people, and the values for the braces of an address."""

    devices: dict[str, Device]
    names: dict[str, str]

    def ask(self, route: str, asked: Ask) -> Any:
        """The answer to `asked`; `route` is a method and a path with braces."""
        method, address = route.split(" ", 1)
        names = {**self.names, **{name: value.format_map(self.names) for name, value in asked.at.items()}}
        path = re.sub(r"\{(\w+)\}", lambda match: names[match[1]], address)
        options = dict(asked.options)
        if asked.files:
            options["data"] = {name: (io.BytesIO(content), f"{name}.bin") for name, content in asked.files.items()}
        return self.devices[asked.who].request(method, path + asked.query.format_map(self.names), **options)
