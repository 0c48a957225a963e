"""Refusals of the role `adoption`: a source that is not named, and a step that cannot be done now.

The functions below the bounds run after preflight, in the role's own tasks: they judge what the program on the host
answered. `plugins/filter/preflight.py` makes filters of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .rules import Rules
from .settings import is_true, text, whole_number

RULES = Rules(
    "adoption",
    bounds={
        "adoption_min_free_mb": whole_number(0),
        "adoption_compose": text("(/.*)?", "the whole path of the file on the server, beginning with /"),
    },
)
IMPORT_STEPS = ("inspect", "rehearse", "import", "finish")
MIGRATION_STEPS = ("rehearse", "move", "confirm")


def import_refusals(
    request: Mapping[str, Any], state: Mapping[str, Any], source: Mapping[str, Any], host: str
) -> list[str]:
    """Why adopt.yml cannot do what was asked for; [] when it can.

    :param request: `step`, `undo` and `stopped` as typed, `compose` as set.
    :param state: what the program on the host knows of an import; `done` is a readable moment.
    :param source: where the old data is, from the settings or the compose file: `database`, `uploads`, `note`.
    """
    step, undo = request["step"], is_true(request["undo"])
    found = []
    if step not in IMPORT_STEPS:
        found.append(f"-e step={step} is no step of adopt.yml; write one of {', '.join(IMPORT_STEPS)}.")
    if state.get("step") == "done" and (undo or step in ("import", "finish")):
        found.append(
            f"A school was imported to {host} at {state['done']} and is live; a second import would replace it. Import "
            "another school to another host."
        )
    if not undo and not source["database"]:
        other = (
            "The compose file has none either."
            if request["compose"]
            else "Or set adoption_compose to the old compose file."
        )
        found.append(
            "adoption_database is not set. Write the path of a SQLite file or of a dump on "
            f"{host}, or an address such as postgresql://user:password@host/database. {other}"
        )
    if not undo and not source["uploads"]:
        note = f" {source['note']}" if source["note"] else ""
        found.append(
            f"adoption_uploads is not set. Write the path of the old folder uploads on {host}, or of an archive of it."
            f"{note}"
        )
    if step == "finish" and not undo and not is_true(request["stopped"]):
        found.append(
            "Stop the old service now, for instance with `docker compose stop backend` in its folder, but leave its "
            "database server running. Then type -e step=finish -e stopped=true. What pupils save there afterwards is "
            "not imported."
        )
    return found


def migration_refusals(request: Mapping[str, Any], state: Mapping[str, Any], engine: str, host: str) -> list[str]:
    """Why move-to-postgres.yml cannot do what was asked for; [] when it can.

    :param request: `step` and `undo` as typed.
    :param state: what the program on the host knows of a migration, in `migration`.
    :param engine: `database_engine` of the inventory.
    """
    step, undo = request["step"], is_true(request["undo"])
    migration = state.get("migration") or {}
    target = "sqlite" if undo else "postgres"
    found = []
    if not undo and step not in MIGRATION_STEPS:
        found.append(
            f"-e step={step} is no step of move-to-postgres.yml; write one of {', '.join(MIGRATION_STEPS)}, or "
            "-e undo=true with database_engine: sqlite."
        )
    if engine != target:
        found.append(f"Set database_engine: {target} in the inventory first: the engine that {host} uses afterwards.")
    if undo and not migration:
        found.append(
            f"There is no engine migration on {host} to undo: none was made, or it was confirmed and SQLite's file is "
            "removed."
        )
    if step == "confirm" and not undo and not migration.get("verified"):
        found.append(f"There is no engine migration on {host} to confirm; run move-to-postgres.yml -e step=move first.")
    return found
