"""Releases: what the ledger says is what runs."""

import json
from typing import Any

from conftest import ask_container


def test_ledger_and_engine_agree(host: Any, containers: Any) -> None:
    """The last release that was activated is the one whose container runs."""
    lines = host.check_output("cat /var/lib/scratch4school/releases/ledger.jsonl").splitlines()
    activated = [entry for entry in map(json.loads, lines) if entry["outcome"] == "activated"]
    assert containers["app"]["Config"]["Labels"]["scratch4school.release"] == activated[-1]["release"]


def test_schema_is_at_its_head(host: Any) -> None:
    """The schema is what the running release needs."""
    answer = ask_container(
        host, "docker exec $(docker ps --quiet --filter label=scratch4school.component=app) scratch4school db check"
    )
    assert answer.rc == 0, answer.stdout + answer.stderr


def test_proxy_points_at_the_slot_that_runs(host: Any, containers: Any) -> None:
    """Pupils are sent to the slot in which the release runs."""
    upstream = host.check_output("cat /etc/scratch4school/proxy/upstream.conf")
    assert f"/{containers['app']['Config']['Labels']['scratch4school.slot']}/" in upstream


def test_one_slot_is_empty(host: Any) -> None:
    """A deploy that was cut short has left no second application behind."""
    slots = host.check_output("docker ps --all --quiet --filter label=scratch4school.component=app").split()
    assert len(slots) == 1
