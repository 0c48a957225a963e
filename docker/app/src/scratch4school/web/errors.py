"""Errors as the front end reads them: a status and {"error": message}, never SQL, never a traceback."""

import logging
from typing import Any

from flask import Flask, Response, jsonify
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from ..database.database import DatabaseUnavailable
from ..monitoring.logs import request_id

log = logging.getLogger(__name__)

_RETRY = {"Retry-After": "5"}
_MESSAGES = {404: "There is nothing at this address.", 405: "This address does not take requests of this kind."}


class ApiError(Exception):
    """An error answer; `fields` are added to the JSON beside the message."""

    def __init__(self, status: int, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.fields = fields


def init_app(app: Flask, body_limit: int) -> None:
    """Answer every exception of a request with JSON."""

    @app.errorhandler(ApiError)
    def api_error(error: ApiError) -> tuple[Response, int, dict[str, str]]:
        if error.status == 503:
            return _failure(error.message, **error.fields), 503, _RETRY
        return jsonify(error=error.message, **error.fields), error.status, {}

    @app.errorhandler(DatabaseUnavailable)
    def unavailable(error: DatabaseUnavailable) -> tuple[Response, int, dict[str, str]]:
        log.warning("database unavailable", extra={"reason": str(error)})
        message = "The service is busy or its database is restarting. Please try again in a moment."
        return _failure(message), 503, _RETRY

    @app.errorhandler(OSError)
    def storage(error: OSError) -> tuple[Response, int, dict[str, str]]:
        log.error("storage failed", exc_info=error)
        message = "The file could not be stored. Please try again in a moment."
        return _failure(message), 503, _RETRY

    @app.errorhandler(RequestEntityTooLarge)
    def too_large(_error: RequestEntityTooLarge) -> tuple[Response, int]:
        return jsonify(error=f"The upload is larger than {body_limit // 1024**2} MiB."), 413

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        response = error.get_response()
        if error.code is not None and error.code >= 400:
            message = _MESSAGES.get(error.code) or error.description or error.name
            answer = _failure(message) if error.code >= 500 else jsonify(error=message)
            response.set_data(answer.get_data())
            response.content_type = "application/json"
        return response  # type: ignore[return-value]

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> tuple[Response, int]:
        log.error("request failed", exc_info=error)
        return _failure("Something went wrong on the server. It has been noted in its log."), 500


def _failure(message: str, **fields: Any) -> Response:
    """The body of a 5xx answer. A teacher can read its request id to the sysadmin, who finds it in the log."""
    return jsonify(error=message, **fields, request_id=request_id())
