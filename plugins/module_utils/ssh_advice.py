"""Translates a message of SSH or sudo into advice on what to type; used by preflight and by the output of a run."""

from __future__ import annotations


def ssh_problem(said: object, user: str = "", address: str = "", port: object = 22) -> str:
    """Advice for a message of SSH or sudo: its meaning, and what to type.

    :param said: the message.
    :param user: the user in the inventory; empty when none is set.
    :param address: the address in the inventory.
    :param port: the port in the inventory.
    """
    text = " ".join(str(said or "").split())
    at = f"{user}@{address}" if user else address
    option = "" if str(port or 22) == "22" else f" -p {port}"
    silent = (
        "The server does not answer. Check that it is up, that ansible_host is right, and that no firewall blocks SSH."
    )
    for sign, advice in (
        (
            "REMOTE HOST IDENTIFICATION HAS CHANGED",
            "The server's host key has changed. If the server was reinstalled, type "
            f"`ssh-keygen -R {_known_host(address, port)}`, then `ssh{option} {at}` once; otherwise do not continue.",
        ),
        (
            "Host key verification failed",
            f"The control node does not know the server's host key. Type `ssh{option} {at}` once, compare the "
            "fingerprint with the one on the server's console, and answer yes.",
        ),
        (
            "Permission denied",
            f"The server does not accept your SSH key for that user. Type `ssh-copy-id{option} {at}`, or correct "
            "ansible_user in the inventory.",
        ),
        ("python", "The server has no Python. Type `apt-get install python3` there."),
        (
            "sudo",
            f"sudo asks {user or 'the user'} for a password. Write `{user or '<user>'} ALL=(ALL) NOPASSWD: ALL` to a "
            "file in /etc/sudoers.d on the server.",
        ),
        ("Could not resolve", "The name cannot be resolved. Correct ansible_host in the inventory."),
        (
            "Connection refused",
            "No SSH server answers there. Correct ansible_host or ansible_port in the inventory.",
        ),
        ("timed out", silent),
        ("No route to host", silent),
    ):
        if sign.lower() in text.lower():
            return advice
    return f"Type `ssh{option} {at}` and correct ansible_host, ansible_port or ansible_user in the inventory."


def _known_host(address: str, port: object) -> str:
    return address if str(port or 22) == "22" else f"'[{address}]:{port}'"
