"""The report of a run: a table for people, the same as JSON, and whether the promises were kept."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from .class_run import Outcome
from .save_record import Promise

MOST_MESSAGES = 10


def is_kept(outcome: Outcome, allow_failures: bool) -> bool:
    """Whether every promise was kept; without `allow_failures` a failed request breaks one."""
    failed = outcome.load.failed and not allow_failures
    return not (outcome.save_record.breaches or outcome.unread or failed)


def as_json(outcome: Outcome, allow_failures: bool) -> dict[str, Any]:
    """The whole report, for programs; times of failures are seconds since the epoch."""
    plan, load, save_record = outcome.plan, outcome.load, outcome.save_record
    seconds = outcome.phases.get("load", 0.0)
    return {
        "kept": is_kept(outcome, allow_failures),
        "url": plan.url,
        "began": _moment(outcome.began),
        "users": outcome.users,
        "seed": plan.seed,
        "stopped": outcome.stopped,
        "phases_seconds": outcome.phases,
        "requests": load.requests,
        "requests_per_second": round(outcome.in_time / seconds, 1) if seconds else 0.0,
        "megabytes_sent": round(load.bytes_sent / 1e6, 1),
        "megabytes_read": round(load.bytes_read / 1e6, 1),
        "driver_cpu_ms_per_request": round(1000 * outcome.cpu_seconds / max(outcome.in_time, 1), 3),
        "operations": load.summary(),
        "conflicts": load.conflicts,
        "promises": {promise.value: save_record.count(promise) for promise in Promise},
        "breaches": [
            {"promise": breach.promise.value, "at": breach.at, "message": breach.message}
            for breach in save_record.breaches
        ],
        "unread": outcome.unread,
        "save_record": {
            "projects": len(save_record.projects),
            "acknowledged_saves": save_record.acknowledged,
            "in_doubt": save_record.in_doubt,
            "assets": len(save_record.assets),
        },
        "failed": load.failed,
        "failed_by_kind": dict(load.failed_by_kind.most_common()),
        "failures": load.failures_as_json(),
        "failures_around": outcome.around.failures_as_json(),
    }


def as_pulse(outcome: Outcome, failures_known: int) -> dict[str, Any]:
    """The state during the load; of the failures only those after the first `failures_known`.

    `oldest_open` is when the oldest request was sent that is not answered yet, None without one.
    """
    load, save_record = outcome.load, outcome.save_record
    return {
        "at": time.time(),
        "requests": load.requests,
        "failed": load.failed,
        "acknowledged_saves": save_record.acknowledged,
        "promises": {promise.value: save_record.count(promise) for promise in Promise},
        "breaches": [breach.message for breach in save_record.breaches],
        "checks": outcome.checks,
        "unread": outcome.unread,
        "failures": load.failures_as_json()[failures_known:],
        "oldest_open": load.oldest_open,
    }


def as_text(report: dict[str, Any]) -> str:
    """The table that a person reads."""
    lines = ["", f"{'operation':<20}{'count':>8}{'failed':>8}{'p50':>9}{'p95':>9}{'p99':>9}{'max ms':>9}"]
    for name, row in report["operations"].items():
        times = "".join(f"{row[key]:>9.1f}" for key in ("p50_ms", "p95_ms", "p99_ms", "max_ms"))
        lines.append(f"{name:<20}{row['count']:>8,}{row['failed']:>8,}{times}")
    lines += ["", _sum(report), _ledger(report), ""]
    lines.append(f"{'lost':>8}{'torn':>8}{'duplicates':>12}{'orphans':>9}{'unread':>8}{'failed':>8}")
    promises = report["promises"]
    lines.append(
        f"{promises['lost']:>8}{promises['torn']:>8}{promises['duplicates']:>12}{promises['orphans']:>9}"
        f"{len(report['unread']):>8}{report['failed']:>8}"
    )
    lines += _messages("broken", [f"{each['promise']}: {each['message']}" for each in report["breaches"]])
    lines += _messages("could not be read back", report["unread"])
    kinds = report["failed_by_kind"].items()
    lines += _messages("failed", [f"{number:,} × {kind}{_span(report, kind)}" for kind, number in kinds])
    lines += ["", "All promises kept." if report["kept"] else "A promise was broken."]
    return "\n".join(lines)


def _sum(report: dict[str, Any]) -> str:
    seconds = report["phases_seconds"].get("load", 0)
    return (
        f"{report['requests']:,} requests by {report['users']} users in {seconds:.1f} s: "
        f"{report['requests_per_second']:.1f}/s, {report['conflicts']:,} answered 409; "
        f"{report['driver_cpu_ms_per_request']:.2f} ms of this program's own CPU per request"
    )


def _ledger(report: dict[str, Any]) -> str:
    save_record = report["save_record"]
    return (
        f"{save_record['acknowledged_saves']:,} acknowledged saves of {save_record['projects']:,} projects and "
        f"{save_record['assets']:,} assets were read back; {save_record['in_doubt']:,} saves stay in doubt"
    )


def _span(report: dict[str, Any], kind: str) -> str:
    """The times of the first and the last failure of a kind, and the message of the first."""
    alike = [each for each in report["failures"] if _kind(each) == kind]
    if not alike:
        return ""
    first, last = min(each["start"] for each in alike), max(each["end"] for each in alike)
    return f", {_readable(first)} to {_readable(last)}, first at {alike[0]['operation']}: {alike[0]['message'][:100]}"


def _kind(failure: dict[str, Any]) -> str:
    return str(failure["status"]) if failure["status"] is not None else failure["message"].partition(":")[0]


def _messages(title: str, messages: list[str]) -> list[str]:
    if not messages:
        return []
    more = len(messages) - MOST_MESSAGES
    rest = [f"  … and {more} more (--json has all)"] if more > 0 else []
    return ["", f"{title}:", *(f"  {message}" for message in messages[:MOST_MESSAGES]), *rest]


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _readable(seconds: float) -> str:
    """A time for people, to the millisecond, so that two failures can be told apart."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d} UTC"
