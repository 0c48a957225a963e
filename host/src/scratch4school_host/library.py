"""Fetches the library of the editor: the costumes, sounds and backdrops that Scratch offers, 1,347 files.

No package registry has them. The name of each is the MD5 of its content, so each is verified when it arrives, from any
source.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import OperatorError
from .files import free_bytes, read_json, write_json
from .progress import Progress, megabytes
from .times import now

# Where the editor of Scratch itself gets them.
INTERNET = "https://assets.scratch.mit.edu/internalapi/asset/{name}/get/"
NONE = "none"
# In the folder of a release's files, and beside these folders.
LIST = "library.json"
FOLDER = "library"
STATE = "state.json"
# The largest has 3 MB.
LARGEST_BYTES = 20_000_000
# All of them have about 110 MB.
NEEDED_BYTES = 150_000_000
CONNECTIONS = 4
ANSWER_SECONDS = 30.0
# After so many failures without a success in between the source counts as unreachable.
MOST_FAILURES = 12


@dataclass
class Outcome:
    """What a run found: how many files there are, of how many, and a message for each that could not be had."""

    present: int = 0
    total: int = 0
    problems: list[str] = field(default_factory=list)


def address_of(source: str) -> Callable[[str], str]:
    """The function from a file's name to its address at a source: `internet`, or the address of a folder."""
    if source == "internet":
        return lambda name: INTERNET.format(name=name)
    return lambda name: f"{source.rstrip('/')}/{name}"


def names_in(file: Path) -> list[str]:
    """The names of the library's files, from the list that is built with the editor.

    :raises OperatorError: when the list is missing or is none.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return sorted(str(name) for name in found)
    except (OSError, ValueError) as problem:
        raise OperatorError(
            f"The list of the editor's library, {file}, cannot be read ({problem}). Run deploy.yml."
        ) from problem


def state(folder: Path) -> dict[str, Any]:
    """The result of the last run: `present`, `total`, `problem`, `at`; {} before the first one."""
    return read_json(folder / STATE)


def fetch(folder: Path, names: Iterable[str], source: str) -> Outcome:
    """Fetch the files that are missing. A second run continues where an interrupted one ended.

    :raises OperatorError: when the source does not answer, or the disk is full; the files that arrived stay.
    """
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    wanted = sorted(names)
    missing = [name for name in wanted if not (folder / name).is_file()]
    outcome = Outcome(len(wanted) - len(missing), len(wanted))
    if missing and free_bytes(folder) < NEEDED_BYTES:
        raise OperatorError(
            f"The editor's library needs {megabytes(NEEDED_BYTES)} in {folder}, and {megabytes(free_bytes(folder))} "
            "are free."
        )
    address = address_of(source)
    progress = Progress(1)
    try:
        with progress.phase("library", f"{len(missing)} of {len(wanted)} files are missing"):
            _fetch_all(folder, missing, address, outcome, progress)
    finally:
        _record(folder, outcome)
    return outcome


def unpack(folder: Path, names: Iterable[str], archive: Path) -> Outcome:
    """Take the files out of an archive that scripts/editor-library made.

    :raises OperatorError: when it is no archive.
    """
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    wanted = set(names)
    outcome = Outcome(total=len(wanted))
    try:
        with tarfile.open(archive) as opened:
            for member in opened:
                name = Path(member.name).name
                content = opened.extractfile(member) if name in wanted and member.size <= LARGEST_BYTES else None
                if content is not None and not (folder / name).is_file():
                    _keep(folder, name, content.read(), outcome)
    except (OSError, tarfile.TarError) as problem:
        raise OperatorError(
            f"{archive} cannot be read as an archive: {problem}. Make it with scripts/editor-library."
        ) from problem
    finally:
        outcome.present = sum((folder / name).is_file() for name in wanted)
        _record(folder, outcome)
    return outcome


def _fetch_all(
    folder: Path, missing: list[str], address: Callable[[str], str], outcome: Outcome, progress: Progress
) -> None:
    failures = 0
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        waiting = iter(missing)
        running: dict[Future[bytes], str] = {}

        def start() -> None:
            name = next(waiting, None)
            if name is not None:
                running[threads.submit(_content, address(name))] = name

        for _ in range(CONNECTIONS):
            start()
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                name = running.pop(future)
                try:
                    arrived = _keep(folder, name, future.result(), outcome)
                except (OSError, http.client.HTTPException) as problem:
                    arrived = False
                    outcome.problems.append(f"{name}: {problem}")
                failures = 0 if arrived else failures + 1
                if failures < MOST_FAILURES:
                    start()
            progress.tell(f"{outcome.present} of {outcome.total} files")
    if failures >= MOST_FAILURES:
        raise OperatorError(
            f"The source of the editor's library does not answer as it should; the last of {len(outcome.problems)} "
            f"problems: {outcome.problems[-1]}. {outcome.present} of {outcome.total} files are there; "
            "the next run continues."
        )


def _content(address: str) -> bytes:
    # The scheme is that of a setting, which preflight has checked.
    try:
        with urllib.request.urlopen(address, timeout=ANSWER_SECONDS) as answer:
            content: bytes = answer.read(LARGEST_BYTES + 1)
    except urllib.error.HTTPError as problem:
        problem.close()
        raise OSError(f"{address} answers {problem.code}") from None
    return content


def _keep(folder: Path, name: str, content: bytes, outcome: Outcome) -> bool:
    """Write a file whose content has the MD5 in its name; anything else is a problem."""
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != name.partition(".")[0]:
        outcome.problems.append(f"{name}: its content is another one")
        return False
    new = folder / f"{name}.new"
    new.write_bytes(content)
    new.chmod(0o644)
    new.replace(folder / name)
    outcome.present += 1
    return True


def _record(folder: Path, outcome: Outcome) -> None:
    problem = outcome.problems[-1] if outcome.problems else ""
    entry = {"present": outcome.present, "total": outcome.total, "problem": problem, "at": now()}
    write_json(folder / STATE, entry, mode=0o644)
