"""The few words of the status screen: they are read when something is wrong, so they must be right then too."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

POOLS = """database|user|cl_active|cl_waiting|sv_active|sv_idle|sv_used|maxwait
pgbouncer|pgbouncer|1|0|0|0|0|0
scratch4school|scratch4school_app|12|3|20|1|2|4
scratch4school|scratch4school_monitor|1|0|0|1|0|0
(3 rows)
"""


def certificate(days: int) -> str:
    """A certificate that ends in so many days and an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "scratch.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=400))
        .not_valid_after(now + timedelta(days=days, hours=1))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize("days", [90, 0, -3])
def test_days_of_the_certificate(filters: dict[str, Callable[..., Any]], days: int) -> None:
    """Also of one that has ended, which is when one looks."""
    assert filters["certificate_days"](certificate(days)) == days


def test_a_file_that_is_no_certificate(filters: dict[str, Callable[..., Any]]) -> None:
    """Is said to be none."""
    with pytest.raises(AnsibleFilterError, match="is none"):
        filters["certificate_days"]("-----BEGIN")


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (POOLS, "13 clients active, 3 waiting; servers 20 active, 4 idle; longest wait 4 s"),
        ("\n".join(POOLS.splitlines()[:2]), "nobody has used it yet"),
        ("psql: error: connection refused", "the pooler does not answer"),
        ("", "the pooler does not answer"),
    ],
)
def test_pool_in_one_line(filters: dict[str, Callable[..., Any]], answer: str, line: str) -> None:
    """Pools of all users of the database, and none of the console's own."""
    assert filters["pool_line"](answer) == line


def test_timers_are_listed_with_their_next_run(filters: dict[str, Callable[..., Any]]) -> None:
    """In the order of their names under one heading; one that never runs again is said aloud, with what to type."""
    said = filters["timer_lines"](
        {"scratch4school-drill.timer": "", "scratch4school-backup.timer": "Wed 2026-11-25 02:15:00 CET"}
    )
    assert said == [
        "timers       scratch4school-backup: Wed 2026-11-25 02:15:00 CET",
        "             scratch4school-drill: NEVER; run deploy.yml",
    ]
    assert filters["timer_lines"]({}) == []
