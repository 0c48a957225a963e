"""Logs: one JSON object for each line on standard output, with the id of its request, but without the person.

More people read a log than may read the data. Session ids, tokens, names and user ids are in query strings, paths and
headers, and in the messages of the libraries that handle them. So none of these is logged unchanged.
"""

import json
import logging
import re
import sys
import traceback
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, has_request_context, request
from gunicorn.glogging import Logger
from psycopg2 import Error as PostgresError
from sqlalchemy.exc import DBAPIError

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_REQUEST_ID = re.compile(r"[0-9A-Za-z-]{8,64}")
# The keys of a request's id, route and project in its WSGI environment, where the access log outside Flask reads them.
_ID_KEY, _ROUTE_KEY, _PROJECT_KEY = "scratch4school.request_id", "scratch4school.route", "scratch4school.project"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object, with its `extra` fields."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if has_request_context():
            entry["request_id"] = request_id()
        entry.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if record.exc_info and record.exc_info[0] is not None:
            entry["exception"] = "".join(_traceback(record.exc_info[1]))
        return json.dumps(entry, ensure_ascii=False, default=str)


def _traceback(error: BaseException | None) -> Iterator[str]:
    """An exception and its causes, each with its traceback; the values in a database's message are left out."""
    if error is None:
        return
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    yield from _traceback(cause)
    yield "".join(traceback.format_tb(error.__traceback__))
    if isinstance(error, DBAPIError):
        # Its text repeats the driver's message, which quotes the row: "Key (username)=(ada) already exists".
        yield f"{type(error).__name__}: {error.statement}\n"
    elif isinstance(error, PostgresError):
        yield f"{type(error).__name__}: {error.pgcode}\n"
    else:
        yield "".join(traceback.format_exception_only(error))


def request_id() -> str:
    """The id of the current request: the proxy's, or a new one if that is missing or malformed."""
    known = request.environ.get(_ID_KEY)
    if known is None:
        given = request.headers.get("X-Request-ID", "")
        known = request.environ[_ID_KEY] = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    return str(known)


def method_of(name: str | None) -> str:
    """A request's method if it is a known one, else `other`: a client can send any text."""
    return name if name in METHODS else "other"


def init_app(app: Flask) -> None:
    """Give each request an id, and send it with the answer."""

    @app.before_request
    def note() -> None:
        request_id()
        # The rule instead of the path: a path may contain a name, and one that matches no rule may contain any text.
        request.environ[_ROUTE_KEY] = request.url_rule.rule if request.url_rule is not None else None
        request.environ[_PROJECT_KEY] = (request.view_args or {}).get("project_id")

    @app.after_request
    def name(response: Response) -> Response:
        response.headers["X-Request-ID"] = request_id()
        return response


def init() -> None:
    """Send the log of this process to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)


class GunicornLogger(Logger):
    """gunicorn's own messages and its access log in the same format.

    The access line is built here instead of by a format string, which could not escape what a client sends.
    """

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for logger in (self.error_log, self.access_log):
            for handler in logger.handlers:
                handler.setFormatter(JsonFormatter())

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> None:
        try:
            entry = {
                "request_id": environ.get(_ID_KEY),
                "method": method_of(environ.get("REQUEST_METHOD")),
                "route": environ.get(_ROUTE_KEY),
                "project": environ.get(_PROJECT_KEY),
                "status": int(str(resp.status).split(" ", 1)[0]),
                "bytes": getattr(resp, "sent", None),
                "seconds": round(request_time.total_seconds(), 4),
            }
            self.access_log.info("request", extra={key: value for key, value in entry.items() if value is not None})
        except Exception:
            self.exception("the access log could not be written")

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log a warning; of an unreadable request only the type of the error, because gunicorn quotes its header."""
        if msg.startswith("Invalid request"):
            super().warning("a request could not be read", extra={"reason": type(sys.exc_info()[1]).__name__})
        else:
            super().warning(msg, *args, **kwargs)

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log an error with its traceback, without the address of the request, which gunicorn would append."""
        super().exception(msg.partition(" %")[0], **kwargs)
