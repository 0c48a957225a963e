"""The editor's library: each file is verified, a run continues an earlier one, and a bad source loses nothing."""

from __future__ import annotations

import hashlib
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import run_command, slots_settings, write_settings

from scratch4school_host import library
from scratch4school_host.errors import OperatorError
from scratch4school_host.slots.state import Slots

TEXTS = [b"<svg>%d</svg>" % number for number in range(40)]
CONTENTS = {f"{hashlib.md5(text).hexdigest()}.svg": text for text in TEXTS}
NAMES = sorted(CONTENTS)


class Source:
    """A mirror on this machine. `wrong` answers other bytes, `broken` ends the connection, `away` refuses all."""

    def __init__(self) -> None:
        self.wrong: set[str] = set()
        self.broken: set[str] = set()
        self.away = False
        self.asked: list[str] = []
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rpartition("/")[2]
                source.asked.append(name)
                if source.away or name not in CONTENTS:
                    self.send_error(404)
                    return
                content = b"other" if name in source.wrong else CONTENTS[name]
                self.send_response(200)
                self.send_header("Content-Length", str(len(CONTENTS[name])))
                self.end_headers()
                self.wfile.write(content[:3] if name in source.broken else content)

            def log_message(self, *_arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/library/"


@pytest.fixture
def source() -> Iterator[Source]:
    made = Source()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_missing_files_are_fetched_and_others_are_not(source: Source, tmp_path: Path) -> None:
    """The second run asks for nothing."""
    (tmp_path / NAMES[0]).write_bytes(CONTENTS[NAMES[0]])
    assert library.fetch(tmp_path, NAMES, source.url).present == len(NAMES)
    assert sorted(source.asked) == NAMES[1:]
    assert {name: (tmp_path / name).read_bytes() for name in NAMES} == CONTENTS
    library.fetch(tmp_path, NAMES, source.url)
    assert len(source.asked) == len(NAMES) - 1
    assert library.state(tmp_path)["present"] == len(NAMES)


def test_file_with_wrong_bytes_is_left_out_and_fetched_later(source: Source, tmp_path: Path) -> None:
    """Also a connection that ended in the middle of a file."""
    source.wrong, source.broken = {NAMES[3]}, {NAMES[7]}
    outcome = library.fetch(tmp_path, NAMES, source.url)
    assert outcome.present == len(NAMES) - 2
    assert len(outcome.problems) == 2
    assert not (tmp_path / NAMES[3]).exists()
    assert not (tmp_path / NAMES[7]).exists()
    assert library.state(tmp_path)["problem"] == outcome.problems[-1]
    source.wrong, source.broken = set(), set()
    assert library.fetch(tmp_path, NAMES, source.url).present == len(NAMES)
    assert library.state(tmp_path)["problem"] == ""


def test_source_that_refuses_is_asked_a_few_times_only(source: Source, tmp_path: Path) -> None:
    """The message has the cause and the number of files."""
    source.away = True
    with pytest.raises(OperatorError, match=r"does not answer as it should.*404.*0 of 40 files"):
        library.fetch(tmp_path, NAMES, source.url)
    assert len(source.asked) <= library.MOST_FAILURES + library.CONNECTIONS
    assert library.state(tmp_path)["present"] == 0


def test_disk_that_is_too_small_is_refused_before_a_request(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With both numbers."""
    monkeypatch.setattr(library, "free_bytes", lambda _folder: 20_000_000)
    with pytest.raises(OperatorError, match=r"needs 150 MB in .* and 20 MB are free"):
        library.fetch(tmp_path, NAMES, source.url)
    assert source.asked == []


def test_archive_fills_library_with_verified_files(tmp_path: Path) -> None:
    """A file with wrong bytes, and one that is not of the library, are left out."""
    files = tmp_path / "files"
    files.mkdir()
    for name in NAMES:
        (files / name).write_bytes(b"wrong" if name == NAMES[0] else CONTENTS[name])
    (files / "other.svg").write_bytes(b"other")
    archive = tmp_path / "library.tar"
    with tarfile.open(archive, "w") as opened:
        opened.add(files, "library")
    outcome = library.unpack(tmp_path / "library", NAMES, archive)
    assert (outcome.present, outcome.total) == (len(NAMES) - 1, len(NAMES))
    assert sorted(path.name for path in (tmp_path / "library").glob("*.svg")) == NAMES[1:]


def test_file_that_is_no_archive_is_refused_with_the_program_that_makes_one(tmp_path: Path) -> None:
    (tmp_path / "library.tar").write_text("no archive")
    with pytest.raises(OperatorError, match=r"Make it with scripts/editor-library"):
        library.unpack(tmp_path / "library", NAMES, tmp_path / "library.tar")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings of a host whose live release has an editor; returns its folder of files."""
    write_settings(tmp_path, "slots", slots_settings(tmp_path))
    monkeypatch.setattr(Slots, "live_release", lambda _self: {"editor": "scratch4school/editor:one"})
    folder = tmp_path / "editor"
    (folder / "one").mkdir(parents=True)
    (folder / "one" / library.LIST).write_text(json.dumps(NAMES))
    return folder


def test_command_fails_until_library_is_complete(source: Source, tmp_path: Path, host: Path) -> None:
    """And says how many files there are."""
    write_settings(tmp_path, "editor", {"directory": str(host), "library": source.url})
    source.wrong = {NAMES[0]}
    failed = run_command(tmp_path, "editor", "library")
    assert failed.returncode == 1
    assert f"39 of 40 files of the editor's library are there; the last problem: {NAMES[0]}" in failed.stderr
    source.wrong = set()
    assert "complete: 40 files" in run_command(tmp_path, "editor", "library").stdout
    assert library.state(host / library.FOLDER)["present"] == 40


def test_command_without_list_names_playbook(source: Source, tmp_path: Path, host: Path) -> None:
    """The list belongs to the release's files."""
    write_settings(tmp_path, "editor", {"directory": str(host), "library": source.url})
    (host / "one" / library.LIST).unlink()
    missing = run_command(tmp_path, "editor", "library")
    assert missing.returncode == 1
    assert "Run deploy.yml." in missing.stderr


def test_command_leaves_library_out_when_school_wants_none(tmp_path: Path, host: Path) -> None:
    """It succeeds, so that its unit does not try again."""
    write_settings(tmp_path, "editor", {"directory": str(host), "library": "none"})
    ended = run_command(tmp_path, "editor", "library")
    assert (ended.returncode, ended.stdout) == (0, "The editor's library is left out.\n")
    assert not (host / library.FOLDER).exists()
