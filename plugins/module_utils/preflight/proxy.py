"""Refusals of the role `proxy`: a certificate that browsers would refuse, equal ports, and a missing front end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .rules import Messages, Questions, Rules, Settings, Survey, as_text
from .settings import memory, text, whole_number

if TYPE_CHECKING:
    from cryptography import x509

RULES = Rules(
    "proxy",
    bounds={
        "proxy_https_port": whole_number(1, 65535),
        "proxy_http_port": whole_number(1, 65535),
        "proxy_frontend_directory": text(
            "(/.*)?", "the whole path of the folder on the server, beginning with /, or leave it empty"
        ),
        "proxy_body_megabytes": whole_number(1),
        "proxy_memory": memory(32),
        "proxy_certificate_days": whole_number(0),
    },
    required={
        "proxy_tls_certificate": "the path of your certificate with its chain (PEM), on the machine that runs Ansible",
        "proxy_tls_key": "the path of its unencrypted key (PEM), on the machine that runs Ansible",
    },
)


@RULES.refuses_settings
def certificate(settings: Settings) -> Messages:
    """Certificate and key belong together, are for the school's address, and do not end soon."""
    path, key = as_text(settings, "proxy_tls_certificate"), as_text(settings, "proxy_tls_key")
    if path and key:
        hostname = _hostname(as_text(settings, "proxy_url"))
        refusal = certificate_refusal(path, key, hostname, int(settings["proxy_certificate_days"]))
        yield from [refusal] if refusal else []


@RULES.refuses_settings
def ports(settings: Settings) -> Messages:
    """nginx cannot listen twice on one port."""
    if settings["proxy_https_port"] == settings["proxy_http_port"]:
        yield (
            f"proxy_https_port and proxy_http_port are both {settings['proxy_http_port']}; choose two different ports."
        )


@RULES.asks_host
def questions(settings: Settings) -> Questions:
    """The front end's first page."""
    return {"files": [frontend_page(settings)] if settings["proxy_frontend_directory"] else []}


def frontend_page(settings: Settings) -> str:
    """The page of a front end that nginx answers first."""
    return f"{settings['proxy_frontend_directory']}/index.html"


@RULES.refuses_host
def frontend(settings: Settings, survey: Survey) -> Messages:
    """Without its page pupils would see an error in place of the editor."""
    if settings["proxy_frontend_directory"] and not survey["files"][frontend_page(settings)]:
        yield (
            f"proxy_frontend_directory is {settings['proxy_frontend_directory']}, and there is no index.html in it on "
            f"{settings['inventory_hostname']}. Copy a built front end there first, or leave the setting out."
        )


def certificate_refusal(certificate: str, key: str, hostname: str, days: int) -> str:
    """Why a certificate and its key cannot be used, as one message; '' when they can.

    :param certificate: path on the control node, as is `key`.
    :param hostname: the host of the school's address; without one no name is compared.
    :param days: days that the certificate must still be valid.
    """
    # Here, because each task imports preflight anew, and this is half of what that takes.
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    files = {}
    for setting, path in (("proxy_tls_certificate", certificate), ("proxy_tls_key", key)):
        try:
            files[setting] = Path(path).expanduser().read_bytes()
        except FileNotFoundError:
            return f"{setting} names {path}, and there is no such file on the control node. Correct the path."
        except OSError as problem:
            return f"{setting} names {path}, which cannot be read on the control node: {problem.strerror}."
    try:
        loaded = x509.load_pem_x509_certificate(files["proxy_tls_certificate"])
    except ValueError:
        return f"proxy_tls_certificate names {certificate}, which is not a certificate in PEM form. Write another file."
    try:
        secret = serialization.load_pem_private_key(files["proxy_tls_key"], password=None)
    except (ValueError, TypeError):
        # A TypeError is a key that wants a password.
        return f"proxy_tls_key names {key}, which is not an unencrypted key in PEM form. Write another file."
    if secret.public_key() != loaded.public_key():
        return (
            f"proxy_tls_key names {key}, which does not belong to the certificate {certificate}. Write the key with "
            "which the certificate was requested."
        )
    if loaded.not_valid_after_utc < datetime.now(UTC) + timedelta(days=days):
        return (
            f"The certificate {certificate} ends on {loaded.not_valid_after_utc:%Y-%m-%d}, which is past or less than "
            f"{days} days away. Get a new certificate first."
        )
    if not hostname:
        # There is no address yet, or it is none; whether it is one is judged elsewhere.
        return ""
    names = _names(loaded)
    if hostname not in names and "*." + hostname.partition(".")[2] not in names:
        whom = ", ".join(names) or "no host"
        return (
            f"The certificate {certificate} is for {whom} and not for {hostname}, which scratch4school_url names. "
            "Get one for that name, or correct scratch4school_url."
        )
    return ""


def _hostname(url: str) -> str:
    """The host of an address; '' when it is none, which the role `app` refuses."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
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
