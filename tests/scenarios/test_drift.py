"""Unchanged roles are skipped; a change by hand is found by verify.yml and corrected by provision.yml."""

from __future__ import annotations

import re

import pytest

from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.lab_hosts import on_host
from scratch4school_lab.scenarios.playbooks import Run, play
from scratch4school_lab.scenarios.worker import HOST

PSQL = (
    "sudo docker exec scratch4school-postgres psql --quiet --tuples-only --no-align --username postgres scratch4school"
)
RIGHTS = "ights in PostgreSQL that are lacking or go beyond on {host} are not as they must be."
APP_MAY_TRUNCATE = f"{PSQL} -c \"SELECT has_table_privilege('scratch4school_app', 'projects', 'TRUNCATE')\""

# Changes by hand: name, role that owns the thing, command, a command that succeeds after the correction, and
# the message of verify.yml.
DRIFT = {
    "a folder's mode": (
        "host",
        "sudo chmod 0777 /etc/scratch4school",
        "test $(stat -c %a /etc/scratch4school) = 755",
        "The file /etc/scratch4school on {host} was changed.",
    ),
    "the lock's folder": (
        "lock",
        "sudo chmod 0777 /var/lib/scratch4school/change",
        "test $(sudo stat -c %a /var/lib/scratch4school/change) = 750",
        "The file /var/lib/scratch4school/change on {host} was changed.",
    ),
    "the engine's settings": (
        "docker",
        "sudo chmod 0644 /etc/docker/daemon.json",
        "test $(sudo stat -c %a /etc/docker/daemon.json) = 600",
        "The file /etc/docker/daemon.json on {host} was changed.",
    ),
    "a lost login": (
        "database",
        f"{PSQL} -c 'DROP OWNED BY scratch4school_backup' -c 'DROP ROLE scratch4school_backup'",
        f"{PSQL} -c \"SELECT has_database_privilege('scratch4school_backup', 'scratch4school', 'CONNECT')"
        " AND has_table_privilege('scratch4school_backup', 'projects', 'SELECT')\" | grep t",
        RIGHTS,
    ),
    "rights on a table that go beyond": (
        "database",
        f"{PSQL} -c 'GRANT TRUNCATE ON projects TO scratch4school_app' -c 'GRANT UPDATE (name) ON projects TO PUBLIC'",
        f"{APP_MAY_TRUNCATE} | grep f"
        f" && ! {PSQL} -c \"SELECT attacl FROM pg_attribute WHERE attrelid = 'projects'::regclass\" | grep .",
        RIGHTS,
    ),
    "a role that may change the schema": (
        "database",
        f"{PSQL} -c 'GRANT scratch4school_owner TO scratch4school_app' -c 'ALTER ROLE scratch4school_app CREATEROLE'"
        " -c 'GRANT CREATE ON SCHEMA public TO scratch4school_app' -c 'ALTER TABLE assets OWNER TO scratch4school_app'",
        f"{PSQL} -c \"SELECT NOT pg_has_role('scratch4school_app', 'scratch4school_owner', 'MEMBER')"
        " AND NOT has_schema_privilege('scratch4school_app', 'public', 'CREATE') AND NOT rolcreaterole"
        " AND tableowner = 'scratch4school_owner' FROM pg_roles, pg_tables"
        " WHERE rolname = 'scratch4school_app' AND tablename = 'assets'\" | grep t",
        RIGHTS,
    ),
    "a stopped container": (
        "pgbouncer",
        "sudo docker stop scratch4school-pgbouncer",
        "sudo docker ps --quiet --filter name=scratch4school-pgbouncer | grep .",
        "The container scratch4school-pgbouncer on {host} is missing, is not running, or is unhealthy.",
    ),
    "a removed container": (
        "proxy",
        "sudo docker rm --force scratch4school-proxy",
        "sudo docker ps --quiet --filter name=scratch4school-proxy | grep .",
        "The container scratch4school-proxy on {host} is missing, is not running, or is unhealthy.",
    ),
    "a deleted secret": (
        "app",
        "sudo rm /etc/scratch4school/app/monitor_password",
        "sudo test -s /etc/scratch4school/app/monitor_password",
        "The file /etc/scratch4school/app/monitor_password on {host} is missing.",
    ),
    "an edited file": (
        "proxy",
        "echo '# by hand' | sudo tee -a /etc/scratch4school/proxy/nginx.conf",
        "! sudo grep 'by hand' /etc/scratch4school/proxy/nginx.conf",
        "The file /etc/scratch4school/proxy/nginx.conf on {host} was changed.",
    ),
    "a disabled unit": (
        "release",
        "sudo systemctl disable scratch4school",
        "systemctl is-enabled scratch4school",
        "The unit scratch4school on {host} is not enabled, is not active, or has no next run.",
    ),
    "a timer that is off": (
        "backup",
        "sudo systemctl disable --now scratch4school-backup-drill.timer",
        "systemctl is-active scratch4school-backup-drill.timer",
        "The unit scratch4school-backup-drill.timer on {host} is not enabled, is not active, or has no next run.",
    ),
    "a timer without a next run": (
        "backup",
        "sudo sed -i 's/^OnCalendar=.*/OnCalendar=2001-01-01/' /etc/systemd/system/scratch4school-backup.timer"
        " && sudo systemctl daemon-reload && sudo systemctl restart scratch4school-backup.timer",
        "systemctl show --property=NextElapseUSecRealtime --value scratch4school-backup.timer | grep 20",
        "The unit scratch4school-backup.timer on {host} is not enabled, is not active, or has no next run.",
    ),
    "an edited service of a timer": (
        "backup",
        "echo '# by hand' | sudo tee -a /etc/systemd/system/scratch4school-backup-check.service",
        "! grep 'by hand' /etc/systemd/system/scratch4school-backup-check.service",
        "The unit file scratch4school-backup-check.service on {host} was changed.",
    ),
}


def roles_run(run: Run) -> set[str]:
    """The roles whose tasks ran, by the output of -v."""
    return set(
        re.findall(r"^TASK \[(\w+) : Validating arguments against arg spec 'main'", run.output, flags=re.MULTILINE)
    )


def remaining(names: list[str]) -> list[str]:
    """The changes by hand that are not corrected."""
    return [name for name in names if not on_host(f"({DRIFT[name][2]}) >/dev/null && echo so || true")]


def test_unchanged_roles_are_skipped_and_drift_is_found_and_corrected(deployed: Host) -> None:
    """Nothing to do; then all changes by hand at once are found and corrected; then nothing to do again."""
    assert play("provision.yml").status == 0
    idle = play("provision.yml", "-v")
    assert (idle.status, idle.recap()["changed"], roles_run(idle)) == (0, 0, set())

    for _, change, _, _ in DRIFT.values():
        on_host(change)
    found = play("verify.yml")
    assert found.status == 2
    missed = [
        name for name, (_, _, _, message) in DRIFT.items() if message.format(host=HOST.name) not in found.one_line
    ]
    assert missed == [], found.output[-4000:]
    assert found.output.rstrip().endswith("Run deploy.yml, which corrects this.")
    correction = play("provision.yml", "-v")
    assert correction.status == 0, correction.output[-4000:]
    assert {role for role, *_ in DRIFT.values()} <= roles_run(correction)
    assert remaining(list(DRIFT)) == []

    idle = play("provision.yml", "-v")
    assert (idle.status, idle.recap()["changed"], roles_run(idle)) == (0, 0, set())


@pytest.mark.long
def test_check_mode_leaves_drift_for_next_run(deployed: Host) -> None:
    """`--check` reports changes and records nothing, so that the next run makes them."""
    assert play("provision.yml").status == 0
    for _, change, _, _ in DRIFT.values():
        on_host(change)
    checked = play("provision.yml", "--check")
    assert checked.status == 0, checked.output[-4000:]
    assert checked.recap()["changed"] > 0
    correction = play("provision.yml", "-v")
    assert correction.status == 0, correction.output[-4000:]
    assert {role for role, *_ in DRIFT.values()} <= roles_run(correction)
    assert remaining(list(DRIFT)) == []


def test_missing_standby_is_found_and_created(deployed: Host) -> None:
    """Without it `systemctl restart scratch4school` has nothing to start."""
    assert play("deploy.yml").status == 0
    on_host("sudo docker rm $(sudo docker ps --all --quiet --filter status=created --filter status=exited"
            " --filter name=scratch4school-app-)")  # fmt: skip
    found = play("verify.yml")
    assert found.status == 2
    assert "is missing. Run deploy.yml to create it." in found.one_line
    assert play("deploy.yml").status == 0
    on_host("sudo systemctl restart scratch4school")


@pytest.mark.long
@pytest.mark.parametrize("name", DRIFT)
def test_single_change_by_hand_is_found_and_corrected(deployed: Host, name: str) -> None:
    """Verify names it, deploy corrects it, and verify passes."""
    _, change, _, message = DRIFT[name]
    assert play("provision.yml").status == 0
    on_host(change)
    found = play("verify.yml")
    assert found.status == 2
    assert message.format(host=HOST.name) in found.one_line
    assert play("deploy.yml").status == 0
    assert remaining([name]) == []
    assert play("verify.yml").status == 0
