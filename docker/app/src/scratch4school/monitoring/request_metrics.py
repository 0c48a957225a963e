"""Measuring requests: their time, and the saves in flight."""

import time

from flask import Flask, Response, g, request

from .logs import method_of
from .metrics import REQUEST_SECONDS, SAVES_IN_FLIGHT


def init_app(app: Flask) -> None:
    """Measure each request, and count the saves in flight."""

    @app.before_request
    def start() -> None:
        g.started = time.perf_counter()
        g.is_save = _is_save()
        if g.is_save:
            SAVES_IN_FLIGHT.inc()

    @app.after_request
    def finish(response: Response) -> Response:
        # The rule instead of the path: paths would make a new time series for every project. The same for the method.
        route = request.url_rule.rule if request.url_rule is not None else "none"
        seconds = time.perf_counter() - g.started
        REQUEST_SECONDS.labels(method_of(request.method), route, response.status_code).observe(seconds)
        return response

    @app.teardown_request
    def end(_error: BaseException | None) -> None:
        # Popped, because a request may be torn down without having started, and must not count twice.
        if g.pop("is_save", False):
            SAVES_IN_FLIGHT.dec()


def _is_save() -> bool:
    """Whether the request carries a project file, as far as its headers show."""
    carries_file = request.method in ("POST", "PUT") and request.mimetype == "multipart/form-data"
    return carries_file and request.blueprint == "projects"
