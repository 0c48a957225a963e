"""A pupil's first afternoon: log in through the school's provider, save a real project, read it back byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from conftest import CA, PROJECTS

Login = Callable[..., requests.Session]


@pytest.fixture
def saved(login: Login, deployed: str) -> Iterator[tuple[requests.Session, str, dict]]:
    """A pupil, the address of a project of hers, and what its first save was answered."""
    pupil = login("pupil01")
    content = (PROJECTS / "default.sb3").read_bytes()
    answer = pupil.post(
        f"{deployed}/backend/api/projects",
        params={"title": "Katze & Übung 🐱"},
        files={
            "project_file": ("project-1.sb3", content),
            "thumbnail": ("thumbnail-1.png", b"\x89PNG\r\n\x1a\n" + b"0" * 64),
        },
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    address = f"{deployed}/backend/api/projects/{answer.json()['id']}"
    yield pupil, address, answer.json()
    pupil.delete(address, timeout=30)


def test_login_brings_role_and_groups(login: Login, deployed: str) -> None:
    """A pupil is a student in her class; a teacher is a teacher; an administrator an admin."""
    roles = {}
    for name in ("pupil01", "lehrer1", "admin1"):
        person = login(name)
        roles[name] = person.get(f"{deployed}/backend/api/user", timeout=10).json()["user"]["role"]
    groups = login("pupil01").get(f"{deployed}/backend/api/groups", timeout=10).json()["groups"]
    assert roles == {"pupil01": "student", "lehrer1": "teacher", "admin1": "admin"}
    assert [group["external_id"] for group in groups] == ["klasse.5a"]


def test_project_comes_back_byte_for_byte(saved: tuple[requests.Session, str, dict]) -> None:
    """What was saved is what is read, through TLS, nginx, gunicorn, PgBouncer and PostgreSQL."""
    pupil, address, answer = saved
    read = pupil.get(f"{address}/download", timeout=30)
    assert read.status_code == 200
    assert read.content == (PROJECTS / "default.sb3").read_bytes()
    assert answer["title"] == "Katze & Übung 🐱"
    assert answer["version"] == 1


def test_second_save_replaces_the_first(saved: tuple[requests.Session, str, dict]) -> None:
    """An autosave that says nothing of versions overwrites, and the version counts up."""
    pupil, address, _ = saved
    content = (PROJECTS / "variable_characters.sb3").read_bytes()
    answer = pupil.put(address, files={"project_file": ("project-2.sb3", content)}, timeout=30)
    assert answer.status_code == 200
    assert answer.json()["version"] == 2
    assert pupil.get(f"{address}/download", timeout=30).content == content


def test_stale_save_is_told_so(saved: tuple[requests.Session, str, dict]) -> None:
    """A second device that missed a save gets 409 and the current version, and overwrites nothing."""
    pupil, address, _ = saved
    newer = (PROJECTS / "variable_characters.sb3").read_bytes()
    assert (
        pupil.put(address, params={"version": 1}, files={"project_file": ("a.sb3", newer)}, timeout=30).status_code
        == 200
    )
    stale = pupil.put(
        address,
        params={"version": 1},
        files={"project_file": ("b.sb3", (PROJECTS / "default.sb3").read_bytes())},
        timeout=30,
    )
    assert stale.status_code == 409
    assert stale.json()["version"] == 2
    assert pupil.get(f"{address}/download", timeout=30).content == newer


def test_thumbnail_is_shown_without_a_session(saved: tuple[requests.Session, str, dict]) -> None:
    """The front end shows thumbnails by plain image tags."""
    _, address, _ = saved
    answer = requests.get(f"{address}/thumbnail", verify=CA, timeout=10)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "image/png"


def test_download_names_the_version(saved: tuple[requests.Session, str, dict]) -> None:
    """nginx sends the file and would name it by its time; a client that answers with If-Match needs the version."""
    pupil, address, _ = saved
    assert pupil.get(f"{address}/download", timeout=30).headers["ETag"] == '"1"'


def test_picture_of_a_pupil_is_no_page_of_ours(login: Login, deployed: str) -> None:
    """An SVG that somebody opens by its address runs no script; nginx itself sees to that."""
    picture = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    answer = login("pupil01").post(
        f"{deployed}/backend/api/assets/",
        files={"asset": ("a.svg", picture)},
        data={"type": "costume", "format": "svg"},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    shown = requests.get(f"{deployed}/backend/api/assets/{answer.json()['assetId']}.svg", verify=CA, timeout=10)
    assert shown.content == picture
    assert "sandbox" in shown.headers["Content-Security-Policy"]
    assert "default-src 'none'" in shown.headers["Content-Security-Policy"]
    assert shown.headers["X-Content-Type-Options"] == "nosniff"


def test_another_pupil_cannot_read_it(saved: tuple[requests.Session, str, dict], login: Login) -> None:
    """A project that is not shared is its owner's alone."""
    _, address, _ = saved
    assert login("pupil02").get(f"{address}/download", timeout=10).status_code == 403


def test_too_large_a_project_is_told_so(login: Login, deployed: str) -> None:
    """More than 16 MiB is 413 in JSON, which the front end can show, and not a reset connection."""
    answer = login("pupil01").post(
        f"{deployed}/backend/api/projects",
        files={"project_file": ("big.sb3", b"PK\x03\x04" + bytes(18 << 20))},
        timeout=60,
    )
    assert answer.status_code == 413
    assert "16 MiB" in answer.json()["error"]


def test_logout_ends_the_session(login: Login, deployed: str) -> None:
    """After the logout the session id opens nothing."""
    pupil = login("pupil03")
    session = pupil.headers["Authorization"].removeprefix("Bearer ")
    assert pupil.get(f"{deployed}/backend/logout", params={"session_id": session}, timeout=10).status_code == 200
    assert pupil.get(f"{deployed}/backend/api/projects", timeout=10).status_code == 401


def test_failed_login_is_answered_with_its_sentence(deployed: str) -> None:
    """The provider sends the pupil back with an error; the page at / is the one that shows the sentence."""
    browser = requests.Session()
    browser.trust_env, browser.verify = False, CA
    begun = browser.get(f"{deployed}/backend/login", allow_redirects=False, timeout=10)
    state = parse_qs(urlsplit(begun.headers["Location"]).query)["state"][0]
    back = browser.get(
        f"{deployed}/backend/authorize",
        params={"state": state, "error": "invalid_scope"},
        allow_redirects=False,
        timeout=10,
    )
    sentence = parse_qs(urlsplit(back.headers["Location"]).query)["error"][0]
    assert sentence.startswith("The school's login service refused this login. Tell the sysadmin: invalid_scope")
    page = browser.get(f"{deployed}{urlsplit(back.headers['Location']).path}", timeout=10).text
    assert "The login did not work." in page
    assert "innerHTML" not in page
