"""The deploy job told on a real host: once, again, restarted, and with a release that does not start."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from shlex import quote

import pytest
import requests
from conftest import HOST, ROOT, VERIFIED, Place, Run, finish, on_host, play, serving, start, status, wait_for
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


def test_deploy_again_changes_nothing(deployed: str, login: Callable[..., requests.Session]) -> None:
    """The second run, from inside deploy/, says changed=0, restarts no container, and proves again that it works.

    A sysadmin reads all of it: at most 30 lines.
    """
    # Until a person has logged in, the run asks for that after its result.
    login("pupil101")
    before = serving()
    run = play("deploy.yml", folder=ROOT / "deploy")
    assert run.status == 0, run.output[-4000:]
    assert run.recap()["changed"] == 0
    assert serving() == before
    assert VERIFIED in run.output
    assert run.output.rstrip().endswith(VERIFIED)
    assert len(run.output.splitlines()) <= 30


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
    assert re.search(r"restart by \S+ since \S+ \S+ UTC is changing this host now", second.sentence)
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
    run = play("deploy.yml", "--extra-vars", "app_url=nowhere", "--extra-vars", "release_ready_seconds=10")
    assert run.status != 0
    assert "SCRATCH4SCHOOL_PUBLIC_URL" in run.output
    assert "SCRATCH4SCHOOL_PUBLIC_URL" in run.output.rpartition("minutes\n")[2], "the last lines say why"
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


def read_until(words: str, process: subprocess.Popen[str]) -> None:
    """Read what a playbook prints until it has printed the words; fail when it ends without them."""
    assert process.stdout
    assert any(words in line for line in iter(process.stdout.readline, ""))


def interrupt(process: subprocess.Popen[str]) -> Run:
    """Press Ctrl-C, as a person does: again, when nothing happens.

    Python drops an interrupt that arrives while Ansible forks, in a handler whose exceptions it ignores.
    """
    for _ in range(5):
        os.killpg(process.pid, signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            continue
        return Run(process.returncode, output)
    raise AssertionError("the playbook goes on after five interrupts")


def test_interrupted_change_says_what_state_the_host_is_in(deployed: str) -> None:
    """Ctrl-C in the middle: who holds the lock, what is live, what to type; and the same command ends it."""
    process = start("restart.yml")
    read_until("Health tests: ", process)
    run = interrupt(process)
    assert run.status == 99
    assert "Interrupted." in run.output
    last = run.output.rstrip().splitlines()[-1]
    assert last.startswith(f"{HOST}: the restart was interrupted in its phase “verify” and holds the host's lock.")
    assert "Run the same command again; it goes on from there." in last
    assert "The new release is live and not verified" in last
    assert "cut short" in play("status.yml").sentence
    again = play("restart.yml")
    assert again.status == 0, again.output[-4000:]
    assert play("deploy.yml").recap()["changed"] == 0


def test_interrupted_preflight_says_that_nothing_was_changed(deployed: str) -> None:
    """Before the lock there is nothing to take back."""
    process = start("deploy.yml", "--extra-vars", "app_oidc_token_url=https://192.0.2.1/token")
    read_until("/8 Preflight", process)
    assert interrupt(process).output.rstrip().endswith(f"{HOST}: nothing was changed.")


def test_status_of_a_first_deploy_that_was_cut_short_says_so(deployed: str) -> None:
    """A ledger without a release, and a journal that tells of a deploy that stopped; an empty ledger plays the host."""
    line = '{"run": "first", "verb": "deploy", "phase": "%s", "by": "anna@desk", "at": "2026-11-27T15:50:00.000Z"%s}'
    path = "/var/lib/scratch4school/change/journal.jsonl"
    begun, ended = line % ("start", ""), line % ("end", ', "outcome": "failed"')
    on_host(f"echo {quote(begun)} | sudo tee -a {path}")
    try:
        run = play("status.yml", "--extra-vars", "release_directory=/var/lib/scratch4school/none")
    finally:
        on_host(f"echo {quote(ended)} | sudo tee -a {path}")
    assert run.status == 2
    assert run.output.rstrip().splitlines()[-1] == (
        f"No release is live on {HOST} yet: the deploy by anna@desk, begun at 2026-11-27 15:50 UTC, stopped in its "
        "phase “start”, or is still under way. If it is not, run deploy.yml again; it goes on from there."
    )
