"""The proxy from outside: its certificate, its answers, and the paths that it does not answer."""

import contextlib
import datetime
import http.client
import socket
import ssl
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from cryptography import x509

# A deploy reverts its release when a test fails, so a host that is only slow must pass.
ANSWER_SECONDS = 60


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    location: str | None
    body: bytes


def _request(settings: Any, path: str, scheme: str = "https") -> Answer:
    """GET `path` of the host under the school's name, without a check of the certificate, which has its own tests."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    port = int(settings[f"proxy_{scheme}_port"])
    if scheme == "https":
        connection = http.client.HTTPSConnection(settings["address"], port, timeout=ANSWER_SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(settings["address"], port, timeout=ANSWER_SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Host": urlsplit(settings["scratch4school_url"]).netloc})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers["Location"], answer.read())


@pytest.fixture(scope="session")
def certificate(settings: Any) -> x509.Certificate:
    """The certificate that nginx sends, which may differ from the file."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    address = (settings["address"], int(settings["proxy_https_port"]))
    name = urlsplit(settings["scratch4school_url"]).hostname
    with (
        socket.create_connection(address, timeout=ANSWER_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        sent = tls.getpeercert(binary_form=True)
    assert sent is not None
    return x509.load_der_x509_certificate(sent)


def test_certificate_is_valid_for_the_required_days(settings: Any, certificate: x509.Certificate) -> None:
    """As many days as preflight requires of a new one."""
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert left.days >= settings["proxy_certificate_days"], (
        f"the certificate ends on {certificate.not_valid_after_utc:%Y-%m-%d}: renew it and run deploy.yml"
    )


def test_certificate_names_the_host(settings: Any, certificate: x509.Certificate) -> None:
    """The host name of the school's address."""
    name = urlsplit(settings["scratch4school_url"]).hostname or ""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    found = names.get_values_for_type(x509.DNSName) + [str(ip) for ip in names.get_values_for_type(x509.IPAddress)]
    assert name in found or "*." + name.partition(".")[2] in found


def test_status_request_is_answered_with_ok(settings: Any) -> None:
    """The Scratch editor sends this request."""
    answer = _request(settings, "/backend/api/status")
    assert answer.status == 200
    assert b'"ok"' in answer.body


@pytest.mark.parametrize("path", ["/backend/metrics", "/backend/readyz", "/backend/healthz", "/_uploads/"])
def test_internal_path_is_not_found(settings: Any, path: str) -> None:
    """Metrics, readiness and direct access to files are internal."""
    assert _request(settings, path).status == 404


def test_plain_http_is_redirected_to_https(settings: Any) -> None:
    """With the school's name and the same path."""
    answer = _request(settings, "/backend/api/status", scheme="http")
    assert answer.status == 301
    assert answer.location == settings["scratch4school_url"] + "/backend/api/status"


def test_unknown_session_is_refused(settings: Any) -> None:
    """With status 401."""
    assert _request(settings, "/backend/api/projects").status == 401
