"""Messages for errors of SSH and sudo: the cause, and the command to type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

SSH_MESSAGES = [
    ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.", "host key has changed"),
    ("Failed to connect: Host key verification failed.", "does not know the server's host key"),
    ("root@server: Permission denied (publickey,password).", "does not accept your SSH key"),
    ("Missing sudo password", "for a password"),
    ("sudo: a password is required", "for a password"),
    ("ssh: Could not resolve hostname server: Name or service not known", "The name cannot be resolved"),
    ("ssh: connect to host server port 22: Connection refused", "No SSH server answers"),
    ("ssh: connect to host server port 22: Connection timed out", "The server does not answer"),
    ("ssh: connect to host server port 22: No route to host", "The server does not answer"),
]


@pytest.mark.parametrize(("message", "said"), SSH_MESSAGES, ids=[said for _, said in SSH_MESSAGES])
def test_ssh_problem_says_what_each_message_means(
    filters: dict[str, Callable[..., Any]], message: str, said: str
) -> None:
    """Whatever the case of its letters and wherever its lines break, exactly one advice is given."""
    for spelled in (message, message.upper(), message.replace(" ", "\n")):
        advice = filters["ssh_problem"](spelled, "root", "server")
        assert said in advice
        assert advice.endswith(".")
        assert [other for _, other in SSH_MESSAGES if other in advice and other != said] == []


@pytest.mark.parametrize(
    ("message", "port", "typed"),
    [
        ("REMOTE HOST IDENTIFICATION HAS CHANGED", 22, ["`ssh-keygen -R server`", "`ssh anna@server`"]),
        (
            "REMOTE HOST IDENTIFICATION HAS CHANGED",
            "2222",
            ["`ssh-keygen -R '[server]:2222'`", "`ssh -p 2222 anna@server`"],
        ),
        ("Host key verification failed", 2222, ["`ssh -p 2222 anna@server`"]),
        ("Permission denied", 2222, ["`ssh-copy-id -p 2222 anna@server`", "ansible_user"]),
        ("Permission denied", None, ["`ssh-copy-id anna@server`"]),
        ("sudo: a password is required", 22, ["`anna ALL=(ALL) NOPASSWD: ALL`", "/etc/sudoers.d"]),
        ("Could not resolve hostname", 22, ["ansible_host"]),
        ("Connection refused", 2222, ["ansible_host", "ansible_port"]),
        ("timed out", 22, ["ansible_host"]),
        ("something else", 2222, ["`ssh -p 2222 anna@server`", "ansible_host, ansible_port or ansible_user"]),
        ("", "", ["`ssh anna@server`"]),
        (None, None, ["`ssh anna@server`"]),
    ],
)
def test_ssh_problem_says_what_to_type(
    filters: dict[str, Callable[..., Any]], message: str | None, port: object, typed: list[str]
) -> None:
    """The command line has the user, the address and the port of the inventory, or names the setting to correct."""
    advice = filters["ssh_problem"](message, "anna", "server", port)
    for part in typed:
        assert part in advice


def test_ssh_problem_without_a_user_has_no_user_name(filters: dict[str, Callable[..., Any]]) -> None:
    """Where the inventory names no user, SSH's own is meant."""
    assert "`ssh server`" in filters["ssh_problem"]("Host key verification failed", "", "server")
    assert "<user> ALL=(ALL)" in filters["ssh_problem"]("Missing sudo password", "", "server")
