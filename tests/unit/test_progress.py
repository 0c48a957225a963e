"""What a sysadmin reads of a run: its phases and changes, and as the last line its result, its refusal or its state."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
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
    """A run of more than an hour goes on in minutes."""
    assert progress.clock(seconds) == shown


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("app : verify | Run the six checks", "Run the six checks"),
        ("verify | Run the six checks", "Run the six checks"),
        ("app : Run the six checks", "Run the six checks"),
        ("Run the six checks", "Run the six checks"),
        ("container : once | Run it | again", "again"),
        ("", ""),
    ],
)
def test_short_name_is_without_role_and_file(name: str, short: str) -> None:
    """The part behind them is written for a person."""
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
    ("result", "said"),
    [
        ({"msg": "It is full.", "stderr": "detail"}, "It is full."),
        ({"msg": ["It is full.", "Free some."]}, "It is full.\nFree some."),
        ({"msg": "non-zero return code", "stderr": "\nfirst\nsecond\n"}, "first\nsecond"),
        ({"msg": "non-zero return code", "stderr": ""}, "non-zero return code"),
        ({"msg": "", "stderr": "No room.\n"}, "No room."),
        ({"stderr": None}, ""),
        ({"censored": "the output has been hidden"}, ""),
        ({}, ""),
    ],
    ids=str,
)
def test_failure_is_the_message_or_the_error_output(result: dict[str, Any], said: str) -> None:
    """A command's own error output says more than its exit status."""
    assert progress.failure(result) == said


def test_failure_of_a_loop_is_that_of_its_item() -> None:
    """“One or more items failed” says nothing; the first item that failed does."""
    results = [
        {"msg": "All well."},
        {"failed": True, "msg": "non-zero return code", "stderr": "No such image.\n"},
        {"failed": True, "msg": "Another one."},
    ]
    assert progress.failure({"msg": "One or more items failed", "results": results}) == "No such image."
    results = [{"unreachable": True, "msg": "It is gone."}]
    assert progress.failure({"msg": "One or more items failed", "results": results}) == "It is gone."
    assert progress.failure({"msg": "It is none.", "results": [{"msg": "All well."}, "text"]}) == "It is none."
    assert progress.failure({"msg": "It is none.", "results": []}) == "It is none."


def test_failure_of_arguments_is_a_sentence_for_each() -> None:
    """Ansible's own words for it hold the whole specification."""
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
    """The result, then what comes next, then what is to be minded."""
    custom = {"server": {"warnings": ["Look."], "next_steps": ["Log in.", "Print it."], "last_word": "6 passed"}}
    assert progress.final_lines(custom, {}, 1) == [
        ("result", "6 passed"),
        ("next", "Log in."),
        ("next", "Print it."),
        ("warning", "Warning: Look."),
    ]


def test_final_lines_of_several_hosts_name_each() -> None:
    """In the order of their names; what localhost says is said for all."""
    custom = {"b": {"last_word": "6 passed"}, "a": {"last_word": "6 passed"}, "localhost": {"warnings": "Look."}}
    assert texts(custom, hosts=2) == ["a: 6 passed", "b: 6 passed", "Warning: Look."]


def test_final_lines_say_the_same_once() -> None:
    """A warning that two plays gave is one warning."""
    custom = {"server": {"warnings": ["Look.", "Look.", "And look."]}, "localhost": {"warnings": ["Look."]}}
    assert texts(custom) == ["Warning: Look.", "Warning: And look."]


def test_final_lines_of_a_run_that_failed_end_with_the_refusal() -> None:
    """No result and no next step is said, because there is none; warnings stand before the refusal."""
    custom = {"server": {"last_word": "6 passed", "next_steps": ["Log in."], "warnings": ["Look."]}}
    assert progress.final_lines(custom, {"server": "The disk is full."}, 1) == [
        ("warning", "Warning: Look."),
        ("refusal", "The disk is full."),
    ]
    assert texts({}, {"b": "Full.", "a": "Gone."}, hosts=2) == ["a: Gone.", "b: Full."]
    assert texts({}, {"localhost": "There is no host."}, hosts=2) == ["There is no host."]


def test_final_lines_of_a_run_that_said_nothing_are_none() -> None:
    """The recap is the end then."""
    assert texts({}) == []
    assert texts({"server": {"last_word": "", "warnings": []}}) == []


@pytest.mark.parametrize("verb", ["deploy", "rollback", "restore"])
@pytest.mark.parametrize("phase", ["begin", "activate", "migrate", "verify", "spare", "other"])
def test_interrupted_change_says_phase_lock_and_what_to_type(verb: str, phase: str) -> None:
    """The lock is held, the same command goes on, and what is live is said or where one learns it."""
    (line,) = progress.interrupted({"server": progress.Change(verb=verb, phase=phase)})
    assert line.startswith(f"server: the {verb} was interrupted in its phase “{phase}” and holds the host's lock. ")
    assert "Run the same command again; it goes on from there." in line
    live = {
        "verify": "The new release is live and not verified.",
        "spare": "The new release is live and verified.",
        "other": "status.yml says what is live.",
        "activate": "status.yml says what is live.",
        "migrate": "status.yml says what is live.",
        # A restore or an adoption may have let in no pupil since.
        "begin": "No release was switched." if verb != "restore" else "status.yml says what is live.",
    }
    assert line.endswith(live[phase])


def test_interrupted_before_the_lock_changed_nothing() -> None:
    """Preflight only looks."""
    assert progress.interrupted({"server": progress.Change()}) == ["server: nothing was changed."]
    assert progress.interrupted({}) == ["Nothing was changed."]


def test_interrupted_after_its_end_had_ended() -> None:
    """The lock was given back, and there is nothing to go on with."""
    change = progress.Change(verb="deploy", phase="spare", ended=True)
    assert progress.interrupted({"server": change}) == ["server: the deploy had ended."]


def test_interrupted_while_a_job_runs_says_that_it_goes_on() -> None:
    """systemd runs it on the host; without a lock that is all there is to say."""
    job = "server: the backup goes on there without this machine. status.yml says how it ended."
    assert progress.interrupted({"server": progress.Change(jobs={"backup"})}) == [job]
    both = progress.interrupted({"server": progress.Change(verb="restore", phase="begin", jobs={"fetch", "backup"})})
    assert both[0].startswith("server: the backup and fetch goes on there")
    assert both[1].startswith("server: the restore was interrupted in its phase “begin”")


def test_interrupted_says_it_of_each_host() -> None:
    """One may be further than the other."""
    changes = {"b": progress.Change(), "a": progress.Change(verb="deploy", phase="verify")}
    assert [line.partition(":")[0] for line in progress.interrupted(changes)] == ["a", "b"]


# ---- files of an inventory


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """A school's inventory as people write it."""
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
    """The files below an inventory, relative to it."""
    return [str(path.relative_to(folder)) for path in progress.inventory_files(sources)]


def test_inventory_files_are_those_that_ansible_reads(inventory: Path) -> None:
    """Of a folder, and of a file in it; each once, and no secret."""
    assert names(inventory, [str(inventory)]) == READ
    assert names(inventory, [str(inventory / "hosts.yml"), str(inventory)]) == READ


def test_inventory_file_brings_no_file_beside_it(inventory: Path) -> None:
    """Beside a file that was named Ansible reads the variables, and not what else lies there, such as playbooks."""
    (inventory / "deploy.yml").write_text("- hosts: all\n")
    assert names(inventory, [str(inventory / "hosts.yml")]) == READ


def test_inventory_that_is_no_file_has_none(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of hosts on the command line, and a name that is mistyped, say nothing of the folder one is in."""
    monkeypatch.chdir(inventory)
    assert progress.inventory_files(["server,", "inventories/typo"]) == []
    assert progress.inventory_files(["hosts.yml"]) == list(map(Path, READ))


def problems(path: Path, text: str) -> list[str]:
    """What is said of one file with this text."""
    path.write_text(text)
    return progress.yaml_problems([path], lambda file: file.read_text())


@pytest.mark.parametrize("text", ["", "---\n", "# nothing\n", "a: 1\n", "a: !vault |\n  6162\n", "a: '{{ b }}'\n"])
def test_yaml_that_holds_variables_is_no_problem(tmp_path: Path, text: str) -> None:
    """An empty file too, and the tags that Ansible knows."""
    assert problems(tmp_path / "settings.yml", text) == []


@pytest.mark.parametrize(
    ("text", "place", "since"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "line 3, column 2", " (it began in line 2)"),
        ("a: 1\n  b: 2\n", "line 2, column 4", ""),
        ("a: 1\nb: one: two\n", "line 2, column 7", ""),
        ("a: 'one\nb: 2\n", "line 3, column 1", " (it began in line 1)"),
        ("a: 1\n{\n", "line 3, column 1", " (it began in line 2)"),
        ("\ta: 1\n", "line 1, column 1", ""),
    ],
    ids=["list", "indented", "colon", "quote", "mapping", "tab"],
)
def test_yaml_that_cannot_be_read_is_named_with_its_place(tmp_path: Path, text: str, place: str, since: str) -> None:
    """The file, the line and the column, what is wrong there, and where it began, in one line."""
    (said,) = problems(tmp_path / "settings.yml", text)
    assert said.startswith(f"{tmp_path}/settings.yml, {place}")
    assert ": this is not YAML, " in said
    assert said.endswith(f"{since}. Correct it, and run the same command again.")
    assert "\n" not in said


def test_yaml_with_characters_that_are_none_is_named(tmp_path: Path) -> None:
    """A file that was saved in another encoding has no line to name."""
    path = tmp_path / "settings.yml"
    path.write_bytes(b"a: \xff\n")
    (said,) = progress.yaml_problems([path], lambda file: file.read_text())
    assert said.startswith(f"{path}: this is not YAML: ")
    (said,) = problems(path, "a: \x07\n")
    assert said.startswith(f"{path}: this is not YAML: ")
    assert "\n" not in said


def test_yaml_with_a_template_without_marks_is_named_with_its_place(tmp_path: Path) -> None:
    """YAML takes it for a mapping in a mapping; Ansible's own message names neither file nor line."""
    path = tmp_path / "settings.yml"
    said = problems(path, "a: 1\nbackup_ssh_key: {{ vault_key }}\nlist: [1, {b: {{ c }}}]\n")
    assert [line.partition(":")[0] for line in said] == [f"{path}, line 2, column 17", f"{path}, line 3, column 15"]
    assert said[0].endswith(": put quotation marks around {{ … }}. Correct it, and run the same command again.")
    assert problems(path, "a: {b: [{c: 1}]}\n? [1, 2]\n: 3\n") == []


@pytest.mark.parametrize("text", ["- a: 1\n", "just a text\n"])
def test_yaml_that_is_no_mapping_is_named(tmp_path: Path, text: str) -> None:
    """A list, or a line that lacks its colon."""
    (said,) = problems(tmp_path / "settings.yml", text)
    assert (
        said == f"{tmp_path}/settings.yml: this file must hold lines such as “name: value”, and holds something else."
    )


def test_file_that_cannot_be_decrypted_is_answered_with_what_to_type(tmp_path: Path) -> None:
    """Ansible names neither the file nor the option; a file that cannot be read is left to it."""
    (tmp_path / "b.yml").write_text("- 1\n")

    def read(path: Path) -> str:
        if path.name == "vault.yml":
            raise AnsibleError("Attempting to decrypt but no vault secrets found")
        if path.name == "gone.yml":
            raise OSError("gone")
        return path.read_text()

    encrypted, other = progress.yaml_problems([tmp_path / name for name in ("vault.yml", "gone.yml", "b.yml")], read)
    assert encrypted == (
        f"{tmp_path}/vault.yml cannot be decrypted. Add --ask-vault-pass, and type the password of your vault."
    )
    assert other.startswith(f"{tmp_path}/b.yml: this file must hold lines")


# ---- whole runs


@dataclass(frozen=True)
class Run:
    """How a playbook ended, and what it printed without the empty lines."""

    status: int
    lines: list[str]

    def lines_with(self, text: str) -> list[str]:
        """Those that hold a text."""
        return [line for line in self.lines if text in line]


ROLE = {
    "meta/argument_specs.yml": (
        "argument_specs: {main: {short_description: x, options: {greet_name: {type: str, required: true}}}}\n"
    ),
    "tasks/main.yml": (
        "- name: main | Write a greeting\n"
        "  ansible.builtin.copy: {content: '{{ greet_name }}', dest: '{{ place }}/greeting', mode: '0600'}\n"
        "- name: main | Look at it\n"
        "  ansible.builtin.command: {argv: [cat, '{{ place }}/greeting']}\n"
        "  changed_when: false\n"
    ),
}


@pytest.fixture
def school(tmp_path: Path) -> Path:
    """A folder with an inventory of one host, which is this machine, and a role."""
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "place": str(tmp_path)}
    hosts = {"scratch4school": {"hosts": {"server": host}}}
    for name, text in ROLE.items():
        (tmp_path / "roles" / "greet" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "roles" / "greet" / name).write_text(text)
    (tmp_path / "inventory" / "group_vars" / "scratch4school").mkdir(parents=True)
    (tmp_path / "inventory" / "hosts.yml").write_text(yaml.safe_dump(hosts))
    return tmp_path


@pytest.fixture
def start(school: Path) -> Callable[..., subprocess.Popen[str]]:
    """A function that starts a playbook with the repository's ansible.cfg, in a session of its own."""

    def begin(playbook: str, *arguments: str) -> subprocess.Popen[str]:
        (school / "deploy.yml").write_text(playbook)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        ours = {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_HOME": str(school / "ansible"),
            "LC_ALL": "C.UTF-8",
        }
        return subprocess.Popen(
            [Path(sys.executable).parent / "ansible-playbook", "-i", "inventory", "deploy.yml", *arguments],
            cwd=school,
            env={**kept, **ours},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    return begin


def ended(process: subprocess.Popen[str]) -> Run:
    """Wait for its end, for a minute at most."""
    try:
        said, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return Run(process.returncode, [line.rstrip() for line in said.splitlines() if line.strip()])


PLAY = "  hosts: scratch4school\n  gather_facts: false\n  any_errors_fatal: true\n"
GREET = f"- name: Greet\n{PLAY}  tasks:\n    - ansible.builtin.import_role: {{name: greet}}\n"
SAY = f"""\
- name: Say
{PLAY}  tasks:
    - name: say | What it came to
      ansible.builtin.set_stats:
        data: {{last_word: "Results: 6 passed, 0 failed"}}
        per_host: true
    - name: say | In words
      ansible.builtin.debug: {{msg: ["One line.", "Another line."]}}
    - name: say | What must be
      ansible.builtin.assert: {{that: true}}
"""


def test_good_run_is_its_plays_its_changes_and_its_result(start: Callable[..., Any]) -> None:
    """One line each, with what has something to say; no line for what changed nothing, and none for arguments."""
    run = ended(start(GREET + SAY, "-e", "greet_name=anna"))
    assert run.status == 0
    # Without what differs from run to run: the time since the start, and how long a task took.
    assert [re.sub(r"^ *\d+:\d\d | \(\d+ s\)$", "", line) for line in run.lines] == [
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


SKIPPED = f"""\
- name: Nothing to do
{PLAY}  tasks:
    - name: skip | The one
      ansible.builtin.command: {{argv: ["true"]}}
      when: false
"""


def test_play_without_a_task_that_ran_has_no_line(start: Callable[..., Any]) -> None:
    """What had nothing to do is no phase; the others keep their numbers."""
    run = ended(start(SKIPPED + SAY))
    assert run.lines_with("Nothing to do") == []
    assert run.lines[0].endswith("2/2 Say")


def test_host_that_is_not_reached_is_the_last_line(start: Callable[..., Any]) -> None:
    """With what SSH said, and what to type."""
    nowhere = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1, "greet_name": "anna"}
    run = ended(start(GREET, "-e", json.dumps(nowhere)))
    assert run.status == 4
    assert run.lines[-1].startswith("server cannot be reached by SSH: ")
    assert "unreachable=1" in run.lines[-3]


def test_check_mode_says_what_would_change(start: Callable[..., Any]) -> None:
    """Each play and each change is marked, so that it is not taken for done."""
    run = ended(start(GREET, "-e", "greet_name=anna", "--check"))
    assert run.lines[0].endswith("1/1 Greet (check mode)")
    assert run.lines[1].endswith("would change: Write a greeting")


def test_wrong_argument_of_a_role_is_one_sentence(start: Callable[..., Any]) -> None:
    """Without the dump of the specification."""
    run = ended(start(GREET))
    assert run.status == 2
    assert run.lines[-1].startswith("A setting is wrong: missing required arguments: greet_name")


FAIL = f"""\
- name: Try
{PLAY}  tasks:
    - name: try | The first of several
      block:
        - name: try | Open the door
          ansible.builtin.command: {{argv: [sh, -c, "echo The door is locked. >&2; exit 3"]}}
      rescue:
        - name: try | Take it back
          ansible.builtin.command: {{argv: ["true"]}}
"""
REFUSE = f"""\
- name: Refuse
{PLAY}  tasks:
    - name: refuse | The disk
      ansible.builtin.assert:
        that: false
        fail_msg: "Only 5 MB are free on server.\\nFree some."
        quiet: true
    - name: refuse | Never
      ansible.builtin.debug: {{msg: never}}
"""


def test_run_that_fails_ends_with_why(start: Callable[..., Any]) -> None:
    """The message of the task that failed is the last line, and what an earlier play came to is not said."""
    run = ended(start(SAY + REFUSE))
    assert run.status == 2
    assert run.lines[-2:] == ["Only 5 MB are free on server.", "Free some."]
    assert run.lines_with("failed=1") == [
        "server : ok=3 changed=0 unreachable=0 failed=1 skipped=0 rescued=0 ignored=0"
    ]
    assert run.lines_with("6 passed") == []
    assert run.lines_with("never") == []


def test_failure_that_was_rescued_is_said_at_once_and_is_not_the_end(start: Callable[..., Any]) -> None:
    """One sees why the play takes something back; the run is a success, and ends with its result."""
    run = ended(start(FAIL + SAY))
    assert run.status == 0
    (line,) = run.lines_with("The door is locked.")
    assert line.endswith("    failed: Open the door: The door is locked.")
    assert run.lines.index(line) < run.lines.index(run.lines_with("Take it back")[0])
    assert run.lines[-1] == "Results: 6 passed, 0 failed"


def test_failure_in_a_rescue_is_the_end(start: Callable[..., Any]) -> None:
    """What the rescue itself says of it is the last line."""
    again = FAIL + '        - name: try | Say\n          ansible.builtin.fail: {msg: "It was taken back."}\n'
    run = ended(start(again))
    assert run.status == 2
    assert run.lines_with("failed: Open the door")
    assert run.lines[-1] == "It was taken back."


def test_verbose_run_is_ansibles_own_with_the_same_end(start: Callable[..., Any]) -> None:
    """For those who look for a fault: each task with its result, and the last line all the same."""
    run = ended(start(GREET + SAY, "-e", "greet_name=anna", "-v"))
    assert run.lines_with("PLAY [Greet]")
    assert run.lines_with("TASK [greet : main | Look at it]")
    assert run.lines_with("PLAY RECAP")
    assert run.lines[-1] == "Results: 6 passed, 0 failed"


@pytest.mark.parametrize(
    ("broken", "place", "end"),
    [
        (
            "a: 3\napp_threads: [1, 2\napp_memory: 768m\n",
            "line 3, column 11: this is not YAML, ",
            "(it began in line 2)",
        ),
        ("a: 3\napp_threads: {{ a }}\n", "line 2, column 14: put quotation marks", "around {{ … }}"),
    ],
    ids=["list", "template"],
)
def test_broken_file_of_the_inventory_is_the_last_line(
    school: Path, start: Callable[..., Any], broken: str, place: str, end: str
) -> None:
    """With its place, and no task is run."""
    folder = school / "inventory" / "group_vars" / "scratch4school"
    (folder / "settings.yml").write_text(broken)
    run = ended(start(SAY))
    assert run.status != 0
    assert run.lines[-1].startswith(f"{folder}/settings.yml, {place}")
    assert run.lines[-1].endswith(f"{end}. Correct it, and run the same command again.")
    assert run.lines_with("6 passed") == []


LOCKED = f"""\
- name: Preflight
{PLAY}  tasks:
    - name: wait | Work that is not wanted
      host_job: {{name: backup, argv: ["true"]}}
      when: false
    - name: wait | Before the lock
      ansible.builtin.command: {{argv: [sh, -c, "touch {{{{ place }}}}/before; sleep {{{{ first | default(0) }}}}"]}}
- name: Lock
{PLAY}  tasks:
    - name: begin | Take it
      host_change:
        path: "{{{{ place }}}}/change"
        state: begin
        run: r1
        verb: deploy
        owner: "{{{{ lookup('change_owner') }}}}"
    - name: phase | Note it
      host_change: {{path: "{{{{ place }}}}/change", state: phase, run: r1, phase: verify}}
    - name: wait | In the middle
      ansible.builtin.command: {{argv: [sh, -c, "touch {{{{ place }}}}/middle; sleep {{{{ second | default(0) }}}}"]}}
    - name: end | Give it back
      host_change: {{path: "{{{{ place }}}}/change", state: end, run: r1, outcome: done}}
    - name: wait | After the end
      ansible.builtin.command: {{argv: [sh, -c, "touch {{{{ place }}}}/after; sleep {{{{ third | default(0) }}}}"]}}
"""


@pytest.mark.parametrize(
    ("marker", "variable", "said"),
    [
        ("before", "first", "server: nothing was changed."),
        ("middle", "second", "server: the deploy was interrupted in its phase “verify” and holds the host's lock. "),
        ("after", "third", "server: the deploy had ended."),
    ],
)
def test_interrupted_run_ends_with_the_state_of_the_host(
    school: Path, start: Callable[..., Any], marker: str, variable: str, said: str
) -> None:
    """Ctrl-C before the lock, under it and after it; the last lines say what was left, and nothing else."""
    process = start(LOCKED, "-e", f"{variable}=60")
    end = time.monotonic() + 30
    while not (school / marker).exists():
        assert time.monotonic() < end, "the task did not begin"
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    # As a terminal does it: to all that was started.
    os.killpg(process.pid, signal.SIGINT)
    run = ended(process)
    assert run.status != 0
    assert run.lines[-2] == "Interrupted."
    assert run.lines[-1].startswith(said)
