"""Prints a run for a sysadmin: its plays, the changes, and the result or the refusal as the last line.

Ansible's own output has a block for each of two hundred tasks, with refusals and warnings somewhere between them. With
`-v` it is printed instead, followed by the same last lines.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ansible import constants, context
from ansible.errors import AnsibleError
from ansible.playbook.block import Block
from ansible.playbook.task_include import TaskInclude
from ansible.plugins.callback.default import CallbackModule as DefaultCallback
from ansible.plugins.loader import filter_loader, test_loader

# Ansible uses its module_utils setting for modules only; a callback finds the folder relative to itself.
sys.path.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ssh_advice import ssh_problem

DOCUMENTATION = r"""
name: progress
type: stdout
short_description: Plays, changes, and the result or the refusal as the last line
description:
  - Prints a line for each play, with the time since the start, and a line for each task that changed something or has a
    message. Messages are printed as text.
  - The run ends with the recap, then the result that a role set with M(ansible.builtin.set_stats) as C(last_word), then
    its C(next_steps) and its C(warnings). A failed run ends with the message of the task that failed.
  - An interrupted run ends with the state of each host.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
author:
  - The Scratch4School deployment project
"""

# A task that takes at least this many seconds is printed with its duration.
LONG_SECONDS = 2.0
# Characters that are printed of the first line of a failure that is rescued.
FIRST_LINE = 160

ARGUMENT_CHECK = ("ansible.builtin.validate_argument_spec", "validate_argument_spec")
# Ansible's messages of an assertion without a message of its own, alone and in a loop.
SILENT_ASSERTIONS = (["All assertions passed"], ["All items completed"])


@dataclass
class Change:
    """A host's change as the control node knows it.

    :param verb: the playbook that holds the lock; empty before the lock was acquired.
    :param phase: its last phase.
    :param ended: whether the lock was released.
    :param jobs: names of the jobs that run on the host.
    """

    verb: str = ""
    phase: str = ""
    ended: bool = False
    jobs: set[str] = field(default_factory=set)


def clock(seconds: float) -> str:
    """Format seconds as minutes and seconds: 0:07, 12:30."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def short_name(name: str) -> str:
    """Strip role and file from a task's name: `app : verify | Run the six checks` → `Run the six checks`."""
    return name.rpartition(" | ")[2].rpartition(" : ")[2].strip()


def message_lines(result: Mapping[str, Any]) -> list[str]:
    """Return the message of a result as lines of text; [] when it has none."""
    message = result.get("msg")
    lines = message if isinstance(message, list) else [message]
    return [line.rstrip() for one in lines if one not in (None, "") for line in str(one).splitlines() if line.strip()]


def failure(result: Mapping[str, Any], action: str = "") -> str:
    """Return why a task failed: its message, or its error output, or a line for each wrong argument of a role."""
    if action in ARGUMENT_CHECK and result.get("argument_errors"):
        return "\n".join(f"A setting is wrong: {error}." for error in result["argument_errors"])
    for item in result.get("results") or []:
        if isinstance(item, Mapping) and (item.get("failed") or item.get("unreachable")):
            return failure(item, action)
    lines = message_lines(result)
    if lines in ([], ["non-zero return code"]):
        lines = str(result.get("stderr") or "").strip().splitlines() or lines
    # Some modules return the cause beside their message.
    kept = [line for value in result.values() if isinstance(value, Mapping) for line in _details(value)]
    lines += [line for line in kept if not any(line in one for one in lines)]
    # Ansible's own prefixes.
    return "\n".join(lines).removeprefix("Task failed: ").removeprefix("Action failed: ")


def _details(result: Mapping[str, Any]) -> list[str]:
    """Return the last lines of a program's error output, at any depth of a module's result."""
    found: list[str] = []
    for key, value in result.items():
        if isinstance(value, Mapping):
            found += _details(value)
        elif key in ("stderr", "module_stderr", "err") and isinstance(value, str):
            found += [line.strip() for line in value.splitlines() if line.strip()][-3:]
    return found


def final_lines(
    custom: Mapping[str, Mapping[str, Any]], failures: Mapping[str, str], hosts: int
) -> list[tuple[str, str]]:
    """Return the last lines of a run, each with its kind: `warning`, `result`, `next` or `refusal`.

    :param custom: Ansible's custom statistics by host: `last_word`, `next_steps` and `warnings`.
    :param failures: message of the task that failed, by host.
    :param hosts: number of hosts in the run; with several, each line names its host.
    """

    def named(host: str, text: str) -> str:
        return text if hosts <= 1 or host == "localhost" or text.startswith(host) else f"{host}: {text}"

    def texts_of(key: str) -> list[str]:
        found: list[str] = []
        for host, values in sorted(custom.items()):
            texts = values.get(key) or []
            for text in texts if isinstance(texts, list) else [texts]:
                if named(host, str(text)) not in found:
                    found.append(named(host, str(text)))
        return found

    warnings = [("warning", f"Warning: {text}") for text in texts_of("warnings")]
    if failures:
        return [*warnings, *(("refusal", named(host, text)) for host, text in sorted(failures.items()))]
    results = [("result", text) for text in texts_of("last_word")]
    return [*results, *(("next", text) for text in texts_of("next_steps")), *warnings]


def interrupted(changes: Mapping[str, Change]) -> list[str]:
    """Return a line for each host: the state after the interruption, and what to type next."""
    lines = []
    for host, change in sorted(changes.items()):
        if change.jobs:
            names = " and ".join(sorted(change.jobs))
            verb = "continues" if len(change.jobs) == 1 else "continue"
            lines.append(f"{host}: the {names} {verb} there without the control node. status.yml shows the result.")
        if not change.verb:
            if not change.jobs:
                lines.append(f"{host}: nothing was changed.")
        elif change.ended:
            lines.append(f"{host}: the {change.verb} had ended.")
        else:
            live = (
                "The new release is live and not verified."
                if change.phase == "verify"
                else "No release was switched; status.yml shows what is live."
                if change.phase == "begin"
                else "The new release is live and verified."
                if change.phase == "standby"
                else "status.yml shows what is live."
            )
            lines.append(
                f"{host}: the {change.verb} was interrupted in its phase “{change.phase}” and holds the host's lock. "
                f"Run the same command again; it continues from there. {live}"
            )
    return lines or ["Nothing was changed."]


def inventory_files(sources: Iterable[str]) -> list[Path]:
    """Return the YAML files of each inventory that Ansible reads: hosts, and variables of groups and hosts."""
    found: list[Path] = []
    for source in map(Path, sources):
        # A source that is no path is a list of hosts, or mistyped; the current folder must not count as its folder.
        if not source.exists():
            continue
        folder = source if source.is_dir() else source.parent
        hosts = sorted(folder.glob("*")) if source.is_dir() else [source]
        variables = [*sorted(folder.glob("group_vars/**/*")), *sorted(folder.glob("host_vars/**/*"))]
        ours = [path for path in hosts if path.suffix in (".yml", ".yaml")]
        ours += [path for path in variables if path.suffix in ("", ".yml", ".yaml")]
        found += [path for path in ours if path.is_file() and path not in found]
    return found


def yaml_problems(files: Iterable[Path], read: Callable[[Path], str]) -> list[str]:
    """Return a message for each file that is not YAML or contains no variables, with the place and the error.

    :param read: returns the decrypted text of a file, or raises AnsibleError or OSError.
    """
    found = []
    for path in files:
        try:
            node = yaml.compose(read(path), Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            began = error.context_mark
            since = f" (the error began in line {began.line + 1})" if began and mark and began.line != mark.line else ""
            what = f"{error.context}: {error.problem}" if error.context else str(error.problem)
            found.append(
                f"{path}{place}: this is not YAML, {what}{since}. Correct the file, and run the same command again."
            )
        except (yaml.YAMLError, UnicodeError) as error:
            found.append(f"{path}: this is not YAML: {' '.join(str(error).split())}.")
        except AnsibleError:
            found.append(f"{path} cannot be decrypted. Add --ask-vault-pass, and type the vault's password.")
        except OSError:
            # Ansible's own message names a file that cannot be read.
            continue
        else:
            if node is not None and not isinstance(node, yaml.MappingNode) and not node.tag.endswith(":null"):
                found.append(f"{path}: this file must contain lines such as “name: value”. Correct the file.")
            for mark in _unquoted(node):
                place = f"{path}, line {mark.line + 1}, column {mark.column + 1}"
                found.append(f"{place}: put quotation marks around {{{{ … }}}}, and run the same command again.")
    return found


def _unquoted(node: yaml.Node | None) -> list[yaml.Mark]:
    """Return the places of `{{ name }}` without quotation marks, which YAML parses as a mapping for a key."""
    found: list[yaml.Mark] = []
    if isinstance(node, yaml.SequenceNode):
        for one in node.value:
            found += _unquoted(one)
    elif isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            found += [node.start_mark] if isinstance(name, yaml.MappingNode) else _unquoted(value)
    return found


class CallbackModule(DefaultCallback):
    """Ansible's events during a run, printed as lines for a sysadmin."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "progress"

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()
        self._pid = os.getpid()
        self._plays = 0
        self._number = 0
        self._task_began = self._began
        self._failures: dict[str, str] = {}
        self._changes: dict[str, Change] = {}
        self._ended = False
        self._passing = False
        self._heading = ""
        self._loader: Any = None

    @property
    def _verbose(self) -> bool:
        return bool(self._display.verbosity > 0)

    # -- the run and its plays

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Count the plays, and print the state of the hosts if the run is interrupted from now on."""
        super().v2_playbook_on_start(playbook)
        self._plays = len(playbook.get_plays())
        self._loader = playbook._loader
        atexit.register(self._on_exit)
        # Ansible runs each task in a process of its own, a copy of this one. Without this, each loads all filters and
        # what they import: half of the CPU of restart.yml.
        for plugins in (filter_loader, test_loader):
            list(plugins.all())

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Prepare the play's heading; its first task that is not skipped prints it."""
        self._number += 1
        if self._verbose:
            super().v2_playbook_on_play_start(play)
            return
        self._play = play
        mode = " (check mode)" if play.check_mode else ""
        self._heading = f"{self._number}/{self._plays} {play.get_name().strip()}{mode}"

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Show the running task on a terminal until it ends."""
        self._task_began = time.monotonic()
        if self._verbose:
            super().v2_playbook_on_task_start(task, is_conditional)
            return
        self._task_start(task)
        self._pass(short_name(self._last_task_name or ""))

    def _print_task_banner(self, task: Any) -> None:
        """Print the task's name above a file's diff only in verbose mode."""
        if self._verbose:
            super()._print_task_banner(task)
        else:
            self._last_task_banner = task._uuid

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        """Treat a handler as any other task."""
        self.v2_playbook_on_task_start(task, False)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        """Print included files in verbose mode only."""
        if self._verbose:
            super().v2_playbook_on_include(included_file)

    # -- results

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """Remember a job that continues on the host without the control node."""
        super().v2_runner_on_start(host, task)
        change = self._changes.setdefault(host.get_name(), Change())
        if task.action == "host_job":
            change.jobs.add(str(task.args.get("name", "work")))

    def v2_runner_on_ok(self, result: Any) -> None:
        """Print a line for a change, and the message of a debug or assert task."""
        self._follow(result)
        if self._verbose:
            super().v2_runner_on_ok(result)
            return
        self._head()
        if isinstance(result.task, TaskInclude):
            return
        self._handle_warnings(result.result)
        # A task in check mode changes nothing, even in a run that is not in check mode.
        asked = result.task.check_mode and not context.CLIARGS.get("check")
        if result.is_changed() and not asked:
            verb = "would change: " if result.task.check_mode else ""
            self._line(f"    {verb}{self._title(result)}{self._duration()}", constants.COLOR_CHANGED)
        if result.task.action in (*constants._ACTION_DEBUG, *constants.add_internal_fqcns(("assert",))):
            lines = message_lines(result.result)
            for line in [] if lines in SILENT_ASSERTIONS else lines:
                self._clear()
                self._display.display(f"          {self._label(result)}{line}")

    def v2_runner_retry(self, result: Any) -> None:
        """Print retries in verbose mode only."""
        if self._verbose:
            super().v2_runner_retry(result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        """Print items in verbose mode only; the task reports their changes."""
        if self._verbose:
            super().v2_runner_item_on_ok(result)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        """Print failed items in verbose mode only; the task reports their failure."""
        if self._verbose:
            super().v2_runner_item_on_failed(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Keep the message for the last lines; print it at once if a rescue follows."""
        self._follow(result)
        self._head()
        text = failure(result.result, result.task.action) or f"“{short_name(result.task_name)}” failed."
        if not ignore_errors:
            self._failures[result.host.get_name()] = text
        if self._verbose:
            super().v2_runner_on_failed(result, ignore_errors)
        elif not ignore_errors and _is_rescued(result.task):
            first = text.splitlines()[0]
            first = first if len(first) <= FIRST_LINE else f"{first[:FIRST_LINE]}…"
            self._line(f"    failed: {self._title(result)}: {first}", constants.COLOR_ERROR)

    def v2_runner_on_skipped(self, result: Any) -> None:
        """Forget a job that was skipped."""
        self._follow(result)
        if self._verbose:
            super().v2_runner_on_skipped(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Keep a message with advice, unless the play handles unreachable hosts itself."""
        self._head()
        if not result.task.ignore_unreachable:
            host, values = result.host.get_name(), result.host.vars
            message = " ".join(failure(result.result).split()).rstrip(".")
            advice = ssh_problem(
                message,
                str(values.get("ansible_user") or ""),
                str(values.get("ansible_host") or host),
                values.get("ansible_port") or 22,
            )
            self._failures[host] = f"{host} cannot be reached by SSH: {message}. {advice}"
        if self._verbose:
            super().v2_runner_on_unreachable(result)

    def v2_playbook_on_no_hosts_remaining(self) -> None:
        """Print Ansible's message in verbose mode only; the last lines have the cause."""
        if self._verbose:
            super().v2_playbook_on_no_hosts_remaining()

    # -- the end

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Print the recap and the last lines."""
        self._ended = True
        self._clear()
        hosts = sorted(host for host in stats.processed if host != "localhost")
        if self._verbose:
            super().v2_playbook_on_stats(stats)
        else:
            self._display.display("")
            shown = hosts or sorted(stats.processed)
            for host in shown:
                self._display.display(f"{host} : {_counts(stats.summarize(host))}", color=_color(stats.summarize(host)))
            self._display.display(f"{clock(time.monotonic() - self._began)} minutes")
            self._display.display("")
        # A failure that a rescue handled is no failure of the run.
        failures = {
            host: text for host, text in self._failures.items() if stats.failures.get(host) or stats.dark.get(host)
        }
        colors = {"warning": constants.COLOR_WARN, "refusal": constants.COLOR_ERROR, "result": constants.COLOR_OK}
        for kind, text in final_lines(stats.custom, failures, len(hosts)):
            self._display.display(text, color=colors.get(kind))

    def _on_exit(self) -> None:
        if self._ended or os.getpid() != self._pid:
            return
        self._clear()
        if self._was_interrupted():
            self._display.display("Interrupted.", color=constants.COLOR_ERROR)
            lines = interrupted({host: one for host, one in self._changes.items() if host != "localhost"})
        else:
            # Ansible stopped, mostly because of a file that it could not parse, and names neither file nor line.
            files = inventory_files(context.CLIARGS.get("inventory") or ())
            lines = yaml_problems(files, lambda path: self._loader.get_text_file_contents(str(path)))
        for line in lines:
            self._display.display(line, color=constants.COLOR_ERROR)

    @staticmethod
    def _was_interrupted() -> bool:
        # Ansible restores the default handler only when it is interrupted.
        import signal

        return signal.getsignal(signal.SIGINT) is signal.SIG_DFL

    # -- helpers

    def _follow(self, result: Any) -> None:
        """Record lock, phase and jobs of the host's change."""
        change = self._changes.setdefault(result.host.get_name(), Change())
        arguments = result.task_fields.get("args") or {}
        if result.task.action == "host_job":
            change.jobs.discard(str(arguments.get("name", "work")))
        if result.task.action != "host_lock" or result.is_failed() or result.is_skipped():
            return
        state = arguments.get("state")
        if state == "begin":
            change.verb, change.phase, change.ended = str(arguments.get("verb", "change")), "begin", False
        elif state == "phase":
            change.phase = str(arguments.get("phase", ""))
        elif state == "end":
            change.ended = True

    def _title(self, result: Any) -> str:
        return f"{self._label(result)}{short_name(result.task_name)}"

    def _label(self, result: Any) -> str:
        """Return the host's name as a prefix; empty when the run has one host."""
        return f"[{result.host.get_name()}] " if len(self._changes.keys() - {"localhost"}) > 1 else ""

    def _duration(self) -> str:
        seconds = time.monotonic() - self._task_began
        return f" ({seconds:.0f} s)" if seconds >= LONG_SECONDS else ""

    def _head(self) -> None:
        if self._heading:
            heading, self._heading = self._heading, ""
            self._line(heading, constants.COLOR_HIGHLIGHT)

    def _line(self, text: str, color: str | None = None) -> None:
        self._clear()
        self._display.display(f"{clock(time.monotonic() - self._began):>5} {text}", color=color)

    def _pass(self, text: str) -> None:
        """Show a text on a terminal until the next line replaces it."""
        if sys.stdout.isatty():
            columns = os.get_terminal_size(sys.stdout.fileno()).columns
            line = f"{clock(time.monotonic() - self._began):>5}     {text} …"
            sys.stdout.write(f"\r\033[K{line[: columns - 1]}")
            sys.stdout.flush()
            self._passing = True

    def _clear(self) -> None:
        if self._passing:
            sys.stdout.write("\r\033[K")
            sys.stdout.flush()
            self._passing = False


def _is_rescued(task: Any) -> bool:
    parent = task._parent
    while parent is not None:
        if isinstance(parent, Block) and parent.rescue and task not in parent.rescue:
            return True
        parent = parent._parent
    return False


def _counts(summary: Mapping[str, int]) -> str:
    names = ("ok", "changed", "unreachable", "failures", "skipped", "rescued", "ignored")
    return " ".join(f"{'failed' if name == 'failures' else name}={summary[name]}" for name in names)


def _color(summary: Mapping[str, int]) -> str:
    if summary["failures"] or summary["unreachable"]:
        return str(constants.COLOR_ERROR)
    return str(constants.COLOR_CHANGED if summary["changed"] else constants.COLOR_OK)
