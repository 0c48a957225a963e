"""Asks the application in a slot whether it is ready, which means that a save would succeed."""

from __future__ import annotations

import http.client
from typing import Any

from ..unix_http import get_json
from .state import SOCKET


def ask(socket_directory: str, slot: str) -> dict[str, Any]:
    """The slot's answer to /readyz: `ok`, `release`, `schema`, `last_login` and `error` ('' when it is ready)."""
    nothing = {"ok": False, "release": "", "schema": "", "last_login": ""}
    if not slot:
        return {**nothing, "error": "no slot is live"}
    try:
        status, answer = get_json(f"{socket_directory}/{slot}/{SOCKET}", "/readyz")
        return {
            "ok": status == 200,
            "release": answer.get("release") or "",
            "schema": answer.get("schema") or "",
            "last_login": answer.get("last_login") or "",
            "error": answer.get("error") or "",
        }
    except (OSError, ValueError, AttributeError, http.client.HTTPException) as problem:
        return {**nothing, "error": getattr(problem, "strerror", None) or str(problem)}
