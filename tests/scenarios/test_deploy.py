"""The deploy job told on a real host: once, again, restarted, and with a release that does not start."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest
from conftest import HOST, ROOT, on_host, play, serving, start, status, wait_for

VERIFIED = "Results: 6 passed, 0 failed"


def ledger() -> list[dict]:
    """The host's ledger of releases, oldest first."""
    return [json.loads(line) for line in on_host("sudo cat /var/lib/scratch4school/releases/ledger.jsonl").splitlines()]


@pytest.fixture(scope="module", autouse=True)
def current_checkout(deployed: str) -> None:
    """What is deployed is this checkout, also where the lab was there before."""
    run = play("deploy.yml")
    assert run.status == 0, run.output[-4000:]


def test_deploy_again_changes_nothing(deployed: str) -> None:
    """The second run, from inside deploy/, says changed=0, restarts no container, and proves again that it works."""
    before = serving()
    run = play("deploy.yml", folder=ROOT / "deploy")
    assert run.status == 0, run.output[-4000:]
    assert run.recap()["changed"] == 0
    assert serving() == before
    assert VERIFIED in run.output
    assert run.output.rstrip().endswith(VERIFIED)


def test_no_secret_is_said_aloud(deployed: str) -> None:
    """Even at -vvv no secret of the installation reaches the terminal, and with it a log."""
    secrets = [path.read_text().strip() for path in (ROOT / "inventories" / "lab" / ".secrets").iterdir()]
    assert len(secrets) >= 6
    run = play("provision.yml", "-vvv", "--diff")
    assert run.status == 0, run.output[-4000:]
    assert not [number for number, secret in enumerate(secrets) if secret in run.output]


def test_check_mode_reports_no_change(deployed: str) -> None:
    """`--check --diff` works on a deployed host and finds nothing to do."""
    run = play("deploy.yml", "--check", "--diff")
    assert run.status == 0, run.output[-4000:]
    assert run.recap()["changed"] == 0


def test_forgotten_reload_is_made_up_for(deployed: str) -> None:
    """A run that died between writing a file and the reload: the next one reloads nginx, and does not restart it."""
    before = serving()
    on_host("sudo docker exec scratch4school-proxy rm /tmp/loaded")
    run = play("provision.yml")
    assert run.status == 0, run.output[-4000:]
    assert run.recap()["changed"] == 1
    assert serving() == before
    assert play("provision.yml").recap()["changed"] == 0


def test_restart_moves_to_the_other_slot(deployed: str) -> None:
    """The current release is started afresh in the free slot; database, pooler and proxy are not touched."""
    before = serving()
    run = play("restart.yml")
    assert run.status == 0, run.output[-4000:]
    after = serving()
    assert set(before) ^ set(after) == {"scratch4school-app-blue", "scratch4school-app-green"}
    assert {name: after[name] for name in before if "-app-" not in name} == {
        name: started for name, started in before.items() if "-app-" not in name
    }
    assert ledger()[-1]["verb"] == "current"
    assert ledger()[-1]["outcome"] == "activated"


def test_interrupted_swap_is_mended_by_the_next_run(deployed: str) -> None:
    """A control node that dies between the proxy's switch and the old slot's stop leaves nothing that stays stuck."""
    entries = len(ledger())
    dying = start("restart.yml", "--extra-vars", "release_drain_seconds=300")
    try:
        wait_for(lambda: len(ledger()) > entries, seconds=120)
    finally:
        os.killpg(dying.pid, signal.SIGKILL)
        dying.communicate()
    assert {"scratch4school-app-blue", "scratch4school-app-green"} <= set(serving())
    run = play("deploy.yml")
    assert run.status == 0, run.output[-4000:]
    assert "An earlier run was interrupted" in run.output
    assert len([name for name in serving() if "-app-" in name]) == 1
    assert status() == 200


def test_release_that_does_not_start_leaves_the_former_one_serving(deployed: str) -> None:
    """The deploy fails, says why, and the pupils notice nothing."""
    before = serving()
    run = play("deploy.yml", "--extra-vars", "app_oidc_issuer=nowhere", "--extra-vars", "app_ready_seconds=10")
    assert run.status != 0
    assert "SCRATCH4SCHOOL_OIDC_ISSUER" in run.output
    assert "serves on" in run.sentence
    assert serving() == before
    assert status() == 200
    assert ledger()[-1]["outcome"] == "failed"


def test_wish_for_an_unknown_release_is_refused(deployed: str) -> None:
    """What there is to choose from stands in the refusal."""
    run = play("restart.yml", "--extra-vars", "release_wanted=0123456789ab")
    assert run.status != 0
    activated = [entry["release"] for entry in ledger() if entry["outcome"] == "activated"]
    assert f"{activated[-1]} (current)" in run.sentence
    assert run.recap()["changed"] == 0


def test_unit_is_the_handle_on_the_whole(deployed: str) -> None:
    """`systemctl stop` stops everything, `start` and `restart` bring everything back."""
    on_host("sudo systemctl stop scratch4school")
    assert serving() == {}
    assert status() != 200
    on_host("sudo systemctl start scratch4school")
    on_host("sudo systemctl restart scratch4school")
    assert len(serving()) == 4
    run = play("verify.yml")
    assert run.status == 0, run.output[-4000:]
    assert run.recap(HOST)["changed"] == 0


def test_reboot_brings_everything_back(deployed: str) -> None:
    """After the host's restart the school is up without anybody's doing."""
    subprocess.run(["docker", "restart", HOST], check=True, capture_output=True)
    wait_for(lambda: status() == 200, seconds=120)
    assert len(serving()) == 4
