"""What is as it should be is passed over, and what was changed by hand is seen and mended."""

from __future__ import annotations

import re

from conftest import HOST, Run, on_host, play

PSQL = (
    "sudo docker exec scratch4school-postgres psql --quiet --tuples-only --no-align --username postgres scratch4school"
)

# Role -> what somebody does by hand on the server, and a command that succeeds when it is as it was.
DRIFT = {
    "host": ("sudo chmod 0777 /etc/scratch4school", "test $(stat -c %a /etc/scratch4school) = 755"),
    "journal": (
        "sudo chmod 0777 /var/lib/scratch4school/change",
        "test $(sudo stat -c %a /var/lib/scratch4school/change) = 750",
    ),
    "docker": ("sudo chmod 0644 /etc/docker/daemon.json", "test $(sudo stat -c %a /etc/docker/daemon.json) = 600"),
    "database": (
        f"{PSQL} -c 'DROP OWNED BY scratch4school_backup' -c 'DROP ROLE scratch4school_backup'",
        f"{PSQL} -c \"SELECT has_database_privilege('scratch4school_backup', 'scratch4school', 'CONNECT')"
        " AND has_table_privilege('scratch4school_backup', 'projects', 'SELECT')\" | grep t",
    ),
    "pgbouncer": (
        "sudo docker stop scratch4school-pgbouncer",
        "sudo docker ps --quiet --filter name=scratch4school-pgbouncer | grep .",
    ),
    "app": (
        "sudo rm /etc/scratch4school/app/monitor_password",
        "sudo test -s /etc/scratch4school/app/monitor_password",
    ),
    "proxy": (
        "echo '# by hand' | sudo tee -a /etc/scratch4school/proxy/nginx.conf",
        "! sudo grep 'by hand' /etc/scratch4school/proxy/nginx.conf",
    ),
    "release": ("sudo systemctl disable scratch4school", "systemctl is-enabled scratch4school"),
}


def ran(run: Run) -> set[str]:
    """Roles of which main ran."""
    return set(
        re.findall(r"^TASK \[(\w+) : Validating arguments against arg spec 'main'", run.output, flags=re.MULTILINE)
    )


def test_what_is_settled_is_passed_over_and_what_drifted_is_mended(deployed: str) -> None:
    """Run by run: nothing to do; everything disturbed by hand, and mended; nothing to do again."""
    assert play("provision.yml").status == 0
    idle = play("provision.yml")
    assert (idle.status, idle.recap()["changed"], ran(idle)) == (0, 0, set())

    for disturb, _ in DRIFT.values():
        on_host(disturb)
    foreseen = play("provision.yml", "--check")
    mending = play("provision.yml")
    assert mending.status == 0, mending.output[-4000:]
    assert set(DRIFT) <= ran(mending)
    assert [
        role for role, (_, mended) in DRIFT.items() if not on_host(f"({mended}) >/dev/null && echo so || true")
    ] == []
    # A look ahead leaves no trace: what it did not mend was not remembered as settled.
    assert foreseen.status == 0, foreseen.output[-4000:]
    assert foreseen.recap()["changed"] > 0

    idle = play("provision.yml")
    assert (idle.status, idle.recap()["changed"], ran(idle)) == (0, 0, set()), HOST
