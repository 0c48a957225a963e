"""The proxy as the school sees it: the certificate that is served, what is answered and what is not."""

import contextlib
import datetime
import http.client
import socket
import ssl
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from cryptography import x509


class Answer(NamedTuple):
    """What came back."""

    status: int
    location: str | None
    body: bytes


def _request(settings: Any, path: str, scheme: str = "https") -> Answer:
    """GET `path` of the host, under the name that pupils type; the chain is judged by the certificate's own tests."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    port = int(settings[f"proxy_{scheme}_port"])
    if scheme == "https":
        connection = http.client.HTTPSConnection(settings["address"], port, timeout=10, context=context)
    else:
        connection = http.client.HTTPConnection(settings["address"], port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Host": urlsplit(settings["scratch4school_url"]).netloc})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers["Location"], answer.read())


@pytest.fixture(scope="session")
def certificate(settings: Any) -> x509.Certificate:
    """The certificate that is served, which may be another one than the file's."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    address = (settings["address"], int(settings["proxy_https_port"]))
    name = urlsplit(settings["scratch4school_url"]).hostname
    with (
        socket.create_connection(address, timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        served = tls.getpeercert(binary_form=True)
    assert served is not None
    return x509.load_der_x509_certificate(served)


def test_certificate_lasts(settings: Any, certificate: x509.Certificate) -> None:
    """The served certificate is valid for as long as preflight asks of a new one."""
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert left.days >= settings["proxy_certificate_days"], (
        f"the certificate ends on {certificate.not_valid_after_utc:%Y-%m-%d}: renew it and run deploy.yml"
    )


def test_certificate_names_the_host(settings: Any, certificate: x509.Certificate) -> None:
    """The served certificate is for the name that pupils type."""
    name = urlsplit(settings["scratch4school_url"]).hostname or ""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    served = names.get_values_for_type(x509.DNSName) + [str(ip) for ip in names.get_values_for_type(x509.IPAddress)]
    assert name in served or "*." + name.partition(".")[2] in served


def test_status_is_answered(settings: Any) -> None:
    """A pupil's editor finds the server."""
    answer = _request(settings, "/backend/api/status")
    assert answer.status == 200
    assert b'"ok"' in answer.body


@pytest.mark.parametrize("path", ["/backend/metrics", "/backend/readyz", "/backend/healthz", "/_uploads/"])
def test_inner_path_is_not_answered(settings: Any, path: str) -> None:
    """Numbers, readiness and the files themselves are not for the public."""
    assert _request(settings, path).status == 404


def test_plain_http_is_sent_on(settings: Any) -> None:
    """A browser that was told http goes to https under the right name."""
    answer = _request(settings, "/backend/api/status", scheme="http")
    assert answer.status == 301
    assert answer.location == settings["scratch4school_url"] + "/backend/api/status"


def test_unknown_session_is_refused(settings: Any) -> None:
    """Without a login there is nothing to see."""
    assert _request(settings, "/backend/api/projects").status == 401
