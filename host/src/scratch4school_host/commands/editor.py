"""The commands `editor provide`, `editor library` and `editor prune`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from .. import editor, library
from ..errors import OperatorError
from ..settings import EditorSettings, SlotsSettings
from ..slots.state import Slots


def _folder(options: Namespace) -> Path:
    return Path(EditorSettings.read(options.settings).directory)


def provide(options: Namespace) -> None:
    copied = editor.provide(_folder(options), options.image)
    print(f"The files of {options.image} {'were copied' if copied else 'are there'}.")


def fetch_library(options: Namespace) -> None:
    source = options.source or EditorSettings.read(options.settings).library
    image = Slots(SlotsSettings.read(options.settings)).live_release().get("editor", "")
    if source == library.NONE or not image:
        print("The editor's library is left out." if image else "The live release has no editor of ours.")
        return
    folder = _folder(options)
    names = library.names_in(folder / editor.folder_name(image) / library.LIST)
    if source.startswith("/"):
        outcome = library.unpack(folder / library.FOLDER, names, Path(source))
    else:
        outcome = library.fetch(folder / library.FOLDER, names, source)
    if outcome.present < outcome.total:
        raise OperatorError(
            f"{outcome.present} of {outcome.total} files of the editor's library are there; the last problem: "
            f"{outcome.problems[-1] if outcome.problems else 'the archive lacks the others'}. Run the command again."
        )
    print(f"The editor's library is complete: {outcome.total} files.")


def prune(options: Namespace) -> None:
    removed = editor.prune(_folder(options), options.image)
    print(f"Removed: {', '.join(removed)}." if removed else "Nothing was removed.")
