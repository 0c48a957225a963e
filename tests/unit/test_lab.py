"""The parts of scripts/lab that decide something, without a Docker Engine: names, choices, certificates, inventory."""

from __future__ import annotations

import ast
import ipaddress
import os
import socket
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests" / "scenarios")]

import idp  # noqa: E402
from _lab import certificates, cli, containers, engine, images, inventory, plan  # noqa: E402
from _lab.shell import LabError, telling_line  # noqa: E402


def existing(database: str = "postgres", **systems: str) -> dict[str, dict]:
    """What `containers.describe_all` says about running hosts, given as number="system"."""
    fixed = {"state": "running", "database": database, "checkout": str(plan.ROOT)}
    return {plan.Host(int(number.lstrip("_"))).name: {"system": system, **fixed} for number, system in systems.items()}


def chosen(wanted: int | None, existing: dict[str, dict], **wishes: str) -> list[tuple[str, str]]:
    """System and database of each host that `choose_hosts` settles on, host 1 first."""
    hosts, traits = cli.choose_hosts(wanted, wishes, existing)
    assert hosts == plan.hosts(len(hosts))
    return [(traits[host.name]["system"], traits[host.name]["database"]) for host in hosts]


def test_every_member_of_the_lab_has_an_address_of_its_own_in_the_network() -> None:
    """Docker refuses a fixed address outside the subnet, and its first one is the gateway's."""
    subnet = ipaddress.ip_network(plan.SUBNET)
    addresses = [host.address for host in plan.hosts(plan.MOST_HOSTS)] + [plan.IDP_ADDRESS]
    assert len(set(addresses)) == plan.MOST_HOSTS + 1
    assert all(ipaddress.ip_address(address) in list(subnet.hosts())[1:] for address in addresses)


@pytest.mark.parametrize("wanted", ["2", "scratch4school-lab-2", "10.83.86.12"])
def test_a_host_is_found_by_number_name_and_address(wanted: str) -> None:
    assert plan.find_host(wanted) == plan.Host(2)


@pytest.mark.parametrize("wanted", ["0", "5", "lab-2", ""])
def test_other_words_are_no_host(wanted: str) -> None:
    assert plan.find_host(wanted) is None


def test_the_provider_accepts_the_redirect_address_of_every_host() -> None:
    """The ports are written down twice, for the provider's image knows nothing of scripts/lab."""
    source = ast.parse((ROOT / "docker" / "lab-idp" / "directory.py").read_text())
    ports = next(
        ast.literal_eval(node.value)
        for node in source.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PORTS"
    )
    assert list(ports) == [host.https_port for host in plan.hosts(plan.MOST_HOSTS)]


def test_a_lab_without_a_wish_is_one_trixie_host_on_postgres() -> None:
    assert chosen(None, {}) == [("trixie", "postgres")]


def test_a_lab_without_a_wish_stays_as_it_is() -> None:
    there = existing(_1="bookworm") | existing(_2="trixie", database="sqlite")
    assert chosen(None, there) == [("bookworm", "postgres"), ("trixie", "sqlite")]


def test_another_system_holds_for_new_hosts_only() -> None:
    there = existing(_1="trixie")
    assert chosen(2, there, system="bookworm") == [("trixie", "postgres"), ("bookworm", "postgres")]
    assert chosen(2, there, database="sqlite") == [("trixie", "postgres"), ("trixie", "sqlite")]


@pytest.mark.parametrize(
    ("trait", "wish", "has"), [("system", "bookworm", "trixie"), ("database", "sqlite", "postgres")]
)
def test_another_kind_for_no_new_host_is_refused(trait: str, wish: str, has: str) -> None:
    """Otherwise a test run "on bookworm" would quietly run on trixie."""
    with pytest.raises(LabError, match=f"The lab runs {has} already"):
        chosen(None, existing(_1="trixie"), **{trait: wish})


def test_fewer_hosts_than_there_are_is_refused() -> None:
    """`up` never removes a host, for there may be hours of somebody's work on it."""
    with pytest.raises(LabError, match="has 2 hosts already"):
        chosen(1, existing(_1="trixie", _2="trixie"))


def test_the_lab_of_another_checkout_is_left_alone_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.containers, "remove_all", lambda: pytest.fail("A lab that runs was removed."))
    hosts = {
        "scratch4school-lab-1": {"checkout": "/elsewhere", "state": "exited"},
        "scratch4school-lab-2": {"checkout": "/elsewhere", "state": "running"},
    }
    with pytest.raises(LabError, match="The lab of /elsewhere runs on this machine"):
        cli.clear_foreign_lab(hosts)
    ours = existing(_1="trixie")
    assert cli.clear_foreign_lab(ours) == ours


def test_what_a_dead_engine_left_of_another_checkouts_lab_is_removed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Otherwise one session that was cut off would keep every later clone from its tests."""
    removed = []
    monkeypatch.setattr(plan, "LOG", tmp_path / "lab.log")
    monkeypatch.setattr(cli.containers, "remove_all", lambda: removed.append(True) or 3)
    assert cli.clear_foreign_lab({"scratch4school-lab-1": {"checkout": "/elsewhere", "state": "exited"}}) == {}
    assert removed == [True]
    assert "3 containers of /elsewhere removed" in capsys.readouterr().out


def test_a_taken_port_is_refused_by_its_number() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(LabError, match=f"scratch4school-lab-1 needs port {port}"):
            cli.refuse_taken_ports({"scratch4school-lab-1": port})
    cli.refuse_taken_ports({"scratch4school-lab-1": port})


def test_the_inventory_is_yaml_that_survives_moving_the_checkout() -> None:
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


def test_the_inventory_is_written_once_and_the_secret_beside_it_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "INVENTORY", tmp_path / "hosts.yml")
    monkeypatch.setattr(plan, "CLIENT_SECRET", tmp_path / "secrets" / "client")
    monkeypatch.setattr(plan, "STATE", tmp_path / "state")
    plan.STATE.mkdir()
    databases = {"scratch4school-lab-1": "postgres"}
    assert inventory.write(plan.hosts(1), databases, "geheim") is True
    assert list(plan.STATE.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hosts.yml", "secrets", "state"]
    assert inventory.write(plan.hosts(1), databases, "geheim") is False
    assert plan.CLIENT_SECRET.read_text() == "geheim"
    assert plan.CLIENT_SECRET.stat().st_mode & 0o777 == 0o600
    assert "geheim" not in plan.INVENTORY.read_text()
    inventory.remove()
    assert not plan.INVENTORY.exists()
    assert not plan.CLIENT_SECRET.exists()


def test_hosts_get_name_servers_that_nested_containers_can_reach(tmp_path: Path) -> None:
    """systemd-resolved writes its own loopback address into /etc/resolv.conf and the real servers elsewhere."""
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("nameserver 127.0.0.53\noptions edns0\n")
    real.write_text("# made by systemd-resolved\nnameserver 10.1.2.3\nsearch schule.example\n")
    found = containers.upstream_name_servers((str(stub), str(real)))
    assert found == "nameserver 10.1.2.3\nsearch schule.example\n"


def test_name_servers_on_the_loopback_alone_are_none(tmp_path: Path) -> None:
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
def test_a_missing_capability_is_named_to_old_engines_only(
    bounding: str, version: str, options: tuple[str, ...]
) -> None:
    """Seen: 20.10 fails without the option, 26.1 with it."""
    assert containers.capability_options(f"Name:\tx\nCapBnd:\t{bounding}\n", version) == options


@pytest.mark.parametrize("place", ["cgroup.procs", "unified/cgroup.procs"])
def test_cgroup_v2_is_found_on_pure_and_on_hybrid_machines(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()
    engine.check_cgroups(tmp_path)


def test_a_machine_without_cgroup_v2_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no cgroup-v2 tree"):
        engine.check_cgroups(tmp_path)


def test_a_pid_file_that_outlived_its_engine_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number may have gone to another program, here to these tests."""
    monkeypatch.setattr(engine, "PID_FILE", tmp_path / "dockerd.pid")
    engine.PID_FILE.write_text(str(os.getpid()))
    assert engine.own_pid() is None
    assert engine.stop() is False


def test_a_bare_machine_lacks_the_packages_of_all_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine, "find", lambda _program: None)
    monkeypatch.setattr(engine, "KEYRING", tmp_path / "missing")
    everything = ["debian-archive-keyring", "docker.io", "iptables", "mmdebstrap", "openssh-client", "openssl"]
    assert engine.missing_packages(engine_runs=False) == everything


def test_a_running_engine_needs_no_daemon_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine, "find", lambda program: None if program in ("dockerd", "iptables") else program)
    monkeypatch.setattr(engine, "KEYRING", tmp_path)
    assert engine.missing_packages(engine_runs=True) == []


def test_an_ordinary_user_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="apt-get install mmdebstrap openssl"):
        engine.install(["mmdebstrap", "openssl"])


def test_an_image_is_named_by_names_modes_and_contents(tmp_path: Path) -> None:
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


def test_a_fingerprint_keeps_parts_apart() -> None:
    assert images.fingerprint("ab", "c") != images.fingerprint("a", "bc")


def test_proxy_settings_reach_the_hosts_in_either_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in images.PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    assert images.proxy_settings() == {"https_proxy": "http://proxy:3128"}


def test_certificates_tell_names_from_addresses() -> None:
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
def test_a_failure_is_told_by_its_most_telling_line(output: str, line: str) -> None:
    assert telling_line(output) == line


def test_a_form_is_sent_as_a_browser_would() -> None:
    """Hidden fields go along; a box that is not ticked and a button that was not pressed do not."""
    page = """
      <input name="outside" value="x">
      <form action="/login" method="post">
        <input type="hidden" name="csrf_token" value="t0k&amp;n"><input name="login">
        <input type="checkbox" name="remember" value="y"><input type="submit" name="answer" value="go">
      </form>"""
    assert idp.read_forms(page) == [{"action": "/login", "fields": {"csrf_token": "t0k&n", "login": ""}}]
