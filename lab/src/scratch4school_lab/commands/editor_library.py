"""The command scripts/editor-library: fetches the editor's library, and packs it for a server without internet.

Standard library only: it runs on any machine with internet and a checkout.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
from pathlib import Path

from scratch4school_host import library
from scratch4school_host.errors import OperatorError

from ..checkout import ROOT

LIST = ROOT / "docker" / "editor" / library.LIST

DESCRIPTION = """\
Fetches the costumes, sounds and backdrops that Scratch offers, verifies each, and packs them into an archive. Set
editor_library to the path of the archive, and run deploy.yml. Run it again after an interruption: it continues."""
EPILOG = "example:  scripts/editor-library library.tar"


def main(arguments: list[str] | None = None) -> int:
    """Write the archive; returns 0 when it is complete, 1 when files are missing."""
    parser = argparse.ArgumentParser(
        prog="scripts/editor-library",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("archive", type=Path, help="the archive to write, with the ending .tar")
    parser.add_argument("--source", default="internet", help="internet, or the address of a mirror (default: internet)")
    parser.add_argument("--list", type=Path, default=LIST, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.archive.suffix != ".tar":
        parser.error(f"the archive is {options.archive}; write a name that ends with .tar")
    folder = options.archive.with_suffix(".files")
    try:
        names = library.names_in(options.list)
        outcome = library.fetch(folder, names, options.source)
    except OperatorError as problem:
        print(problem, file=sys.stderr)
        return 1
    if outcome.present < outcome.total:
        last = outcome.problems[-1]
        print(f"{outcome.present} of {outcome.total} files are in {folder}; {last}. Run it again.", file=sys.stderr)
        return 1
    with tarfile.open(options.archive, "w") as archive:
        for name in names:
            archive.add(folder / name, f"library/{name}")
    print(f"{options.archive} has {outcome.total} files; {folder} is not needed any more.")
    return 0
