"""Logs people in through the lab's identity provider, by the pages and forms that a browser shows."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, quote, urljoin, urlsplit

import requests

from ..checkout import STATE
from .login import LoginFailed

# Far above the dozen redirects and pages of a login, so that a loop of redirects fails instead of hanging.
MOST_STEPS = 30
LOGIN_PAUSE_SECONDS = 1.1

# The result of a step: a page that asks for something, or the outcome that the application reports.
Page = requests.Response | dict[str, str]


class _FormReader(HTMLParser):
    """Collects the forms of a page: the address of each, and its fields with the values that the page gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[dict] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append({"action": attributes.get("action", ""), "fields": {}})
            self._open = True
        elif tag == "input" and self._open and "name" in attributes:
            # A browser sends neither unticked boxes nor buttons that were not pressed.
            unsent = attributes.get("type") in ("checkbox", "radio", "submit") and "checked" not in attributes
            if not unsent:
                self.forms[-1]["fields"][attributes["name"]] = attributes.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._open = False


def read_forms(html: str) -> list[dict]:
    """The forms of a page, each as `action` and `fields`."""
    reader = _FormReader()
    reader.feed(html)
    return reader.forms


class _Browser:
    """A browser that follows redirects until one leads back to the front end with the login's outcome."""

    def __init__(self, base_url: str, ca: str | bool) -> None:
        self.home = urlsplit(base_url)
        self.session = requests.Session()
        # No proxy of the environment may be used on the loopback, and REQUESTS_CA_BUNDLE would override `verify`.
        self.session.trust_env = False
        self.session.verify = ca

    def outcome(self, url: str) -> dict[str, str] | None:
        """The `session_id` or `error` that the application hands to its front end in this address."""
        parts = urlsplit(url)
        if parts.netloc != self.home.netloc:
            return None
        found = {name: values[0] for name, values in parse_qs(parts.query).items() if name in ("session_id", "error")}
        return None if parts.path.startswith("/backend/") else found or None

    def open(self, method: str, url: str, fields: dict | None = None) -> Page:
        """The page at the end of all redirects, or the outcome where one leads back to the front end."""
        for _ in range(MOST_STEPS):
            answer = self.session.request(method, url, data=fields, allow_redirects=False, timeout=120)
            if not answer.is_redirect:
                if answer.status_code != 200:
                    raise LoginFailed(f"{answer.status_code} from {url.partition('?')[0]}: {answer.text[:300]}")
                return answer
            method, url, fields = "GET", urljoin(url, answer.headers["location"]), None
            if (outcome := self.outcome(url)) is not None:
                return outcome
        raise LoginFailed(f"more than {MOST_STEPS} redirects, the last to {url.partition('?')[0]}")

    def fill_in(self, page: Page, field: str, value: str) -> Page:
        """Submit the page's form that asks for a field."""
        if isinstance(page, dict):
            raise LoginFailed(f"no page asked for the {field}; the login ended early with {sorted(page)}")
        for form in read_forms(page.text):
            if field in form["fields"]:
                # Referer, because the provider refuses a form without the address of its page.
                self.session.headers["Referer"] = page.url
                return self.open("POST", urljoin(page.url, form["action"]), {**form["fields"], field: value})
        raise LoginFailed(f"{page.url.partition('?')[0]} does not ask for the {field}")


@contextmanager
def a_second_apart(username: str, folder: Path = STATE / "logins") -> Iterator[None]:
    """Log a person in at least a second after that person's last login, also by another process.

    The lab's provider makes its tokens from the second and the person, and refuses a second login within one second.
    Without a lab on this machine there is nothing to wait for.
    """
    if not folder.parent.is_dir():
        yield
        return
    folder.mkdir(exist_ok=True)
    with (folder / f"login-{quote(username, safe='')}").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        last = file.read()
        if last:
            # A clock that was set back must not make this wait for long.
            time.sleep(min(LOGIN_PAUSE_SECONDS, max(0.0, float(last) + LOGIN_PAUSE_SECONDS - time.time())))
        try:
            yield
        finally:
            file.truncate(0)
            file.write(f"{time.time():.3f}")


def log_in(base_url: str, username: str, password: str, ca: str | bool) -> str:
    """Log a person in to Scratch4School at `base_url` (https://localhost:8443) and return the session id.

    `ca` is the path of the certificate authority of the application and the provider (.lab/ca.crt).
    Raises LoginFailed where the login does not end with a session, for example for a wrong password.
    """
    browser = _Browser(base_url, ca)
    with a_second_apart(username):
        page = browser.open("GET", f"{base_url}/backend/login")
        page = browser.fill_in(page, "login", username)
        page = browser.fill_in(page, "password", password)
    if not isinstance(page, dict):
        raise LoginFailed(f"the provider did not accept the login of {username}")
    if "session_id" not in page:
        raise LoginFailed(f"the application refused the login of {username}: {page['error']}")
    return page["session_id"]
