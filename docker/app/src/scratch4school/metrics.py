"""What the application counts, for Prometheus; the numbers of all workers are added up when they are asked for."""

import time

from flask import Flask, Response, g, request
from prometheus_client import REGISTRY as _PROCESS_REGISTRY
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

from .logs import method_of

REQUEST_SECONDS = Histogram(
    "scratch4school_request_seconds",
    "Time from the first line of a request to its answer, by route and not by path.",
    ["method", "route", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
CONFLICTS = Counter("scratch4school_save_conflicts_total", "Saves refused because they were based on an older version.")
RETRIES = Counter("scratch4school_database_retries_total", "Units of work that were tried again.", ["reason"])
UNAVAILABLE = Counter("scratch4school_database_unavailable_total", "Requests given up because the database was away.")
SAVES_IN_FLIGHT = Gauge(
    "scratch4school_saves_in_flight",
    "Saves with a file that are being received or stored.",
    multiprocess_mode="livesum",
)
POOL_WAIT_SECONDS = Histogram(
    "scratch4school_pool_wait_seconds",
    "Time until a unit of work had a connection of its process's pool, opened anew where need be.",
    buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10),
)


def init_app(app: Flask) -> None:
    """Measure each request, and count the saves that are under way."""

    @app.before_request
    def start() -> None:
        g.started = time.perf_counter()
        g.is_save = _is_save()
        if g.is_save:
            SAVES_IN_FLIGHT.inc()

    @app.after_request
    def finish(response: Response) -> Response:
        # The rule and not the path: paths would make a new time series of every project. Likewise the method.
        route = request.url_rule.rule if request.url_rule is not None else "none"
        seconds = time.perf_counter() - g.started
        REQUEST_SECONDS.labels(method_of(request.method), route, response.status_code).observe(seconds)
        return response

    @app.teardown_request
    def end(_error: BaseException | None) -> None:
        # Popped, because a request may be torn down without having been started, and must not count twice.
        if g.pop("is_save", False):
            SAVES_IN_FLIGHT.dec()


def _is_save() -> bool:
    """Whether the request brings a project file, as far as can be seen before its body is read."""
    carries_file = request.method in ("POST", "PUT") and request.mimetype == "multipart/form-data"
    return carries_file and request.blueprint == "projects"


def exposition(multiprocess_directory: str | None) -> bytes:
    """All metrics as Prometheus text: of every worker when they share a directory, else of this process."""
    if multiprocess_directory is None:
        return generate_latest(_PROCESS_REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=multiprocess_directory)
    return generate_latest(registry)
