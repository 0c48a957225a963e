"""The page at which a login ends while no editor is installed: it shows the outcome and keeps secrets.

The page is in the proxy's image; `/authorize` sends the browser to it. These tests do not run it in a browser. They
check rules that a change of the page could break unnoticed.
"""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "proxy" / "html" / "index.html"


class Reader(HTMLParser):
    """The tags of a page with their attributes, its script, and its text without style and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.script, self.text = "", ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, _tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.script += data
        elif self._inside != "style":
            self.text += " ".join(data.split()) + " "


@pytest.fixture(scope="module")
def page() -> Reader:
    return Reader(PAGE.read_text())


def test_page_shows_its_input_only_as_text(page: Reader) -> None:
    """Message and name come from the address and from the identity provider, and may be forged."""
    ways_in = (
        r"innerHTML|outerHTML|insertAdjacentHTML|createContextualFragment|document\.write|srcdoc|eval\(|Function\("
    )
    assert re.findall(ways_in, page.script) == []
    assert page.script.count(".textContent = ") == 2
    assert [name for _, attributes in page.tags for name in attributes if name.startswith("on")] == []


def test_page_needs_only_this_server(page: Reader) -> None:
    """It is one file: no browser asks another server for a script, a style or a font."""
    links = {attributes[name] for _, attributes in page.tags for name in ("href", "src") if name in attributes}
    assert links == {"data:,", "/backend/login", "/backend/api/status"}
    assert re.findall(r"fetch\(([^,]*),", page.script) == ['"/backend/session"']
    assert "//" not in PAGE.read_text().replace("  // ", "")


def test_page_keeps_the_session_id(page: Reader) -> None:
    """Not by the address bar or the history, a Referer, or a query that a log could keep."""
    assert ("meta", {"name": "referrer", "content": "no-referrer"}) in page.tags
    forgetting = page.script.index('history.replaceState(null, "", location.pathname)')
    assert forgetting < page.script.index("fetch(")
    assert '"X-Session-ID": sessionId' in page.script
    assert "session_id=" not in page.script
    assert "Storage" not in page.script


def test_page_shows_the_outcome_of_a_login(page: Reader) -> None:
    """`/authorize` adds one of the two, and the page shows a message for both."""
    assert re.findall(r'query\.get\("(\w+)"\)', page.script) == ["error", "session_id"]
    assert "The login did not work." in page.script
    assert "You are logged in as ${bounded(told.user.username)} (${role}). The login works." in page.script
    assert 'show("failed", "The login did not work.", bounded(message)' in page.script


def test_page_without_javascript_shows_state_and_hints(page: Reader) -> None:
    """The part that only the script fills stays hidden."""
    assert ("html", {"lang": "en"}) in page.tags
    assert ("section", {"id": "outcome", "hidden": None}) in page.tags
    assert "Scratch4School is running" in page.text
    assert (
        "No Scratch editor is installed here yet: the sysadmin names its folder in proxy_frontend_directory"
        in page.text
    )
    assert "JavaScript is off in this browser" in page.text
