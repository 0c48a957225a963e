"""Snapshots of lab hosts, without a Docker Engine: the commands, their order, and the refusals."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scratch4school_lab import shell
from scratch4school_lab.checkout import ROOT
from scratch4school_lab.commands import lab
from scratch4school_lab.hosts import containers, inventory, lifecycle, plan, snapshots
from scratch4school_lab.shell import LabError

FIRST, SECOND, THIRD = plan.hosts(3)
TRAITS = {"system": "trixie", "database": "postgres"}


class FakeDocker:
    """Records the arguments of docker; answers and failures are given by the beginning of a command."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.answers: dict[str, str] = {}
        self.failures: set[str] = set()

    def __call__(self, *arguments: str, why: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = " ".join(arguments)
        self.commands.append(command)
        failed = any(command.startswith(beginning) for beginning in self.failures)
        if failed and check:
            raise LabError(why)
        output = next((text for beginning, text in self.answers.items() if command.startswith(beginning)), "")
        return subprocess.CompletedProcess(command, int(failed), stdout=output, stderr="")

    def position(self, beginning: str) -> int:
        """Where the first command with that beginning stands."""
        return next(number for number, command in enumerate(self.commands) if command.startswith(beginning))


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeDocker:
    """A Docker Engine that only records; the log goes elsewhere."""
    fake = FakeDocker()
    monkeypatch.setattr(shell, "LOG", tmp_path / "lab.log")
    for module in (snapshots, containers):
        monkeypatch.setattr(module, "docker", fake)
    return fake


def image(name: str, checkout: str = str(ROOT)) -> dict[str, Any]:
    """Return the output of `docker image inspect` for a snapshot."""
    labels = {plan.LABEL: checkout, snapshots.LABEL: name, f"{plan.LABEL}.system": "trixie"}
    return {"Config": {"Labels": labels}, "Created": "2026-11-28T20:15:30.123Z"}


def existing(*hosts: plan.Host, checkout: str = str(ROOT)) -> dict[str, dict]:
    """Return the result of `containers.describe_all` for a lab with these running hosts."""
    members = [host.name for host in hosts] + [plan.IDP_NAME]
    return {name: {"state": "running", "checkout": checkout, **TRAITS} for name in members}


@pytest.mark.parametrize("name", ["", "-x", "Deployed", "a b", "a/b", "a:b", "x" * 32])
def test_name_that_docker_refuses_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="is not a name for a snapshot"):
        snapshots.check_name(name)


@pytest.mark.parametrize("name", ["deployed", "a", "before-upgrade-2"])
def test_accepted_name_is_a_tag_and_part_of_a_volume_name(name: str) -> None:
    """By Docker's own grammar of both."""
    snapshots.check_name(name)
    assert re.fullmatch(r"\w[\w.-]{0,127}", snapshots.image_of(name).rpartition(":")[2])
    assert re.fullmatch(r"[a-zA-Z0-9][\w.-]+", snapshots.volume_of(name))


def test_host_is_stopped_before_it_is_saved_and_started_after(docker: FakeDocker) -> None:
    """A running engine would change its files during the copy."""
    snapshots.take("deployed", FIRST, TRAITS)
    steps = [
        f"stop --time {snapshots.STOP_SECONDS} {FIRST.name}",
        f"commit {FIRST.name} ",
        "build ",
        f"volume create --label {plan.LABEL}={ROOT} {snapshots.volume_of('deployed')}",
        "run --rm --network none ",
        f"start {FIRST.name}",
    ]
    positions = [docker.position(step) for step in steps]
    assert positions == sorted(positions)


def test_failed_copy_starts_host_again(docker: FakeDocker) -> None:
    """A full disk must not leave the host stopped."""
    docker.failures.add("run --rm")
    with pytest.raises(LabError, match="could not be copied"):
        snapshots.take("deployed", FIRST, TRAITS)
    assert f"start {FIRST.name}" in docker.commands


def test_earlier_snapshot_of_same_name_is_removed_first(docker: FakeDocker) -> None:
    """The copy into a volume with earlier files would mix both."""
    snapshots.take("deployed", FIRST, TRAITS)
    removed = docker.position(f"volume rm --force {snapshots.volume_of('deployed')}")
    assert removed < docker.position("volume create")


def test_image_of_snapshot_has_no_identity_of_its_host(docker: FakeDocker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hosts with the same SSH keys or machine id would pass for one."""
    recipes: list[str] = []

    def build(*arguments: str, why: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        if arguments[0] == "build":
            recipes.append(Path(arguments[-1], "Dockerfile").read_text())
        return docker(*arguments, why=why, check=check)

    monkeypatch.setattr(snapshots, "docker", build)
    snapshots.build("new:tag", "committed:tag", "deployed", TRAITS)
    assert recipes == [f"FROM committed:tag\nRUN {snapshots.IDENTITY}\n"]
    for kept in ("/etc/ssh/ssh_host_*", "/etc/machine-id", "/var/lib/lab-data-is-copied"):
        assert kept in snapshots.IDENTITY
    assert f"--label {snapshots.LABEL}=deployed" in docker.commands[0]
    assert f"--label {plan.LABEL}.database=postgres" in docker.commands[0]


def test_volume_is_copied_with_rights_for_trusted_attributes(docker: FakeDocker) -> None:
    """Without SYS_ADMIN the nested engine's opaque folders would become ordinary ones, and old files come back."""
    snapshots.copy_volume("from", "to", "image:tag")
    command = docker.commands[-1]
    assert "--cap-add=SYS_ADMIN" in command
    assert "--volume from:/source:ro --volume to:/target --entrypoint cp image:tag" in command
    assert command.endswith("--archive --reflink=auto /source/. /target/")


def test_snapshots_are_listed_with_traits(docker: FakeDocker) -> None:
    docker.answers["image ls"] = f"{snapshots.image_of('deployed')}\n"
    docker.answers["image inspect"] = json.dumps([image("deployed")])
    assert snapshots.describe_all() == {
        "deployed": {
            "system": "trixie",
            "database": "postgres",
            "checkout": str(ROOT),
            "created": "2026-11-28T20:15:30.123Z",
        }
    }
    assert snapshots.exists("deployed")
    assert not snapshots.exists("other")


def test_snapshot_of_other_checkout_does_not_exist(docker: FakeDocker) -> None:
    """Its hosts have the SSH key of that checkout's lab."""
    docker.answers["image ls"] = f"{snapshots.image_of('deployed')}\n"
    docker.answers["image inspect"] = json.dumps([image("deployed", "/elsewhere")])
    assert not snapshots.exists("deployed")


def test_removal_includes_images_without_a_name(docker: FakeDocker) -> None:
    """A host keeps the image of an earlier snapshot, which then has no name."""
    docker.answers["image ls --quiet"] = "0123456789ab\n"
    assert snapshots.remove_all() == 0
    assert "image rm --force 0123456789ab" in docker.commands


class TestRestore:
    """The command restore: what it refuses, and what it starts."""

    @pytest.fixture(autouse=True)
    def lab_with_snapshot(self, docker: FakeDocker, monkeypatch: pytest.MonkeyPatch) -> None:
        """A lab with two hosts and a snapshot, where keys, ports and boots need no attention."""
        known = {"system": "trixie", "database": "postgres", "checkout": str(ROOT), "created": ""}
        monkeypatch.setattr(lifecycle.engine, "answers", lambda: True)
        monkeypatch.setattr(containers, "describe_all", lambda: existing(FIRST, SECOND))
        monkeypatch.setattr(snapshots, "describe_all", lambda: {"deployed": known})
        for name in ("make_keys", "refuse_taken_ports"):
            monkeypatch.setattr(lifecycle, name, lambda *_: None)
        for name in ("write_resolv_conf", "wait_for_host"):
            monkeypatch.setattr(containers, name, lambda *_: None)

    @pytest.fixture
    def written(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
        """The database engines by host that were written into the inventory."""
        found: dict[str, str] = {}
        secret = tmp_path / "secret"
        secret.write_text("geheim")
        monkeypatch.setattr(containers, "IDP_SECRET", secret)
        monkeypatch.setattr(inventory, "write", lambda _hosts, databases, _secret: found.update(databases) or True)
        return found

    def test_existing_host_is_replaced(
        self, docker: FakeDocker, written: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        started: list[tuple[str, str, dict[str, str]]] = []
        monkeypatch.setattr(
            containers, "start_host", lambda host, image, traits: started.append((host.name, image, traits))
        )
        lifecycle.restore("2", "deployed")
        removed = docker.position(f"rm --force --volumes {SECOND.name}")
        assert removed < docker.position(f"volume rm --force {SECOND.volume}") < docker.position("volume create")
        assert started == [(SECOND.name, snapshots.image_of("deployed"), TRAITS)]
        assert written == {FIRST.name: "postgres", SECOND.name: "postgres"}

    def test_next_host_is_started_beside_the_others(
        self, docker: FakeDocker, written: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(containers, "start_host", lambda *_: None)
        lifecycle.restore("3", "deployed")
        assert written == {FIRST.name: "postgres", SECOND.name: "postgres", THIRD.name: "postgres"}
        assert not [command for command in docker.commands if command.startswith("rm ")]

    def test_host_that_leaves_gap_is_refused(self) -> None:
        """`lab up` counts hosts from 1."""
        with pytest.raises(LabError, match="would leave a gap; the next host is 3"):
            lifecycle.restore("4", "deployed")

    def test_unknown_snapshot_is_refused_with_command(self) -> None:
        with pytest.raises(LabError, match="make it with `scripts/lab snapshot 1 other`"):
            lifecycle.restore("2", "other")

    def test_snapshot_of_other_checkout_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        known = {"system": "trixie", "database": "postgres", "checkout": "/elsewhere", "created": ""}
        monkeypatch.setattr(snapshots, "describe_all", lambda: {"deployed": known})
        with pytest.raises(LabError, match="whose keys this lab does not have"):
            lifecycle.restore("2", "deployed")

    @pytest.mark.parametrize(
        "command", [lambda: lifecycle.restore("2", "deployed"), lambda: lifecycle.snapshot("1", "a")]
    )
    def test_lab_that_is_not_up_is_refused(self, command: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(containers, "describe_all", lambda: existing(FIRST, checkout="/elsewhere"))
        with pytest.raises(LabError, match="run `scripts/lab up` first"):
            command()

    def test_snapshot_of_missing_host_is_refused(self) -> None:
        with pytest.raises(LabError, match=f"The lab has no {THIRD.name}"):
            lifecycle.snapshot("3", "deployed")


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["snapshot", "1"], ("1", "deployed")),
        (["snapshot", "1", "mine"], ("1", "mine")),
        (["restore", "2"], ("2", "deployed")),
        (["restore", "2", "mine"], ("2", "mine")),
    ],
)
def test_command_line_has_default_name(arguments: list[str], options: tuple[str, str]) -> None:
    found = lab.parser().parse_args(arguments)
    assert (found.host, found.name) == options
