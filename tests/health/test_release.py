"""Releases: what the ledger says is what runs."""

import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, ask_container

sys.path.append(str(ROOT / "plugins" / "module_utils"))

import release_ledger

APPLICATION = "--filter label=scratch4school.component=app"


@pytest.fixture(scope="module")
def changing(host: Any) -> bool:
    """Whether somebody changes the host at this moment, as the deploy does that these tests are a part of."""
    return host.run("test -e /var/lib/scratch4school/change/lock.json").rc == 0


def test_ledger_and_engine_agree(host: Any, containers: Any) -> None:
    """The last release that was activated, and not taken back, is the one whose container runs."""
    history = release_ledger.parse(host.check_output("cat /var/lib/scratch4school/releases/ledger.jsonl"))
    assert containers["app"]["Config"]["Labels"]["scratch4school.release"] == history.current


def test_schema_is_at_its_head(host: Any, containers: Any) -> None:
    """The schema is what the running release needs, as its own processes say."""
    answer = ask_container(
        host, "docker exec %s /opt/scratch4school/bin/python -m scratch4school.probe /readyz", containers["app"]["Id"]
    )
    assert answer.rc == 0, answer.stdout + answer.stderr


def test_pupils_are_sent_to_the_slot_that_runs(host: Any, containers: Any) -> None:
    """The link that the proxy follows names the slot of a container that runs."""
    slot = Path(host.check_output("readlink /var/lib/scratch4school/run/app/current")).name
    assert containers["app"]["Config"]["Labels"]["scratch4school.slot"] == slot
    assert containers["app"]["State"]["Running"]


def test_one_slot_rests(host: Any, changing: bool) -> None:
    """A change that was cut short has left no second application running behind."""
    running = host.check_output(f"docker ps --quiet {APPLICATION}").split()
    assert len(running) == 1 or (changing and len(running) == 2)


def test_a_spare_stands_by(host: Any, changing: bool) -> None:
    """What `systemctl restart scratch4school` would start is the release that serves."""
    releases = host.check_output(
        f"docker ps --all {APPLICATION} --format '{{{{.Label \"scratch4school.release\"}}}}'"
    ).split()
    assert changing or (len(releases) == 2 and len(set(releases)) == 1)
