"""The commands `import` and `migrate-engine`."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable

from ..backup.job import changing
from ..containers import Containers
from ..settings import TransferSettings
from ..slots.state import Slots
from ..transfer import engine_migration, importing
from .backup import caller_of
from .slots import slots_of

Work = Callable[[TransferSettings, Slots, Containers, str], None]


def _changing(options: Namespace, verb: str, work: Work) -> None:
    settings, slots = TransferSettings.read(options.settings), slots_of(options)
    with changing(settings, caller_of(options), verb) as (containers, run):
        work(settings, slots, containers, run)


def import_inspect(options: Namespace) -> None:
    _changing(options, "inspect", importing.inspect)


def import_rehearse(options: Namespace) -> None:
    _changing(options, "rehearse", importing.rehearse)


def import_run(options: Namespace) -> None:
    _changing(options, "import", importing.import_data)


def import_finish(options: Namespace) -> None:
    _changing(options, "finish", importing.finish)


def import_undo(options: Namespace) -> None:
    _changing(options, "undo", importing.undo)


def import_complete(options: Namespace) -> None:
    importing.complete(TransferSettings.read(options.settings))


def migrate_rehearse(options: Namespace) -> None:
    _changing(options, "rehearse", engine_migration.rehearse)


def migrate_to_postgres(options: Namespace) -> None:
    _changing(options, "migrate to PostgreSQL", engine_migration.to_postgres)


def migrate_to_sqlite(options: Namespace) -> None:
    _changing(options, "migrate to SQLite", engine_migration.to_sqlite)


def migrate_complete(options: Namespace) -> None:
    engine_migration.complete(TransferSettings.read(options.settings))


def migrate_confirm(options: Namespace) -> None:
    engine_migration.confirm(TransferSettings.read(options.settings))


def status(options: Namespace) -> None:
    progress, migration = {}, {}
    # The roles write these settings only for an import or an engine migration.
    if (options.settings / TransferSettings.file).exists():
        settings = TransferSettings.read(options.settings)
        progress, migration = importing.state(settings), engine_migration.state(settings)
    if options.json:
        print(json.dumps({**progress, "migration": migration}))
        return
    print(f"import            {progress.get('step', 'none')}")
    print(f"engine migration  {migration['complete'] + ' is complete' if migration else 'none'}")
