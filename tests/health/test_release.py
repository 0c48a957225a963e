"""Releases: the live release is the ledger's current one, and it has a standby."""

import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, ask_container

sys.path.append(str(ROOT / "plugins" / "module_utils"))

from scratch4school_host import ledger

APPLICATION = "--filter label=scratch4school.component=app"


@pytest.fixture(scope="module")
def changing(host: Any) -> bool:
    """Whether a change holds the host's lock, such as the deploy that runs these tests."""
    return host.run("test -e /var/lib/scratch4school/change/lock.json").rc == 0


def test_live_release_is_the_ledgers_current_one(host: Any, containers: Any) -> None:
    """The last one that was activated and not reverted."""
    history = ledger.parse(host.check_output("cat /var/lib/scratch4school/releases/ledger.jsonl"))
    assert containers["app"]["Config"]["Labels"]["scratch4school.release"] == history.current


def test_schema_is_at_its_head(host: Any, containers: Any) -> None:
    """The live release reports that the schema is the one that it needs."""
    answer = ask_container(
        host, "docker exec %s /opt/scratch4school/bin/python -m scratch4school.probe /readyz", containers["app"]["Id"]
    )
    assert answer.rc == 0, answer.stdout + answer.stderr


def test_link_of_the_proxy_leads_to_the_running_slot(host: Any, containers: Any) -> None:
    """The symbolic link names the slot of a running container."""
    slot = Path(host.check_output("readlink /var/lib/scratch4school/run/app/current")).name
    assert containers["app"]["Config"]["Labels"]["scratch4school.slot"] == slot
    assert containers["app"]["State"]["Running"]


def test_only_one_slot_runs_outside_a_change(host: Any, changing: bool) -> None:
    """An interrupted change has left no second slot running."""
    running = host.check_output(f"docker ps --quiet {APPLICATION}").split()
    assert len(running) == 1 or (changing and len(running) == 2)


def test_standby_has_the_live_release(host: Any, changing: bool) -> None:
    """`systemctl restart scratch4school` starts it."""
    releases = host.check_output(
        f"docker ps --all {APPLICATION} --format '{{{{.Label \"scratch4school.release\"}}}}'"
    ).split()
    assert changing or (len(releases) == 2 and len(set(releases)) == 1)
