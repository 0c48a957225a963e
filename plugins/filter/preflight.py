"""Judges in one step what preflight would otherwise ask in many: a certificate with its key, and the time of day."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

# Ansible hands its module_utils setting to modules only; a filter finds the same folder by its own place.
sys.path.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

import change_windows


def certificate_problem(certificate: str, key: str, hostname: str, days: int) -> str:
    """`crt | certificate_problem(key, 'scratch.my-school.de', 7)` → why it cannot serve, as a sentence; '' when it can.

    Both are paths on the control node; `days` must be left of the certificate's time.
    """
    # Here, because Ansible imports every filter anew in every task, and this is half of what that takes.
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    files = {}
    for setting, path in (("proxy_tls_certificate", certificate), ("proxy_tls_key", key)):
        try:
            files[setting] = Path(path).expanduser().read_bytes()
        except FileNotFoundError:
            return f"{setting} names {path}, and there is no such file on this machine."
        except OSError as problem:
            return f"{setting} names {path}, which cannot be read on this machine: {problem.strerror}."
    try:
        served = x509.load_pem_x509_certificate(files["proxy_tls_certificate"])
    except ValueError:
        return f"{certificate} is not a certificate in PEM form."
    try:
        secret = serialization.load_pem_private_key(files["proxy_tls_key"], password=None)
    except (ValueError, TypeError):
        # A TypeError is a key that wants a password.
        return f"{key} is not an unencrypted key in PEM form."
    if secret.public_key() != served.public_key():
        return "proxy_tls_key does not belong to proxy_tls_certificate."
    if served.not_valid_after_utc < datetime.now(timezone.utc) + timedelta(days=int(days)):  # noqa: UP017
        return (
            f"The certificate ends on {served.not_valid_after_utc:%Y-%m-%d}, which is past or less than {days} days "
            "away; get a new one first."
        )
    names = _names(served)
    if hostname not in names and "*." + hostname.partition(".")[2] not in names:
        whom = ", ".join(names) or "no host"
        return f"The certificate is for {whom} and not for {hostname}, which scratch4school_url names."
    return ""


def _names(certificate: x509.Certificate) -> list[str]:
    """Every name and address that the certificate is for."""
    from cryptography import x509

    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = alternatives.get_values_for_type(x509.IPAddress)
    return [*alternatives.get_values_for_type(x509.DNSName), *map(str, addresses)]


def change_window_problem(windows: object, local_time: str) -> str:
    """`change_windows | change_window_problem('2026-11-24T13:15:00')` → why not now, as a sentence, or ''."""
    try:
        return change_windows.problem(windows, datetime.fromisoformat(local_time))
    except change_windows.ChangeWindowError as problem:
        return str(problem)


class FilterModule:
    """What Ansible asks a filter file for."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Name the filters of this file."""
        return {"certificate_problem": certificate_problem, "change_window_problem": change_window_problem}
