"""The state of the installation: facts for a monitor, as JSON, and a screen for a sysadmin.

Programs and sockets are asked in parallel, so that the screen appears within one second.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import audit_log, certificates, ledger, locking, pooler, systemd
from .backup import reliability
from .backup.state import known
from .files import free_bytes
from .machine import memory
from .settings import BackupSettings, SlotsSettings
from .slots import readiness
from .slots.state import NAMES, Slots
from .times import readable

# Only the end of the audit log is read: the log grows without limit, and the last change is at its end.
LOG_BYTES = 64 * 1024

Facts = Mapping[str, Any]


def collect(folder: Path, dead_run: str = "") -> dict[str, Any]:
    """Read all facts that the screen shows; the result can be written as JSON.

    :param folder: the folder of this host's settings.
    :param dead_run: a change whose process has ended, as the caller knows.
    :raises OperatorError: when no release was deployed, or Docker does not answer.
    """
    settings = SlotsSettings.read(folder)
    slots = Slots(settings)
    live = slots.live()
    has_backups = (folder / BackupSettings.file).exists()
    backup = BackupSettings.read(folder) if has_backups else None
    with ThreadPoolExecutor(max_workers=8) as pool:
        containers = pool.submit(slots.containers)
        ready = pool.submit(readiness.ask, settings.socket_directory, live)
        pools = pool.submit(pooler.show_pools) if settings.engine == "postgres" else None
        timers = {unit: pool.submit(systemd.unit_state, unit) for unit in (backup.timers if backup else [])}
        facts = {
            "host": settings.host,
            "url": settings.url,
            "engine": settings.engine,
            "releases": _releases(settings),
            "backup": known(backup) if backup else {},
            "certificate": _certificate(Path(settings.certificate)),
            "disk_free_mb": free_bytes(Path(settings.data_directory)) // 2**20,
            "memory_available_mb": memory(Path("/proc/meminfo").read_text())["available_mb"],
            "maintenance": locking.maintenance_reason(settings.change_directory),
            "lock": _lock(settings, dead_run),
            "last_change": audit_log.last_change(_log_end(settings)),
            "slots": {"live": live, "containers": containers.result()},
            "ready": ready.result(),
            "pools": pools.result() if pools else None,
            "timers": {unit: systemd.next_run(state.result()) for unit, state in timers.items()},
        }
    return {**facts, "warnings": warnings(facts)}


def _releases(settings: SlotsSettings) -> dict[str, Any]:
    history = ledger.read(settings.ledger)
    descriptions = ledger.read_descriptions(Path(settings.ledger).parent)
    verified = {entry["release"]: entry["at"] for entry in history.entries if entry["outcome"] == "verified"}
    return {
        "current": history.current,
        "previous": history.previous,
        "kept": [release for release in history.releases if release in descriptions],
        "verified": verified,
    }


def _certificate(path: Path) -> dict[str, Any]:
    try:
        return {"days_left": certificates.days_left(path.read_text()), "error": ""}
    except (OSError, ValueError) as problem:
        return {"days_left": None, "error": f"{path}: {getattr(problem, 'strerror', None) or problem}"}


def _lock(settings: SlotsSettings, dead_run: str) -> dict[str, Any] | None:
    lock = locking.read_lock(settings.change_directory)
    if lock is None:
        return None
    return {**lock, "interrupted": locking.why_stale(lock, dead_run or None)}


def _log_end(settings: SlotsSettings) -> str:
    try:
        with (Path(settings.change_directory) / audit_log.FILE).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - LOG_BYTES))
            content = file.read()
    except FileNotFoundError:
        return ""
    if size > LOG_BYTES:
        content = content.partition(b"\n")[2]
    return content.decode("utf-8", "replace")


def warnings(facts: Facts) -> list[str]:
    """Warnings: faults that need an action of the sysadmin, each with the command to type."""
    return [f"{unit} has no next run; run deploy.yml." for unit, when in sorted(facts["timers"].items()) if not when]


def lines(facts: Facts) -> list[str]:
    """The lines of the screen, from the facts of `collect`; the warnings are last."""
    releases, slots, ready = facts["releases"], facts["slots"], facts["ready"]
    containers, live = slots["containers"], slots["live"]
    held = containers.get(live, {})
    release = held.get("release", "") if held.get("state") == "running" else ""
    verified = releases["verified"].get(release)
    kept = f" (kept: {', '.join(releases['kept'])})" if releases["kept"] else ""
    certificate = facts["certificate"]
    text = [
        f"{facts['host']}  {facts['url']}",
        f"release      {release or 'none is live'}, {f'verified {readable(verified)}' if verified else 'not verified'}",
        f"previous     {releases['previous'] or 'none'}{kept}",
        f"slots        {'; '.join(_slot(name, containers.get(name, {}), name == live) for name in NAMES)}",
        f"ready        {'yes' if ready['ok'] else 'NO: ' + ready['error']}",
        f"database     {facts['engine']}, schema revision {ready['schema'] or 'unknown'}",
    ]
    if facts["maintenance"]:
        text.append(f"maintenance  on, because {facts['maintenance']}")
    if facts["pools"] is not None:
        text.append(f"pool         {pool_line(facts['pools'])}")
    text += reliability.lines(facts["backup"])
    text += timer_lines(facts["timers"])
    text += [
        f"certificate  {certificate['error'] or str(certificate['days_left']) + ' days left'}",
        f"free         {facts['disk_free_mb']} MB of disk, {facts['memory_available_mb']} MB of memory",
        f"lock         {_lock_line(facts['lock'])}",
        f"last change  {facts['last_change'] or 'none'}",
    ]
    return text + [f"Warning: {warning}" for warning in facts["warnings"]]


def _slot(name: str, held: Mapping[str, Any], is_live: bool) -> str:
    content = f"{held['release'] or 'no release'} {held['state']}" if held else "empty"
    return f"{name}: {content}{' <- live' if is_live else ''}"


def _lock_line(lock: Mapping[str, Any] | None) -> str:
    if not lock:
        return "free"
    interrupted = f", interrupted: {lock['interrupted']}" if lock["interrupted"] else ""
    return f"{locking.describe(lock)}, phase {lock['phase']}{interrupted}"


def timer_lines(timers: Mapping[str, str]) -> list[str]:
    """One line for each timer with its next run, in the host's time zone."""
    return [
        f"{'timers' if number == 0 else '':<12} {name.removesuffix('.timer')}: {when or 'NEVER; run deploy.yml'}"
        for number, (name, when) in enumerate(sorted(timers.items()))
    ]


def pool_line(answer: str, database: str = pooler.DATABASE) -> str:
    """Sum up the pools of a database in one line: clients, servers, and the longest wait in seconds.

    :param answer: the answer to `SHOW POOLS`, unaligned, with a header; one row for each user of the database.
    """
    rows = [line.split("|") for line in answer.splitlines() if "|" in line]
    pools = [dict(zip(rows[0], row, strict=False)) for row in rows[1:]] if rows else []
    ours = [pool for pool in pools if pool.get("database") == database]
    if not ours:
        return "not used yet" if pools else "PgBouncer does not answer"

    def total(name: str) -> int:
        return sum(int(pool.get(name) or 0) for pool in ours)

    longest = max(int(pool.get("maxwait") or 0) for pool in ours)
    return (
        f"{total('cl_active')} clients active, {total('cl_waiting')} waiting; servers {total('sv_active')} active, "
        f"{total('sv_idle') + total('sv_used')} idle; longest wait {longest} s"
    )
