"""Logs people in through the lab's identity provider, by the pages and forms that they would see in a browser."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import parse_qs, urljoin, urlsplit

import requests

# Far above the dozen redirects and pages of a login; a loop of redirects shall fail and not hang.
MOST_STEPS = 30


# What a step of the login ends with: a page that asks for something, or the outcome that the application reports.
Page = requests.Response | dict[str, str]


class LoginFailed(AssertionError):
    """The login did not end with a session; the message says where it ended."""


class _FormReader(HTMLParser):
    """Collects the forms of a page: where each goes, and the fields with the values that the page gave them."""

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
            # A browser sends neither boxes that are not ticked nor buttons that were not pressed.
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

    def __init__(self, base_url: str, ca: str) -> None:
        self.home = urlsplit(base_url)
        self.session = requests.Session()
        # A proxy from the environment has no business on the loopback, and REQUESTS_CA_BUNDLE would override `verify`.
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
            answer = self.session.request(method, url, data=fields, allow_redirects=False, timeout=30)
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
                # Referer, because the provider refuses a form that does not say which of its pages it came from.
                self.session.headers["Referer"] = page.url
                return self.open("POST", urljoin(page.url, form["action"]), {**form["fields"], field: value})
        raise LoginFailed(f"{page.url.partition('?')[0]} does not ask for the {field}")


def log_in(base_url: str, username: str, password: str, ca: str) -> str:
    """Log a person in to Scratch4School at `base_url` (https://localhost:8443) and return the session id.

    `ca` is the path of the certificate authority that vouches for the application and the provider (.lab/ca.crt).
    Raises LoginFailed where the login does not end with a session, above all for a wrong password.
    """
    browser = _Browser(base_url, ca)
    page = browser.open("GET", f"{base_url}/backend/login")
    page = browser.fill_in(page, "login", username)
    page = browser.fill_in(page, "password", password)
    if not isinstance(page, dict):
        raise LoginFailed(f"the provider did not accept the login of {username}")
    if "session_id" not in page:
        raise LoginFailed(f"the application refused the login of {username}: {page['error']}")
    return page["session_id"]
