"""A wrong setting that is corrected leaves the host as if it had never been wrong, and no run is green over a fault."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from conftest import HOST, ROOT, VERIFIED, on_host, play

# All that the roles leave on a host, without what differs from run to run: ids, times, and compiled Python.
FINGERPRINT = r"""
sudo sh -c '
places="/etc/scratch4school /usr/local/lib/scratch4school* /etc/systemd/system/scratch4school* /etc/docker/daemon.json"
find $places -not -path "*__pycache__*" -printf "%M %u %g %p\n" | sort
find $places -type f -not -path "*__pycache__*" -exec sha256sum {} + | sort -k 2
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

# A setting of each role, with a value that is written before the role itself fails: the next run must take it back.
# The last role of all fails with a failure command that does not work.
LATER = {"backup_failure_command": "false"}
HALF_DONE: dict[str, dict[str, Any]] = {
    "docker": {"docker_log_megabytes": 11, "proxy_image": "scratch4school/none:1"},
    "database": {"database_max_connections": 70, "database_image": "scratch4school/none:1"},
    "pgbouncer": {"pgbouncer_pool_size": 21, "pgbouncer_image": "scratch4school/none:1"},
    "proxy": {"proxy_body_megabytes": 18, "proxy_image": "scratch4school/none:1"},
    "app": {"app_secret_key": "another-key-of-more-than-thirty-two-characters", **LATER},
    "backup": {"backup_at": "*-*-* 03:33", "backup_keep_daily": 9, **LATER},
}
# All of them at once.
EVERY_ROLE: dict[str, Any] = {
    "docker_log_megabytes": 11,
    "database_max_connections": 70,
    "pgbouncer_pool_size": 21,
    "proxy_body_megabytes": 18,
    "app_secret_key": "another-key-of-more-than-thirty-two-characters",
    "backup_at": "*-*-* 03:33",
    "backup_keep_daily": 9,
    **LATER,
}


def fingerprint() -> list[str]:
    """What is on the host, line by line."""
    return on_host(FINGERPRINT).splitlines()


def given(values: dict[str, Any]) -> tuple[str, str]:
    """The arguments that set these values, of the types that they have here."""
    return ("--extra-vars", yaml.safe_dump(values, default_flow_style=True, width=10000).strip())


@pytest.fixture(scope="module")
def good(deployed: str) -> list[str]:
    """The host as a deploy without mistakes leaves it."""
    run = play("deploy.yml")
    assert run.status == 0, run.output[-4000:]
    return fingerprint()


def correct(good: list[str], verb: str = "deploy.yml") -> None:
    """Run a verb without the wrong value: the host is what it was, and then nothing is left to do."""
    run = play(verb)
    assert run.status == 0, run.output[-4000:]
    assert verb != "deploy.yml" or VERIFIED in run.output
    left = fingerprint()
    assert sorted(set(left) ^ set(good)) == []
    again = play(verb)
    assert (again.status, again.recap()["changed"]) == (0, 0), again.output[-4000:]


def test_hour_that_is_none_is_refused_and_the_timer_keeps_its_next_run(good: list[str]) -> None:
    """The first of all faults: the timer was written, the deploy failed, and without the line everything was green."""
    for hour, said in (("02:15 Uhr", "Failed to parse calendar"), ("2001-01-01 02:15", "it lies in the past")):
        run = play("deploy.yml", *given({"backup_at": hour}))
        assert (run.status, run.recap()["changed"]) == (2, 0)
        assert f"backup_at is “{hour}”" in run.sentence
        assert said in run.sentence
        assert 'Write it such as "*-*-* 02:15"' in run.sentence
    assert fingerprint() == good


def test_timer_that_a_former_version_left_broken_is_started_again(good: list[str]) -> None:
    """Right files, an active timer, and no next run: status and verify see it, deploy mends it."""
    timer = "scratch4school-backup.timer"
    file = f"/etc/systemd/system/{timer}"
    on_host(
        f"sudo cp {file} /tmp/timer && sudo sed -i 's/^OnCalendar=.*/OnCalendar=02:15 Uhr/' {file}"
        f" && sudo systemctl daemon-reload; sudo systemctl restart {timer} || true; sudo cp /tmp/timer {file}"
        " && sudo systemctl daemon-reload"
    )
    assert on_host(f"systemctl show --property=NextElapseUSecRealtime --value {timer}").strip() == ""
    assert f"Warning: {timer} has no next run; run deploy.yml." in play("status.yml").sentence
    assert (
        f"The unit {timer} on {HOST} is not enabled, is not active, or has no next run." in play("verify.yml").sentence
    )
    correct(good, "provision.yml")


def test_wrong_values_of_every_role_at_once_are_taken_back(good: list[str]) -> None:
    """Each role wrote its value before the last one failed; the corrected run begins with roles that have no record."""
    run = play("deploy.yml", *given(EVERY_ROLE))
    assert run.status == 2
    assert "backup_failure_command ended with 1." in run.output.rstrip().splitlines()[-1]
    assert fingerprint() != good
    correct(good)


@pytest.mark.long
@pytest.mark.parametrize("role", HALF_DONE)
def test_wrong_value_of_a_role_that_was_cut_short_is_taken_back(good: list[str], role: str) -> None:
    """The role failed in its own middle, after it had written the value."""
    assert play("deploy.yml", *given(HALF_DONE[role])).status == 2
    assert fingerprint() != good
    correct(good)


def test_failure_command_is_looked_for_and_proved_once(good: list[str]) -> None:
    """A program that is not on the server is refused; a new command is run once, with a test message."""
    run = play("provision.yml", "--extra-vars", "backup_failure_command='maill -s Backup admin@school.test'")
    assert (run.status, run.recap()["changed"]) == (2, 0)
    assert f"backup_failure_command runs “maill”, and there is no such program on {HOST}." in run.sentence

    told = given({"backup_failure_command": "cat >> /tmp/told"})
    on_host("sudo rm -f /tmp/told")
    first = play("provision.yml", *told)
    assert first.status == 0, first.output[-4000:]
    assert "Look whether the message arrived." in first.sentence
    assert "This is a test from" in on_host("sudo cat /tmp/told")
    assert play("provision.yml", *told).recap()["changed"] == 0
    assert on_host("sudo grep --count 'This is a test' /tmp/told").strip() == "1"
    correct(good, "provision.yml")


def test_number_from_the_command_line_is_the_number_of_the_inventory(good: list[str]) -> None:
    """`-e app_workers=3` arrives as a text; with every number given in this way there is still nothing to do."""
    numbers: dict[str, int] = {}
    for specs in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        defaults = specs.parents[1] / "defaults" / "main.yml"
        values = yaml.safe_load(defaults.read_text()) or {} if defaults.is_file() else {}
        for point in yaml.safe_load(specs.read_text())["argument_specs"].values():
            for name, option in (point.get("options") or {}).items():
                if option["type"] == "int" and name in values and not name.startswith("proxy_http"):
                    numbers[name] = values[name]
    assert len(numbers) > 25
    plain = play("deploy.yml")
    run = play("deploy.yml", *(word for name, value in numbers.items() for word in ("--extra-vars", f"{name}={value}")))
    assert (run.status, run.recap()["changed"]) == (0, 0), run.output[-4000:]
    assert run.recap()["ok"] == plain.recap()["ok"], "no role ran that had nothing to do"
