"""The pages and the editor: answered, with their policy, compressed, and cached as their names allow."""

import contextlib
import http.client
import re
import ssl
from typing import Any
from urllib.parse import urlsplit

import pytest

# A deploy reverts its release when a test fails, so a host that is only slow must pass.
ANSWER_SECONDS = 60


def get(settings: Any, path: str, encoding: str = "identity") -> http.client.HTTPResponse:
    """GET `path` of the host; the answer's body is read."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    port = int(settings["proxy_https_port"])
    connection = http.client.HTTPSConnection(settings["address"], port, timeout=ANSWER_SECONDS, context=context)
    with contextlib.closing(connection):
        host = urlsplit(settings["scratch4school_url"]).netloc
        connection.request("GET", path, headers={"Host": host, "Accept-Encoding": encoding})
        answer = connection.getresponse()
        answer.body = answer.read()  # type: ignore[attr-defined]
        return answer


@pytest.fixture(autouse=True)
def ours(settings: Any) -> None:
    """A school with a front end of its own has none of these pages."""
    if settings["proxy_frontend_directory"]:
        pytest.skip("The school has a front end of its own.")


@pytest.mark.parametrize("path", ["/", "/projects", "/editor", "/editor/7"])
def test_page_is_answered_with_its_policy(settings: Any, path: str) -> None:
    """No other site may show it in a frame, and a browser asks for it each time."""
    answer = get(settings, path)
    assert answer.status == 200
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.headers["Cache-Control"] == "no-cache"


def test_code_of_editor_is_compressed_and_kept_by_browsers(settings: Any) -> None:
    """The page names it with a digest of its content."""
    page = get(settings, "/editor").body.decode()  # type: ignore[attr-defined]
    named = re.findall(r"/code/[\w.-]+\.(?:js|css)", page)
    assert len(named) == 3
    for path in named:
        answer = get(settings, path, "br")
        assert (answer.status, answer.headers["Content-Encoding"]) == (200, "br")
        assert "immutable" in answer.headers["Cache-Control"]


@pytest.mark.parametrize("path", ["/static/none.svg", "/code/none.js", "/chunks/none.js", "/library/none.svg"])
def test_missing_file_is_404_and_no_page(settings: Any, path: str) -> None:
    """The editor would take a page for a picture."""
    assert get(settings, path).status == 404


@pytest.mark.parametrize(
    "path", ["/../tls.key", "/code/../../proxy/tls.key", "/branding/../../tls.key", "/library/..%2f..%2ftls.key"]
)
def test_file_outside_of_the_pages_is_not_answered(settings: Any, path: str) -> None:
    """The key of the certificate lies in the same container."""
    answer = get(settings, path)
    assert answer.status in (200, 400, 404)
    assert b"PRIVATE KEY" not in answer.body  # type: ignore[attr-defined]
