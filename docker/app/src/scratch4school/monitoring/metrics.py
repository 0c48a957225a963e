"""The metrics of the application, for Prometheus; the numbers of all workers are summed when they are read."""

from prometheus_client import REGISTRY as _PROCESS_REGISTRY
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

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
    "Time until a unit of work had a connection of its process's pool, newly opened if necessary.",
    buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10),
)


def exposition(multiprocess_directory: str | None) -> bytes:
    """All metrics as Prometheus text: of all workers that share a directory, without one of this process."""
    if multiprocess_directory is None:
        return generate_latest(_PROCESS_REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=multiprocess_directory)
    return generate_latest(registry)
