"""The logs of a deployed host: a request can be followed in them, and they have no personal data."""

from __future__ import annotations

import json
from collections.abc import Callable

import requests
from conftest import PROJECTS

from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.lab_hosts import CA, PASSWORD, on_host

NAMES = "sudo docker ps --format '{{.Names}}' --filter label=scratch4school"


def log(container: str, since: str = "10m") -> str:
    """Return the last lines of a container's log, of both streams."""
    return on_host(f"sudo docker logs --since {since} {container} 2>&1")


def test_request_id_is_in_logs_of_proxy_and_application(login: Callable[..., requests.Session], deployed: Host) -> None:
    """The id of an answer is in exactly one line of each log."""
    answer = login("pupil01").get(f"{deployed.url}/backend/api/projects", timeout=60)
    number = answer.headers["X-Request-ID"]
    slot = next(name for name in on_host(NAMES).split() if "-app-" in name)
    assert [number in line for line in log("scratch4school-proxy").splitlines()].count(True) == 1
    lines = [json.loads(line) for line in log(slot).splitlines() if number in line]
    assert [(line["route"], line["status"], line["request_id"]) for line in lines] == [("/api/projects", 200, number)]


def test_request_id_of_visitor_is_replaced(login: Callable[..., requests.Session], deployed: Host) -> None:
    """The proxy makes the id, so that a visitor can neither use the id of another request nor write into the log."""
    chosen = "0123456789abcdef0123456789abcdef"
    answer = requests.get(f"{deployed.url}/backend/api/status", headers={"X-Request-ID": chosen}, verify=CA, timeout=60)
    assert answer.headers["X-Request-ID"] != chosen
    assert chosen not in log("scratch4school-proxy")


def test_logs_have_no_personal_data(login: Callable[..., requests.Session], deployed: Host) -> None:
    """No log has a session, a password, a code, a person's name or a project's title."""
    # test_connection_pool.py lets PostgreSQL log the statements of pupil110: this name is no part of that one.
    pupil, teacher = login("pupil99"), login("lehrer1")
    session = pupil.headers["Authorization"].removeprefix("Bearer ")
    title = "Geheimes Tagebuch"
    files = {"project_file": ("project.sb3", (PROJECTS / "default.sb3").read_bytes())}
    saved = pupil.post(f"{deployed.url}/backend/api/projects", params={"title": title}, files=files, timeout=60)
    address = f"{deployed.url}/backend/api/projects/{saved.json()['id']}"
    user_id = pupil.get(f"{deployed.url}/backend/api/user", timeout=60).json()["user"]["user_id"]
    for person, url, expected in (
        (pupil, f"{deployed.url}/backend/session?session_id={session}", 200),
        (pupil, f"{deployed.url}/backend/api/user?session_id={session}", 200),
        (pupil, f"{deployed.url}/backend/api/nowhere/{session}", 404),
        (pupil, f"{deployed.url}/backend/api/projects/{saved.json()['id']}/download?session_id={session}", 200),
        (teacher, f"{deployed.url}/backend/api/teacher/students/{user_id}/projects", 200),
        (teacher, f"{deployed.url}/backend/authorize?code=a-code-of-the-provider&state=x", 200),
    ):
        assert person.get(url, timeout=60).status_code == expected, url
    assert pupil.put(address, params={"version": 7}, files=files, timeout=60).status_code == 409
    assert pupil.delete(address, timeout=60).status_code == 200
    containers = on_host(NAMES).split()
    assert len(containers) == 4
    logs = {container: log(container) for container in containers}
    for secret in (session, user_id, "pupil99", PASSWORD, "Tagebuch", "a-code-of-the-provider"):
        assert not [container for container, text in logs.items() if secret in text], secret
