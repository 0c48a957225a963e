"""Refusals of adopt.yml and move-to-postgres.yml after scratch4schoolctl reported the state of the host."""

from __future__ import annotations

from typing import Any

import pytest
from preflight import adoption

REQUEST = {"step": "inspect", "undo": False, "stopped": False, "compose": ""}
SOURCE = {"database": "/srv/main.db", "uploads": "/srv/uploads", "note": ""}
DONE = {"step": "done", "done": "2026-11-24 16:50 UTC"}


def import_refusals(
    request: dict[str, Any] | None = None, state: dict[str, Any] | None = None, source: dict[str, Any] | None = None
) -> list[str]:
    """Return the refusals of an import."""
    return adoption.import_refusals({**REQUEST, **(request or {})}, state or {}, {**SOURCE, **(source or {})}, "server")


@pytest.mark.parametrize("step", adoption.IMPORT_STEPS[:3])
def test_import_with_a_source_is_accepted(step: str) -> None:
    """In every step but the last, which needs the old service stopped."""
    assert import_refusals({"step": step}) == []
    assert import_refusals({"step": "finish", "stopped": "true"}) == []


def test_unknown_step_of_an_import_is_refused_with_all_steps() -> None:
    """The value is named."""
    assert import_refusals({"step": "look"}) == [
        "-e step=look is no step of adopt.yml; write one of inspect, rehearse, import, finish."
    ]


def test_source_that_is_not_named_is_refused() -> None:
    """Database and files by themselves, with what the compose file says; an undo needs neither."""
    nothing = {"database": "", "uploads": "", "note": "It has a volume."}
    said = import_refusals(source=nothing)
    assert [one.split(".")[0] for one in said] == ["adoption_database is not set", "adoption_uploads is not set"]
    assert said[0].endswith("Or set adoption_compose to the old compose file.")
    assert said[1].endswith("of an archive of it. It has a volume.")
    assert import_refusals({"compose": "/srv/docker-compose.yml"}, source=nothing)[0].endswith(
        "The compose file has none either."
    )
    assert import_refusals({"undo": "true"}, source=nothing) == []


@pytest.mark.parametrize("stopped", [False, "false", ""])
def test_finish_while_the_old_service_runs_is_refused(stopped: object) -> None:
    """With what to type."""
    (said,) = import_refusals({"step": "finish", "stopped": stopped})
    assert said.startswith("Stop the old service now")
    assert "-e step=finish -e stopped=true" in said


@pytest.mark.parametrize(
    ("request_", "refused"),
    [
        ({"step": "import"}, True),
        ({"step": "finish", "stopped": True}, True),
        ({"step": "inspect", "undo": True}, True),
        ({"step": "inspect"}, False),
        ({"step": "rehearse"}, False),
    ],
)
def test_second_import_is_refused(request_: dict[str, Any], refused: bool) -> None:
    """It would replace a school that is live; looking is allowed."""
    said = import_refusals(request_, state=DONE)
    assert bool(said) is refused
    assert not refused or said[0].startswith("A school was imported to server at 2026-11-24 16:50 UTC and is live;")


def migration_refusals(
    step: str, undo: object = False, engine: str = "postgres", state: dict[str, Any] | None = None
) -> list[str]:
    """Return the refusals of an engine migration."""
    return adoption.migration_refusals({"step": step, "undo": undo}, state or {}, engine, "server")


MIGRATED = {"migration": {"complete": "postgres", "verified": "2026-11-24T16:50:00Z"}}


def test_migration_is_accepted_in_every_step() -> None:
    """Each step, and the way back."""
    assert migration_refusals("rehearse") == migration_refusals("move") == []
    assert migration_refusals("confirm", state=MIGRATED) == []
    assert migration_refusals("inspect", undo="true", engine="sqlite", state=MIGRATED) == []


def test_unknown_step_of_a_migration_is_refused_with_all_steps() -> None:
    """`inspect` is what is asked for where nothing was typed."""
    (said,) = migration_refusals("inspect")
    assert said.startswith(
        "-e step=inspect is no step of move-to-postgres.yml; write one of rehearse, move, confirm, or "
    )


@pytest.mark.parametrize(("undo", "engine", "write"), [(False, "sqlite", "postgres"), (True, "postgres", "sqlite")])
def test_migration_to_another_engine_than_the_inventorys_is_refused(undo: bool, engine: str, write: str) -> None:
    """The inventory names the engine that the host uses afterwards."""
    (said,) = migration_refusals("move", undo, engine, MIGRATED)
    assert said.startswith(f"Set database_engine: {write} in the inventory first")


def test_migration_that_was_not_made_is_neither_undone_nor_confirmed() -> None:
    """With what to type first."""
    (said,) = migration_refusals("move", undo=True, engine="sqlite")
    assert said.startswith("There is no engine migration on server to undo")
    for state in ({}, {"migration": {}}, {"migration": {"complete": "postgres"}}, {"migration": None}):
        (said,) = migration_refusals("confirm", state=state)
        assert said.endswith("run move-to-postgres.yml -e step=move first.")
