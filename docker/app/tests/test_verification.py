"""`scratch4school verify`: passes on a good service, leaves nothing, and fails where a promise is not kept."""

import os
import re
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from helpers import COMMAND, SOURCE_ON_PATH, Device, project_file
from scratch4school import projects, verification
from scratch4school.clock import utcnow
from scratch4school.config import Settings, load
from scratch4school.services import Services
from scratch4school.tables import groups, metadata, oauth_sessions, users
from scratch4school.verification import checks, visitors
from scratch4school.verification.checks import CheckFailed
from scratch4school.verification.stage import Client, Stage


def command(environment: dict[str, str], url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "verify"],
        env={**os.environ, **SOURCE_ON_PATH, **environment, "SCRATCH4SCHOOL_VERIFY_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def everything(services: Services) -> tuple[dict[str, int], set[Path]]:
    """How many rows each table holds, and all files."""
    rows = {
        table.name: services.database.read(
            lambda connection, table=table: connection.scalar(sa.select(sa.func.count()).select_from(table))
        )
        for table in metadata.sorted_tables
    }
    return rows, {path for path in services.store.root.rglob("*") if path.is_file()}  # type: ignore[return-value]


def test_passes_on_a_good_service_and_leaves_nothing(
    environment: dict[str, str], start_server: Callable[..., Any], services: Services, pupil: Device, project_id: int
) -> None:
    """Six lines with their durations, the result as the last, and the pupils' own rows and files as before."""
    before = everything(services)
    server = start_server()
    output, errors = (process := command(environment, server.url)).communicate(timeout=100)
    lines = output.splitlines()
    assert (process.returncode, errors) == (0, ""), output
    assert lines[-1] == "Results: 6 passed, 0 failed"
    assert len(lines) == 7
    for number, line in enumerate(lines[:-1], start=1):
        assert re.match(rf"\[{number}/6\] [A-Z].* … passed \(\d+\.\d s\)", line)
    assert everything(services) == before
    assert pupil.metadata(project_id).status_code == 200


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_without_a_service_all_that_needs_it_fails(environment: dict[str, str], services: Services) -> None:
    before = everything(services)
    output, _ = (process := command(environment, "http://127.0.0.1:1")).communicate(timeout=60)
    assert process.returncode == 1
    assert output.splitlines()[-1] == "Results: 1 passed, 5 failed"
    assert "ConnectionRefusedError" in output
    assert everything(services) == before


def test_stopped_run_removes_its_visitors(
    environment: dict[str, str], start_server: Callable[..., Any], services: Services
) -> None:
    before = everything(services)
    process = command(environment, start_server().url)
    give_up = time.monotonic() + 20
    while everything(services)[0]["projects"] == 0:
        assert time.monotonic() < give_up
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "stopped before its end" in errors
    assert output.splitlines()[-1] == "Results: 0 passed, 6 failed"
    assert everything(services) == before


def test_leftovers_of_a_killed_run_are_removed_after_an_hour(
    services: Services, device: Callable[..., Device], pupil: Device
) -> None:
    """And nobody else: not a run under way, not a pupil or group whose name only resembles ours."""
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


@pytest.fixture
def stage(environment: dict[str, str], start_server: Callable[..., Any], services: Services) -> Stage:
    settings = load({**environment, "SCRATCH4SCHOOL_VERIFY_URL": start_server(WORKERS="1").url})
    return Stage(settings, services.database, services.store, str(settings.verification.url))


@pytest.mark.parametrize("engine_name", ["sqlite"])
class TestEachCheckFails:
    """A check that cannot fail proves nothing; each is shown a service that breaks its promise."""

    def test_lost_update(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """Devices whose version does not reach the service overwrite each other."""
        monkeypatch.setattr(checks, "_save", _without_version(checks._save))
        monkeypatch.setattr(checks, "SAVES", 5)
        with pytest.raises(CheckFailed, match="acknowledged saves are lost"):
            checks.no_lost_update(stage)

    def test_accepted_stale_save(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checks, "_save", _without_version(checks._save))
        with pytest.raises(CheckFailed, match="10 saves from the same version were accepted"):
            checks.stale_save_refused(stage)

    def test_asset_file_missing(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stage.store, "root", stage.store.root / "elsewhere")
        with pytest.raises(CheckFailed, match="files in"):
            checks.asset_once(stage)

    def test_group_that_is_missing(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("scratch4school.users._put_memberships", lambda *arguments: None)
        with pytest.raises(CheckFailed, match="0 memberships instead of 3"):
            checks.first_logins(stage)

    def test_login_that_fails(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("scratch4school.users._put_user", _fail)
        with pytest.raises(RuntimeError, match="on purpose"):
            checks.first_logins(stage)

    def test_client_with_an_error(self, stage: Stage, services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
        """Sessions that end while they are used."""
        real = stage.sign_in

        def short_lived(identity: Any) -> Any:
            visitor = real(identity)
            services.database.write(lambda connection: connection.execute(sa.delete(oauth_sessions)))
            return visitor

        monkeypatch.setattr(stage, "sign_in", short_lived)
        with pytest.raises(CheckFailed, match=r"100 of 100 clients met an error: \[\(401, 401\)\]"):
            checks.pooling(stage)

    def test_file_left_behind(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where new files are not taken back after a failed commit."""
        monkeypatch.setattr(stage.store, "discard", lambda relative: None)
        with pytest.raises(CheckFailed, match="6 files afterwards, 1 before"):
            checks.failed_commit(stage)

    def test_acknowledged_failure(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(projects, "save", lambda *arguments: None)
        with pytest.raises(CheckFailed, match="acknowledged although its commit failed"):
            checks.failed_commit(stage)


def _without_version(save: Callable[..., Any]) -> Callable[..., Any]:
    return lambda client, project_id, content, version: save(client, project_id, content, None)


def _fail(*_arguments: object) -> None:
    raise RuntimeError("on purpose")


def test_proxy_is_asked_by_its_public_name(tmp_path: Path) -> None:
    """Inside the deployment the proxy has another name than its certificate and its virtual host."""
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
            """Say nothing; pytest shows what matters."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.handle_request, daemon=True).start()
        url = f"https://127.0.0.1:{server.server_port}/backend"
        with Client(url, "https://scratch.school.test:8443", "session") as client:
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
def test_address_is_needed(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert verification.run(settings) == 78
    assert "SCRATCH4SCHOOL_VERIFY_URL is missing" in capsys.readouterr().err
