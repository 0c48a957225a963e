"""Turns what a host's parts say of themselves into the few words that the status screen has room for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone

from ansible.errors import AnsibleFilterError


def certificate_days(pem: str) -> int:
    """`tls_crt | certificate_days` → whole days until the first certificate of the file ends; negative when past."""
    from cryptography import x509  # Here, because Ansible imports every filter anew in every task.

    try:
        end = x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc
    except ValueError as problem:
        raise AnsibleFilterError(f"The certificate that the proxy serves is none: {problem}") from problem
    return (end - datetime.now(timezone.utc)).days  # noqa: UP017


def timer_lines(timers: Mapping[str, str]) -> list[str]:
    """`host_survey.timers | timer_lines` → when each of systemd's timers runs next, by the host's clock."""
    return [
        f"{'timers' if number == 0 else '':<12} {name.removesuffix('.timer')}: {when or 'NEVER; run deploy.yml'}"
        for number, (name, when) in enumerate(sorted(timers.items()))
    ]


def pool_line(answer: str, database: str = "scratch4school") -> str:
    """`SHOW POOLS`, unaligned with its header, → how many clients and servers of the database's pools do what.

    Pools of several users are added up; the longest wait is theirs all. An answer that is none is said to be so.
    """
    lines = [line.split("|") for line in answer.splitlines() if "|" in line]
    pools = [dict(zip(lines[0], line, strict=False)) for line in lines[1:]] if lines else []
    ours = [pool for pool in pools if pool.get("database") == database]
    if not ours:
        return "nobody has used it yet" if pools else "the pooler does not answer"

    def total(name: str) -> int:
        return sum(int(pool.get(name) or 0) for pool in ours)

    longest = max(int(pool.get("maxwait") or 0) for pool in ours)
    return (
        f"{total('cl_active')} clients active, {total('cl_waiting')} waiting; servers {total('sv_active')} active, "
        f"{total('sv_idle') + total('sv_used')} idle; longest wait {longest} s"
    )


class FilterModule:
    """What Ansible asks a filter file for."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Name the filters of this file."""
        return {"certificate_days": certificate_days, "pool_line": pool_line, "timer_lines": timer_lines}
