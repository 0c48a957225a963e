"""The class as load: contents, save record, percentiles, refusals; then the command scripts/classroom."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import io
import json
import random
import signal
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fake_school import PASSWORD, FakeSchool

from scratch4school_lab.checkout import ROOT
from scratch4school_lab.classroom import target
from scratch4school_lab.classroom.browser import connect
from scratch4school_lab.classroom.class_run import ClassFailed
from scratch4school_lab.classroom.contents import MARK_BYTES, Contents, asset_form, read_mark
from scratch4school_lab.classroom.readback import side_by_side
from scratch4school_lab.classroom.records import Failure, Records, percentile
from scratch4school_lab.classroom.save_record import Project, Promise, Save, SaveRecord
from scratch4school_lab.classroom.target import TargetError
from scratch4school_lab.commands import classroom as cli
from scratch4school_lab.hosts import plan as lab

CONTENTS = Contents(1, 1)


class TestContents:
    """Each save can be recognised, whole and in halves."""

    @pytest.mark.parametrize("large", [False, True])
    def test_project_is_whole_archive_with_mark_of_its_save(self, large: bool) -> None:
        content = CONTENTS.project({"by": "ada", "n": 7}, large)
        with zipfile.ZipFile(io.BytesIO(content.data)) as archive:
            assert archive.testzip() is None
            assert json.loads(archive.read("project.json"))["meta"]["semver"] == "3.0.0"
        assert read_mark(content.data) == {"by": "ada", "n": 7}
        assert content.sha256 == hashlib.sha256(content.data).hexdigest()
        assert len(content.data) > (1 << 20 if large else 1 << 16)

    def test_payload_is_not_compressible(self) -> None:
        """Like pictures and sounds; a proxy that compresses would make a project of zeros look cheap."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("project", CONTENTS.project({}).data)
        assert len(packed.getvalue()) > 1 << 16

    @pytest.mark.parametrize("sixteenths", range(1, 16))
    def test_halves_of_two_saves_equal_neither_save(self, sixteenths: int) -> None:
        """At whatever offset one save ends and the other begins."""
        one, other = CONTENTS.project({"n": 1}), CONTENTS.project({"n": 2})
        place = len(one.data) * sixteenths // 16
        mixed = one.data[:place] + other.data[place:]
        assert hashlib.sha256(mixed).hexdigest() not in (one.sha256, other.sha256)
        assert read_mark(mixed) is None

    @pytest.mark.parametrize("data", [b"", b"PK\x03\x04", CONTENTS.project({}).data[:-1], b"\0" * 100])
    def test_broken_project_has_no_mark(self, data: bytes) -> None:
        assert read_mark(data) is None

    def test_too_long_mark_raises_value_error(self) -> None:
        """A truncated mark would belong to no save."""
        with pytest.raises(ValueError, match=f"of {MARK_BYTES}"):
            CONTENTS.project({"devices": {f"d{n}": n for n in range(1000)}})

    def test_largest_number_of_devices_fits_into_mark(self) -> None:
        mark = {"run": "a" * 6, "by": "d60", "n": 10**6, "devices": {f"d{n}": 10**6 for n in range(cli.MOST_DEVICES)}}
        assert read_mark(CONTENTS.project(mark).data) == mark

    def test_largest_save_fits_into_request(self) -> None:
        contents = Contents(1, cli.MOST_MEGABYTES)
        assert len(contents.project_form(contents.project({}, large=True))) < 16 << 20

    def test_assets_with_different_marks_differ(self) -> None:
        assert CONTENTS.asset("a") == CONTENTS.asset("a") != CONTENTS.asset("b")
        assert CONTENTS.asset("a") in asset_form(CONTENTS.asset("a"))


class TestSaveRecord:
    """One rule for all devices: an acknowledged save owns its version, and one in doubt may be stored or not."""

    def created(self, save_record: SaveRecord) -> Project:
        save = save_record.send_create("ada", "Cat", "sha-1")
        save_record.acknowledge_create(save, 1, 1)
        return save.project

    def acknowledged(
        self, save_record: SaveRecord, project: Project, sha256: str, version: int, base: int | None = None
    ) -> Save:
        save = save_record.send(project, sha256, base)
        save_record.acknowledge(save, version)
        return save

    def test_saves_in_order_break_no_promise(self) -> None:
        save_record = SaveRecord()
        project = self.created(save_record)
        self.acknowledged(save_record, project, "sha-2", 2)
        self.acknowledged(save_record, project, "sha-3", 3, base=2)
        save_record.read_finally(project, 3, "sha-3", b"")
        assert save_record.breaches == []
        assert save_record.acknowledged == 3

    def test_version_acknowledged_twice_is_lost_save(self) -> None:
        save_record = SaveRecord()
        project = self.created(save_record)
        first, second = save_record.send(project, "sha-2", None), save_record.send(project, "sha-3", None)
        save_record.acknowledge(first, 2)
        save_record.acknowledge(second, 2)
        assert save_record.count(Promise.LOST) == 1

    def test_version_that_does_not_grow_is_lost_save(self) -> None:
        """As after a restore of the database during the run."""
        save_record = SaveRecord()
        project = self.created(save_record)
        self.acknowledged(save_record, project, "sha-2", 5)
        self.acknowledged(save_record, project, "sha-3", 4)
        assert save_record.count(Promise.LOST) == 1

    def test_version_that_is_not_base_plus_one_is_lost_save(self) -> None:
        save_record = SaveRecord()
        self.acknowledged(save_record, self.created(save_record), "sha-2", 3, base=1)
        assert save_record.count(Promise.LOST) == 1

    def test_too_few_versions_at_end_are_lost_saves(self) -> None:
        save_record = SaveRecord()
        project = self.created(save_record)
        self.acknowledged(save_record, project, "sha-2", 2)
        save_record.read_finally(project, 1, "sha-1", b"")
        assert save_record.count(Promise.LOST) > 0

    @pytest.mark.parametrize(("version", "sha256"), [(2, "sha-2"), (3, "sha-3")])
    def test_save_in_doubt_may_be_stored_or_not(self, version: int, sha256: str) -> None:
        save_record = SaveRecord()
        project = self.created(save_record)
        self.acknowledged(save_record, project, "sha-2", 2)
        save_record.doubt(save_record.send(project, "sha-3", 2))
        save_record.read_finally(project, version, sha256, b"")
        assert save_record.breaches == []
        assert save_record.in_doubt == (1 if version == 2 else 0)

    def test_save_in_doubt_may_come_before_later_save(self) -> None:
        save_record = SaveRecord()
        project = self.created(save_record)
        save_record.doubt(save_record.send(project, "sha-2", None))
        self.acknowledged(save_record, project, "sha-3", 3)
        save_record.read_finally(project, 3, "sha-3", b"")
        assert save_record.breaches == []

    def test_save_in_doubt_stored_twice_is_duplicate(self) -> None:
        save_record = SaveRecord()
        project = self.created(save_record)
        save_record.doubt(save_record.send(project, "sha-2", None))
        save_record.read_finally(project, 3, "sha-2", b"")
        assert save_record.count(Promise.DUPLICATE) == 1

    def test_save_in_doubt_above_its_base_is_lost_save(self) -> None:
        """It names base 1, so it must not overwrite version 2."""
        save_record = SaveRecord()
        project = self.created(save_record)
        save_record.doubt(save_record.send(project, "sha-2", 1))
        self.acknowledged(save_record, project, "sha-3", 2)
        save_record.read(project, 2, 3, "sha-2", b"")
        assert save_record.count(Promise.LOST) == 1

    def test_refused_save_that_is_stored_is_duplicate(self) -> None:
        save_record = SaveRecord()
        project = self.created(save_record)
        save = save_record.send(project, "sha-2", 1)
        save_record.refuse(save)
        save_record.read(project, 1, 2, "sha-2", b"")
        assert save_record.count(Promise.DUPLICATE) == 1

    def test_save_read_before_its_answer_breaks_no_promise(self) -> None:
        save_record = SaveRecord()
        project = self.created(save_record)
        save = save_record.send(project, "sha-2", 1)
        save_record.read(project, 1, 2, "sha-2", b"")
        save_record.acknowledge(save, 2)
        assert save_record.breaches == []

    def test_copy_of_copy_has_content_of_source(self) -> None:
        save_record = SaveRecord()
        project = self.created(save_record)
        copies = [save_record.send_copy("bob", project)]
        save_record.acknowledge_copy(copies[0], 2, "Copy of Cat")
        copies.append(save_record.send_copy("eve", copies[0]))
        save_record.acknowledge_copy(copies[1], 3, "Copy of Copy of Cat")
        for copy in copies:
            save_record.read_finally(copy, 1, "sha-1", b"")
        assert save_record.breaches == []
        save_record.read(copies[1], 1, 1, "sha-of-no-save", b"")
        assert save_record.count(Promise.TORN) == 1

    def test_create_in_doubt_explains_one_project_of_its_title(self) -> None:
        save_record = SaveRecord()
        save_record.doubt(save_record.send_create("ada", "Cat", "sha-1"))
        save_record.read_list("ada", [(1, "Cat")])
        assert save_record.breaches == []
        assert [project.id for project in save_record.alive("ada")] == [1]
        save_record.read_list("ada", [(1, "Cat"), (2, "Cat")])
        assert save_record.count(Promise.DUPLICATE) == 1

    def test_earlier_project_that_disappears_is_orphan(self) -> None:
        save_record = SaveRecord()
        save_record.expect_earlier("ada", [1, 2])
        save_record.read_list("ada", [(1, "Old"), (2, "Older")])
        assert save_record.breaches == []
        save_record.read_list("ada", [(2, "Older")])
        save_record.read_list("ada", [(2, "Older")])
        assert save_record.count(Promise.ORPHAN) == 1


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_percentile_is_measured_value(share: float, expected: float) -> None:
    values = [float(value) for value in range(1, 101)]
    random.Random(1).shuffle(values)
    assert percentile(sorted(values), share) == expected
    assert percentile([], share) == 0


def test_failures_are_counted_by_kind_and_not_in_percentiles() -> None:
    records = Records()
    records.note("update", 10.0)
    records.note_failure(Failure(1.0, 2.0, "update", 503, "busy"))
    records.note_failure(Failure(1.0, 9.0, "list", None, "ServerDisconnectedError: gone"))
    summary = records.summary()
    assert summary["all"] == {"count": 3, "failed": 2, "p50_ms": 10.0, "p95_ms": 10.0, "p99_ms": 10.0, "max_ms": 10.0}
    assert (summary["update"]["count"], summary["update"]["failed"], summary["list"]["failed"]) == (2, 1, 1)
    assert records.failed_by_kind == {"503": 1, "ServerDisconnectedError": 1}


def test_put_on_broken_connection_is_not_repeated() -> None:
    """The HTTP client repeats a PUT by itself; the private switch against it may change with its version."""

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
    """Each message says what to type instead."""

    @pytest.fixture
    def inventory(self, tmp_path: Path) -> Path:
        file = tmp_path / "hosts.yml"
        hosts = {"one": {"scratch4school_url": "https://localhost:8443"}, "two": {}}
        file.write_text(json.dumps({"scratch4school": {"hosts": hosts}}))
        return file

    def test_inventory_gives_named_or_first_host(self, inventory: Path) -> None:
        assert target.choose(inventory, None, None, None).url == "https://localhost:8443"
        assert target.choose(inventory, "one", None, None).is_lab
        with pytest.raises(TargetError, match="has no host three; it has one, two"):
            target.choose(inventory, "three", None, None)
        with pytest.raises(TargetError, match="has no scratch4school_url for two; give the address with --url"):
            target.choose(inventory, "two", None, None)

    def test_missing_inventory_names_command_that_makes_lab(self, tmp_path: Path) -> None:
        with pytest.raises(TargetError, match="bring a lab up with scripts/demo"):
            target.choose(tmp_path / "hosts.yml", None, None, None)

    @pytest.mark.parametrize("url", ["scratch.example.de", "ftp://localhost", "https://localhost/backend", "https://"])
    def test_url_that_is_no_installation_is_refused(self, url: str) -> None:
        with pytest.raises(TargetError, match="is not the address of an installation"):
            target.choose(lab.INVENTORY, None, url, None)

    @pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "10.83.86.11"])
    def test_loopback_and_lab_network_are_lab(self, address: str) -> None:
        assert target.is_in_lab(address)

    @pytest.mark.parametrize("address", ["10.83.87.11", "192.0.2.1", "2001:db8::1"])
    def test_school_is_refused_without_i_know(self, address: str) -> None:
        stack = target.Target(f"https://{address}", None, target.is_in_lab(address))
        with pytest.raises(TargetError, match=r"is not a lab: .* add --i-know if you want that"):
            cli.refuse_school(stack, i_know=False)
        cli.refuse_school(stack, i_know=True)
        with pytest.raises(TargetError, match="with --accounts"):
            target.accounts(None, stack.is_lab, 1)

    def test_accounts_equal_pupils_of_lab_provider(self) -> None:
        """The names are written twice, because the provider's image has no access to this package."""
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
        with pytest.raises(TargetError, match="There are 2 accounts; use --users 2 or fewer"):
            target.accounts(file, False, 3)
        file.write_text("ada,one\nbob\n")
        with pytest.raises(TargetError, match=r"Line 2 of .* is not user,password"):
            target.accounts(file, False, 1)

    @pytest.mark.parametrize(
        "arguments", [["--users", "0"], ["--seconds", "x"], ["--large-megabytes", "16"], ["--seconds", "nan"]]
    )
    def test_number_out_of_range_is_usage_error(self, arguments: list[str], capsys: pytest.CaptureFixture) -> None:
        with pytest.raises(SystemExit) as ended:
            cli.parser().parse_args(arguments)
        assert ended.value.code == 2
        assert "is not a number from" in capsys.readouterr().err

    def test_unwritable_report_is_refused_before_run(self, tmp_path: Path) -> None:
        for file in (tmp_path / "nowhere" / "report.json", tmp_path):
            with pytest.raises(TargetError, match="name a file in an existing folder"):
                cli.refuse_unwritable(None, file)
        cli.refuse_unwritable(tmp_path / "report.json")


class TestSideBySide:
    """Work for many pupils at once."""

    def test_first_exception_is_raised(self) -> None:
        async def fail() -> None:
            raise ClassFailed("pupil07 could not begin")

        with pytest.raises(ClassFailed, match="pupil07"):
            asyncio.run(side_by_side(2, [fail, fail, fail]))


class TestCommand:
    """The command as a person types it, with logins through the provider's pages."""

    def run(
        self,
        folder: Path,
        *arguments: str,
        fault: str = "",
        meanwhile: Callable[..., Awaitable[None]] | None = None,
        known_by: str = "--accounts",
    ) -> tuple[int, str]:
        """Run scripts/classroom on a fake school; returns its exit status and output.

        Pupils are `known_by` accounts or sessions; in this school a session's id is the user's name.
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

    def test_run_prints_phases_and_writes_report(self, tmp_path: Path) -> None:
        file = tmp_path / "report.json"
        status, printed = self.run(
            tmp_path, "--seconds", "1", "--json", str(file), "--save_record", str(tmp_path / "save_record")
        )
        assert status == 0, printed
        assert json.loads(file.read_text())["kept"]
        assert (tmp_path / "save_record").read_text().count('"acknowledged"') > 0
        for phase in ("log in: 4 of 4", "prepare: 4 users", "load 1/1 s", "finish", "read back", "delete"):
            assert f"classroom: {phase}" in printed
        assert "\x1b" not in printed
        assert "\r" not in printed

    def test_run_with_sessions_logs_no_pupil_in(self, tmp_path: Path) -> None:
        """The login phase is left out."""
        status, printed = self.run(tmp_path, "--seconds", "1", known_by="--sessions")
        assert status == 0, printed
        assert "log in" not in printed

    def test_broken_promise_sets_exit_status(self, tmp_path: Path) -> None:
        fault = "a save is acknowledged and not stored"
        status, printed = self.run(tmp_path, "--seconds", "600", "--max-requests", "300", fault=fault)
        assert status == cli.BROKEN, printed
        assert "A promise was broken." in printed

    def test_failed_requests_with_allow_failures_exit_zero(self, tmp_path: Path) -> None:
        limits = ("--seconds", "600", "--max-requests", "60")
        fault = "a save is refused without a word"
        assert self.run(tmp_path, *limits, fault=fault)[0] == cli.BROKEN
        assert self.run(tmp_path, *limits, "--allow-failures", fault=fault)[0] == 0

    def test_failed_login_names_pupil(self, tmp_path: Path) -> None:
        accounts = tmp_path / "wrong.csv"
        accounts.write_text("pupil0,wrong\n")
        status, printed = self.run(tmp_path, "--users", "1", "--accounts", str(accounts))
        assert status == cli.UNAVAILABLE
        assert "pupil0 could not log in" in printed

    def test_first_signal_ends_load_and_keeps_report(self, tmp_path: Path) -> None:
        async def terminate(school: FakeSchool, process: asyncio.subprocess.Process) -> None:
            await until(lambda: len(school.assets) > 0)
            process.send_signal(signal.SIGTERM)

        status, printed = self.run(tmp_path, "--seconds", "600", meanwhile=terminate)
        assert status == 0, printed
        assert "SIGTERM: the load ends here" in printed
        assert "All promises kept." in printed

    def test_second_signal_ends_process(self, tmp_path: Path) -> None:
        async def interrupt_twice(school: FakeSchool, process: asyncio.subprocess.Process) -> None:
            await until(lambda: len(school.assets) > 0)
            school.answers.clear()
            process.send_signal(signal.SIGINT)
            line = b""
            while b"a second signal ends at once" not in line:
                line = await process.stdout.readline()  # type: ignore[union-attr]
                assert line
            process.send_signal(signal.SIGINT)
            await process.wait()
            school.answers.set()

        status, printed = self.run(tmp_path, "--seconds", "600", meanwhile=interrupt_twice)
        assert status == -signal.SIGINT
        assert "kept" not in printed


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until the condition is true; fail when it is not within two minutes."""
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.01)
