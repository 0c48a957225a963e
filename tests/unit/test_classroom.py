"""The parts of scripts/classroom that decide something: contents, ledger, percentiles, refusals; then the command."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import io
import json
import random
import signal
import sys
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fake_school import PASSWORD, FakeSchool

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts")]

from _classroom import cli, target  # noqa: E402
from _classroom.browser import connect  # noqa: E402
from _classroom.contents import MARK_BYTES, Contents, asset_form, read_mark  # noqa: E402
from _classroom.ledger import Ledger, Project, Promise, Save  # noqa: E402
from _classroom.lesson import LessonFailed  # noqa: E402
from _classroom.readback import side_by_side  # noqa: E402
from _classroom.records import Failure, Records, percentile  # noqa: E402
from _classroom.target import TargetError  # noqa: E402
from _lab import plan as lab  # noqa: E402

CONTENTS = Contents(1, 1)


class TestContents:
    """What is saved can be told apart, whole and in halves."""

    @pytest.mark.parametrize("large", [False, True])
    def test_a_project_is_a_whole_archive_that_tells_its_save(self, large: bool) -> None:
        content = CONTENTS.project({"by": "ada", "n": 7}, large)
        with zipfile.ZipFile(io.BytesIO(content.data)) as archive:
            assert archive.testzip() is None
            assert json.loads(archive.read("project.json"))["meta"]["semver"] == "3.0.0"
        assert read_mark(content.data) == {"by": "ada", "n": 7}
        assert content.sha256 == hashlib.sha256(content.data).hexdigest()
        assert len(content.data) > (1 << 20 if large else 1 << 16)

    def test_the_payload_cannot_be_compressed(self) -> None:
        """As pictures and sounds cannot; a project of zeros would flatter a proxy that compresses."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("project", CONTENTS.project({}).data)
        assert len(packed.getvalue()) > 1 << 16

    @pytest.mark.parametrize("sixteenths", range(1, 16))
    def test_halves_of_two_saves_are_neither(self, sixteenths: int) -> None:
        """Wherever a reader would see the one end and the other begin."""
        one, other = CONTENTS.project({"n": 1}), CONTENTS.project({"n": 2})
        place = len(one.data) * sixteenths // 16
        mixed = one.data[:place] + other.data[place:]
        assert hashlib.sha256(mixed).hexdigest() not in (one.sha256, other.sha256)
        assert read_mark(mixed) is None

    @pytest.mark.parametrize("data", [b"", b"PK\x03\x04", CONTENTS.project({}).data[:-1], b"\0" * 100])
    def test_what_is_no_whole_project_carries_no_mark(self, data: bytes) -> None:
        assert read_mark(data) is None

    def test_a_mark_that_does_not_fit_is_an_error_of_ours(self) -> None:
        """Cut off, it would belong to no save at all."""
        with pytest.raises(ValueError, match=f"of {MARK_BYTES}"):
            CONTENTS.project({"devices": {f"d{n}": n for n in range(1000)}})

    def test_the_devices_that_are_allowed_fit_into_a_mark(self) -> None:
        mark = {"run": "a" * 6, "by": "d60", "n": 10**6, "devices": {f"d{n}": 10**6 for n in range(cli.MOST_DEVICES)}}
        assert read_mark(CONTENTS.project(mark).data) == mark

    def test_the_largest_save_that_is_allowed_fits_into_a_request(self) -> None:
        contents = Contents(1, cli.MOST_MEGABYTES)
        assert len(contents.project_form(contents.project({}, large=True))) < 16 << 20

    def test_assets_differ_by_their_mark_alone(self) -> None:
        assert CONTENTS.asset("a") == CONTENTS.asset("a") != CONTENTS.asset("b")
        assert CONTENTS.asset("a") in asset_form(CONTENTS.asset("a"))


class TestLedger:
    """One rule for all writers: an acknowledged save owns its version, one in doubt may turn up or not."""

    def created(self, ledger: Ledger) -> Project:
        save = ledger.send_create("ada", "Cat", "sha-1")
        ledger.acknowledge_create(save, 1, 1)
        return save.project

    def acknowledged(
        self, ledger: Ledger, project: Project, sha256: str, version: int, base: int | None = None
    ) -> Save:
        save = ledger.send(project, sha256, base)
        ledger.acknowledge(save, version)
        return save

    def test_saves_in_order_are_kept(self) -> None:
        ledger = Ledger()
        project = self.created(ledger)
        self.acknowledged(ledger, project, "sha-2", 2)
        self.acknowledged(ledger, project, "sha-3", 3, base=2)
        ledger.read_finally(project, 3, "sha-3", b"")
        assert ledger.breaches == []
        assert ledger.acknowledged == 3

    def test_the_same_version_twice_is_a_lost_save(self) -> None:
        ledger = Ledger()
        project = self.created(ledger)
        first, second = ledger.send(project, "sha-2", None), ledger.send(project, "sha-3", None)
        ledger.acknowledge(first, 2)
        ledger.acknowledge(second, 2)
        assert ledger.count(Promise.LOST) == 1

    def test_a_version_that_does_not_grow_is_a_lost_save(self) -> None:
        """A database that was put back behind our backs."""
        ledger = Ledger()
        project = self.created(ledger)
        self.acknowledged(ledger, project, "sha-2", 5)
        self.acknowledged(ledger, project, "sha-3", 4)
        assert ledger.count(Promise.LOST) == 1

    def test_a_save_that_skipped_its_base_is_a_lost_save(self) -> None:
        ledger = Ledger()
        self.acknowledged(ledger, self.created(ledger), "sha-2", 3, base=1)
        assert ledger.count(Promise.LOST) == 1

    def test_too_few_versions_at_the_end_are_lost_saves(self) -> None:
        ledger = Ledger()
        project = self.created(ledger)
        self.acknowledged(ledger, project, "sha-2", 2)
        ledger.read_finally(project, 1, "sha-1", b"")
        assert ledger.count(Promise.LOST) > 0

    @pytest.mark.parametrize(("version", "sha256"), [(2, "sha-2"), (3, "sha-3")])
    def test_a_save_in_doubt_may_be_there_or_not(self, version: int, sha256: str) -> None:
        ledger = Ledger()
        project = self.created(ledger)
        self.acknowledged(ledger, project, "sha-2", 2)
        ledger.doubt(ledger.send(project, "sha-3", 2))
        ledger.read_finally(project, version, sha256, b"")
        assert ledger.breaches == []
        assert ledger.in_doubt == (1 if version == 2 else 0)

    def test_a_save_in_doubt_may_be_under_a_later_one(self) -> None:
        ledger = Ledger()
        project = self.created(ledger)
        ledger.doubt(ledger.send(project, "sha-2", None))
        self.acknowledged(ledger, project, "sha-3", 3)
        ledger.read_finally(project, 3, "sha-3", b"")
        assert ledger.breaches == []

    def test_a_save_in_doubt_counts_once(self) -> None:
        ledger = Ledger()
        project = self.created(ledger)
        ledger.doubt(ledger.send(project, "sha-2", None))
        ledger.read_finally(project, 3, "sha-2", b"")
        assert ledger.count(Promise.DUPLICATE) == 1

    def test_a_save_in_doubt_keeps_to_its_base(self) -> None:
        """It would have overwritten version 2, of which it said that it had not seen it."""
        ledger = Ledger()
        project = self.created(ledger)
        ledger.doubt(ledger.send(project, "sha-2", 1))
        self.acknowledged(ledger, project, "sha-3", 2)
        ledger.read(project, 2, 3, "sha-2", b"")
        assert ledger.count(Promise.LOST) == 1

    def test_what_was_turned_away_must_not_be_there(self) -> None:
        ledger = Ledger()
        project = self.created(ledger)
        save = ledger.send(project, "sha-2", 1)
        ledger.refuse(save)
        ledger.read(project, 1, 2, "sha-2", b"")
        assert ledger.count(Promise.DUPLICATE) == 1

    def test_a_read_before_the_answer_settles_the_version(self) -> None:
        ledger = Ledger()
        project = self.created(ledger)
        save = ledger.send(project, "sha-2", 1)
        ledger.read(project, 1, 2, "sha-2", b"")
        ledger.acknowledge(save, 2)
        assert ledger.breaches == []

    def test_a_copy_holds_what_it_was_made_of_also_at_second_hand(self) -> None:
        ledger = Ledger()
        project = self.created(ledger)
        copies = [ledger.send_copy("bob", project)]
        ledger.acknowledge_copy(copies[0], 2, "Copy of Cat")
        copies.append(ledger.send_copy("eve", copies[0]))
        ledger.acknowledge_copy(copies[1], 3, "Copy of Copy of Cat")
        for copy in copies:
            ledger.read_finally(copy, 1, "sha-1", b"")
        assert ledger.breaches == []
        ledger.read(copies[1], 1, 1, "sha-of-nobody", b"")
        assert ledger.count(Promise.TORN) == 1

    def test_a_create_in_doubt_is_explained_by_its_title_once(self) -> None:
        ledger = Ledger()
        ledger.doubt(ledger.send_create("ada", "Cat", "sha-1"))
        ledger.read_list("ada", [(1, "Cat")])
        assert ledger.breaches == []
        assert [project.id for project in ledger.alive("ada")] == [1]
        ledger.read_list("ada", [(1, "Cat"), (2, "Cat")])
        assert ledger.count(Promise.DUPLICATE) == 1

    def test_what_a_user_had_before_has_to_stay(self) -> None:
        ledger = Ledger()
        ledger.expect_former("ada", [1, 2])
        ledger.read_list("ada", [(1, "Old"), (2, "Older")])
        assert ledger.breaches == []
        ledger.read_list("ada", [(2, "Older")])
        ledger.read_list("ada", [(2, "Older")])
        assert ledger.count(Promise.ORPHAN) == 1


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_percentiles_are_values_that_were_measured(share: float, expected: float) -> None:
    values = [float(value) for value in range(1, 101)]
    random.Random(1).shuffle(values)
    assert percentile(sorted(values), share) == expected
    assert percentile([], share) == 0


def test_failures_are_counted_by_kind_and_kept_out_of_the_percentiles() -> None:
    records = Records()
    records.note("update", 10.0)
    records.note_failure(Failure(1.0, 2.0, "update", 503, "busy"))
    records.note_failure(Failure(1.0, 9.0, "list", None, "ServerDisconnectedError: gone"))
    summary = records.summary()
    assert summary["all"] == {"count": 3, "failed": 2, "p50_ms": 10.0, "p95_ms": 10.0, "p99_ms": 10.0, "max_ms": 10.0}
    assert (summary["update"]["count"], summary["update"]["failed"], summary["list"]["failed"]) == (2, 1, 1)
    assert records.failed_by_kind == {"503": 1, "ServerDisconnectedError": 1}


def test_no_request_is_repeated_behind_the_ledgers_back() -> None:
    """The HTTP client sends a PUT again when a kept connection breaks; how to forbid it may change with its version."""

    async def run() -> int:
        requests = 0

        async def close_without_an_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal requests
            for answer in (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""):
                await reader.readuntil(b"\r\n\r\n")
                requests += 1
                writer.write(answer)
            writer.close()

        server = await asyncio.start_server(close_without_an_answer, "127.0.0.1", 0)
        async with server, connect(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", None) as http:
            await (await http.get("/")).read()
            with pytest.raises(Exception, match="disconnected"):
                await http.put("/", data=b"")
        return requests

    assert asyncio.run(run()) == 2


class TestRefusals:
    """One sentence each, that says what to do instead."""

    @pytest.fixture
    def inventory(self, tmp_path: Path) -> Path:
        file = tmp_path / "hosts.yml"
        hosts = {"one": {"scratch4school_url": "https://localhost:8443"}, "two": {}}
        file.write_text(json.dumps({"scratch4school": {"hosts": hosts}}))
        return file

    def test_the_first_host_is_meant_or_the_named_one(self, inventory: Path) -> None:
        assert target.choose(inventory, None, None, None).url == "https://localhost:8443"
        assert target.choose(inventory, "one", None, None).is_lab
        with pytest.raises(TargetError, match="has no host three; it has one, two"):
            target.choose(inventory, "three", None, None)
        with pytest.raises(TargetError, match="does not say scratch4school_url of two; say the address with --url"):
            target.choose(inventory, "two", None, None)

    def test_without_a_lab_it_says_how_to_get_one(self, tmp_path: Path) -> None:
        with pytest.raises(TargetError, match="bring a lab up with scripts/demo"):
            target.choose(tmp_path / "hosts.yml", None, None, None)

    @pytest.mark.parametrize("url", ["scratch.example.de", "ftp://localhost", "https://localhost/backend", "https://"])
    def test_only_an_address_of_a_front_door_is_driven(self, url: str) -> None:
        with pytest.raises(TargetError, match="no address of a front door"):
            target.choose(lab.INVENTORY, None, url, None)

    @pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "10.83.86.11"])
    def test_the_loopback_and_the_labs_network_are_a_lab(self, address: str) -> None:
        assert target.is_in_lab(address)

    @pytest.mark.parametrize("address", ["10.83.87.11", "192.0.2.1", "2001:db8::1"])
    def test_a_school_is_refused_unless_somebody_knows_better(self, address: str) -> None:
        stack = target.Target(f"https://{address}", None, target.is_in_lab(address))
        with pytest.raises(TargetError, match=r"is not a lab: .* say --i-know if that is wanted"):
            cli.refuse_school(stack, i_know=False)
        cli.refuse_school(stack, i_know=True)
        with pytest.raises(TargetError, match="with --accounts"):
            target.accounts(None, stack.is_lab, 1)

    def test_the_pupils_are_those_of_the_labs_provider(self) -> None:
        """The provider's image knows nothing of scripts/, so the names are written down twice."""
        source = ast.parse((ROOT / "docker" / "lab-idp" / "directory.py").read_text())
        pupils: dict[str, Any] = {}
        for node in source.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("PUPILS", "GROUPS"):
                exec(ast.unparse(node), pupils)
        known = target.accounts(None, True, target.LAB_PUPILS)
        assert list(known) == pupils["PUPILS"]
        in_classes = [name for group, names in pupils["GROUPS"].items() if group.startswith("klasse") for name in names]
        assert in_classes == pupils["PUPILS"]

    def test_more_users_than_accounts_are_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "accounts.csv"
        file.write_text("ada,one\n\nbob,two\n")
        assert target.accounts(file, False, 1) == {"ada": "one"}
        with pytest.raises(TargetError, match="There are 2 accounts; say --users 2 or fewer"):
            target.accounts(file, False, 3)
        file.write_text("ada,one\nbob\n")
        with pytest.raises(TargetError, match=r"Line 2 of .* is not user,password"):
            target.accounts(file, False, 1)

    @pytest.mark.parametrize(
        "arguments", [["--users", "0"], ["--seconds", "x"], ["--large-megabytes", "16"], ["--seconds", "nan"]]
    )
    def test_numbers_out_of_range_are_usage_errors(self, arguments: list[str], capsys: pytest.CaptureFixture) -> None:
        with pytest.raises(SystemExit) as ended:
            cli.parser().parse_args(arguments)
        assert ended.value.code == 2
        assert "is no number from" in capsys.readouterr().err

    def test_a_report_that_could_not_be_written_is_refused_before_the_run(self, tmp_path: Path) -> None:
        for file in (tmp_path / "nowhere" / "report.json", tmp_path):
            with pytest.raises(TargetError, match="name a file in a folder that is there"):
                cli.refuse_unwritable(None, file)
        cli.refuse_unwritable(tmp_path / "report.json")


class TestSideBySide:
    """What is done for many pupils at once."""

    def test_the_first_that_fails_says_why(self) -> None:
        async def fail() -> None:
            raise LessonFailed("pupil07 could not begin")

        with pytest.raises(LessonFailed, match="pupil07"):
            asyncio.run(side_by_side(2, [fail, fail, fail]))


class TestCommand:
    """The command as it is typed, through the pages of a login."""

    def run(
        self,
        folder: Path,
        *arguments: str,
        fault: str = "",
        meanwhile: Callable[..., Awaitable[None]] | None = None,
        known_by: str = "--accounts",
    ) -> tuple[int, str]:
        """Run scripts/classroom on a school of our own: its exit status and all that it said.

        Pupils are `known_by` accounts or sessions; a session's id is the user's name in this school.
        """
        word = {"--accounts": PASSWORD}
        names = [f"pupil{number}" for number in range(4)]
        (folder / "known.csv").write_text("".join(f"{name},{word.get(known_by, name)}\n" for name in names))

        async def run() -> tuple[int, str]:
            async with FakeSchool(fault) as school:
                process = await asyncio.create_subprocess_exec(
                    str(ROOT / "scripts" / "classroom"),
                    *("--url", school.url, known_by, str(folder / "known.csv"), "--users", "4"),
                    *("--devices", "0", "--large-share", "0", *arguments),
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                )
                if meanwhile is not None:
                    await meanwhile(school, process)
                output, _ = await process.communicate()
                assert process.returncode is not None
                return process.returncode, output.decode()

        return asyncio.run(run())

    def test_it_logs_in_drives_reads_back_and_reports(self, tmp_path: Path) -> None:
        file = tmp_path / "report.json"
        status, said = self.run(tmp_path, "--seconds", "1", "--json", str(file), "--ledger", str(tmp_path / "ledger"))
        assert status == 0, said
        assert json.loads(file.read_text())["kept"]
        assert (tmp_path / "ledger").read_text().count('"acknowledged"') > 0
        for phase in ("log in: 4 of 4", "prepare: 4 users", "load 1/1 s", "settle", "read back", "clear away"):
            assert f"classroom: {phase}" in said
        assert "\x1b" not in said
        assert "\r" not in said

    def test_sessions_that_are_there_already_need_no_login(self, tmp_path: Path) -> None:
        """Nobody is asked for a password."""
        status, said = self.run(tmp_path, "--seconds", "1", known_by="--sessions")
        assert status == 0, said
        assert "log in" not in said

    def test_a_broken_promise_is_an_exit_status(self, tmp_path: Path) -> None:
        fault = "a save is acknowledged and not stored"
        status, said = self.run(tmp_path, "--seconds", "20", "--max-requests", "300", fault=fault)
        assert status == cli.BROKEN, said
        assert "A promise was broken." in said

    def test_failed_requests_may_be_allowed(self, tmp_path: Path) -> None:
        limits = ("--seconds", "20", "--max-requests", "60")
        fault = "a save is refused without a word"
        assert self.run(tmp_path, *limits, fault=fault)[0] == cli.BROKEN
        assert self.run(tmp_path, *limits, "--allow-failures", fault=fault)[0] == 0

    def test_who_cannot_log_in_is_told_so(self, tmp_path: Path) -> None:
        accounts = tmp_path / "wrong.csv"
        accounts.write_text("pupil0,wrong\n")
        status, said = self.run(tmp_path, "--users", "1", "--accounts", str(accounts))
        assert status == cli.UNAVAILABLE
        assert "pupil0 could not log in" in said

    def test_a_signal_ends_the_load_and_not_the_report(self, tmp_path: Path) -> None:
        async def terminate(school: FakeSchool, process: asyncio.subprocess.Process) -> None:
            await until(lambda: len(school.assets) > 0)
            process.send_signal(signal.SIGTERM)

        status, said = self.run(tmp_path, "--seconds", "600", meanwhile=terminate)
        assert status == 0, said
        assert "SIGTERM: the load ends here" in said
        assert "All promises kept." in said

    def test_a_second_signal_ends_at_once(self, tmp_path: Path) -> None:
        async def interrupt_twice(school: FakeSchool, process: asyncio.subprocess.Process) -> None:
            await until(lambda: len(school.assets) > 0)
            school.answers.clear()
            process.send_signal(signal.SIGINT)
            line = b""
            while b"a second one ends at once" not in line:
                line = await process.stdout.readline()  # type: ignore[union-attr]
                assert line
            process.send_signal(signal.SIGINT)
            await process.wait()
            school.answers.set()

        status, said = self.run(tmp_path, "--seconds", "600", meanwhile=interrupt_twice)
        assert status == -signal.SIGINT
        assert "kept" not in said


async def until(condition: Callable[[], bool]) -> None:
    """Let others work until the condition holds; fail when it does not within twenty seconds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)
