"""A person in a browser: logs in through the lab's provider, and uses the pages and the editor."""

from __future__ import annotations

import re

from playwright.sync_api import BrowserContext, Locator, Page, expect

from ..classroom.provider import a_second_apart
from ..scenarios.lab_hosts import PASSWORD
from .chromium import Watch

LOADED = "html[data-project=loaded]"
# Left upper corners of the blocks in the list that can be seen, from the top; without those that are in another one.
SHOWN_BLOCKS = (
    "[...document.querySelectorAll('.blocklyFlyout .blocklyDraggable')]"
    ".filter(b => !b.parentElement.closest('.blocklyDraggable')).map(b => b.getBoundingClientRect())"
    ".filter(r => r.width > 0 && r.top > 150 && r.bottom < innerHeight - 150)"
    ".map(r => [r.x, r.y]).sort((a, b) => a[1] - b[1])"
)
OWN_BLOCKS = "[...document.querySelectorAll('.blocklyDraggable')].filter(b => !b.closest('.blocklyFlyout'))"


class Visitor:
    """A person with a browser of their own, at one page."""

    def __init__(self, context: BrowserContext, watch: Watch, name: str) -> None:
        self.context, self.watch, self.name = context, watch, name
        self.page: Page = context.new_page()

    def log_in(self, page: Page | None = None) -> None:
        """From the first page to the projects."""
        page = page or self.page
        with a_second_apart(self.name):
            page.goto("/")
            page.get_by_role("link", name=re.compile("Anmelden|Log in")).click()
            self.fill_in_login(page)
            page.wait_for_url("**/projects")
        self.ready(page)

    def fill_in_login(self, page: Page) -> None:
        """The provider's two forms."""
        page.fill("input[name=login]", self.name)
        page.press("input[name=login]", "Enter")
        page.fill("input[name=password]", PASSWORD)
        page.press("input[name=password]", "Enter")

    def ready(self, page: Page | None = None) -> None:
        """Wait for one of our pages."""
        (page or self.page).wait_for_selector("html[data-page=ready]")

    def visit(self, path: str, page: Page | None = None) -> None:
        """Open one of our pages."""
        (page or self.page).goto(path)
        self.ready(page)

    def card(self, title: str) -> Locator:
        """A project in a list."""
        return self.page.locator("li.card", has=self.page.get_by_role("heading", name=title, exact=True))

    def edit(self, path: str = "/editor", page: Page | None = None) -> Editor:
        """Open the editor and wait for its project."""
        page = page or self.page
        page.goto(path)
        page.wait_for_selector(LOADED)
        return Editor(page)

    def api(self, method: str, path: str, **options: object) -> object:
        """A request to the back end with the browser's session, past the pages; returns the JSON."""
        answer = self.context.request.fetch(
            f"/backend{path}", method=method, headers={"Sec-Fetch-Site": "same-origin"}, **options
        )
        assert answer.ok, f"{method} {path}: {answer.status} {answer.text()}"
        return answer.json()


class Editor:
    """The editor in a page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def drag_block(self, number: int = 0) -> None:
        """Drag a block out of the list of blocks, as a pupil does."""
        self.page.wait_for_function(f"() => ({SHOWN_BLOCKS}).length > {number}")
        x, y = self.page.evaluate(f"() => ({SHOWN_BLOCKS})[{number}]")
        place = self.page.locator(".blocklyMainBackground").bounding_box()
        assert place is not None
        self.page.mouse.move(x + 6, y + 10)
        self.page.mouse.down()
        self.page.mouse.move(place["x"] + place["width"] * 0.6, place["y"] + 60 + 90 * number, steps=20)
        self.page.mouse.up()

    def blocks(self) -> int:
        """How many blocks the pupil sees, without those of the list."""
        return int(self.page.evaluate(f"() => ({OWN_BLOCKS}).length"))

    def has_blocks(self, count: int) -> None:
        """Wait until the pupil sees so many blocks."""
        self.page.wait_for_function(f"() => ({OWN_BLOCKS}).length === {count}")

    def save_status(self, text: str | re.Pattern[str]) -> None:
        """Wait until the header says so."""
        expect(self.page.locator(".save-status")).to_contain_text(text)

    @property
    def project_id(self) -> int | None:
        """The project in the address."""
        found = re.search(r"/editor/(\d+)", self.page.url)
        return int(found[1]) if found else None

    @property
    def dialog(self) -> Locator:
        """The dialog that is open."""
        return self.page.locator("dialog[open]")
