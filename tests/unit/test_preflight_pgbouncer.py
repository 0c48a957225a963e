"""Refusals of preflight for the role `pgbouncer`: pools that do not add up, and a wait that is too short."""

from __future__ import annotations

import pytest
from preflight import pgbouncer

SETTINGS = {
    "app_workers": 3,
    "app_threads": 4,
    "pgbouncer_max_client_conn": 300,
    "pgbouncer_pool_size": 20,
    "pgbouncer_reserve_pool_size": 4,
    "pgbouncer_query_wait_timeout": 15,
    "database_max_connections": 60,
}


def test_right_settings_are_accepted() -> None:
    """The bounds themselves, too."""
    assert list(pgbouncer.pools(SETTINGS)) == []
    assert list(pgbouncer.query_wait_timeout(SETTINGS)) == []


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("app_threads", 200, "raise max_client_conn to"),
        ("app_workers", 64, "raise max_client_conn to"),
        ("pgbouncer_max_client_conn", 100, "raise max_client_conn to 135"),
        ("pgbouncer_pool_size", 100, "raise max_connections to 115"),
        ("pgbouncer_reserve_pool_size", 40, "raise max_connections to 71"),
        ("database_max_connections", 34, "raise max_connections to 35"),
    ],
)
def test_pools_that_do_not_add_up_are_refused_with_the_sum(name: str, value: int, part: str) -> None:
    """And with the names of all settings that it is made of."""
    (said,) = pgbouncer.pools({**SETTINGS, name: value})
    assert part in said
    assert all(setting in said for setting in SETTINGS if setting != "pgbouncer_query_wait_timeout")


@pytest.mark.parametrize("seconds", [0, 14])
def test_wait_shorter_than_a_restart_is_refused(seconds: int) -> None:
    """With what to write."""
    (said,) = pgbouncer.query_wait_timeout({**SETTINGS, "pgbouncer_query_wait_timeout": seconds})
    assert said.startswith(
        f"pgbouncer_query_wait_timeout is {seconds}; write at least 15, because pupils wait up to 13 seconds"
    )
