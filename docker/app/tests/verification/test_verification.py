"""`scratch4school verify`: it passes on a good service, leaves nothing, and fails if a promise is not kept."""

import contextlib
import os
import re
import shutil
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy.engine import make_url

from helpers import COMMAND, SOURCE_ON_PATH, Device, project_file
from scratch4school.clock import utcnow
from scratch4school.config import Settings, load
from scratch4school.database.database import Database
from scratch4school.database.tables import groups, metadata, users
from scratch4school.projects import projects
from scratch4school.verification import checks, stage, verification, visitors
from scratch4school.verification.checks import CheckFailed
from scratch4school.verification.stage import Client, Scale, Stage
from scratch4school.web.services import Services

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Any]


def command(environment: dict[str, str], url: str, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "verify", *options],
        env={**os.environ, **SOURCE_ON_PATH, **environment, "SCRATCH4SCHOOL_VERIFY_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def everything(services: Services) -> tuple[dict[str, int], set[Path]]:
    """The number of rows of each table, and all files."""
    rows = {
        table.name: services.database.read(
            lambda connection, table=table: connection.scalar(sa.select(sa.func.count()).select_from(table))
        )
        for table in metadata.sorted_tables
    }
    return rows, {path for path in services.store.root.rglob("*") if path.is_file()}  # type: ignore[return-value]


@pytest.mark.parametrize(("options", "devices"), [((), "10 devices x 10 saves"), (("--quick",), "4 devices x 3 saves")])
def test_good_service_passes_all_checks_and_nothing_is_left(
    environment: dict[str, str],
    start_server: Callable[..., Any],
    services: Services,
    pupil: Device,
    project_id: int,
    options: tuple[str, ...],
    devices: str,
) -> None:
    """Six lines with scale and durations, then the result; the pupils' rows and files are unchanged."""
    before = everything(services)
    server = start_server()
    output, errors = (process := command(environment, server.url, *options)).communicate(timeout=100)
    lines = output.splitlines()
    assert (process.returncode, errors) == (0, ""), output
    assert lines[-1] == "Results: 6 passed, 0 failed"
    assert len(lines) == 7
    for number, line in enumerate(lines[:-1], start=1):
        assert re.match(rf"\[{number}/6\] [A-Z].*\d.* … passed \(\d+\.\d s\)", line)
    assert devices in lines[0]
    assert everything(services) == before
    assert pupil.metadata(project_id).status_code == 200


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_missing_service_fails_all_checks(environment: dict[str, str], services: Services) -> None:
    before = everything(services)
    output, _ = (process := command(environment, "http://127.0.0.1:1")).communicate(timeout=60)
    assert process.returncode == 1
    assert output.splitlines()[-1] == "Results: 0 passed, 6 failed"
    assert "ConnectionRefusedError" in output
    assert everything(services) == before


def test_stopped_run_removes_its_users(
    environment: dict[str, str], start_server: Callable[..., Any], services: Services
) -> None:
    before = everything(services)
    process = command(environment, start_server().url)
    give_up = time.monotonic() + 60
    while everything(services)[0]["projects"] == 0:
        assert time.monotonic() < give_up
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "stopped before its end" in errors
    assert output.splitlines()[-1] == "Results: 0 passed, 6 failed"
    assert everything(services) == before


def test_stopped_run_waits_for_open_requests(
    environment: dict[str, str], serve: Callable[[Callable[[Any], Wsgi]], Stage], services: Services
) -> None:
    """A save in flight at the stop is finished, and its data are removed with the rest."""
    ended_before_its_save = []

    def stopping(app: Any) -> Any:
        store = app.extensions["scratch4school"].store
        keep = store.keep_new

        def keep_after_the_stop(*arguments: Any) -> str:
            process.send_signal(signal.SIGTERM)
            wait_until_idle_or_ended(process)
            ended_before_its_save.append(process.poll() is not None)
            return str(keep(*arguments))

        store.keep_new = keep_after_the_stop
        return app

    before = everything(services)
    served = serve(stopping)
    process = command(environment, str(served.settings.verification.url))
    output, errors = process.communicate(timeout=250)
    assert ended_before_its_save
    assert not any(ended_before_its_save)
    assert "stopped before its end" in errors
    assert output.splitlines()[-1] == "Results: 0 passed, 6 failed"
    assert everything(services) == before


def wait_until_idle_or_ended(process: subprocess.Popen[str]) -> None:
    """Wait until the process has ended, or all its threads have slept for two seconds.

    A slow process is not idle: its threads are ready to run, and only wait for the processor. After a minute it has had
    its time.
    """
    give_up = time.monotonic() + 60
    samples_asleep = 0
    while samples_asleep < 20 and process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.1)
        samples_asleep = samples_asleep + 1 if is_asleep(process.pid) else 0


def is_asleep(pid: int) -> bool:
    states = set()
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        # A thread may end between the listing and this.
        with contextlib.suppress(OSError):
            states.add(stat.read_text().rpartition(")")[2].split()[0])
    return states == {"S"}


def test_save_during_the_removal_is_removed(
    services: Services, device: Callable[..., Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late request saves after the files are removed and before the rows are."""
    before = everything(services)
    late = device("verify-0123456789ab-late")
    remove = services.store.remove_owner

    def remove_then_save(owner_id: str) -> None:
        remove(owner_id)
        monkeypatch.setattr(services.store, "remove_owner", remove)
        assert late.create(project_file("late")).status_code == 200
        assert late.upload(b"late asset", type="costume", format="png").status_code == 200

    monkeypatch.setattr(services.store, "remove_owner", remove_then_save)
    visitors.remove_run(services.database, services.store, "0123456789ab")
    assert everything(services) == before


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_removal_waits_for_an_open_transaction(
    settings: Settings, services: Services, log_in: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row is not visible yet, and its key blocks the deletion of the user."""
    before = everything(services)
    log_in("verify-0123456789ab-late")
    saving = Database(settings.database, connections=1)
    commit, about_to_commit = saving._commit, threading.Event()

    def commit_once_waited_for(transaction: sa.RootTransaction) -> None:
        about_to_commit.set()
        wait_for_a_blocked_connection(services.database)
        commit(transaction)

    def save() -> int:
        with stage.incoming(services.store, project_file("late")) as file:
            content = projects.Content(file, None)
            return int(projects.create(saving, services.store, "verify-0123456789ab-late", "Late", content, 3).version)

    monkeypatch.setattr(saving, "_commit", commit_once_waited_for)
    with ThreadPoolExecutor(1) as thread:
        saved = thread.submit(save)
        assert about_to_commit.wait(60)
        visitors.remove_run(services.database, services.store, "0123456789ab")
    saving.dispose()
    assert saved.result() == 1
    assert everything(services) == before


def wait_for_a_blocked_connection(database: Database) -> None:
    waiting = sa.text("SELECT count(*) FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0")
    give_up = time.monotonic() + 60
    while not database.read(lambda connection: connection.scalar(waiting)):
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_leftovers_of_a_killed_run_are_removed_after_an_hour(
    services: Services, device: Callable[..., Device], pupil: Device
) -> None:
    """Only those: not a run in progress, not a pupil or group with a similar name."""
    old, young = "verify-0123456789ab-old", "verify-0123456789ab-young"
    for name in (old, young, "verify-team", "verify-0123456789abcd"):
        device(name, f"{name}-1").create(project_file(name))
    device(old).upload(b"asset of the old run", type="costume", format="png")
    long_ago = utcnow() - timedelta(hours=2)
    for table, column in ((users, users.c.id), (groups, groups.c.external_id)):
        services.database.write(
            lambda connection, table=table, column=column: connection.execute(
                sa.update(table).where(~column.contains("young")).values(created_at=long_ago)
            )
        )
    files = len(everything(services)[1])
    visitors.remove_leftovers(services.database, services.store)
    left = services.database.read(lambda connection: set(connection.scalars(sa.select(users.c.id))))
    assert left == {"ada", young, "verify-team", "verify-0123456789abcd"}
    assert len(everything(services)[1]) == files - 2
    assert services.store.files_of(old) == []


class Listening(ThreadingMixIn, WSGIServer):
    """A server with a thread for each request and a queue for a hundred clients."""

    daemon_threads = True
    request_queue_size = 128


class Silent(WSGIRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""


@pytest.fixture
def serve(
    environment: dict[str, str], make_app: Callable[..., Any], services: Services
) -> Iterator[Callable[[Callable[[Any], Wsgi]], Stage]]:
    """Start the application as `broken(app)` changes it, a service that breaks a promise; returns a stage for it."""
    running = []

    def start(broken: Callable[[Any], Wsgi], scale: Scale = stage.FULL) -> Stage:
        server = make_server("127.0.0.1", 0, broken(make_app()), Listening, Silent)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        running.append((server, thread))
        settings = load({**environment, "SCRATCH4SCHOOL_VERIFY_URL": f"http://127.0.0.1:{server.server_port}"})
        return Stage(settings, services.database, services.store, str(settings.verification.url), scale)

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


def answering(status: str, when: Callable[[dict[str, Any]], bool]) -> Callable[[Any], Wsgi]:
    """The application, but with the answer `status` for requests that match `when`."""

    def broken(app: Any) -> Wsgi:
        def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            if not when(environ):
                return app(environ, start_response)
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(status, [("Content-Type", "application/json"), ("Content-Length", "2")])
            return [b"{}"]

        return call

    return broken


def is_save(environ: dict[str, Any]) -> bool:
    return environ["REQUEST_METHOD"] == "PUT"


def ignoring_versions(app: Any) -> Wsgi:
    def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if is_save(environ):
            environ["QUERY_STRING"] = ""
        return app(environ, start_response)

    return call


@pytest.mark.parametrize("engine_name", ["sqlite"])
class TestBrokenService:
    """A check that cannot fail shows nothing: each meets a service that breaks its promise."""

    def test_service_that_loses_an_update_fails(self, serve: Callable[..., Stage]) -> None:
        with pytest.raises(CheckFailed, match="acknowledged saves are lost"):
            checks.no_lost_update(serve(ignoring_versions, replace(stage.FULL, saves=5)))

    def test_accepted_stale_save_fails(self, serve: Callable[..., Stage]) -> None:
        with pytest.raises(CheckFailed, match="10 saves from the same version were accepted"):
            checks.stale_save_refused(serve(ignoring_versions))

    def test_save_without_saved_version_fails(self, serve: Callable[..., Stage]) -> None:
        def forgetting(app: Any) -> Any:
            available = app.extensions["scratch4school"]
            forgetful = replace(available.settings, keep_revisions=0)
            app.extensions["scratch4school"] = replace(available, settings=forgetful)
            return app

        with pytest.raises(CheckFailed, match=r"revisions \[3\] were kept, not \[1, 2, 3\]"):
            checks.stale_save_refused(serve(forgetting))

    def test_asset_stored_twice_fails(self, serve: Callable[..., Stage]) -> None:
        """A service in which a losing upload leaves its file."""

        def hoarding(app: Any) -> Any:
            app.extensions["scratch4school"].store.discard = lambda _path: None
            return app

        with pytest.raises(CheckFailed, match="files in"):
            checks.asset_once(serve(hoarding))

    def test_service_that_refuses_an_upload_fails(self, serve: Callable[..., Stage]) -> None:
        """As in the original, which cannot store the same bytes under a second type."""
        taken = threading.Semaphore(stage.FULL.uploads)
        refusing = answering("500 Internal Server Error", lambda environ: not is_free(environ, taken))
        with pytest.raises(CheckFailed, match="second type got 500"):
            checks.asset_once(serve(refusing))

    def test_service_that_refuses_sessions_fails(self, serve: Callable[..., Stage]) -> None:
        refusing = answering("401 Unauthorized", lambda environ: environ["PATH_INFO"] == "/api/user")
        with pytest.raises(CheckFailed, match="answered 401 to a new session"):
            checks.first_logins(serve(refusing))

    def test_service_on_another_database_fails(
        self, serve: Callable[..., Stage], tmp_path: Path, migrated: Any
    ) -> None:
        """The logins exist, but the service does not see them."""

        def elsewhere(app: Any) -> Any:
            other = tmp_path / "other.db"
            shutil.copy(str(make_url(migrated["sqlite"]).database), other)
            available = app.extensions["scratch4school"]
            available.database.dispose()
            database = Database(replace(available.settings.database, url=make_url(f"sqlite:///{other}")), 20)
            app.extensions["scratch4school"] = replace(available, database=database)
            return app

        with pytest.raises(CheckFailed, match="answered 401 to a new session"):
            checks.first_logins(serve(elsewhere))

    def test_service_without_a_membership_fails(
        self, serve: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("scratch4school.login.sign_in._put_memberships", lambda *arguments: None)
        with pytest.raises(CheckFailed, match="0 memberships instead of 3"):
            checks.first_logins(serve(lambda app: app))

    def test_service_without_logins_fails(self, serve: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("scratch4school.login.sign_in._put_user", _fail)
        with pytest.raises(RuntimeError, match="on purpose"):
            checks.first_logins(serve(lambda app: app))

    def test_client_with_an_error_fails(self, serve: Callable[..., Stage]) -> None:
        """A pool that is too small answers the last ten with 503."""
        room = threading.Semaphore(stage.FULL.clients - 10)
        full = answering(
            "503 Service Unavailable",
            lambda environ: environ["REQUEST_METHOD"] == "GET" and not room.acquire(blocking=False),
        )
        with pytest.raises(CheckFailed, match=r"10 of 100 clients met an error: \[\(200, 503\)\]"):
            checks.pooling(serve(full))

    def test_acknowledged_but_missing_saves_fail(self, serve: Callable[..., Stage]) -> None:
        lying = answering("200 OK", lambda environ: environ["REQUEST_METHOD"] == "POST")
        with pytest.raises(CheckFailed, match="0 projects were saved by 100 clients"):
            checks.pooling(serve(lying))

    def test_file_left_behind_fails(self, serve: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
        """New files are not removed after a failed commit of this process."""
        good = serve(lambda app: app)
        monkeypatch.setattr(good.store, "discard", lambda relative: None)
        with pytest.raises(CheckFailed, match="6 files afterwards, 1 before"):
            checks.failed_commit(good)

    def test_acknowledged_failed_commit_fails(
        self, serve: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(projects, "save", lambda *arguments: None)
        with pytest.raises(CheckFailed, match="acknowledged although its commit failed"):
            checks.failed_commit(serve(lambda app: app))

    def test_refused_next_save_fails(self, serve: Callable[..., Stage]) -> None:
        with pytest.raises(CheckFailed, match="the next save was refused"):
            checks.failed_commit(serve(answering("503 Service Unavailable", is_save)))


def test_torn_project_file_has_no_content() -> None:
    """A reader that meets a file in the middle of being overwritten reports a failed check, not a broken archive."""
    whole = stage.project_file("kept")
    assert stage.project_content(whole) == "kept"
    assert [stage.project_content(whole[:size]) for size in (0, 40, len(whole) - 1)] == [None, None, None]


@pytest.mark.parametrize("scale", [stage.FULL, stage.QUICK], ids=["full", "quick"])
@pytest.mark.parametrize("engine_name", ["postgresql"])
class TestInterruptedSaveOfTheService:
    """On PostgreSQL a save of the service itself is made to fail; a service that handles that badly is found."""

    def test_good_service_passes_all_checks(self, serve: Callable[..., Stage], scale: Scale) -> None:
        remark = str(checks.failed_commit(serve(lambda app: app, scale)))
        assert re.fullmatch(r"one save's (connection cut \d+ times|statement cut 1 times): 503", remark)

    def test_file_left_behind_fails(self, serve: Callable[..., Stage], scale: Scale) -> None:
        def hoarding(app: Any) -> Any:
            app.extensions["scratch4school"].store.discard = lambda _path: None
            return app

        with pytest.raises(CheckFailed, match="2 files afterwards, 1 before"):
            checks.failed_commit(serve(hoarding, scale))

    def test_overwritten_old_work_fails(self, serve: Callable[..., Stage], scale: Scale) -> None:
        """As in the original, which overwrites the existing file before it asks the database."""

        def overwriting(app: Any) -> Wsgi:
            store = app.extensions["scratch4school"].store

            def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
                if is_save(environ):
                    for path in (store.root / "projects").rglob("*.sb3"):
                        path.write_bytes(stage.project_file("cut off"))
                return app(environ, start_response)

            return call

        with pytest.raises(CheckFailed, match=r"other content than the old work|their bytes changed"):
            checks.failed_commit(serve(overwriting, scale))

    def test_save_that_never_reaches_the_database_fails(self, serve: Callable[..., Stage], scale: Scale) -> None:
        with pytest.raises(CheckFailed, match="no save of the service reached the database"):
            checks.failed_commit(serve(answering("503 Service Unavailable", is_save), scale))

    def test_acknowledged_interrupted_save_fails(self, serve: Callable[..., Stage], scale: Scale) -> None:
        def lying(app: Any) -> Wsgi:
            def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
                def say_yes(_status: str, *rest: Any) -> Any:
                    return start_response("200 OK", *rest)

                return app(environ, say_yes if is_save(environ) else start_response)

            return call

        with pytest.raises(CheckFailed, match=r"a save whose (connection|statement) was cut \d+ times got 200"):
            checks.failed_commit(serve(lying, scale))


def is_free(environ: dict[str, Any], taken: threading.Semaphore) -> bool:
    """Whether a request is no upload, or one of the first uploads, which `taken` counts."""
    return environ["REQUEST_METHOD"] != "POST" or taken.acquire(blocking=False)


def _fail(*_arguments: object) -> None:
    raise RuntimeError("on purpose")


def test_client_uses_the_public_name_of_the_proxy(tmp_path: Path) -> None:
    """Inside the deployment the proxy has another name than in its certificate and virtual host."""
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"{self.headers['Host']} {self.path} {self.headers['Authorization']}".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Log nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.handle_request, daemon=True).start()
        url = f"https://127.0.0.1:{server.server_port}/backend"
        with Client(url, "https://scratch.school.test:8443", "session", lambda: None) as client:
            answer = client.get("/api/user")
    assert (answer.status, answer.body) == (200, b"scratch.school.test:8443 /backend/api/user Bearer session")
    assert names == ["scratch.school.test"]


def self_signed(folder: Path) -> Path:
    """A certificate with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "scratch.school.test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "certificate.pem"
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_missing_address_is_exit_status_78(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert verification.run(settings) == 78
    assert "SCRATCH4SCHOOL_VERIFY_URL is missing" in capsys.readouterr().err
