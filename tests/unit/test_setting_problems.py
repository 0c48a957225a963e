"""The lookup that judges a host's settings, with the real roles, the real wiring and an inventory that is right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible import context
from ansible.module_utils.common.collections import ImmutableDict
from ansible.parsing.dataloader import DataLoader
from ansible.template import trust_as_template
from ansible.utils import vars as ansible_vars
from conftest import ROOT
from judging import Inventory


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    """One host with settings that are right."""
    return Inventory(tmp_path / "school")


def only(found: dict[str, list[str]], role: str) -> str:
    """The one sentence, which is that role's."""
    assert list(found) == [role]
    (sentence,) = found[role]
    return sentence


def test_right_settings_are_no_problem(inventory: Inventory) -> None:
    """Neither for the lookup nor for the roles that judge what it let pass."""
    assert inventory.wrong() == {}
    assert inventory.refused() == []


def test_examples_own_settings_are_known(inventory: Inventory) -> None:
    """Copied as they are, they are refused as placeholders, and no name of theirs is."""
    folder = ROOT / "inventories" / "example" / "group_vars" / "scratch4school"
    example = {
        **yaml.safe_load((folder / "settings.yml").read_text()),
        **yaml.safe_load((folder / "vault.yml").read_text()),
    }
    assert inventory.wrong(**example) == {}
    assert any("scratch4school_url is still a placeholder" in said for said in inventory.refused(**example))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("bakcup_at", "backup_at"),
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
def test_unknown_name_is_said_with_the_nearest(inventory: Inventory, name: str, nearest: str) -> None:
    """One sentence, under no role, so that every role still judges what it can."""
    found = inventory.wrong(**{name: "x"})
    if nearest:
        assert only(found, "") == f"{name} is no setting of Scratch4School. Did you mean {nearest}?"
    else:
        assert found == {}


@pytest.mark.parametrize(
    "name",
    ["vault_backup_ssh_key", "vault_app_oidc_client_secret", "school_name", "ansible_become_password", "lab_class"],
)
def test_sysadmins_own_name_is_silent(inventory: Inventory, name: str) -> None:
    """Ansible's names, and those that the inventory made for itself, also where they hold one of ours."""
    assert inventory.wrong(**{name: "x"}) == {}


def test_name_without_a_prefix_on_the_command_line_is_judged(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`-e relase=…` would otherwise roll back to another release than was typed."""
    given = {"relase": "3f2a"}
    monkeypatch.setattr(context, "CLIARGS", ImmutableDict(extra_vars=("relase=3f2a",)))
    monkeypatch.setattr(ansible_vars.load_extra_vars, "extra_vars", given, raising=False)
    assert only(inventory.wrong(**given), "") == "relase is no setting of Scratch4School. Did you mean release?"


def last_line(folder: Path, settings: dict[str, Any], playbook: str, *arguments: str) -> str:
    """What a real run of one of our playbooks ends with, against a host that cannot be reached."""
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
        timeout=120,
    )
    assert ended.returncode != 0
    return ended.stdout.strip().splitlines()[-1]


def test_run_goes_on_to_the_host_with_right_settings(tmp_path: Path, inventory: Inventory) -> None:
    """A deploy is not refused for what it passes itself, and neither for what Ansible adds."""
    said = last_line(tmp_path / "inventory", inventory.right, "deploy.yml")
    assert said.startswith("server cannot be reached by SSH: ")


def test_run_ends_with_the_setting_that_is_wrong(tmp_path: Path, inventory: Inventory) -> None:
    """Also where it stands on the command line, and before anything is asked of the host."""
    said = last_line(tmp_path / "inventory", inventory.right, "rollback.yml", "-e", "relase=3f2a")
    assert said == "relase is no setting of Scratch4School. Did you mean release?"


@pytest.mark.parametrize(
    "name",
    ["release", "component", "reason", "backup", "confirm", "adopt", "undo", "step", "stopped", "cut", "change_forced"],
)
def test_word_of_a_command_line_is_known(inventory: Inventory, name: str) -> None:
    """What a playbook's own comment tells one to type is no mistake."""
    assert inventory.wrong(**{name: "x"}) == {}


def keys_of_vars(node: Any) -> set[str]:
    """Every name that a play or a task passes with `vars`, wherever it stands."""
    if isinstance(node, list):
        return set().union(*map(keys_of_vars, node)) if node else set()
    if not isinstance(node, dict):
        return set()
    own = set(node["vars"]) if isinstance(node.get("vars"), dict) else set()
    return own.union(*(keys_of_vars(value) for value in node.values()))


def trusted(playbook: Path) -> list[dict[str, Any]]:
    """The plays of a playbook, whose templates may be worked out."""
    return DataLoader().load_from_file(str(playbook), trusted_as_template=True)


PASSED = {file.name: keys_of_vars(yaml.safe_load(file.read_text())) for file in sorted((ROOT / "deploy").glob("*.yml"))}


def test_names_that_playbooks_pass_were_found() -> None:
    """Written otherwise, they would agree with everything."""
    assert {"release_wanted", "backup_settled", "adoption_wanted", "host_hold_accepted"} <= set().union(
        *PASSED.values()
    )


@pytest.mark.parametrize("playbook", [name for name, passed in PASSED.items() if passed])
def test_no_playbook_is_refused_for_what_it_passes(inventory: Inventory, playbook: str) -> None:
    """A name that a play hands over would otherwise be told to be removed."""
    assert inventory.wrong(**dict.fromkeys(PASSED[playbook], "x")).get("", []) == []


BEGINS = {
    file.name: plays[0]["vars"]
    for file in sorted((ROOT / "deploy").glob("*.yml"))
    for plays in [trusted(file)]
    if "ansible.builtin.import_playbook" in plays[0] and "vars" in plays[0]
}


def test_playbooks_that_begin_with_values_of_their_own_were_found() -> None:
    """Written otherwise, they would agree with everything."""
    assert {"backup.yml", "deploy.yml", "restart.yml", "rollback.yml"} <= set(BEGINS)


@pytest.mark.parametrize("playbook", list(BEGINS))
def test_no_playbook_is_refused_for_the_values_that_it_begins_with(inventory: Inventory, playbook: str) -> None:
    """Such as no room that is needed, or no hours that are asked for; these are there while settings are judged."""
    assert inventory.wrong(**BEGINS[playbook]) == {}
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


def test_what_tasks_make_is_known(inventory: Inventory) -> None:
    """Facts and results of an earlier play are variables of the host when a later one judges it again."""
    assert {"host_survey", "journal_run", "release_chosen", "__backup_unwanted"} <= MADE
    assert inventory.wrong(**dict.fromkeys(MADE, "x")).get("", []) == []


def test_what_is_wired_may_be_set(inventory: Inventory) -> None:
    """A school that keeps its data elsewhere is no mistake."""
    assert inventory.wrong(scratch4school_data_directory="/srv/school", docker_network="school") == {}


@pytest.mark.parametrize(
    ("name", "role", "end"),
    [
        ("backup_at", "backup", "or remove the line to get the default, “*-*-* 02:15”."),
        ("app_workers", "app", "or remove the line to get the default, 3."),
        ("backup_ssh_key", "backup", "or remove the line to get the default, “”."),
        ("backup_environment", "backup", "or remove the line to get the default, {}."),
        ("backup_password", "backup", "or remove the line."),
        ("database_app_password", "database", "or remove the line."),
    ],
)
def test_setting_without_a_value_is_said(inventory: Inventory, name: str, role: str, end: str) -> None:
    """An optional one with what it would be without the line; a secret that is made is made without it."""
    said = only(inventory.wrong(**{name: None}), role)
    assert said == f"{name} has no value. Write one behind the colon, {end}"
    assert name not in inventory.made()


@pytest.mark.parametrize(
    "name", ["scratch4school_url", "app_oidc_client_id", "app_oidc_jwks_url", "proxy_tls_certificate", "proxy_tls_key"]
)
def test_required_setting_without_a_value_is_asked_for_once(inventory: Inventory, name: str) -> None:
    """By the role, which says where to find it; empty, without a value and left out are the same."""
    assert inventory.wrong(**{name: None}) == {}
    expected = f"{name} is not set for server. Set it in the inventory's group_vars/scratch4school/: "
    for said in (
        inventory.refused(**{name: None}),
        inventory.refused(**{name: ""}),
        inventory.refused(without=(name,)),
    ):
        (sentence,) = said
        assert sentence.startswith(expected)


def test_setting_of_a_wrong_type_leaves_its_role_unasked(inventory: Inventory) -> None:
    """What its value would lead to is not said; the other roles' refusals are."""
    said = inventory.refused(backup_keep_daily="seven", proxy_http_port=443)
    assert said == [
        "backup_keep_daily is “seven”; write a whole number, such as 7.",
        "proxy_https_port and proxy_http_port are both 443; choose two different ports.",
    ]


def test_several_mistakes_are_all_said(inventory: Inventory) -> None:
    """One run finds them all."""
    said = inventory.refused(app_workers="many", app_threads=0, bakcup_at="02:15", images_base_source="web")
    assert said[0].startswith("bakcup_at is no setting")
    assert sorted(line.split()[0] for line in said[1:]) == ["app_threads", "app_workers", "images_base_source"]


@pytest.mark.parametrize("value", [16, "16"])
def test_number_from_the_command_line_is_one(inventory: Inventory, value: object) -> None:
    """`-e name=16` arrives as a text."""
    assert inventory.refused(app_threads=value, pgbouncer_max_client_conn=str(900)) == []


def test_template_is_worked_out_before_it_is_judged(inventory: Inventory) -> None:
    """As the role would see it."""
    threads = trust_as_template("{{ ordinary }}")
    assert inventory.wrong(app_threads=threads, ordinary=4) == {}
    assert only(inventory.wrong(app_threads=threads, ordinary="x"), "app").startswith(
        "app_threads is “x”; write a whole"
    )


def test_template_that_cannot_be_worked_out_is_said(inventory: Inventory) -> None:
    """With the setting, and what Ansible says of it in one line."""
    said = only(inventory.wrong(backup_ssh_key=trust_as_template("{{ vault_backup_key }}")), "backup")
    assert said == "backup_ssh_key cannot be worked out: 'vault_backup_key' is undefined."


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
def test_value_of_a_secret_is_never_said(inventory: Inventory, name: str, value: object) -> None:
    """The sentence stands on a screen and in a log."""
    said = inventory.refused(**{name: value})
    assert [line for line in said if line.startswith(f"{name} is ")]
    assert "hunter2" not in " ".join(said)


def test_secret_that_nothing_set_is_not_made(inventory: Inventory) -> None:
    """To look at it is to make it, and a look must leave no trace."""
    assert inventory.wrong() == {}
    assert inventory.wrong(app_workers="many", backup_password=["x"]) != {}
    assert inventory.made() == []


def test_secret_that_the_inventory_sets_is_judged_and_not_made(inventory: Inventory) -> None:
    """One of the vault is looked at as every other setting."""
    assert only(inventory.wrong(database_app_password=["x"]), "database").startswith("database_app_password is ")
    assert inventory.wrong(database_app_password="a-long-one-of-the-vault") == {}
    assert inventory.made() == []
