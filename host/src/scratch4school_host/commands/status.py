"""The command `status`."""

from __future__ import annotations

import json
from argparse import Namespace

from .. import status as screen


def status(options: Namespace) -> None:
    facts = screen.collect(options.settings, options.dead_run)
    print(json.dumps(facts) if options.json else "\n".join(screen.lines(facts)))
