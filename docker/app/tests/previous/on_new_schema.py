"""A pytest plugin for the tests of the previous release: it upgrades their databases to this release's schema.

`test_previous_release.py` loads it into a process in which `scratch4school` is the previous release. This release's
code runs in a process of its own, from the folder NEW_SOURCE, because one interpreter cannot import both.
"""

import os
import subprocess
import sys
import tempfile
from typing import Any

import pytest

reached: set[str | None] = set()


def pytest_sessionstart() -> None:
    # Only now is the previous release's source on the path, with the modules as that release has them.
    from scratch4school import schema

    upgrade_by_previous = schema.upgrade

    def upgrade(settings: Any, *arguments: Any, **options: Any) -> None:
        upgrade_by_previous(settings, *arguments, **options)
        _upgrade_by_new(settings)
        reached.add(schema.check(settings)[0])

    schema.upgrade = upgrade


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests that start gunicorn: they are about processes, send the same statements, and take seconds each."""
    starting = [item for item in items if "start_server" in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=starting)
    items[:] = [item for item in items if item not in starting]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"The databases were at revision {', '.join(map(str, sorted(reached, key=str)))}.")


def _upgrade_by_new(settings: Any) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.environ["NEW_SOURCE"],
        "SCRATCH4SCHOOL_DATABASE_URL": settings.url.set(drivername=settings.url.get_backend_name()).render_as_string(),
    }
    with tempfile.NamedTemporaryFile("w") as password_file:
        password_file.write(settings.password.reveal() if settings.password else "")
        password_file.flush()
        environment["SCRATCH4SCHOOL_DATABASE_PASSWORD_FILE"] = password_file.name
        command = [sys.executable, "-m", "scratch4school", "db", "upgrade"]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        pytest.exit(f"The migration of the new release failed: {ended.stdout}{ended.stderr}", returncode=3)
