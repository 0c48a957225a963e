"""Logs as one JSON object a line on standard output, without session ids, tokens or query strings."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

from gunicorn.glogging import Logger

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """A record as one JSON object, together with what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if record.exc_info and record.exc_info[0] is not None:
            entry["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(entry, ensure_ascii=False, default=str)


def init() -> None:
    """Send the log of this process to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)


class GunicornLogger(Logger):
    """gunicorn's own messages and its access log in the same form.

    The access line is built here and not by a format string, because a format string cannot quote what a client sends.
    """

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for logger in (self.error_log, self.access_log):
            for handler in logger.handlers:
                handler.setFormatter(JsonFormatter())

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> None:
        try:
            self.access_log.info(
                "request",
                extra={
                    "method": environ.get("REQUEST_METHOD"),
                    # The path alone: the query string may carry a session id or a code from the identity provider.
                    "path": environ.get("PATH_INFO"),
                    "status": int(str(resp.status).split(" ", 1)[0]),
                    "bytes": getattr(resp, "sent", None),
                    "seconds": round(request_time.total_seconds(), 4),
                    "client": environ.get("HTTP_X_REAL_IP") or environ.get("REMOTE_ADDR"),
                },
            )
        except Exception:
            self.exception("the access log could not be written")
