"""The deploy job told on a real host: once, again, restarted, and with a release that does not start."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from conftest import HOST, ROOT, VERIFIED, Place, finish, on_host, play, serving, start, status, wait_for
from faults import journal


def ledger() -> list[dict]:
    """The host's ledger of releases, oldest first."""
    return [json.loads(line) for line in on_host("sudo cat /var/lib/scratch4school/releases/ledger.jsonl").splitlines()]


def assert_moved(before: dict[str, str], after: dict[str, str]) -> None:
    """The application serves from the other slot; database, pooler and proxy were not touched."""
    assert set(before) ^ set(after) == {"scratch4school-app-blue", "scratch4school-app-green"}
    assert {name: after[name] for name in before if "-app-" not in name} == {
        name: started for name, started in before.items() if "-app-" not in name
    }


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


def test_restart_moves_to_the_other_slot_and_nobody_changes_anything_meanwhile(deployed: str) -> None:
    """The current release is started afresh in the free slot; database, pooler and proxy are not touched.

    A second run is refused with who holds the lock and since when, and the first one does not notice.
    """
    before = serving()
    with journal(Place(HOST, deployed)) as lines:
        first = start("restart.yml")
        lines.wait_for("start", first)
        second = play("deploy.yml")
    assert second.status != 0
    assert re.search(r"restart by \S+ since \S+ is changing this host now", second.sentence)
    assert "unlock.yml" in second.sentence
    assert second.recap()["changed"] == 0
    run = finish(first)
    assert run.status == 0, run.output[-4000:]
    assert_moved(before, serving())
    assert [(entry["verb"], entry["outcome"]) for entry in ledger()[-2:]] == [
        ("restart", "activated"),
        ("restart", "verified"),
    ]


def test_release_that_does_not_start_leaves_the_former_one_serving(deployed: str) -> None:
    """The deploy fails, says why, and the pupils notice nothing."""
    before = serving()
    run = play("deploy.yml", "--extra-vars", "app_oidc_issuer=nowhere", "--extra-vars", "release_ready_seconds=10")
    assert run.status != 0
    assert "SCRATCH4SCHOOL_OIDC_ISSUER" in run.output
    assert "serves on" in run.sentence
    assert serving() == before
    assert status() == 200
    assert ledger()[-1]["outcome"] == "failed"


def test_wish_for_an_unknown_release_is_refused(deployed: str) -> None:
    """What there is to choose from stands in the refusal."""
    run = play("rollback.yml", "--extra-vars", "release=0123456789ab")
    assert run.status != 0
    activated = [entry["release"] for entry in ledger() if entry["outcome"] == "activated"]
    assert f"{activated[-1]} (current)" in run.sentence
    assert run.recap()["changed"] == 0


def test_unit_is_the_handle_on_the_whole(deployed: str) -> None:
    """`systemctl stop` stops everything, `start` brings everything back, `restart` replaces the application alone."""
    on_host("sudo systemctl stop scratch4school")
    assert serving() == {}
    assert status() != 200
    on_host("sudo systemctl start scratch4school")
    before = serving()
    assert len(before) == 4
    on_host("sudo systemctl restart scratch4school")
    assert_moved(before, serving())
    run = play("verify.yml")
    assert run.status == 0, run.output[-4000:]
    assert run.recap(HOST)["changed"] == 0


def test_reboot_brings_everything_back(deployed: str) -> None:
    """After the host's restart the school is up without anybody's doing, in the slot where it was."""
    before = serving()
    subprocess.run(["docker", "restart", HOST], check=True, capture_output=True)
    wait_for(lambda: status() == 200, seconds=120)
    assert set(serving()) == set(before)
