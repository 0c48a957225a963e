"""The JSON body of a request."""

from typing import Any

from flask import request


def json_object() -> dict[str, Any] | None:
    """The JSON object in the request's body, or None when there is none."""
    try:
        body = request.get_json(silent=True)
    except RecursionError:
        # Deeply nested brackets; the parser gives up at Python's recursion limit.
        return None
    return body if isinstance(body, dict) else None
