"""A corrected setting leaves the host as if it had never been wrong, and no run succeeds over a fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import yaml

from scratch4school_lab.checkout import ROOT
from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.lab_hosts import on_host
from scratch4school_lab.scenarios.playbooks import VERIFIED, play
from scratch4school_lab.scenarios.worker import HOST

# Everything that roles leave on a host, except what differs from run to run: ids and times.
FINGERPRINT = r"""
sudo sh -c '
places="/etc/scratch4school /usr/local/sbin/scratch4schoolctl /etc/systemd/system/scratch4school*"
places="$places /etc/docker/daemon.json"
find $places -printf "%M %u %g %p\n" | sort
find $places -type f -exec sha256sum {} + | sort -k 2
states=LoadState,ActiveState,UnitFileState,NeedDaemonReload,TimersCalendar
for unit in scratch4school scratch4school-backup.timer scratch4school-backup-prune.timer \
    scratch4school-backup-check.timer scratch4school-backup-drill.timer; do
  systemctl show --property=$states $unit | sed "s/next_elapse=.*/next/"
  test $unit = scratch4school || systemctl show --property=NextElapseUSecRealtime $unit | grep -c 20
done
docker inspect --format "{{.Name}} {{.State.Status}} {{.Config.Image}} {{.Config.User}} {{.Config.Cmd}} {{.Mounts}}" \
  scratch4school-postgres scratch4school-pgbouncer scratch4school-proxy | tr " " "\n" | sort
docker exec scratch4school-postgres psql --username postgres scratch4school --no-align \
  -c "SELECT rolname, rolsuper, rolcreaterole, rolpassword FROM pg_authid ORDER BY 1" \
  -c "SELECT rolname, rolconfig FROM pg_roles ORDER BY 1" -c "SHOW max_connections" -c "SHOW shared_buffers"
docker exec scratch4school-pgbouncer \
  psql --host=/tmp --port=6432 --username=pgbouncer pgbouncer --no-align -c "SHOW CONFIG"
'"""

# For each role a value that it writes before it fails; the next run must revert it. The last role fails because its
# failure command does not work.
LATER = {"backup_failure_command": "false"}
# As rare as the schedules of the lab: a daily timer could start a backup, which holds the lock, during this test.
WRONG_SCHEDULE = "*-01-01 13:00"
HALF_DONE: dict[str, dict[str, Any]] = {
    "docker": {"docker_log_megabytes": 11, "proxy_image": "scratch4school/none:1"},
    "database": {"database_max_connections": 70, "database_image": "scratch4school/none:1"},
    "pgbouncer": {"pgbouncer_pool_size": 21, "pgbouncer_image": "scratch4school/none:1"},
    "proxy": {"proxy_body_megabytes": 18, "proxy_image": "scratch4school/none:1"},
    "app": {"app_secret_key": "another-key-of-more-than-thirty-two-characters", **LATER},
    "backup": {"backup_schedule": WRONG_SCHEDULE, "backup_keep_daily": 9, **LATER},
}
# A wrong value for every role; the last role fails.
EVERY_ROLE: dict[str, Any] = {
    "docker_log_megabytes": 11,
    "database_max_connections": 70,
    "pgbouncer_pool_size": 21,
    "proxy_body_megabytes": 18,
    "app_secret_key": "another-key-of-more-than-thirty-two-characters",
    "backup_schedule": WRONG_SCHEDULE,
    "backup_keep_daily": 9,
    **LATER,
}


def fingerprint() -> list[str]:
    """The state of the host, line by line."""
    return on_host(FINGERPRINT).splitlines()


def extra_vars(values: dict[str, Any]) -> tuple[str, str]:
    """The arguments that set these values, with their types."""
    return ("--extra-vars", yaml.safe_dump(values, default_flow_style=True, width=10000).strip())


def numbers_as_text() -> list[str]:
    """The arguments that set every number to its own value, as a person types it; Ansible takes it as text."""
    numbers: dict[str, int] = {}
    wiring: dict[str, Any] = {}
    for file in sorted(ROOT.glob("deploy/group_vars/all/*.yml")):
        wiring |= yaml.safe_load(file.read_text())
    for specs in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        defaults = specs.parents[1] / "defaults" / "main.yml"
        values = {**wiring, **(yaml.safe_load(defaults.read_text()) or {} if defaults.is_file() else {})}
        for point in yaml.safe_load(specs.read_text())["argument_specs"].values():
            for name, option in (point.get("options") or {}).items():
                if option["type"] == "int" and isinstance(values.get(name), int) and not name.startswith("proxy_http"):
                    numbers[name] = values[name]
    assert len(numbers) > 25
    return [word for name, value in numbers.items() for word in ("--extra-vars", f"{name}={value}")]


@pytest.fixture(scope="module")
def good(deployed: Host) -> list[str]:
    """The state of the host after a deploy without mistakes."""
    run = play("deploy.yml")
    assert run.status == 0, run.output[-4000:]
    return fingerprint()


def correct(good: list[str], playbook: str = "deploy.yml", again_with: Sequence[str] = ()) -> None:
    """Run a playbook without the wrong value: the host is as before, and a second run changes nothing."""
    run = play(playbook)
    assert run.status == 0, run.output[-4000:]
    assert playbook != "deploy.yml" or VERIFIED in run.output
    left = fingerprint()
    assert sorted(set(left) ^ set(good)) == []
    again = play(playbook, *again_with)
    assert (again.status, again.recap()["changed"]) == (0, 0), again.output[-4000:]


def test_invalid_schedule_is_refused_and_timer_keeps_next_run(good: list[str]) -> None:
    """The refusal names the value; nothing on the host is changed."""
    for schedule, reason in (("02:15 Uhr", "Failed to parse calendar"), ("2001-01-01 02:15", "it lies in the past")):
        run = play("deploy.yml", *extra_vars({"backup_schedule": schedule}))
        assert (run.status, run.recap()["changed"]) == (2, 0)
        assert f"backup_schedule is “{schedule}”" in run.one_line
        assert reason in run.one_line
        assert 'Write it such as "*-*-* 02:15"' in run.one_line
    assert fingerprint() == good


@pytest.mark.long
def test_timer_without_next_run_is_started_again(good: list[str]) -> None:
    """The files are right and the timer is active: status and verify report it, and provision starts the timer."""
    timer = "scratch4school-backup.timer"
    file = f"/etc/systemd/system/{timer}"
    on_host(
        f"sudo cp {file} /tmp/timer && sudo sed -i 's/^OnCalendar=.*/OnCalendar=02:15 Uhr/' {file}"
        f" && sudo systemctl daemon-reload; sudo systemctl restart {timer} || true; sudo cp /tmp/timer {file}"
        " && sudo systemctl daemon-reload"
    )
    assert on_host(f"systemctl show --property=NextElapseUSecRealtime --value {timer}").strip() == ""
    assert f"Warning: {timer} has no next run; run deploy.yml." in play("status.yml").one_line
    assert (
        f"The unit {timer} on {HOST.name} is not enabled, is not active, or has no next run."
        in play("verify.yml").one_line
    )
    correct(good, "provision.yml")


def test_wrong_values_of_all_roles_are_reverted(good: list[str]) -> None:
    """Each role has written its value before the last one fails, so the next run finds no recorded state.

    The deploy that changes nothing has every number as text.
    """
    run = play("deploy.yml", *extra_vars(EVERY_ROLE))
    assert run.status == 2
    assert "backup_failure_command ended with 1." in run.output.rstrip().splitlines()[-1]
    assert fingerprint() != good
    correct(good, again_with=numbers_as_text())


@pytest.mark.long
@pytest.mark.parametrize("role", HALF_DONE)
def test_wrong_value_of_failed_role_is_reverted(good: list[str], role: str) -> None:
    """The role fails after it has written the value."""
    assert play("deploy.yml", *extra_vars(HALF_DONE[role])).status == 2
    assert fingerprint() != good
    correct(good)


@pytest.mark.long
def test_failure_command_is_checked_and_run_once(good: list[str]) -> None:
    """A missing program is refused; a new command is run once, with a test message."""
    run = play("provision.yml", "--extra-vars", "backup_failure_command='maill -s Backup admin@school.test'")
    assert (run.status, run.recap()["changed"]) == (2, 0)
    assert f"backup_failure_command runs “maill”, and there is no such program on {HOST.name}." in run.one_line

    command = extra_vars({"backup_failure_command": "cat >> /tmp/told"})
    on_host("sudo rm -f /tmp/told")
    first = play("provision.yml", *command)
    assert first.status == 0, first.output[-4000:]
    assert "Check that the message arrived." in first.one_line
    assert "This is a test from" in on_host("sudo cat /tmp/told")
    assert play("provision.yml", *command).recap()["changed"] == 0
    assert on_host("sudo grep --count 'This is a test' /tmp/told").strip() == "1"
    correct(good, "provision.yml")


@pytest.mark.long
def test_number_from_command_line_changes_nothing(good: list[str]) -> None:
    """`-e app_workers=3` is text; with every number set in this way a deploy still changes nothing."""
    plain = play("deploy.yml")
    run = play("deploy.yml", *numbers_as_text())
    assert (run.status, run.recap()["changed"]) == (0, 0), run.output[-4000:]
    assert run.recap()["ok"] == plain.recap()["ok"], "a role ran that had nothing to do"
