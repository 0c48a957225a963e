"""Lab hosts, without a Docker Engine: names, choices of hosts, certificates, inventory."""

from __future__ import annotations

import ast
import ipaddress
import os
import socket
from pathlib import Path

import pytest
import yaml

from scratch4school_lab import shell
from scratch4school_lab.checkout import ROOT
from scratch4school_lab.classroom import provider
from scratch4school_lab.hosts import certificates, containers, engine, images, inventory, lifecycle, plan
from scratch4school_lab.shell import LabError, telling_line


def existing(database: str = "postgres", **systems: str) -> dict[str, dict]:
    """Return the result of `containers.describe_all` for running hosts, given as number="system"."""
    fixed = {"state": "running", "database": database, "checkout": str(ROOT)}
    return {plan.Host(int(number.lstrip("_"))).name: {"system": system, **fixed} for number, system in systems.items()}


def kinds(count: int | None, existing: dict[str, dict], **requested: str) -> list[tuple[str, str]]:
    """System and database of each host that `choose_hosts` returns, host 1 first."""
    hosts, traits = lifecycle.choose_hosts(count, requested, existing)
    assert hosts == plan.hosts(len(hosts))
    return [(traits[host.name]["system"], traits[host.name]["database"]) for host in hosts]


def test_members_have_different_addresses_in_subnet() -> None:
    """Docker refuses a fixed address outside the subnet, and its first one is the gateway's."""
    subnet = ipaddress.ip_network(plan.SUBNET)
    addresses = [host.address for host in plan.hosts(plan.MOST_HOSTS)] + [plan.IDP_ADDRESS]
    assert len(set(addresses)) == plan.MOST_HOSTS + 1
    assert all(ipaddress.ip_address(address) in list(subnet.hosts())[1:] for address in addresses)


@pytest.mark.parametrize("text", ["2", "scratch4school-lab-2", "10.83.86.12"])
def test_host_is_found_by_number_name_and_address(text: str) -> None:
    assert plan.find_host(text) == plan.Host(2)


@pytest.mark.parametrize("text", ["0", "7", "lab-2", ""])
def test_other_text_finds_no_host(text: str) -> None:
    assert plan.find_host(text) is None


def test_provider_accepts_redirect_address_of_every_host() -> None:
    """The ports are written twice, because the provider's image has no access to this package."""
    source = ast.parse((ROOT / "docker" / "lab-idp" / "directory.py").read_text())
    ports = next(
        ast.literal_eval(node.value)
        for node in source.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PORTS"
    )
    assert list(ports) == [host.https_port for host in plan.hosts(plan.MOST_HOSTS)]


def test_new_lab_is_one_trixie_host_with_postgres() -> None:
    assert kinds(None, {}) == [("trixie", "postgres")]


def test_existing_lab_keeps_hosts_and_traits() -> None:
    there = existing(_1="bookworm") | existing(_2="trixie", database="sqlite")
    assert kinds(None, there) == [("bookworm", "postgres"), ("trixie", "sqlite")]


def test_requested_traits_apply_to_new_hosts_only() -> None:
    there = existing(_1="trixie")
    assert kinds(2, there, system="bookworm") == [("trixie", "postgres"), ("bookworm", "postgres")]
    assert kinds(2, there, database="sqlite") == [("trixie", "postgres"), ("trixie", "sqlite")]


@pytest.mark.parametrize(
    ("trait", "value", "has"), [("system", "bookworm", "trixie"), ("database", "sqlite", "postgres")]
)
def test_requested_trait_without_new_host_is_refused(trait: str, value: str, has: str) -> None:
    """Otherwise a test "on bookworm" would run on trixie."""
    with pytest.raises(LabError, match=f"The lab runs {has} already"):
        kinds(None, existing(_1="trixie"), **{trait: value})


def test_fewer_hosts_than_exist_are_refused() -> None:
    """`up` never removes a host: a developer may have hours of work on it."""
    with pytest.raises(LabError, match="has 2 hosts already"):
        kinds(1, existing(_1="trixie", _2="trixie"))


def test_running_lab_of_another_checkout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle.containers, "remove_all", lambda: pytest.fail("A running lab was removed."))
    hosts = {
        "scratch4school-lab-1": {"checkout": "/elsewhere", "state": "exited"},
        "scratch4school-lab-2": {"checkout": "/elsewhere", "state": "running"},
    }
    with pytest.raises(LabError, match="The lab of /elsewhere runs on this machine"):
        lifecycle.clear_foreign_lab(hosts)
    ours = existing(_1="trixie")
    assert lifecycle.clear_foreign_lab(ours) == ours


def test_stopped_lab_of_another_checkout_is_removed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """An engine that died leaves such a lab, and no later checkout could run its tests."""
    removed = []
    monkeypatch.setattr(shell, "LOG", tmp_path / "lab.log")
    monkeypatch.setattr(lifecycle.containers, "remove_all", lambda: removed.append(True) or 3)
    assert lifecycle.clear_foreign_lab({"scratch4school-lab-1": {"checkout": "/elsewhere", "state": "exited"}}) == {}
    assert removed == [True]
    assert "3 containers of /elsewhere removed" in capsys.readouterr().out


def test_taken_port_is_refused_with_its_number() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(LabError, match=f"scratch4school-lab-1 needs port {port}"):
            lifecycle.refuse_taken_ports({"scratch4school-lab-1": port})
    lifecycle.refuse_taken_ports({"scratch4school-lab-1": port})


def test_inventory_has_no_path_of_checkout() -> None:
    text = inventory.render(plan.hosts(2), {"scratch4school-lab-1": "postgres", "scratch4school-lab-2": "sqlite"})
    assert str(ROOT) not in text
    hosts = yaml.safe_load(text)["scratch4school"]["hosts"]
    assert list(hosts) == ["scratch4school-lab-1", "scratch4school-lab-2"]
    second = hosts["scratch4school-lab-2"]
    assert second["ansible_host"] == "10.83.86.12"
    assert second["scratch4school_url"] == "https://localhost:8444"
    assert second["database_engine"] == "sqlite"
    assert second["proxy_tls_key"] == "{{ inventory_dir }}/../../.lab/tls/scratch4school-lab-2.key"
    assert second["app_oidc_authorize_url"] == "https://localhost:9443/oauth/authorize"
    assert second["app_oidc_token_url"] == "https://10.83.86.5:9443/oauth/token"


def test_inventory_is_written_once_and_secret_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "INVENTORY", tmp_path / "hosts.yml")
    monkeypatch.setattr(plan, "CLIENT_SECRET", tmp_path / "secrets" / "client")
    monkeypatch.setattr(shell, "STATE", tmp_path / "state")
    shell.STATE.mkdir()
    databases = {"scratch4school-lab-1": "postgres"}
    assert inventory.write(plan.hosts(1), databases, "geheim") is True
    assert list(shell.STATE.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hosts.yml", "secrets", "state"]
    assert inventory.write(plan.hosts(1), databases, "geheim") is False
    assert plan.CLIENT_SECRET.read_text() == "geheim"
    assert plan.CLIENT_SECRET.stat().st_mode & 0o777 == 0o600
    assert "geheim" not in plan.INVENTORY.read_text()
    inventory.remove()
    assert not plan.INVENTORY.exists()
    assert not plan.CLIENT_SECRET.exists()


def test_loopback_name_server_is_replaced_by_upstream_ones(tmp_path: Path) -> None:
    """systemd-resolved writes its loopback address into /etc/resolv.conf, and the real servers into another file."""
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("nameserver 127.0.0.53\noptions edns0\n")
    real.write_text("# made by systemd-resolved\nnameserver 10.1.2.3\nsearch schule.example\n")
    found = containers.upstream_name_servers((str(stub), str(real)))
    assert found == "nameserver 10.1.2.3\nsearch schule.example\n"


def test_only_loopback_name_servers_give_none(tmp_path: Path) -> None:
    stub = tmp_path / "stub"
    stub.write_text("nameserver 127.0.0.53\n")
    assert containers.upstream_name_servers((str(stub), str(tmp_path / "missing"))) == ""


@pytest.mark.parametrize(
    ("bounding", "version", "options"),
    [
        ("000001fffeffffff", "20.10.24+dfsg1", ("--cap-drop=SYS_RESOURCE",)),
        ("000001fffeffffff", "26.1.5+dfsg1", ()),
        ("000001ffffffffff", "20.10.24+dfsg1", ()),
    ],
)
def test_missing_capability_is_dropped_on_old_engines_only(
    bounding: str, version: str, options: tuple[str, ...]
) -> None:
    """Engine 20.10 fails without the option, 26.1 with it."""
    assert containers.capability_options(f"Name:\tx\nCapBnd:\t{bounding}\n", version) == options


@pytest.mark.parametrize("place", ["cgroup.procs", "unified/cgroup.procs"])
def test_cgroup_v2_is_found_on_pure_and_hybrid_machines(tmp_path: Path, place: str) -> None:
    """A machine without it is refused."""
    with pytest.raises(LabError, match="no cgroup-v2 tree"):
        engine.check_cgroups(tmp_path)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()
    engine.check_cgroups(tmp_path)


def test_stale_pid_file_stops_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program may have the number now; here these tests have it."""
    monkeypatch.setattr(engine, "PID_FILE", tmp_path / "dockerd.pid")
    engine.PID_FILE.write_text(str(os.getpid()))
    assert engine.own_pid() is None
    assert engine.stop() is False


def test_bare_machine_lacks_all_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine, "find", lambda _program: None)
    monkeypatch.setattr(engine, "KEYRING", tmp_path / "missing")
    packages = ["debian-archive-keyring", "docker.io", "iptables", "mmdebstrap", "openssh-client", "openssl"]
    assert engine.missing_packages(engine_runs=False) == packages


def test_running_engine_needs_no_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine, "find", lambda program: None if program in ("dockerd", "iptables") else program)
    monkeypatch.setattr(engine, "KEYRING", tmp_path)
    assert engine.missing_packages(engine_runs=True) == []


def test_ordinary_user_gets_command_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="apt-get install mmdebstrap openssl"):
        engine.install(["mmdebstrap", "openssl"])


def test_fingerprint_changes_with_name_mode_and_content(tmp_path: Path) -> None:
    recipe = tmp_path / "Dockerfile"
    recipe.write_text("FROM scratch\n")
    first = images.fingerprint_folder(tmp_path, "trixie")
    assert images.fingerprint_folder(tmp_path, "trixie") == first
    assert images.fingerprint_folder(tmp_path, "bookworm") != first
    recipe.chmod(recipe.stat().st_mode ^ 0o100)
    assert images.fingerprint_folder(tmp_path, "trixie") != first
    recipe.chmod(recipe.stat().st_mode ^ 0o100)
    (tmp_path / "more").touch()
    assert images.fingerprint_folder(tmp_path, "trixie") != first


def test_fingerprint_separates_its_parts() -> None:
    assert images.fingerprint("ab", "c") != images.fingerprint("a", "bc")


def test_proxy_settings_are_read_in_either_case(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in images.PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    assert images.proxy_settings() == {"https_proxy": "http://proxy:3128"}


def test_certificate_lists_names_and_addresses() -> None:
    alternatives = certificates.extensions(["scratch4school-lab-1", "localhost", "10.83.86.11"]).splitlines()[-1]
    assert alternatives == "subjectAltName=DNS:scratch4school-lab-1,DNS:localhost,IP:10.83.86.11"


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (
            "docker: Error: port is taken.\n\nRun 'docker run --help' for more information\n",
            "docker: Error: port is taken.",
        ),
        ("Reading lists\nE: Unable to locate package\nW: stale\n", "E: Unable to locate package"),
        ("first\nlast\n\n", "last"),
        ("", ""),
    ],
)
def test_telling_line_is_first_error_or_last_line(output: str, line: str) -> None:
    assert telling_line(output) == line


def test_form_has_fields_that_browser_sends() -> None:
    """It has hidden fields, and neither unticked boxes nor buttons."""
    page = """
      <input name="outside" value="x">
      <form action="/login" method="post">
        <input type="hidden" name="csrf_token" value="t0k&amp;n"><input name="login">
        <input type="checkbox" name="remember" value="y"><input type="submit" name="answer" value="go">
      </form>"""
    assert provider.read_forms(page) == [{"action": "/login", "fields": {"csrf_token": "t0k&n", "login": ""}}]
