"""What the logs of a deployed host tell: enough to follow a request through it, and nothing of who made it."""

from __future__ import annotations

import json
from collections.abc import Callable

import requests
from conftest import CA, HOST, PASSWORD, PROJECTS, on_host

NAMES = "sudo docker ps --format '{{.Names}}' --filter label=scratch4school"


def log(container: str, since: str = "10m") -> str:
    """What a container has said lately, on both of its streams."""
    return on_host(f"sudo docker logs --since {since} {container} 2>&1", HOST)


def test_request_can_be_followed_through_proxy_and_application(
    login: Callable[..., requests.Session], deployed: str
) -> None:
    """The number that an answer carries stands in the proxy's line and in the application's, each exactly once."""
    answer = login("pupil01").get(f"{deployed}/backend/api/projects", timeout=30)
    number = answer.headers["X-Request-ID"]
    slot = next(name for name in on_host(NAMES).split() if "-app-" in name)
    assert [number in line for line in log("scratch4school-proxy").splitlines()].count(True) == 1
    lines = [json.loads(line) for line in log(slot).splitlines() if number in line]
    assert [(line["route"], line["status"], line["request_id"]) for line in lines] == [("/api/projects", 200, number)]


def test_visitor_cannot_choose_the_number(login: Callable[..., requests.Session], deployed: str) -> None:
    """It is the proxy's own, so nobody can hide behind another's request or write into the log."""
    chosen = "0123456789abcdef0123456789abcdef"
    answer = requests.get(f"{deployed}/backend/api/status", headers={"X-Request-ID": chosen}, verify=CA, timeout=10)
    assert answer.headers["X-Request-ID"] != chosen
    assert chosen not in log("scratch4school-proxy")


def test_logs_name_nobody(login: Callable[..., requests.Session], deployed: str) -> None:
    """After some visits no log holds a session, a password, a code, a person's name or a project's title."""
    pupil, teacher = login("pupil11"), login("lehrer1")
    session = pupil.headers["Authorization"].removeprefix("Bearer ")
    title = "Geheimes Tagebuch"
    files = {"project_file": ("project.sb3", (PROJECTS / "default.sb3").read_bytes())}
    saved = pupil.post(f"{deployed}/backend/api/projects", params={"title": title}, files=files, timeout=30)
    address = f"{deployed}/backend/api/projects/{saved.json()['id']}"
    user_id = pupil.get(f"{deployed}/backend/api/user", timeout=30).json()["user"]["user_id"]
    for person, url, expected in (
        (pupil, f"{deployed}/backend/session?session_id={session}", 200),
        (pupil, f"{deployed}/backend/api/user?session_id={session}", 200),
        (pupil, f"{deployed}/backend/api/nowhere/{session}", 404),
        (pupil, f"{deployed}/backend/api/projects/{saved.json()['id']}/download?session_id={session}", 200),
        (teacher, f"{deployed}/backend/api/teacher/students/{user_id}/projects", 200),
        (teacher, f"{deployed}/backend/authorize?code=a-code-of-the-provider&state=x", 200),
    ):
        assert person.get(url, timeout=30).status_code == expected, url
    assert pupil.put(address, params={"version": 7}, files=files, timeout=30).status_code == 409
    assert pupil.delete(address, timeout=30).status_code == 200
    containers = on_host(NAMES).split()
    assert len(containers) == 4
    said = {container: log(container) for container in containers}
    for secret in (session, user_id, "pupil11", PASSWORD, "Tagebuch", "a-code-of-the-provider"):
        assert not [container for container, text in said.items() if secret in text], secret
