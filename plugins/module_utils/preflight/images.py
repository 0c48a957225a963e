"""Refusals of the role `images`."""

from __future__ import annotations

from .rules import Rules
from .settings import text

_URL = text(r"(https?://\S+)?", "a whole address that begins with http:// or https://, or leave it empty")

RULES = Rules(
    "images",
    bounds={
        "images_base_reference": text(
            r"[a-z0-9][^\s@]*@sha256:[0-9a-f]{64}",
            "an image with its digest, such as debian:trixie-slim@sha256:<64 digits>",
        ),
        "images_debian_mirror": _URL,
        "images_debian_security_mirror": _URL,
        "images_python_index": _URL,
        "images_http_proxy": _URL,
        "images_refresh": text(r"\S.*", "any word, such as the month"),
    },
)
