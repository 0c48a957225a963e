"""gunicorn's settings that do not depend on the host; `scratch4school serve` adds addresses and numbers."""

import os
import shutil
from typing import Any

from prometheus_client import multiprocess

wsgi_app = "scratch4school.app:create_app()"
worker_class = "gthread"
logger_class = "scratch4school.monitoring.logs.GunicornLogger"
accesslog = "-"
errorlog = "-"

# Each worker opens its own connections: a connection shared across a fork mixes the answers of two requests.
preload_app = False

# The proxy keeps no connection open, and a process with as many connections as threads could keep none.
keepalive = 0

# The heartbeat file must not wait for a busy disk, and the root file system is read-only.
worker_tmp_dir = "/dev/shm"  # noqa: S108
control_socket_disable = True

# This mask applies to the socket only: the proxy, in the same group, may connect to it, and no other user.
umask = 0o117


def child_exit(_server: Any, worker: Any) -> None:
    """Take a dead worker's gauges out of the sum; its counters stay."""
    multiprocess.mark_process_dead(worker.pid)


def on_exit(_server: Any) -> None:
    """Remove the folder of counters that `scratch4school serve` made for this run."""
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
