"""The output of a run: its plays and changes, and as the last line the result, the refusal or the state of the host."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from conftest import PLUGINS, ROOT, load

progress = load(PLUGINS / "callback" / "progress.py")

SPEC_CHECK = "ansible.builtin.validate_argument_spec"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (7.9, "0:07"), (60, "1:00"), (750.2, "12:30"), (3725, "62:05")]
)
def test_clock_is_minutes_and_seconds(seconds: float, shown: str) -> None:
    """More than an hour is still in minutes."""
    assert progress.clock(seconds) == shown


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("app : verify | Run the six checks", "Run the six checks"),
        ("verify | Run the six checks", "Run the six checks"),
        ("app : Run the six checks", "Run the six checks"),
        ("Run the six checks", "Run the six checks"),
        ("container : run_once | Run the job | again", "again"),
        ("", ""),
    ],
)
def test_short_name_is_without_role_and_file(name: str, short: str) -> None:
    """The last part of a task's name."""
    assert progress.short_name(name) == short


@pytest.mark.parametrize(
    ("result", "lines"),
    [
        ({"msg": "One.\nTwo.  \n\nThree.\n"}, ["One.", "Two.", "Three."]),
        ({"msg": ["One.", "", None, "Two.\nThree."]}, ["One.", "Two.", "Three."]),
        ({"msg": 5}, ["5"]),
        ({"msg": ""}, []),
        ({"msg": None}, []),
        ({}, []),
    ],
    ids=str,
)
def test_message_lines_are_the_lines_of_text(result: dict[str, Any], lines: list[str]) -> None:
    """A text or a list of texts, without empty lines."""
    assert progress.message_lines(result) == lines


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"msg": "The disk is full.", "stderr": "detail"}, "The disk is full."),
        ({"msg": ["The disk is full.", "Free some."]}, "The disk is full.\nFree some."),
        ({"msg": "non-zero return code", "stderr": "\nfirst\nsecond\n"}, "first\nsecond"),
        ({"msg": "non-zero return code", "stderr": ""}, "non-zero return code"),
        ({"msg": "", "stderr": "No room.\n"}, "No room."),
        ({"stderr": None}, ""),
        ({"censored": "the output has been hidden"}, ""),
        ({}, ""),
    ],
    ids=str,
)
def test_failure_is_the_message_or_the_error_output(result: dict[str, Any], message: str) -> None:
    """The error output of a command, if its message is only about the exit status."""
    assert progress.failure(result) == message


def test_failure_of_a_loop_is_that_of_its_first_failed_item() -> None:
    """Not Ansible's “One or more items failed”."""
    results = [
        {"msg": "Done."},
        {"failed": True, "msg": "non-zero return code", "stderr": "No such image.\n"},
        {"failed": True, "msg": "Another one."},
    ]
    assert progress.failure({"msg": "One or more items failed", "results": results}) == "No such image."
    results = [{"unreachable": True, "msg": "No route."}]
    assert progress.failure({"msg": "One or more items failed", "results": results}) == "No route."
    assert progress.failure({"msg": "No list.", "results": [{"msg": "Done."}, "text"]}) == "No list."
    assert progress.failure({"msg": "No list.", "results": []}) == "No list."


def test_failure_of_arguments_is_one_line_for_each() -> None:
    """Ansible's own message contains the whole specification."""
    result = {"msg": "Validation of arguments failed:\n…", "argument_errors": ["missing: app_url", "wrong: app_slot"]}
    assert progress.failure(result, SPEC_CHECK) == (
        "A setting is wrong: missing: app_url.\nA setting is wrong: wrong: app_slot."
    )
    assert progress.failure(result, "ansible.builtin.assert") == "Validation of arguments failed:\n…"
    assert progress.failure({"msg": "Other."}, SPEC_CHECK) == "Other."


def texts(custom: dict[str, Any], failures: dict[str, str] | None = None, hosts: int = 1) -> list[str]:
    """The last lines of a run, without their kinds."""
    return [text for _, text in progress.final_lines(custom, failures or {}, hosts)]


def test_final_lines_of_one_host_name_none() -> None:
    """The result, then the next steps, then the warnings."""
    custom = {"server": {"warnings": ["Look."], "next_steps": ["Log in.", "Print it."], "last_word": "6 passed"}}
    assert progress.final_lines(custom, {}, 1) == [
        ("result", "6 passed"),
        ("next", "Log in."),
        ("next", "Print it."),
        ("warning", "Warning: Look."),
    ]


def test_final_lines_of_several_hosts_name_each() -> None:
    """In the order of the hosts' names; a line of localhost names no host."""
    custom = {"b": {"last_word": "6 passed"}, "a": {"last_word": "6 passed"}, "localhost": {"warnings": "Look."}}
    assert texts(custom, hosts=2) == ["a: 6 passed", "b: 6 passed", "Warning: Look."]


def test_repeated_warning_is_printed_once() -> None:
    """Two plays may give the same warning."""
    custom = {"server": {"warnings": ["Look.", "Look.", "And look."]}, "localhost": {"warnings": ["Look."]}}
    assert texts(custom) == ["Warning: Look.", "Warning: And look."]


def test_final_lines_of_a_failed_run_end_with_the_refusal() -> None:
    """Warnings come before the refusal; result and next steps are left out."""
    custom = {"server": {"last_word": "6 passed", "next_steps": ["Log in."], "warnings": ["Look."]}}
    assert progress.final_lines(custom, {"server": "The disk is full."}, 1) == [
        ("warning", "Warning: Look."),
        ("refusal", "The disk is full."),
    ]
    assert texts({}, {"b": "Full.", "a": "Gone."}, hosts=2) == ["a: Gone.", "b: Full."]
    assert texts({}, {"localhost": "There is no host."}, hosts=2) == ["There is no host."]


def test_run_without_statistics_has_no_final_lines() -> None:
    """The recap is the end of its output."""
    assert texts({}) == []
    assert texts({"server": {"last_word": "", "warnings": []}}) == []


@pytest.mark.parametrize("verb", ["deploy", "rollback", "restore"])
@pytest.mark.parametrize("phase", ["begin", "activate", "migrate", "verify", "standby", "other"])
def test_interrupted_change_has_phase_lock_and_next_command(verb: str, phase: str) -> None:
    """And what is live, if the phase tells it; status.yml otherwise."""
    (line,) = progress.interrupted({"server": progress.Change(verb=verb, phase=phase)})
    assert line.startswith(f"server: the {verb} was interrupted in its phase “{phase}” and holds the host's lock. ")
    assert "Run the same command again; it continues from there." in line
    live = {
        "verify": "The new release is live and not verified.",
        "standby": "The new release is live and verified.",
        "other": "status.yml shows what is live.",
        "activate": "status.yml shows what is live.",
        "migrate": "status.yml shows what is live.",
        "begin": "No release was switched; status.yml shows what is live.",
    }
    assert line.endswith(live[phase])


def test_interruption_before_the_lock_changed_nothing() -> None:
    """Preflight is read-only."""
    assert progress.interrupted({"server": progress.Change()}) == ["server: nothing was changed."]
    assert progress.interrupted({}) == ["Nothing was changed."]


def test_interruption_after_the_lock_was_released_is_no_open_change() -> None:
    """The change had ended."""
    change = progress.Change(verb="deploy", phase="standby", ended=True)
    assert progress.interrupted({"server": change}) == ["server: the deploy had ended."]


def test_interruption_during_a_job_names_the_job() -> None:
    """systemd runs the job on the host, where it continues."""
    job = "server: the backup continues there without the control node. status.yml shows the result."
    assert progress.interrupted({"server": progress.Change(jobs={"backup"})}) == [job]
    both = progress.interrupted({"server": progress.Change(verb="restore", phase="begin", jobs={"fetch", "backup"})})
    assert both[0].startswith("server: the backup and fetch continue there")
    assert both[1].startswith("server: the restore was interrupted in its phase “begin”")


def test_interruption_prints_a_line_for_each_host() -> None:
    """The hosts may be in different phases."""
    changes = {"b": progress.Change(), "a": progress.Change(verb="deploy", phase="verify")}
    assert [line.partition(":")[0] for line in progress.interrupted(changes)] == ["a", "b"]


# ---- files of an inventory


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """A school's inventory with files that Ansible reads, and others."""
    folder = tmp_path / "inventories" / "school"
    for name, text in {
        "hosts.yml": "scratch4school: {hosts: {server: {}}}\n",
        "README.md": "not: [read\n",
        "group_vars/scratch4school/settings.yml": "app_workers: 3\n",
        "group_vars/scratch4school/vault.yaml": "$ANSIBLE_VAULT;1.1;AES256\n",
        "group_vars/all": "a: 1\n",
        "group_vars/notes.txt": "not: [read\n",
        "host_vars/server.yml": "b: 1\n",
        ".secrets/backup_password": "not: [read\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


READ = [
    "hosts.yml",
    "group_vars/all",
    "group_vars/scratch4school/settings.yml",
    "group_vars/scratch4school/vault.yaml",
    "host_vars/server.yml",
]


def names(folder: Path, sources: list[str]) -> list[str]:
    """The inventory's files, relative to its folder."""
    return [str(path.relative_to(folder)) for path in progress.inventory_files(sources)]


def test_inventory_files_are_those_that_ansible_reads(inventory: Path) -> None:
    """For a folder, and for a file in it; each file once, and no secret."""
    assert names(inventory, [str(inventory)]) == READ
    assert names(inventory, [str(inventory / "hosts.yml"), str(inventory)]) == READ


def test_inventory_file_excludes_other_files_in_its_folder(inventory: Path) -> None:
    """Ansible reads the variables beside a file that is named with -i, but no other files, such as playbooks."""
    (inventory / "deploy.yml").write_text("- hosts: all\n")
    assert names(inventory, [str(inventory / "hosts.yml")]) == READ


def test_inventory_that_is_no_path_has_no_files(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of hosts, or a mistyped path, does not select the current folder."""
    monkeypatch.chdir(inventory)
    assert progress.inventory_files(["server,", "inventories/typo"]) == []
    assert progress.inventory_files(["hosts.yml"]) == list(map(Path, READ))


def problems(path: Path, text: str) -> list[str]:
    """The messages about one file with this text."""
    path.write_text(text)
    return progress.yaml_problems([path], lambda file: file.read_text())


@pytest.mark.parametrize("text", ["", "---\n", "# nothing\n", "a: 1\n", "a: !vault |\n  6162\n", "a: '{{ b }}'\n"])
def test_yaml_with_variables_has_no_problems(tmp_path: Path, text: str) -> None:
    """Nor has an empty file, or one with a tag of Ansible."""
    assert problems(tmp_path / "settings.yml", text) == []


@pytest.mark.parametrize(
    ("text", "place", "since"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "line 3, column 2", " (the error began in line 2)"),
        ("a: 1\n  b: 2\n", "line 2, column 4", ""),
        ("a: 1\nb: one: two\n", "line 2, column 7", ""),
        ("a: 'one\nb: 2\n", "line 3, column 1", " (the error began in line 1)"),
        ("a: 1\n{\n", "line 3, column 1", " (the error began in line 2)"),
        ("\ta: 1\n", "line 1, column 1", ""),
    ],
    ids=["list", "indented", "colon", "quote", "mapping", "tab"],
)
def test_invalid_yaml_is_reported_with_its_place(tmp_path: Path, text: str, place: str, since: str) -> None:
    """File, line and column, the error, and the line where the error began, in one line."""
    (message,) = problems(tmp_path / "settings.yml", text)
    assert message.startswith(f"{tmp_path}/settings.yml, {place}")
    assert ": this is not YAML, " in message
    assert message.endswith(f"{since}. Correct the file, and run the same command again.")
    assert "\n" not in message


def test_yaml_with_invalid_characters_is_reported_with_its_file(tmp_path: Path) -> None:
    """A file in another encoding has no line number."""
    path = tmp_path / "settings.yml"
    path.write_bytes(b"a: \xff\n")
    (message,) = progress.yaml_problems([path], lambda file: file.read_text())
    assert message.startswith(f"{path}: this is not YAML: ")
    (message,) = problems(path, "a: \x07\n")
    assert message.startswith(f"{path}: this is not YAML: ")
    assert "\n" not in message


def test_template_without_quotation_marks_is_reported_with_its_place(tmp_path: Path) -> None:
    """YAML parses it as a mapping in a mapping; Ansible's own message has neither file nor line."""
    path = tmp_path / "settings.yml"
    found = problems(path, "a: 1\nbackup_ssh_key: {{ vault_key }}\nlist: [1, {b: {{ c }}}]\n")
    assert [line.partition(":")[0] for line in found] == [f"{path}, line 2, column 17", f"{path}, line 3, column 15"]
    assert found[0].endswith(": put quotation marks around {{ … }}, and run the same command again.")
    assert problems(path, "a: {b: [{c: 1}]}\n? [1, 2]\n: 3\n") == []


@pytest.mark.parametrize("text", ["- a: 1\n", "just a text\n"])
def test_yaml_that_is_no_mapping_is_reported(tmp_path: Path, text: str) -> None:
    """A list, or a line without a colon."""
    (message,) = problems(tmp_path / "settings.yml", text)
    expected = "this file must contain lines such as “name: value”. Correct the file."
    assert message == f"{tmp_path}/settings.yml: {expected}"


def test_encrypted_file_is_reported_with_the_missing_option(tmp_path: Path) -> None:
    """Ansible names neither file nor option. Of an unreadable file Ansible's own message is enough."""
    (tmp_path / "b.yml").write_text("- 1\n")

    def read(path: Path) -> str:
        if path.name == "vault.yml":
            raise AnsibleError("Attempting to decrypt but no vault secrets found")
        if path.name == "gone.yml":
            raise OSError("gone")
        return path.read_text()

    encrypted, other = progress.yaml_problems([tmp_path / name for name in ("vault.yml", "gone.yml", "b.yml")], read)
    assert encrypted == (
        f"{tmp_path}/vault.yml cannot be decrypted. Add --ask-vault-pass, and type the vault's password."
    )
    assert other.startswith(f"{tmp_path}/b.yml: this file must contain lines")


# ---- whole runs


@dataclass(frozen=True)
class Run:
    """Exit status and output of a playbook, without empty lines and without the durations of long tasks."""

    status: int
    lines: list[str]

    def lines_with(self, text: str) -> list[str]:
        """The lines that contain a text."""
        return [line for line in self.lines if text in line]


ROLE = {
    "meta/argument_specs.yml": (
        "argument_specs: {main: {short_description: x, options: {greet_name: {type: str, required: true}}}}\n"
    ),
    "tasks/main.yml": (
        "- name: main | Write a greeting\n"
        "  ansible.builtin.copy: {content: '{{ greet_name }}', dest: '{{ place }}/greeting', mode: '0600'}\n"
        "- name: main | Read the greeting\n"
        "  ansible.builtin.command: {argv: [cat, '{{ place }}/greeting']}\n"
        "  changed_when: false\n"
    ),
}


@pytest.fixture
def school(tmp_path: Path) -> Path:
    """A folder with a role and an inventory of one host, the local machine."""
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "place": str(tmp_path)}
    hosts = {"scratch4school": {"hosts": {"server": host}}}
    for name, text in ROLE.items():
        (tmp_path / "roles" / "greet" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "roles" / "greet" / name).write_text(text)
    (tmp_path / "inventory" / "group_vars" / "scratch4school").mkdir(parents=True)
    (tmp_path / "inventory" / "hosts.yml").write_text(yaml.safe_dump(hosts))
    return tmp_path


@pytest.fixture
def start(school: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A function that starts a playbook with the repository's ansible.cfg, in a session of its own."""
    begun: list[subprocess.Popen[str]] = []

    def begin(playbook: str, *arguments: str) -> subprocess.Popen[str]:
        (school / "deploy.yml").write_text(playbook)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        ours = {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_HOME": str(school / "ansible"),
            "LC_ALL": "C.UTF-8",
        }
        process = subprocess.Popen(
            [Path(sys.executable).parent / "ansible-playbook", "-i", "inventory", "deploy.yml", *arguments],
            cwd=school,
            env={**kept, **ours},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        begun.append(process)
        return process

    yield begin
    for process in begun:
        end_at_once(process)


def end_at_once(process: subprocess.Popen[str]) -> None:
    """Kill a playbook that still runs, with everything that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def ended(process: subprocess.Popen[str]) -> Run:
    """Wait at most ten minutes for the playbook's end."""
    try:
        output, _ = process.communicate(timeout=600)
    finally:
        end_at_once(process)
    # A busy machine makes tasks long, and the callback adds how long a long one took.
    lines = [re.sub(r" \(\d+ s\)$", "", line.rstrip()) for line in output.splitlines() if line.strip()]
    return Run(process.returncode, lines)


PLAY = "  hosts: scratch4school\n  gather_facts: false\n  any_errors_fatal: true\n"
GREET = f"- name: Greet\n{PLAY}  tasks:\n    - ansible.builtin.import_role: {{name: greet}}\n"
SAY = f"""\
- name: Say
{PLAY}  tasks:
    - name: say | Set the result
      ansible.builtin.set_stats:
        data: {{last_word: "Results: 6 passed, 0 failed"}}
        per_host: true
    - name: say | Print two lines
      ansible.builtin.debug: {{msg: ["One line.", "Another line."]}}
    - name: say | Assert the truth
      ansible.builtin.assert: {{that: true}}
"""


def test_successful_run_prints_plays_changes_and_result(start: Callable[..., Any]) -> None:
    """And messages; no line for a task without a change, and none for the check of arguments."""
    run = ended(start(GREET + SAY, "-e", "greet_name=anna"))
    assert run.status == 0
    # Without the times of day, which differ from run to run.
    assert [re.sub(r"^ *\d+:\d\d ", "", line) for line in run.lines] == [
        "1/2 Greet",
        "    Write a greeting",
        "2/2 Say",
        "          One line.",
        "          Another line.",
        "server : ok=6 changed=1 unreachable=0 failed=0 skipped=0 rescued=0 ignored=0",
        "minutes",
        "Results: 6 passed, 0 failed",
    ]
    assert all(re.match(r" *\d+:\d\d ", line) for line in run.lines[:3])
    assert run.lines_with("Validating arguments") == []


COUNTED = """\
from pathlib import Path

with (Path(__file__).parent / "loads").open("a") as loads:
    loads.write("loaded\\n")


class FilterModule:
    def filters(self):
        return {"same": lambda value: value}
"""
USES = f"""\
- name: Use a filter
{PLAY}  tasks:
    - &use {{name: use | Assert the truth, ansible.builtin.assert: {{that: true | same}}}}
    - *use
    - *use
"""


def test_tasks_load_no_filter_again(school: Path, start: Callable[..., Any]) -> None:
    """Ansible runs each task in a process of its own; the filters were loaded before the first of them."""
    filters = school / "filter_plugins"
    filters.mkdir()
    (filters / "counted.py").write_text(COUNTED)
    assert ended(start(USES)).status == 0
    assert (filters / "loads").read_text().splitlines() == ["loaded"]


SKIPPED = f"""\
- name: Nothing to do
{PLAY}  tasks:
    - name: skip | Run the only task
      ansible.builtin.command: {{argv: ["true"]}}
      when: false
"""


def test_play_whose_tasks_are_all_skipped_has_no_line(start: Callable[..., Any]) -> None:
    """The other plays keep their numbers."""
    run = ended(start(SKIPPED + SAY))
    assert run.lines_with("Nothing to do") == []
    assert run.lines[0].endswith("2/2 Say")


def test_unreachable_host_is_the_last_line(start: Callable[..., Any]) -> None:
    """With SSH's message, and what to type."""
    nowhere = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1, "greet_name": "anna"}
    run = ended(start(GREET, "-e", json.dumps(nowhere)))
    assert run.status == 4
    assert run.lines[-1].startswith("server cannot be reached by SSH: ")
    assert "unreachable=1" in run.lines[-3]


def test_check_mode_marks_plays_and_changes(start: Callable[..., Any]) -> None:
    """So that they are not mistaken for changes that were made."""
    run = ended(start(GREET, "-e", "greet_name=anna", "--check"))
    assert run.lines[0].endswith("1/1 Greet (check mode)")
    assert run.lines[1].endswith("would change: Write a greeting")


def test_wrong_argument_of_a_role_is_one_line(start: Callable[..., Any]) -> None:
    """Without Ansible's dump of the specification."""
    run = ended(start(GREET))
    assert run.status == 2
    assert run.lines[-1].startswith("A setting is wrong: missing required arguments: greet_name")


FAIL = f"""\
- name: Try
{PLAY}  tasks:
    - name: try | Open the door, or close the window
      block:
        - name: try | Open the door
          ansible.builtin.command: {{argv: [sh, -c, "echo The door is locked. >&2; exit 3"]}}
      rescue:
        - name: try | Close the window
          ansible.builtin.command: {{argv: ["true"]}}
"""
REFUSE = f"""\
- name: Refuse
{PLAY}  tasks:
    - name: refuse | Refuse a full disk
      ansible.builtin.assert:
        that: false
        fail_msg: "Only 5 MB are free on server.\\nFree some."
        quiet: true
    - name: refuse | Print a text
      ansible.builtin.debug: {{msg: never}}
"""


def test_failed_run_ends_with_the_message_of_its_failed_task(start: Callable[..., Any]) -> None:
    """The result of an earlier play is not printed."""
    run = ended(start(SAY + REFUSE))
    assert run.status == 2
    assert run.lines[-2:] == ["Only 5 MB are free on server.", "Free some."]
    assert run.lines_with("failed=1") == [
        "server : ok=3 changed=0 unreachable=0 failed=1 skipped=0 rescued=0 ignored=0"
    ]
    assert run.lines_with("6 passed") == []
    assert run.lines_with("never") == []


def test_rescued_failure_is_printed_at_once_and_not_at_the_end(start: Callable[..., Any]) -> None:
    """Before the tasks of the rescue; the run succeeds and ends with its result."""
    run = ended(start(FAIL + SAY))
    assert run.status == 0
    (line,) = run.lines_with("The door is locked.")
    assert line.endswith("    failed: Open the door: The door is locked.")
    assert run.lines.index(line) < run.lines.index(run.lines_with("Close the window")[0])
    assert run.lines[-1] == "Results: 6 passed, 0 failed"


def test_failure_in_a_rescue_is_the_last_line(start: Callable[..., Any]) -> None:
    """With the message of the rescue's own task."""
    again = FAIL + '        - name: try | Fail\n          ansible.builtin.fail: {msg: "The window is closed."}\n'
    run = ended(start(again))
    assert run.status == 2
    assert run.lines_with("failed: Open the door")
    assert run.lines[-1] == "The window is closed."


def test_verbose_run_is_ansibles_output_with_the_same_last_line(start: Callable[..., Any]) -> None:
    """Each task with its result, for debugging."""
    run = ended(start(GREET + SAY, "-e", "greet_name=anna", "-v"))
    assert run.lines_with("PLAY [Greet]")
    assert run.lines_with("TASK [greet : main | Read the greeting]")
    assert run.lines_with("PLAY RECAP")
    assert run.lines[-1] == "Results: 6 passed, 0 failed"


@pytest.mark.parametrize(
    ("broken", "place", "end"),
    [
        (
            "a: 3\napp_threads: [1, 2\napp_memory: 768m\n",
            "line 3, column 11: this is not YAML, ",
            "(the error began in line 2). Correct the file,",
        ),
        ("a: 3\napp_threads: {{ a }}\n", "line 2, column 14: put quotation marks", "around {{ … }},"),
    ],
    ids=["list", "template"],
)
def test_broken_file_of_the_inventory_is_the_last_line(
    school: Path, start: Callable[..., Any], broken: str, place: str, end: str
) -> None:
    """With the place of the error; no task runs."""
    folder = school / "inventory" / "group_vars" / "scratch4school"
    (folder / "settings.yml").write_text(broken)
    run = ended(start(SAY))
    assert run.status != 0
    assert run.lines[-1].startswith(f"{folder}/settings.yml, {place}")
    assert run.lines[-1].endswith(f"{end} and run the same command again.")
    assert run.lines_with("6 passed") == []


LOCKED = f"""\
- name: Preflight
{PLAY}  tasks:
    - name: wait | Skip a job
      host_job: {{name: backup, argv: ["true"]}}
      when: false
    - name: wait | Wait before the lock
      ansible.builtin.command: {{argv: [sh, -c, "touch {{{{ place }}}}/before; sleep {{{{ first | default(0) }}}}"]}}
- name: Lock
{PLAY}  tasks:
    - name: begin | Acquire the lock
      host_lock:
        path: "{{{{ place }}}}/change"
        state: begin
        run: r1
        verb: deploy
        owner: "{{{{ lookup('lock_owner') }}}}"
    - name: phase | Record the phase
      host_lock: {{path: "{{{{ place }}}}/change", state: phase, run: r1, phase: verify}}
    - name: wait | Wait under the lock
      ansible.builtin.command: {{argv: [sh, -c, "touch {{{{ place }}}}/middle; sleep {{{{ second | default(0) }}}}"]}}
    - name: end | Release the lock
      host_lock: {{path: "{{{{ place }}}}/change", state: end, run: r1, outcome: done}}
    - name: wait | Wait after the lock
      ansible.builtin.command: {{argv: [sh, -c, "touch {{{{ place }}}}/after; sleep {{{{ third | default(0) }}}}"]}}
"""


@pytest.mark.parametrize(
    ("marker", "variable", "last_line"),
    [
        ("before", "first", "server: nothing was changed."),
        ("middle", "second", "server: the deploy was interrupted in its phase “verify” and holds the host's lock. "),
        ("after", "third", "server: the deploy had ended."),
    ],
)
def test_interrupted_run_ends_with_the_state_of_the_host(
    school: Path, start: Callable[..., Any], marker: str, variable: str, last_line: str
) -> None:
    """Ctrl-C before the lock, under the lock, and after it."""
    process = start(LOCKED, "-e", f"{variable}=3600")
    end = time.monotonic() + 600
    while not (school / marker).exists():
        assert time.monotonic() < end, "the task did not begin"
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    # To the whole process group, as a terminal does.
    os.killpg(process.pid, signal.SIGINT)
    run = ended(process)
    assert run.status != 0
    assert run.lines[-2] == "Interrupted."
    assert run.lines[-1].startswith(last_line)
