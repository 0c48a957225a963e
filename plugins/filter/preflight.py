"""Judges what preflight must know: a certificate with its key, the time of day, the provider's answers, a way in."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography import x509

# Ansible hands its module_utils setting to modules only; a filter finds the same folder by its own place.
sys.path.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

import change_windows
import ssh_advice


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
    if not hostname:
        # There is no address yet, or it is none; whether it is one is judged elsewhere.
        return ""
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


def change_window_problem(windows: object, local_time: str, zone: str = "") -> str:
    """`change_windows | change_window_problem('2026-11-24T13:15:00', 'CET')` → why not now, as a sentence, or ''."""
    try:
        return change_windows.problem(windows, datetime.fromisoformat(local_time), zone)
    except change_windows.ChangeWindowError as problem:
        return str(problem)


def change_window_error(windows: object) -> str:
    """`change_windows | change_window_error` → what cannot be read of them, as a sentence, or '', at whatever time."""
    try:
        change_windows.problem(windows, datetime.min)
    except change_windows.ChangeWindowError as problem:
        return str(problem)
    return ""


def provider_problems(answers: Mapping[str, Mapping[str, Any]], settings: Mapping[str, str]) -> list[str]:
    """`host_survey.provider | provider_problems({setting: address})` → addresses that answer and are wrong.

    A provider that is silent, or that says itself that it is in trouble (5xx), tells nothing about its address.
    """
    found = []
    for setting, url in settings.items():
        answer = answers.get(url, {})
        status = int(answer.get("status") or 0)
        if status in (404, 410):
            found.append(
                f"{setting} is {url}, and the identity provider answers {status}: there is no such address. "
                "Logins would fail; copy the address from the provider."
            )
        elif setting == "app_oidc_jwks_url" and 200 <= status < 300 and not answer.get("keys"):
            found.append(
                f"{setting} is {url}, and the identity provider answers {status} without any key. "
                "Logins would fail; copy the address of the provider's key set (JWKS)."
            )
    return found


def provider_silence(
    answers: Mapping[str, Mapping[str, Any]], urls: Iterable[str], host: str, keys: str = ""
) -> list[str]:
    """`host_survey.provider | provider_silence(addresses, 'server')` → those that the host must reach and does not.

    :param keys: the address of the key set, which must answer without a login.
    """
    found = []
    for url in dict.fromkeys(urls):
        answer = answers.get(url, {})
        status = int(answer.get("status") or 0)
        if answer.get("problem"):
            found.append(f"{host} does not reach {url} ({answer['problem']}); logins fail until it does.")
        elif status >= 500 or (url == keys and status in (401, 403, 429)):
            found.append(f"{url} answers {status}; logins fail until the identity provider works again.")
    return found


def command_programs(command: object) -> list[str]:
    """`backup_failure_command | command_programs` → the programs that a shell would start; [] when that cannot be told.

    The first word of each part of a pipeline or list, assignments left out.
    """
    # More than a pipeline may well ask for the program first; the proof of the command says whether it works.
    if re.search(r"&&|\|\||;;|\bcase\b|\bif\b|\(\)|\\\n", str(command or "")):
        return []
    lexer = shlex.shlex(str(command or ""), posix=True, punctuation_chars="|&;()")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        return []
    found: list[str] = []
    begins, redirects = True, False
    for word in words:
        if set(word) <= set("|&;()"):
            # The `&` of `2>&1` ends no command, and what follows the `)` of `$(hostname)` begins none.
            begins = not redirects and set(word) != {")"}
        elif begins and not re.match(r"[A-Za-z_][A-Za-z0-9_]*=", word):
            # What the shell works out itself cannot be looked for, and a sum is no program.
            worked_out = set(word) & set("$`<>~*?{}") or not re.search(r"[A-Za-z\[]", word)
            found += [] if word in found or worked_out else [word]
            begins = False
        redirects = word[-1:] in ("<", ">")
    return found


def ssh_problem(said: object, user: str = "", address: str = "", port: object = 22) -> str:
    """`message | ssh_problem('root', 'server')` → what SSH or sudo means, and what to type."""
    return ssh_advice.ssh_problem(said, user, address, port)


class FilterModule:
    """What Ansible asks a filter file for."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Name the filters of this file."""
        return {
            "certificate_problem": certificate_problem,
            "change_window_error": change_window_error,
            "change_window_problem": change_window_problem,
            "command_programs": command_programs,
            "provider_problems": provider_problems,
            "provider_silence": provider_silence,
            "ssh_problem": ssh_problem,
        }
