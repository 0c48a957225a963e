"""What is as it should be is passed over; what was changed by hand is found by verify, and mended by provision."""

from __future__ import annotations

import re

import pytest
from conftest import HOST, Run, on_host, play

PSQL = (
    "sudo docker exec scratch4school-postgres psql --quiet --tuples-only --no-align --username postgres scratch4school"
)
RIGHTS = "ights in PostgreSQL that are lacking or go beyond on {host} are not as they must be."
APP_MAY_TRUNCATE = f"{PSQL} -c \"SELECT has_table_privilege('scratch4school_app', 'projects', 'TRUNCATE')\""

# What somebody does by hand on the server: its name, the role that owns it, the command, a command that succeeds when
# all is as it was, and what verify says of it.
DRIFT = {
    "a folder's mode": (
        "host",
        "sudo chmod 0777 /etc/scratch4school",
        "test $(stat -c %a /etc/scratch4school) = 755",
        "The file /etc/scratch4school on {host} was changed.",
    ),
    "the lock's folder": (
        "journal",
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


def ran(run: Run) -> set[str]:
    """Roles of which main ran; -v has the play say so."""
    return set(
        re.findall(r"^TASK \[(\w+) : Validating arguments against arg spec 'main'", run.output, flags=re.MULTILINE)
    )


def mended(names: list[str]) -> list[str]:
    """Those of the changes by hand that are still there."""
    return [name for name in names if not on_host(f"({DRIFT[name][2]}) >/dev/null && echo so || true")]


def test_settled_roles_are_passed_over_and_drift_is_found_and_mended(deployed: str) -> None:
    """Run by run: nothing to do; everything disturbed by hand, found by verify, and mended; nothing to do again."""
    assert play("provision.yml").status == 0
    idle = play("provision.yml", "-v")
    assert (idle.status, idle.recap()["changed"], ran(idle)) == (0, 0, set())

    for _, disturb, _, _ in DRIFT.values():
        on_host(disturb)
    found = play("verify.yml")
    assert found.status == 2
    missed = [name for name, (_, _, _, said) in DRIFT.items() if said.format(host=HOST) not in found.sentence]
    assert missed == [], found.output[-4000:]
    assert found.output.rstrip().endswith("Run deploy.yml; it sets that right.")
    mending = play("provision.yml", "-v")
    assert mending.status == 0, mending.output[-4000:]
    assert {role for role, *_ in DRIFT.values()} <= ran(mending)
    assert mended(list(DRIFT)) == []

    idle = play("provision.yml", "-v")
    assert (idle.status, idle.recap()["changed"], ran(idle)) == (0, 0, set()), HOST


@pytest.mark.long
def test_check_mode_records_nothing_as_settled(deployed: str) -> None:
    """What it would mend is still there for the run that mends."""
    assert play("provision.yml").status == 0
    for _, disturb, _, _ in DRIFT.values():
        on_host(disturb)
    foreseen = play("provision.yml", "--check")
    assert foreseen.status == 0, foreseen.output[-4000:]
    assert foreseen.recap()["changed"] > 0
    mending = play("provision.yml", "-v")
    assert mending.status == 0, mending.output[-4000:]
    assert {role for role, *_ in DRIFT.values()} <= ran(mending)
    assert mended(list(DRIFT)) == []


def test_missing_standby_is_found_and_made_again(deployed: str) -> None:
    """`systemctl restart scratch4school` would have nothing to start."""
    assert play("deploy.yml").status == 0
    on_host("sudo docker rm $(sudo docker ps --all --quiet --filter status=created --filter status=exited"
            " --filter name=scratch4school-app-)")  # fmt: skip
    found = play("verify.yml")
    assert found.status == 2
    assert "is missing. Run deploy.yml; it makes it." in found.sentence
    assert play("deploy.yml").status == 0
    on_host("sudo systemctl restart scratch4school")


@pytest.mark.long
@pytest.mark.parametrize("name", DRIFT)
def test_each_change_by_hand_alone_is_found_and_mended(deployed: str, name: str) -> None:
    """No change hides behind another one: verify names it, deploy mends it, verify passes."""
    _, disturb, _, said = DRIFT[name]
    assert play("provision.yml").status == 0
    on_host(disturb)
    found = play("verify.yml")
    assert found.status == 2
    assert said.format(host=HOST) in found.sentence
    assert play("deploy.yml").status == 0
    assert mended([name]) == []
    assert play("verify.yml").status == 0
