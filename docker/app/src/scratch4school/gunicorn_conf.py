"""gunicorn's settings that do not depend on the host; `scratch4school serve` adds addresses and numbers to them."""

import os
import shutil
from typing import Any

from prometheus_client import multiprocess

wsgi_app = "scratch4school.app:create_app()"
worker_class = "gthread"
logger_class = "scratch4school.logs.GunicornLogger"
accesslog = "-"
errorlog = "-"

# Each worker opens its own connections: a connection shared across a fork mixes up the answers of two requests.
preload_app = False

# A worker that says nothing for this long is replaced; with threads that means a stuck process, not a slow upload.
timeout = 60
# The longest a stopping worker waits for the uploads it is still receiving.
graceful_timeout = 60
# The proxy keeps no connection for its next request, and a process with as many connections as threads could keep none.
keepalive = 0

# The heartbeat file must not wait for a busy disk, and the root file system is read-only.
worker_tmp_dir = "/dev/shm"  # noqa: S108
control_socket_disable = True

# Only the socket is made under this mask: the proxy, in the same group, may connect to it, and nobody else.
umask = 0o117


def child_exit(_server: Any, worker: Any) -> None:
    """Take a dead worker's gauges out of the sum; its counters stay."""
    multiprocess.mark_process_dead(worker.pid)


def on_exit(_server: Any) -> None:
    """Remove the folder of counters that `scratch4school serve` made for this run."""
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
