"""The command scripts/setup: which environments are up to date, and what it takes from this machine's settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scratch4school_lab.checkout import ROOT
from scratch4school_lab.commands import setup
from scratch4school_lab.commands.setup import Environment

SETTINGS = ("SSL_CERT_FILE", "PIP_CERT", "UV_DEFAULT_INDEX", "PIP_INDEX_URL", "UV_LINK_MODE", "UV_SYSTEM_CERTS")


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """An environment with a Python that works, and a lock."""
    folder, lock = tmp_path / "venv", tmp_path / "requirements.lock"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to("/bin/true")
    lock.write_text("a==1\n")
    return Environment(folder, lock, "The tools")


def test_environment_is_up_to_date_after_finish(environment: Environment) -> None:
    assert not environment.is_up_to_date()
    environment.finish()
    assert environment.is_up_to_date()


def test_changed_lock_makes_environment_outdated(environment: Environment) -> None:
    environment.finish()
    environment.lock.write_text("a==2\n")
    assert not environment.is_up_to_date()


@pytest.mark.parametrize("target", ["/bin/false", "/nowhere/python"])
def test_python_that_does_not_work_makes_environment_outdated(environment: Environment, target: str) -> None:
    """As after an upgrade of the machine's Python, or in a checkout that was moved."""
    environment.finish()
    environment.python.unlink()
    environment.python.symlink_to(target)
    assert not environment.is_up_to_date()


def test_entry_of_uv_has_its_hashes_and_nothing_else() -> None:
    entry = "uv==2 \\\n    --hash=sha256:2\n    # via x\n"
    lock = f"# by hand\na==1 \\\n    --hash=sha256:1\n{entry}vine==3 \\\n    --hash=sha256:3\n"
    assert setup.uv_requirement(lock) == entry


def test_lock_of_this_checkout_has_entry_of_uv() -> None:
    requirement = setup.uv_requirement((ROOT / "requirements.lock").read_text())
    assert requirement.startswith("uv==")
    assert requirement.count("==") == 1
    assert "--hash=sha256:" in requirement


class TestSettings:
    """uv does not read pip's settings, so setup passes them on."""

    @pytest.fixture(autouse=True)
    def no_settings(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Neither the environment nor pip has a setting."""
        for name in SETTINGS:
            # Set first, so that what the test sets is undone too.
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        monkeypatch.setattr(setup, "pip_setting", lambda _name: "")
        monkeypatch.setattr(setup, "AUTHORITIES", tmp_path / "none")

    def test_pip_settings_are_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        known = {"global.cert": "/school/ca.pem", "global.index-url": "https://mirror.school.test/simple"}
        monkeypatch.setattr(setup, "pip_setting", lambda name: known[name])
        setup.adopt_settings()
        assert os.environ["SSL_CERT_FILE"] == os.environ["PIP_CERT"] == "/school/ca.pem"
        assert os.environ["UV_DEFAULT_INDEX"] == "https://mirror.school.test/simple"

    def test_environment_has_priority_over_pip_settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(setup, "pip_setting", lambda name: f"pip's {name}")
        monkeypatch.setenv("PIP_CERT", "/mine.pem")
        monkeypatch.setenv("PIP_INDEX_URL", "https://mine.test/simple")
        setup.adopt_settings()
        assert os.environ["SSL_CERT_FILE"] == "/mine.pem"
        assert os.environ["UV_DEFAULT_INDEX"] == "https://mine.test/simple"

    def test_authorities_of_machine_are_last_choice(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        bundle = tmp_path / "ca-certificates.crt"
        bundle.touch()
        monkeypatch.setattr(setup, "AUTHORITIES", bundle)
        setup.adopt_settings()
        assert os.environ["SSL_CERT_FILE"] == str(bundle)
        assert "UV_DEFAULT_INDEX" not in os.environ

    def test_no_settings_change_nothing(self) -> None:
        setup.adopt_settings()
        assert "SSL_CERT_FILE" not in os.environ
        assert os.environ["UV_LINK_MODE"] == "copy"
