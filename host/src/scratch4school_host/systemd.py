"""Reads the state of systemd's units and timers, and schedules a command that systemd runs later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .errors import OperatorError
from .processes import execute

# systemd answers within milliseconds; after this long it counts as hanging.
ANSWER_SECONDS = 20.0


def schedule(name: str, seconds: float, command: Sequence[str]) -> None:
    """Have systemd run a command after `seconds`, even if this program has ended; replaces one of the same name.

    :raises OperatorError: when systemd refuses.
    """
    cancel(name)
    # Without AccuracySec systemd may delay a timer by a minute.
    timer = [f"--unit=scratch4school-{name}", f"--on-active={seconds:g}s", "--timer-property=AccuracySec=100ms"]
    ended = execute(["systemd-run", "--quiet", "--collect", *timer, *command], ANSWER_SECONDS)
    if ended.returncode:
        raise OperatorError(f"systemd cannot watch this change, so it was not begun: {ended.stderr.strip()}")


def cancel(name: str) -> None:
    """Cancel the command that was scheduled under a name; does nothing when there is none."""
    execute(["systemctl", "stop", f"scratch4school-{name}.timer"], ANSWER_SECONDS)


def is_restarting(unit: str) -> bool:
    """Whether a restart of the unit is in systemd's job queue."""
    jobs = execute(["systemctl", "list-jobs", "--no-legend"]).stdout
    return any(unit in line.split() and "restart" in line.split() for line in jobs.splitlines())


def unit_state(name: str) -> dict[str, str]:
    """Properties of a unit or timer by their names in systemd; {} when systemd does not answer."""
    keys = "LoadState,UnitFileState,ActiveState,SubState,NeedDaemonReload,NextElapseUSecRealtime"
    try:
        ended = execute(["systemctl", "show", f"--property={keys}", name], ANSWER_SECONDS)
    except OSError:
        return {}
    lines = ended.stdout.splitlines() if ended.returncode == 0 else []
    return dict(line.split("=", 1) for line in lines if "=" in line)


def next_run(state: Mapping[str, str]) -> str:
    """The time of a timer's next run, from its `unit_state`; '' for never.

    After a `daemon-reload` while the timer's service runs, systemd computes the next time when the service has ended.
    """
    return state.get("NextElapseUSecRealtime") or ("runs now" if state.get("SubState") == "running" else "")
