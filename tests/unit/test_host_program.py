"""scratch4schoolctl as the roles install it: settings that it reads, units that call it, and the file itself."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar, trust_as_template
from conftest import ROOT
from judging import Inventory

sys.path.append(str(ROOT / "host" / "src"))

from scratch4school_host import cli, settings

RELEASE = {"id": "1", "image": "app:1", "environment": {}, "memory": "1m"}
IMAGES = {
    file.parent.name: f"scratch4school/{file.parent.name}:0123456789ab" for file in ROOT.glob("docker/*/Dockerfile")
}


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Inventory:
    """One host with settings that are right."""
    return Inventory(tmp_path_factory.mktemp("inventory"))


class Role:
    """A role's variables and templates as they are for that host."""

    def __init__(self, inventory: Inventory, name: str, **more: Any) -> None:
        files = (f"roles/{name}/defaults/main.yml", f"roles/{name}/vars/main.yml")
        found = [inventory.load(file) for file in files if (ROOT / file).is_file()]
        variables = {**found[0], **inventory.variables({}), **found[-1], "ansible_managed": "Ansible"}
        self._variables = {**variables, "images_references": IMAGES, "host_roles_unchanged": {}, **more}
        self._folder = ROOT / "roles" / name

    def value(self, name: str) -> Any:
        """A variable, its templates worked out."""
        return self._template(self._variables[name])

    def unit(self, name: str, **more: Any) -> str:
        """A template of the role as it is written to the host."""
        text = trust_as_template((self._folder / "templates" / name).read_text())
        return str(self._template(text, **more))

    def _template(self, value: Any, **more: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return Templar(loader=DataLoader(), variables={**self._variables, **more}).template(value)


@pytest.mark.parametrize("engine", ["postgres", "sqlite"])
def test_settings_that_a_role_writes_are_those_that_the_program_reads(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """A name that is missing, or one too many, would be refused only on a host."""
    monkeypatch.setitem(inventory.around, "database_engine", engine)
    written = {
        settings.SlotsSettings: Role(inventory, "release").value("__release_program_settings"),
        settings.BackupSettings: Role(inventory, "backup").value("__backup_settings"),
        settings.TransferSettings: Role(inventory, "adoption").value("__adoption_settings"),
    }
    for kind, content in written.items():
        read = kind(**content)
        assert read.engine == engine
        assert read.host == "server"
        for name, annotation in kind.__annotations__.items():
            expected = {"int": int, "str": str, "bool": bool}.get(annotation, (list, dict))
            assert isinstance(getattr(read, name), expected), name


def test_settings_of_slots_name_what_the_release_depends_on(inventory: Inventory) -> None:
    """In the order in which the containers are started."""
    read = Role(inventory, "release").value("__release_program_settings")
    assert read["dependencies"] == ["scratch4school-postgres", "scratch4school-pgbouncer"]
    assert read["data_directory"] == "/var/lib/scratch4school"
    assert read["url"] == "https://scratch.school.de"


def test_each_time_limit_is_longer_than_the_one_before(inventory: Inventory) -> None:
    """A request ends before nginx stops waiting for it, and before a slot stops draining or Docker kills a process."""
    app = Role(inventory, "app", app_slot="blue", app_release=RELEASE)
    proxy = Role(inventory, "proxy")
    request = int(app.value("__app_settings")["SCRATCH4SCHOOL_REQUEST_SECONDS"])
    answer = int(proxy.value("proxy_answer_seconds"))
    assert request < answer - 5
    assert proxy.value("__proxy_container")["stop_timeout"] == answer
    assert app.value("__app_container")["stop_timeout"] >= answer
    drain = Role(inventory, "release").value("__release_program_settings")["drain_seconds"]
    assert drain >= answer
    assert Role(inventory, "pgbouncer").value("__pgbouncer_container")["stop_timeout"] == request
    unit = Role(inventory, "release").unit("scratch4school.service.j2")
    start, stop = (int(re.findall(rf"^Timeout{verb}Sec=(\d+)$", unit, re.M)[0]) for verb in ("Start", "Stop"))
    ready = Role(inventory, "release").value("__release_program_settings")["ready_seconds"]
    assert (start > ready + drain, stop > answer + 2 * drain) == (True, True)
    # Where a sysadmin reads the limits.
    example = ROOT / "inventories" / "example" / "group_vars" / "scratch4school" / "settings.yml"
    assert f"# release_drain_seconds: {drain}\n" in example.read_text()
    operate = " ".join((ROOT / "docs" / "operate.md").read_text().split())
    assert f"`release_drain_seconds` ({drain})" in operate
    assert f"During a long upload it takes up to {answer} seconds." in operate


def test_renewal_of_nginx_reads_the_limit_from_its_configuration(inventory: Inventory, tmp_path: Path) -> None:
    """It waits longer than the old master may take to end."""
    configuration = tmp_path / "nginx.conf"
    proxy = Role(inventory, "proxy")
    configuration.write_text(proxy.unit("nginx.conf.j2"))
    (command,) = re.findall(
        r"^shutdown_seconds=\$\((sed .+) \S+\)$", (ROOT / "docker" / "proxy" / "renew").read_text(), re.M
    )
    found = subprocess.run([*shlex.split(command), configuration], capture_output=True, text=True, check=True)
    assert int(found.stdout) == int(proxy.value("proxy_answer_seconds")) - 5


def test_settings_of_backups_name_the_timers_that_are_wanted(inventory: Inventory) -> None:
    """The status screen shows when each of them runs next; one whose hour is empty is not there."""
    assert Role(inventory, "backup", backup_drill_schedule="").value("__backup_settings")["timers"] == [
        "scratch4school-backup.timer",
        "scratch4school-backup-prune.timer",
        "scratch4school-backup-check.timer",
    ]


def commands(unit: str) -> list[list[str]]:
    """The commands of a unit, without the program and systemd's own marks."""
    lines = re.findall(r"^Exec\w+=-?(.+)$", unit, flags=re.MULTILINE)
    assert lines
    words = [shlex.split(line.replace("%i", "scratch4school-backup").replace("%H", "server")) for line in lines]
    assert {line[0] for line in words} == {"/usr/local/sbin/scratch4schoolctl"}
    return [line[1:] for line in words]


def test_unit_of_the_installation_calls_commands_that_exist(inventory: Inventory) -> None:
    """To start, to reload and to stop."""
    unit = Role(inventory, "release").unit("scratch4school.service.j2")
    parsed = [cli.parser().parse_args(line) for line in commands(unit)]
    assert [options.function for options in parsed] == ["start", "restart", "stop"]


def test_units_of_timers_call_commands_that_exist(inventory: Inventory) -> None:
    """Each waits for the lock as long as a deploy may take, and says that a timer asked."""
    role = Role(inventory, "backup")
    found = []
    for timer in role.value("__backup_timers"):
        (line,) = commands(role.unit("job.service.j2", __backup_timer=timer))
        options = cli.parser().parse_args(line)
        assert (options.by, options.patience) == ("timer@server", 3600)
        found.append((options.module, options.function))
    assert found == [("backup", name) for name in ("create", "prune", "check", "drill")]
    (line,) = commands(role.unit("failed.service.j2"))
    assert cli.parser().parse_args(line).unit == "scratch4school-backup.service"


def test_every_command_line_of_a_task_begins_with_a_command_that_exists() -> None:
    """Words that a task hands over as text; values are whatever the role knows."""
    groups = cli.parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    seen = set()
    for path in sorted((ROOT / "roles").glob("*/tasks/*.yml")):
        text = path.read_text()
        for found in re.finditer(r"(?:__\w+_program|container_pauser)(?: \}\}\")?['\"]?, ([^\n\]]*)", text):
            words = [word.strip(" '\"") for word in found[1].split(",")]
            group = words[0]
            assert group in groups, f"{path.relative_to(ROOT)}: {group}"
            nested = groups[group]._subparsers
            if nested and re.fullmatch(r"[a-z-]+", words[1]):
                assert words[1] in nested._group_actions[0].choices, f"{path.relative_to(ROOT)}: {group} {words[1]}"
            seen.add(group)
    assert {"slots", "component", "clients", "lock", "backup", "restore", "drill", "import", "migrate-engine"} <= seen


def test_installed_file_is_the_program(inventory: Inventory) -> None:
    """The lookup builds it once, and its digest is that of its content."""
    lookup = lookup_loader.get("host_program", loader=DataLoader(), templar=Templar(loader=DataLoader()))
    (path,) = lookup.run([], variables={})
    assert lookup.run([], variables={}) == [path]
    (digest,) = lookup.run([], variables={}, want="digest")
    assert Path(path).name == f"scratch4schoolctl-{digest}"
    ended = subprocess.run([sys.executable, "-I", path, "--help"], capture_output=True, text=True, check=False)
    assert (ended.returncode, "Exit status:" in ended.stdout) == (0, True)


def test_installation_counts_as_state_of_the_host(inventory: Inventory) -> None:
    """A program of another checkout, or one that was changed by hand, has the role run again."""
    managed = Role(inventory, "host").value("__host_managed")
    assert managed["contents"] == ["/usr/local/sbin/scratch4schoolctl"]
    assert re.fullmatch("[0-9a-f]{16}", managed["program"])


def test_package_of_the_modules_is_the_package_of_the_program() -> None:
    """Ansible's modules use the same code by a link: there is no second copy that could differ."""
    link = ROOT / "plugins" / "module_utils" / "scratch4school_host"
    assert link.is_symlink()
    assert link.resolve() == ROOT / "host" / "src" / "scratch4school_host"
    assert list((ROOT / "roles").rglob("*.py")) == []
