"""Starts Chromium, and records what a page asked for and complained about."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, Request

# As root, without a graphics card; nothing of Chromium's own asks a host on the internet.
FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--mute-audio",
    # A request to any other host fails, and is recorded.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost",
)
SIZES = {"desktop": (1280, 800), "tablet": (1024, 768), "phone": (390, 844)}


def start(playwright: Playwright) -> Browser:
    """Start Chromium.

    :raises RuntimeError: when it is not installed.
    """
    program = shutil.which("chromium")
    if program is None:
        raise RuntimeError("Chromium is missing; install it (Debian: sudo apt-get install chromium).")
    return playwright.chromium.launch(executable_path=program, args=[*FLAGS])


class Watch:
    """What the pages of one context asked for, and their errors.

    :param url: the school's address; requests to it and to the lab's provider, at another port, are no foreign ones.
    """

    def __init__(self, context: BrowserContext, url: str) -> None:
        self._url = url
        self._host = urlsplit(url).hostname
        self.requests: list[str] = []
        self.console: list[str] = []
        self.problems: list[str] = []
        # Parts of console messages that a test provokes, such as the browser's line about a failed request.
        self.expected: list[str] = []
        context.on("request", self._request)
        context.on("console", self._message)
        context.on("weberror", lambda error: self.problems.append(f"uncaught error: {error.error}"))

    def _request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        self.requests.append(f"{request.method} {request.url}")
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname != self._host:
            self.problems.append(f"request to a foreign host: {request.url}")

    def _message(self, message: ConsoleMessage) -> None:
        line = f"{message.type}: {message.text}"
        self.console.append(line)
        # The lab's provider violates a policy of its own.
        if "Content Security Policy" in message.text and message.location["url"].startswith(self._url):
            self.problems.append(line)

    def unexpected(self) -> list[str]:
        """Foreign requests, violations of the policy and uncaught errors, except those that the test expects."""
        return [each for each in self.problems if not any(part in each for part in self.expected)]

    def write(self, folder: Path, page: Page | None) -> None:
        """Keep a screenshot, the console and the requests, to find the cause of a failure."""
        folder.mkdir(parents=True, exist_ok=True)
        if page is not None and not page.is_closed():
            page.screenshot(path=folder / "page.png")
            (folder / "page.html").write_text(page.content())
        (folder / "console.txt").write_text("\n".join(self.console))
        (folder / "requests.txt").write_text("\n".join(self.requests))
        (folder / "problems.json").write_text(json.dumps(self.problems, indent=2))


@contextmanager
def context_of(
    browser: Browser, url: str, locale: str = "de-DE", size: str = "desktop", touch: bool = False
) -> Iterator[tuple[BrowserContext, Watch]]:
    """A browser of its own, with its cookies and its storage. The lab's certificate is its own, and is accepted."""
    width, height = SIZES[size]
    context = browser.new_context(
        base_url=url,
        ignore_https_errors=True,
        locale=locale,
        timezone_id="Europe/Berlin",
        viewport={"width": width, "height": height},
        has_touch=touch,
    )
    # Software rendering on two cores beside a host with containers: far above what each step needs.
    context.set_default_timeout(90_000)
    try:
        yield context, Watch(context, url)
    finally:
        context.close()
