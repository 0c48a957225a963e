"""A pupil logs in through the school's identity provider, saves a real project, and reads it byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from conftest import PROJECTS

from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.lab_hosts import CA

Login = Callable[..., requests.Session]


@pytest.fixture
def saved(login: Login, deployed: Host) -> Iterator[tuple[requests.Session, str, dict]]:
    """A pupil, the address of her project, and the answer of its first save."""
    pupil = login("pupil01")
    content = (PROJECTS / "default.sb3").read_bytes()
    answer = pupil.post(
        f"{deployed.url}/backend/api/projects",
        params={"title": "Katze & Übung 🐱"},
        files={
            "project_file": ("project-1.sb3", content),
            "thumbnail": ("thumbnail-1.png", b"\x89PNG\r\n\x1a\n" + b"0" * 64),
        },
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    address = f"{deployed.url}/backend/api/projects/{answer.json()['id']}"
    yield pupil, address, answer.json()
    pupil.delete(address, timeout=60)


def test_login_sets_role_and_groups(login: Login, deployed: Host) -> None:
    """A pupil is a student in her class, a teacher is a teacher, an administrator is an admin."""
    roles = {}
    for name in ("pupil01", "lehrer1", "admin1"):
        person = login(name)
        roles[name] = person.get(f"{deployed.url}/backend/api/user", timeout=60).json()["user"]["role"]
    groups = login("pupil01").get(f"{deployed.url}/backend/api/groups", timeout=60).json()["groups"]
    assert roles == {"pupil01": "student", "lehrer1": "teacher", "admin1": "admin"}
    assert [group["external_id"] for group in groups] == ["klasse.5a"]


def test_project_is_read_byte_for_byte(saved: tuple[requests.Session, str, dict]) -> None:
    """Through TLS, nginx, gunicorn, PgBouncer and PostgreSQL."""
    pupil, address, answer = saved
    read = pupil.get(f"{address}/download", timeout=60)
    assert read.status_code == 200
    assert read.content == (PROJECTS / "default.sb3").read_bytes()
    assert answer["title"] == "Katze & Übung 🐱"
    assert answer["version"] == 1


def test_second_save_replaces_first(saved: tuple[requests.Session, str, dict]) -> None:
    """An autosave without a version overwrites, and the version rises by one."""
    pupil, address, _ = saved
    content = (PROJECTS / "variable_characters.sb3").read_bytes()
    answer = pupil.put(address, files={"project_file": ("project-2.sb3", content)}, timeout=60)
    assert answer.status_code == 200
    assert answer.json()["version"] == 2
    assert pupil.get(f"{address}/download", timeout=60).content == content


def test_stale_save_is_refused(saved: tuple[requests.Session, str, dict]) -> None:
    """A device that missed a save gets 409 with the current version, and overwrites nothing."""
    pupil, address, _ = saved
    newer = (PROJECTS / "variable_characters.sb3").read_bytes()
    assert (
        pupil.put(address, params={"version": 1}, files={"project_file": ("a.sb3", newer)}, timeout=60).status_code
        == 200
    )
    stale = pupil.put(
        address,
        params={"version": 1},
        files={"project_file": ("b.sb3", (PROJECTS / "default.sb3").read_bytes())},
        timeout=60,
    )
    assert stale.status_code == 409
    assert stale.json()["version"] == 2
    assert pupil.get(f"{address}/download", timeout=60).content == newer


def test_thumbnail_is_readable_without_session(saved: tuple[requests.Session, str, dict]) -> None:
    """The front end uses plain image tags."""
    _, address, _ = saved
    answer = requests.get(f"{address}/thumbnail", verify=CA, timeout=60)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "image/png"


def test_download_has_version_as_etag(saved: tuple[requests.Session, str, dict]) -> None:
    """nginx, which sends the file, would use its time; a client with If-Match needs the version."""
    pupil, address, _ = saved
    assert pupil.get(f"{address}/download", timeout=60).headers["ETag"] == '"1"'


def test_svg_of_pupil_runs_no_script(login: Login, deployed: Host) -> None:
    """Also when it is opened by its address; nginx sets the headers."""
    picture = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    answer = login("pupil01").post(
        f"{deployed.url}/backend/api/assets/",
        files={"asset": ("a.svg", picture)},
        data={"type": "costume", "format": "svg"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    shown = requests.get(f"{deployed.url}/backend/api/assets/{answer.json()['assetId']}.svg", verify=CA, timeout=60)
    assert shown.content == picture
    assert "sandbox" in shown.headers["Content-Security-Policy"]
    assert "default-src 'none'" in shown.headers["Content-Security-Policy"]
    assert shown.headers["X-Content-Type-Options"] == "nosniff"


def test_project_of_other_pupil_is_refused(saved: tuple[requests.Session, str, dict], login: Login) -> None:
    """A project that is not shared is readable by its owner only."""
    _, address, _ = saved
    assert login("pupil02").get(f"{address}/download", timeout=60).status_code == 403


def test_too_large_project_is_refused(login: Login, deployed: Host) -> None:
    """More than 16 MiB is answered with 413 in JSON, which the front end can show."""
    answer = login("pupil01").post(
        f"{deployed.url}/backend/api/projects",
        files={"project_file": ("big.sb3", b"PK\x03\x04" + bytes(18 << 20))},
        timeout=60,
    )
    assert answer.status_code == 413
    assert "16 MiB" in answer.json()["error"]


def test_logout_ends_the_session(login: Login, deployed: Host) -> None:
    """After the logout the session id is refused."""
    pupil = login("pupil03")
    session = pupil.headers["Authorization"].removeprefix("Bearer ")
    assert pupil.get(f"{deployed.url}/backend/logout", params={"session_id": session}, timeout=60).status_code == 200
    assert pupil.get(f"{deployed.url}/backend/api/projects", timeout=60).status_code == 401


def test_failed_login_shows_message(deployed: Host) -> None:
    """The provider sends the pupil back with an error, and the page at / shows a message."""
    browser = requests.Session()
    browser.trust_env, browser.verify = False, CA
    first = browser.get(f"{deployed.url}/backend/login", allow_redirects=False, timeout=60)
    state = parse_qs(urlsplit(first.headers["Location"]).query)["state"][0]
    back = browser.get(
        f"{deployed.url}/backend/authorize",
        params={"state": state, "error": "invalid_scope"},
        allow_redirects=False,
        timeout=60,
    )
    message = parse_qs(urlsplit(back.headers["Location"]).query)["error"][0]
    assert message.startswith("The school's login service refused this login. Tell the sysadmin: invalid_scope")
    page = browser.get(f"{deployed.url}{urlsplit(back.headers['Location']).path}", timeout=60).text
    assert "The login did not work." in page
    assert "innerHTML" not in page
