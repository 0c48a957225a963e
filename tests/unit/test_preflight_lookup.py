"""The lookup `preflight`, with the real roles, the real group_vars and a valid inventory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible import context
from ansible.errors import AnsibleError
from ansible.module_utils import host_survey
from ansible.module_utils.common.collections import ImmutableDict
from ansible.parsing.dataloader import DataLoader
from ansible.template import trust_as_template
from ansible.utils import vars as ansible_vars
from conftest import ROOT
from judging import SURVEY, Inventory


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    """One host with valid settings."""
    return Inventory(tmp_path / "school")


def only(found: list[str]) -> str:
    """The only message."""
    (message,) = found
    return message


def unknown(inventory: Inventory, names: set[str]) -> list[str]:
    """The refusals of these names, without those of their values."""
    return [message for message in inventory.wrong(**dict.fromkeys(names, "x")) if "is no setting of" in message]


def test_valid_settings_are_accepted(inventory: Inventory) -> None:
    """By type and bounds, and by the roles' rules."""
    assert inventory.wrong() == []
    assert inventory.refused() == []


def test_names_of_the_example_are_accepted(inventory: Inventory) -> None:
    """An unchanged copy is refused because of its values, not of its names."""
    folder = ROOT / "inventories" / "example" / "group_vars" / "scratch4school"
    example = {
        **yaml.safe_load((folder / "settings.yml").read_text()),
        **yaml.safe_load((folder / "vault.yml").read_text()),
    }
    assert inventory.wrong(**example) == []
    assert any("scratch4school_url is still a placeholder" in message for message in inventory.refused(**example))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("bakcup_schedule", "backup_schedule"),
        ("backup_keep_dayly", "backup_keep_daily"),
        ("app_worker", "app_workers"),
        ("change_window", "change_windows"),
        ("scratch4school_uri", "scratch4school_url"),
        ("database_engin", "database_engine"),
        ("pgbounzer_pool_size", "pgbouncer_pool_size"),
        ("relase", "release"),
        ("undoo_backup_undo", ""),
    ],
)
def test_unknown_name_is_refused_with_the_most_similar_one(inventory: Inventory, name: str, nearest: str) -> None:
    """In one message; nothing else is refused."""
    found = inventory.wrong(**{name: "x"})
    if nearest:
        assert only(found) == f"{name} is no setting of Scratch4School. Did you mean {nearest}?"
    else:
        assert found == []


@pytest.mark.parametrize(
    "name",
    ["vault_backup_ssh_key", "vault_app_oidc_client_secret", "school_name", "ansible_become_password", "lab_class"],
)
def test_name_of_the_sysadmin_or_ansible_is_accepted(inventory: Inventory, name: str) -> None:
    """Even if it contains the name of a setting."""
    assert inventory.wrong(**{name: "x"}) == []


def test_mistyped_name_on_the_command_line_is_refused(inventory: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-e relase=…` would otherwise roll back to another release than the typed one."""
    given = {"relase": "3f2a"}
    monkeypatch.setattr(context, "CLIARGS", ImmutableDict(extra_vars=("relase=3f2a",)))
    monkeypatch.setattr(ansible_vars.load_extra_vars, "extra_vars", given, raising=False)
    assert only(inventory.wrong(**given)) == "relase is no setting of Scratch4School. Did you mean release?"


def last_line(folder: Path, settings: dict[str, Any], playbook: str, *arguments: str) -> str:
    """The last line of a real run of a playbook, with a host that cannot be reached."""
    hosts = {"scratch4school": {"hosts": {"server": {"ansible_host": "127.0.0.1", "ansible_port": 1}}}}
    (folder / "group_vars" / "scratch4school").mkdir(parents=True)
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
    (folder / "group_vars" / "scratch4school" / "settings.yml").write_text(yaml.safe_dump(settings))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    ended = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", folder, ROOT / "deploy" / playbook, *arguments],
        cwd=folder,
        env={
            **kept,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_HOME": f"{folder}-ansible",
            "LC_ALL": "C.UTF-8",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert ended.returncode != 0
    return ended.stdout.strip().splitlines()[-1]


def test_run_with_valid_settings_connects_to_the_host(tmp_path: Path, inventory: Inventory) -> None:
    """Variables that the playbook or Ansible sets are not refused."""
    last = last_line(tmp_path / "inventory", inventory.right, "deploy.yml")
    assert last.startswith("server cannot be reached by SSH: ")


def test_run_with_a_wrong_argument_ends_before_the_connection(tmp_path: Path, inventory: Inventory) -> None:
    """With the argument's name."""
    last = last_line(tmp_path / "inventory", inventory.right, "rollback.yml", "-e", "relase=3f2a")
    assert last == "relase is no setting of Scratch4School. Did you mean release?"


ARGUMENTS = [
    "release",
    "component",
    "reason",
    "backup",
    "confirm",
    "allow_foreign",
    "undo",
    "step",
    "stopped",
    "cut",
    "change_forced",
]


@pytest.mark.parametrize("name", ARGUMENTS)
def test_argument_of_a_playbook_is_known(inventory: Inventory, name: str) -> None:
    """The arguments that the playbooks document."""
    assert inventory.wrong(**{name: "x"}) == []


def keys_of_vars(node: Any) -> set[str]:
    """Every name in a `vars` of a play or a task."""
    if isinstance(node, list):
        return set().union(*map(keys_of_vars, node)) if node else set()
    if not isinstance(node, dict):
        return set()
    own = set(node["vars"]) if isinstance(node.get("vars"), dict) else set()
    return own.union(*(keys_of_vars(value) for value in node.values()))


def trusted(playbook: Path) -> list[dict[str, Any]]:
    """The plays of a playbook, with templates that Ansible may resolve."""
    return DataLoader().load_from_file(str(playbook), trusted_as_template=True)


PASSED = {file.name: keys_of_vars(yaml.safe_load(file.read_text())) for file in sorted((ROOT / "deploy").glob("*.yml"))}


def test_variables_that_playbooks_pass_are_found() -> None:
    """With another notation the tests below would find none and pass."""
    assert {
        "release_target",
        "backup_skip_password_check",
        "adoption_requested",
        "host_allow_maintenance",
    } <= set().union(*PASSED.values())


@pytest.mark.parametrize("playbook", [name for name, passed in PASSED.items() if passed])
def test_variables_that_a_playbook_passes_are_known(inventory: Inventory, playbook: str) -> None:
    """Otherwise the playbook would refuse itself."""
    assert unknown(inventory, PASSED[playbook]) == []


BEGINS = {
    file.name: plays[0]["vars"]
    for file in sorted((ROOT / "deploy").glob("*.yml"))
    for plays in [trusted(file)]
    if "ansible.builtin.import_playbook" in plays[0] and "vars" in plays[0]
}


def test_playbooks_that_pass_values_to_preflight_are_found() -> None:
    """With another notation the test below would find none and pass."""
    assert {"backup.yml", "deploy.yml", "restart.yml", "rollback.yml"} <= set(BEGINS)


@pytest.mark.parametrize("playbook", list(BEGINS))
def test_values_that_a_playbook_passes_to_preflight_are_valid(inventory: Inventory, playbook: str) -> None:
    """Such as 0 MB of free disk space, or no change windows."""
    assert inventory.wrong(**BEGINS[playbook]) == []
    assert inventory.refused(**BEGINS[playbook]) == []


def made_by_tasks(node: Any) -> set[str]:
    """Every fact and every registered result of tasks, in blocks too."""
    if isinstance(node, list):
        return set().union(*map(made_by_tasks, node)) if node else set()
    if not isinstance(node, dict):
        return set()
    own = {str(node["register"])} if isinstance(node.get("register"), str) else set()
    return own.union(node.get("ansible.builtin.set_fact") or (), *(made_by_tasks(value) for value in node.values()))


MADE = set().union(
    *(made_by_tasks(yaml.safe_load(file.read_text())) for file in ROOT.glob("roles/*/tasks/*.yml")),
    *(yaml.safe_load(file.read_text()) or {} for file in ROOT.glob("roles/*/vars/main.yml")),
)


def test_name_that_tasks_set_is_accepted(inventory: Inventory) -> None:
    """Facts and results are variables of the host when a later play checks the settings again."""
    assert {"host_survey", "lock_run_id", "release_resolved", "__backup_unwanted"} <= MADE
    assert unknown(inventory, MADE) == []


def test_name_that_is_wired_may_be_set(inventory: Inventory) -> None:
    """Such as another data folder."""
    assert inventory.wrong(scratch4school_data_directory="/srv/school", docker_network="school") == []


@pytest.mark.parametrize(
    ("name", "role", "end"),
    [
        ("backup_schedule", "backup", "or remove the line to get the default, “*-*-* 02:15”."),
        ("app_workers", "app", "or remove the line to get the default, 3."),
        ("backup_ssh_key", "backup", "or remove the line to get the default, “”."),
        ("backup_environment", "backup", "or remove the line to get the default, {}."),
        ("proxy_https_port", "proxy", "or remove the line to get the default, 443."),
        ("database_engine", "database", "or remove the line to get the default, “postgres”."),
        ("backup_password", "backup", "or remove the line."),
        ("database_app_password", "database", "or remove the line."),
    ],
)
def test_setting_without_a_value_is_refused(inventory: Inventory, name: str, role: str, end: str) -> None:
    """With its default; a secret has none, because the first deploy generates it."""
    message = only(inventory.wrong(**{name: None}))
    assert message == f"{name} has no value. Write one after the colon, {end}"
    assert name not in inventory.made()


@pytest.mark.parametrize(
    "name", ["scratch4school_url", "app_oidc_client_id", "app_oidc_jwks_url", "proxy_tls_certificate", "proxy_tls_key"]
)
def test_required_setting_without_a_value_is_refused_once(inventory: Inventory, name: str) -> None:
    """By its role, with the same message for an empty one, one without a value and a missing one."""
    assert inventory.wrong(**{name: None}) == []
    expected = f"{name} is not set for server. Set it in the inventory's group_vars/scratch4school/: "
    for refusals in (
        inventory.refused(**{name: None}),
        inventory.refused(**{name: ""}),
        inventory.refused(without=(name,)),
    ):
        assert only(refusals).startswith(expected)


def test_rule_that_reads_a_setting_of_a_wrong_type_is_left_out(inventory: Inventory) -> None:
    """All other rules apply, those of its role included."""
    refusals = inventory.refused(backup_keep_daily="seven", backup_repository="nas", proxy_http_port=443)
    assert refusals == [
        "backup_keep_daily is “seven”; write a whole number, such as 7.",
        "backup_repository is “nas”; write the whole path of a folder of the server, such as /mnt/nas, or an address "
        "as restic does, such as sftp:user@host:/path or s3:https://host/bucket, or leave it unset.",
        "proxy_https_port and proxy_http_port are both 443; choose two different ports.",
    ]


def test_several_errors_are_all_refused(inventory: Inventory) -> None:
    """In one run."""
    found = inventory.refused(app_workers="many", app_threads=0, bakcup_schedule="02:15", images_base_source="web")
    assert found[0].startswith("bakcup_schedule is no setting")
    assert sorted(line.split()[0] for line in found[1:]) == ["app_threads", "app_workers", "images_base_source"]


@pytest.mark.parametrize("value", [16, "16"])
def test_number_from_the_command_line_is_valid(inventory: Inventory, value: object) -> None:
    """`-e name=16` passes a text."""
    assert inventory.refused(app_threads=value, pgbouncer_max_client_conn=str(900)) == []


def test_template_is_resolved_before_it_is_checked(inventory: Inventory) -> None:
    """As in the role itself."""
    threads = trust_as_template("{{ ordinary }}")
    assert inventory.wrong(app_threads=threads, ordinary=4) == []
    assert only(inventory.wrong(app_threads=threads, ordinary="x")).startswith("app_threads is “x”; write a whole")


def test_template_that_cannot_be_resolved_is_refused(inventory: Inventory) -> None:
    """With the setting, and Ansible's message in one line."""
    message = only(inventory.wrong(backup_ssh_key=trust_as_template("{{ vault_backup_key }}")))
    assert message == "backup_ssh_key cannot be worked out: 'vault_backup_key' is undefined."


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("app_secret_key", ["hunter2-hunter2"]),
        ("app_oidc_client_secret", {"a": "hunter2-hunter2"}),
        ("backup_password", ["hunter2-hunter2"]),
        ("backup_ssh_key", "hunter2-hunter2"),
        ("backup_environment", "AWS_SECRET_ACCESS_KEY=hunter2-hunter2"),
        ("backup_failure_command", ["curl", "-H", "Authorization: hunter2-hunter2"]),
        ("database_app_password", ["hunter2-hunter2"]),
        ("images_http_proxy", "ftp://anna:hunter2-hunter2@proxy.example"),
        ("images_python_index", "anna://anna:hunter2-hunter2@mirror.example"),
        ("adoption_database", ["postgresql://anna:hunter2-hunter2@old.example/db"]),
    ],
)
def test_refusal_of_a_secret_does_not_contain_its_value(inventory: Inventory, name: str, value: object) -> None:
    """The message appears on a screen and in logs."""
    refusals = inventory.refused(**{name: value})
    assert [line for line in refusals if line.startswith(f"{name} is ")]
    assert "hunter2" not in " ".join(refusals)


def test_secret_that_nothing_set_is_not_generated(inventory: Inventory) -> None:
    """Reading the variable would generate the secret; names, types and bounds are checked without."""
    assert inventory.wrong() == []
    assert inventory.wrong(app_workers="many", backup_password=["x"]) != []
    assert inventory.made() == []


def test_secret_of_the_inventory_is_checked_and_not_generated(inventory: Inventory) -> None:
    """As every other setting."""
    assert only(inventory.wrong(database_app_password=["x"])).startswith("database_app_password is ")
    assert inventory.wrong(database_app_password="a-long-one-of-the-vault") == []
    assert inventory.made() == []


def test_sqlite_generates_no_password_of_postgresql(inventory: Inventory) -> None:
    """The rules read only the settings that they check."""
    assert inventory.refused(database_engine="sqlite", host_preflight_roles=["app", "database", "backup"]) == []
    assert inventory.made() == ["app_secret_key", "backup_password"]


# ---- the host


def judged(inventory: Inventory, want: str, survey: dict[str, Any] | None = None, **settings: Any) -> Any:
    """The lookup's result for a host with this survey."""
    given = {"host_survey": {**SURVEY, **(survey or {})}, "images_build_mb": 0, "release_target": "new", **settings}
    variables = inventory.variables(given)
    return inventory.lookup("preflight", variables, *inventory.value("host_preflight_roles", variables), want=want)


def test_suitable_host_is_accepted_by_all_roles(inventory: Inventory) -> None:
    """Without reading their passwords."""
    # No key set was requested here, which is no key set without keys.
    assert judged(inventory, "host_refusals") == []
    assert judged(inventory, "host_warnings") == []
    assert inventory.made() == []


def test_refusals_of_all_roles_are_one_list(inventory: Inventory) -> None:
    """In the order of the roles; a text of the command line has the type of its setting."""
    keys = inventory.right["app_oidc_jwks_url"]
    survey = {
        "provider": {keys: {"status": 404}},
        "memory": {**SURVEY["memory"], "total_mb": 1},
        "calendars": {"at night": "no time"},
    }
    refusals = judged(inventory, "host_refusals", survey, backup_schedule="at night", host_memory_mb="2")
    assert [line.split()[0] for line in refusals] == ["app_oidc_jwks_url", "backup_schedule", "server"]
    warned = judged(inventory, "host_warnings", survey, backup_schedule="at night", release_target="previous")
    assert [line.split()[0] for line in warned] == ["app_oidc_jwks_url", "backup_schedule"]


def test_questions_of_all_roles_are_one_dictionary(inventory: Inventory) -> None:
    """Each question that host_survey answers for the rules once, with the roles' defaults."""
    assert judged(inventory, "questions", backup_repository="/mnt/nas", backup_failure_command="mail root") == {
        "files": list(SURVEY["files"]),
        "disks": ["/var/lib/scratch4school/postgres"],
        "calendars": ["*-*-* 02:15", "Sat *-*-* 04:00", "Sun *-*-* 04:00", "Sun *-*-* 05:00"],
        "programs": ["mail"],
        "folders": [{"path": "/mnt/nas", "user": 10005, "group": 10000}],
        "sizes": ["/var/lib/scratch4school/postgres", "/var/lib/scratch4school/uploads"],
    }


def test_rules_judge_what_the_survey_returns(
    inventory: Inventory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of this machine, without an engine: each fact that a rule reads has the name that the survey gives it."""
    monkeypatch.setattr(host_survey.Engine, "get", lambda self, path: None)
    chosen = {"backup_repository": str(tmp_path), "proxy_frontend_directory": "/srv/front", "database_engine": "sqlite"}
    asked = judged(inventory, "questions", **chosen)
    paths = {
        name: str(tmp_path / name) for name in ("data_directory", "socket_directory", "ledger", "change_directory")
    }
    survey = host_survey.survey(**paths, ports=[1], questions=asked)
    assert any("index.html" in said for said in judged(inventory, "host_refusals", survey, **chosen))
    judged(inventory, "host_warnings", survey, **chosen)
    assert set(SURVEY) <= set(survey)
    assert all(set(SURVEY[name]) <= set(survey[name]) for name in ("system", "engine", "memory"))


def test_setting_that_cannot_be_read_is_an_error_unless_something_is_refused(inventory: Inventory) -> None:
    """A rule that fails must not count as accepted; a warning is no refusal."""
    unreadable = {"host_memory_mb": trust_as_template("{{ nothing_such }}")}
    with pytest.raises(AnsibleError, match=r"host_memory_mb cannot be worked out: 'nothing_such' is undefined\."):
        judged(inventory, "host_refusals", **unreadable)
    full = {"disk": {"/var/lib": 1}}
    assert only(judged(inventory, "host_refusals", full, **unreadable)).startswith("Only 1 MB are free")
    unreadable = {"app_require_provider": trust_as_template("{{ nothing_such }}")}
    with pytest.raises(AnsibleError, match="app_require_provider cannot be worked out"):
        judged(inventory, "host_warnings", {"system": {"distribution": "Ubuntu", "version": "24.04"}}, **unreadable)
