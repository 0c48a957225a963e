"""Settings: all problems are reported at once, before anything starts, and secrets are never shown."""

import subprocess
from pathlib import Path

import pytest

from helpers import COMMAND, SOURCE_ON_PATH
from scratch4school import config
from scratch4school.config import ConfigurationError

KEY = "k3y-0123456789-abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def complete(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "key").write_text(KEY + "\n")
    (tmp_path / "client").write_text("client-s3cret\n")
    (tmp_path / "database").write_text("p4ssw0rd-of-app\n")
    return {
        "SCRATCH4SCHOOL_PUBLIC_URL": "https://scratch.school.test/",
        "SCRATCH4SCHOOL_DATABASE_URL": "postgresql://app@pgbouncer:6432/scratch4school",
        "SCRATCH4SCHOOL_DATABASE_PASSWORD_FILE": str(tmp_path / "database"),
        "SCRATCH4SCHOOL_SECRET_KEY_FILE": str(tmp_path / "key"),
        "SCRATCH4SCHOOL_OIDC_CLIENT_ID": "scratch4school",
        "SCRATCH4SCHOOL_OIDC_CLIENT_SECRET_FILE": str(tmp_path / "client"),
        "SCRATCH4SCHOOL_OIDC_AUTHORIZE_URL": "https://iserv.school.test/iserv/oauth/v2/auth",
        "SCRATCH4SCHOOL_OIDC_TOKEN_URL": "https://iserv.school.test/iserv/oauth/v2/token",
        "SCRATCH4SCHOOL_OIDC_JWKS_URL": "https://iserv.school.test/iserv/public/jwk",
        "SCRATCH4SCHOOL_ROLE_ADMIN": "admins",
        "SCRATCH4SCHOOL_ROLE_TEACHER": "lehrer",
        "SCRATCH4SCHOOL_UPLOADS": str(tmp_path),
    }


def problems(environment: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        config.load(environment)
    return caught.value.problems


def test_complete_environment_is_accepted(complete: dict[str, str]) -> None:
    settings = config.load(complete)
    assert settings.redirect_uri == "https://scratch.school.test/backend/authorize"
    assert settings.database.url.drivername == "postgresql+psycopg2"
    assert settings.secret_key.reveal() == KEY
    assert (settings.keep_revisions, settings.server.workers, settings.server.threads) == (10, 3, 4)
    assert settings.server.request_seconds == 60
    assert settings.oidc.scope == "openid profile uuid email groups"
    assert settings.accel_redirect is None


def test_empty_environment_reports_every_missing_setting() -> None:
    assert len(problems({})) == 11
    assert all("is missing" in problem for problem in problems({}))


def test_secrets_are_not_printed(complete: dict[str, str]) -> None:
    settings = config.load(complete)
    for shown in (repr(settings), str(settings.secret_key), f"{settings.database}"):
        for secret in (KEY, "client-s3cret", "p4ssw0rd-of-app"):
            assert secret not in shown


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PUBLIC_URL", "scratch.school.test", "must be a URL"),
        ("PUBLIC_URL", "ftp://scratch.school.test", "must be a URL"),
        ("PUBLIC_URL", "https://scratch.school.test:port", "must be a URL"),
        ("PUBLIC_URL", "https://scratch.school.test/x", "without a path"),
        ("PUBLIC_URL", "https://me:pw@scratch.school.test", "must not contain a user name"),
        ("PUBLIC_URL", "https://scratch.example.org", "placeholder"),
        ("OIDC_TOKEN_URL", "https://your-iserv.de/token", "placeholder"),
        ("OIDC_CLIENT_ID", "your-client-id", "placeholder"),
        ("ROLE_ADMIN", "changeme", "placeholder"),
        ("ROLE_TEACHER", "admins", "another group"),
        ("DATABASE_URL", "mysql://app@host/x", "must begin with postgresql://"),
        ("DATABASE_URL", "rubbish", "is not a database URL"),
        ("DATABASE_URL", "postgresql://host/", "must name user, host and database"),
        ("DATABASE_URL", "sqlite:///relative.db", "absolute path"),
        ("DATABASE_ROLE", "owner; DROP", "plain role name"),
        ("UPLOADS", "/nowhere/at/all", "not a directory"),
        ("UPLOADS", "uploads", "absolute path"),
        ("ACCEL_REDIRECT", "_uploads", "begin and end with a slash"),
        ("WORKERS", "0", "from 1 to 64"),
        ("THREADS", "many", "whole number"),
        ("KEEP_REVISIONS", "-1", "whole number"),
        ("BIND", "nowhere", "unix:/path"),
        ("BIND", "0.0.0.0:99999", "unix:/path"),
        ("OIDC_SCOPE", "profile", "must contain openid"),
        ("SECRET_KEY_FILE", "/nowhere/key", "cannot be read: No such file"),
        ("VERIFY_POOLER_URL", "postgresql://monitor@pgbouncer:6432/pgbouncer", "POOLER_PASSWORD_FILE is missing"),
    ],
)
def test_wrong_value_is_one_message(complete: dict[str, str], name: str, value: str, message: str) -> None:
    found = problems({**complete, f"SCRATCH4SCHOOL_{name}": value})
    assert len(found) == 1
    assert message in found[0]
    assert found[0].endswith(".")


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        ("", "empty"),
        ("short-but-not-a-word", "has 20 characters; at least 32"),
        ("changeme", "placeholder"),
        ("change-me-change-me-change-me-change-me", "placeholder"),
        ("secret", "placeholder"),
        ("your-secret-key-of-at-least-32-characters", "placeholder"),
        ("dev", "placeholder"),
        ("example", "placeholder"),
        ("a" * 40, "repeats"),
    ],
)
def test_weak_secret_is_refused_and_not_repeated(
    complete: dict[str, str], tmp_path: Path, secret: str, message: str
) -> None:
    (tmp_path / "key").write_text(secret)
    found = problems(complete)
    assert len(found) == 1
    assert message in found[0]
    if len(secret) > 8:
        assert secret not in found[0]


def test_password_in_the_url_is_refused_and_not_repeated(complete: dict[str, str]) -> None:
    found = problems({**complete, "SCRATCH4SCHOOL_DATABASE_URL": "postgresql://app:hunter22@host/db"})
    assert len(found) == 1
    assert "must not contain the password" in found[0]
    assert "hunter22" not in found[0]


@pytest.mark.parametrize("arguments", [["serve"], ["verify"], ["db", "check"], ["db", "upgrade"]])
def test_command_without_settings_is_exit_status_78(arguments: list[str]) -> None:
    command = [*COMMAND, *arguments]
    done = subprocess.run(command, env=SOURCE_ON_PATH, capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert "SCRATCH4SCHOOL_DATABASE_URL is missing." in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
