"""Throw-away hosts, a class as load, helpers for scenarios, and the commands of scripts/; see lab/README.md."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(
        f"This needs Python 3.11 or newer, and {sys.executable} is {sys.version.split()[0]}. Install a newer python3."
    )
