"""Pupils who save without a pause: each saves the next number into a project, so that a lost save can be seen."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from dataclasses import dataclass, field

import requests

from ..hosts.plan import Host


def numbered(title: str, number: int) -> bytes:
    """A project that Scratch could open, with a number in it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("project.json", json.dumps({"targets": [{"name": title}], "number": number}))
    return content.getvalue()


def number_in(content: bytes) -> int:
    """The number in such a project."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return int(json.loads(archive.read("project.json"))["number"])


def create(browser: requests.Session, host: Host, title: str, number: int = 0) -> str:
    """Create a project; returns its address."""
    files = {"project_file": ("p.sb3", numbered(title, number))}
    answer = browser.post(f"{host.url}/backend/api/projects", params={"title": title}, files=files, timeout=60)
    assert answer.status_code == 200, answer.text
    return f"{host.url}/backend/api/projects/{answer.json()['id']}"


def read(browser: requests.Session, address: str) -> int | None:
    """The number in the project at an address; None when there is none."""
    answer = browser.get(f"{address}/download", timeout=60)
    return number_in(answer.content) if answer.status_code == 200 else None


@dataclass
class Writer:
    """One pupil who saves again and again."""

    browser: requests.Session
    address: str
    title: str
    acknowledged: int = 0
    refused: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def write(self) -> None:
        """Save the next number until `ended`; a number that was not acknowledged is saved again."""
        while not self.ended.is_set():
            content = numbered(self.title, self.acknowledged + 1)
            try:
                answer = self.browser.put(self.address, files={"project_file": ("p.sb3", content)}, timeout=60)
            except requests.RequestException:
                self.refused += 1
                continue
            if answer.status_code == 200:
                self.acknowledged += 1
            else:
                self.refused += 1
                self.ended.wait(0.5)


class Writers:
    """Several writers, in the background."""

    def __init__(self, host: Host, browsers: dict[str, requests.Session]) -> None:
        self.all = [Writer(browser, create(browser, host, name), name) for name, browser in browsers.items()]
        self._threads = [threading.Thread(target=writer.write, daemon=True) for writer in self.all]
        for thread in self._threads:
            thread.start()

    def acknowledged(self) -> dict[str, int]:
        """The number of each project that is acknowledged at this moment."""
        return {writer.address: writer.acknowledged for writer in self.all}

    def stop(self) -> None:
        """Stop all writers."""
        for writer in self.all:
            writer.ended.set()
        for thread in self._threads:
            thread.join()

    def stored(self) -> dict[str, int | None]:
        """The number in each project as it is read now; None for a project that does not exist."""
        return {writer.address: read(writer.browser, writer.address) for writer in self.all}

    def delete(self) -> None:
        """Delete all projects."""
        for writer in self.all:
            writer.browser.delete(writer.address, timeout=60)
