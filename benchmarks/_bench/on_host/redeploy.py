#!/usr/bin/python3
"""Runs the application in another way than it was deployed, for a measurement; runs on the host, as root.

The link `current` points at a second container of the same image, with other numbers or on another database. `down`
points the link at the slot again. `floors` starts the same nginx before a gunicorn that only answers. Standard library
only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

RUN = Path("/var/lib/scratch4school/run/app")
CURRENT = RUN / "current"
# Beside the data, so that both databases are on the same disk.
FOLDER = Path("/var/lib/scratch4school/benchmark")
PREVIOUS = FOLDER / "previous"
LABEL = "scratch4school.benchmark"
APP, FLOOR_APP, FLOOR_PROXY = "scratch4school-bench-app", "scratch4school-bench-bare", "scratch4school-bench-nginx"
DIRECT = "postgresql://scratch4school_app@scratch4school-postgres:5432/scratch4school"
SQLITE = "sqlite:////var/lib/scratch4school/database/main.db"
UID, GID = 10001, 10000
READY_SECONDS = 300

BARE = '''
from functools import cache
from pathlib import Path


@cache
def body(name):
    return Path("/srv/bare", name).read_bytes()


def application(environ, start_response):
    """Reads the request, and answers with a recorded body, or with the file that nginx is to send."""
    asked = dict(pair.split("=", 1) for pair in environ["QUERY_STRING"].split("&") if pair)
    while environ["wsgi.input"].read(65536):
        pass
    headers = [("Content-Type", "application/json")]
    if "file" in asked:
        headers = [("Content-Type", "application/octet-stream"), ("X-Accel-Redirect", asked["file"])]
    start_response("200 OK", headers)
    return [body(asked["body"]) if "body" in asked else b""]
'''


def run(*command: str) -> str:
    """Return the output of a command, which has to succeed."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def inspect(name: str) -> dict[str, Any]:
    """Return the engine's description of a container."""
    return dict(json.loads(run("docker", "inspect", name))[0])


def folder(path: Path, mode: int = 0o750) -> Path:
    """Make a folder of the application's user."""
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, UID, GID)
    path.chmod(mode)
    return path


def options_of(container: dict[str, Any], env: dict[str, str], mounts: dict[str, str]) -> list[str]:
    """The options of `docker run` for a container like this one; `mounts` replaces the source of some targets."""
    host = container["HostConfig"]
    variables = dict(pair.split("=", 1) for pair in container["Config"]["Env"]) | env
    found = {mount["Target"]: (mount["Source"], mount.get("ReadOnly", False)) for mount in host["Mounts"]}
    found |= {target: (source, False) for target, source in mounts.items()}
    options = ["--label", LABEL, "--network", host["NetworkMode"], "--user", container["Config"]["User"], "--read-only"]
    if host["Memory"]:
        options += ["--memory", str(host["Memory"]), "--memory-swap", str(host["MemorySwap"])]
    options += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges:true", "--tmpfs", "/tmp:mode=1777"]
    options += ["--log-opt", "max-size=10m", "--log-opt", "max-file=3"]
    for name, value in variables.items():
        options += ["--env", f"{name}={value}"]
    for target, (source, read_only) in found.items():
        options += ["--mount", f"type=bind,source={source},target={target}{',readonly' if read_only else ''}"]
    return options


def point_at(name: str) -> None:
    """Point the proxy at a slot for its next connections."""
    draft = RUN / "current.benchmark"
    draft.unlink(missing_ok=True)
    draft.symlink_to(name)
    draft.rename(CURRENT)


def down() -> None:
    """Point the proxy at the deployed slot again, and remove the containers of the measurement."""
    if PREVIOUS.exists():
        point_at(PREVIOUS.read_text())
        PREVIOUS.unlink()
    left = run("docker", "ps", "--all", "--quiet", "--filter", f"label={LABEL}").split()
    if left:
        run("docker", "rm", "--force", "--volumes", *left)
    for name in ("bench", "floor"):
        shutil.rmtree(RUN / name, ignore_errors=True)


def up(options: argparse.Namespace) -> None:
    """Send the requests to a container with these numbers, on that database."""
    down()
    slot = os.readlink(CURRENT)
    container = inspect(f"scratch4school-app-{slot}")
    env = {"SCRATCH4SCHOOL_WORKERS": str(options.workers), "SCRATCH4SCHOOL_THREADS": str(options.threads)}
    if options.gunicorn:
        env["GUNICORN_CMD_ARGS"] = options.gunicorn
    folder(FOLDER, 0o755)
    mounts = {"/run/scratch4school": str(folder(RUN / "bench"))}
    if options.database == "direct":
        env["SCRATCH4SCHOOL_DATABASE_URL"] = DIRECT
    if options.database == "sqlite":
        env["SCRATCH4SCHOOL_DATABASE_URL"] = SQLITE
        mounts["/var/lib/scratch4school/database"] = str(folder(FOLDER / "database"))
        make = ["docker", "run", "--rm", *options_of(container, env, mounts), container["Config"]["Image"]]
        run(*make, "db", "upgrade")
    like = options_of(container, env, mounts)
    run("docker", "run", "--detach", "--name", APP, *like, container["Config"]["Image"], "serve")
    wait(APP)
    PREVIOUS.write_text(slot)
    point_at("bench")


def wait(name: str) -> None:
    """Wait until the container is ready."""
    end = time.monotonic() + READY_SECONDS
    probe = ["docker", "exec", name, "/opt/scratch4school/bin/python", "-m", "scratch4school.probe", "/readyz"]
    while subprocess.run(probe, capture_output=True, check=False).returncode:
        if time.monotonic() > end:
            raise SystemExit(f"{name} did not become ready: {run('docker', 'logs', '--tail', '20', name)}")
        time.sleep(0.2)


def floors(options: argparse.Namespace) -> None:
    """Start the floors: nginx as it is configured, on port 9443, before a gunicorn that only answers."""
    left = run("docker", "ps", "--all", "--quiet", "--filter", f"name={FLOOR_APP}", "--filter", f"name={FLOOR_PROXY}")
    if left:
        run("docker", "rm", "--force", *left.split())
    slot = os.readlink(CURRENT) if not PREVIOUS.exists() else PREVIOUS.read_text()
    app, proxy = inspect(f"scratch4school-app-{slot}"), inspect("scratch4school-proxy")
    code = folder(FOLDER / "bare", 0o755)
    (code / "bare.py").write_text(BARE)
    for name, content in json.loads(options.bodies).items():
        (code / name).write_text(content)
    mounts = {"/run/scratch4school": str(folder(RUN / "floor")), "/srv/bare": str(code)}
    run(
        *("docker", "run", "--detach", "--name", FLOOR_APP, *options_of(app, {}, mounts)),
        *("--entrypoint", "/opt/scratch4school/bin/python", app["Config"]["Image"], "-m", "gunicorn"),
        *("--worker-class", "gthread", "--workers", str(options.workers), "--threads", str(options.threads)),
        # As `scratch4school serve` does, so that the floor has the same settings.
        *("--worker-connections", str(options.threads), "--keep-alive", "0"),
        *("--bind", "unix:/run/scratch4school/gunicorn.sock", "--umask", "0117", "--chdir", "/srv/bare"),
        *("--worker-tmp-dir", "/dev/shm", "bare:application"),
    )
    config = folder(FOLDER / "nginx", 0o755)
    text = Path("/etc/scratch4school/proxy/nginx.conf").read_text()
    text = text.replace("/run/scratch4school/current/", "/run/scratch4school/floor/")
    pages = "        location / {\n            try_files"
    if pages not in text:
        raise SystemExit("nginx.conf has changed; adapt the floor to it.")
    static = f"        location /static/ {{ alias /srv/uploads/; }}\n{pages}"
    (config / "nginx.conf").write_text(text.replace(pages, static))
    cache = folder(FOLDER / "cache", 0o777)
    mounts = {"/etc/benchmark": str(config), "/var/cache/nginx": str(cache)}
    run(
        *("docker", "run", "--detach", "--name", FLOOR_PROXY, *options_of(proxy, {}, mounts)),
        *("--publish", "9443:8443", proxy["Config"]["Image"]),
        *("nginx", "-c", "/etc/benchmark/nginx.conf", "-e", "/dev/stderr", "-g", "daemon off;"),
    )


def main() -> None:
    """Run the step that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=["up", "floors", "down"])
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--gunicorn", default="", help="more of gunicorn's options")
    parser.add_argument("--bodies", default="{}", help="JSON: name to body of an answer of the floor")
    parser.add_argument("--database", choices=["pooled", "direct", "sqlite"], default="pooled")
    options = parser.parse_args()
    if options.step == "down":
        # A host that was never deployed has nothing to remove, and may have no engine to ask.
        if RUN.exists():
            down()
        shutil.rmtree(FOLDER, ignore_errors=True)
    else:
        {"up": up, "floors": floors}[options.step](options)


if __name__ == "__main__":
    main()
