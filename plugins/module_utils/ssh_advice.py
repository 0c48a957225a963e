"""Answers what SSH or sudo says with what to type; used by preflight and by the output of a run."""

from __future__ import annotations


def ssh_problem(said: object, user: str = "", address: str = "", port: object = 22) -> str:
    """What a message of SSH or sudo means, and what to type; `user` and `address` are those of the inventory."""
    text = " ".join(str(said or "").split())
    at = f"{user}@{address}" if user else address
    option = "" if str(port or 22) == "22" else f" -p {port}"
    silent = "No answer comes. Is the server up, and ansible_host right? A firewall may be in the way."
    for sign, advice in (
        (
            "REMOTE HOST IDENTIFICATION HAS CHANGED",
            "The server shows another host key than the one that this machine knows. If the server was installed anew, "
            f"type `ssh-keygen -R {_known_host(address, port)}`, then `ssh{option} {at}` once; else do not go on.",
        ),
        (
            "Host key verification failed",
            f"This machine does not know the server's host key. Type `ssh{option} {at}` once, compare the fingerprint "
            "with the one that the server's console shows, and answer yes.",
        ),
        (
            "Permission denied",
            f"The server does not accept your SSH key for that user. Type `ssh-copy-id{option} {at}`, or correct "
            "ansible_user in the inventory.",
        ),
        ("python", "The server has no Python. Type `apt-get install python3` there."),
        (
            "sudo",
            f"sudo asks {user or 'the user'} for a password. Write `{user or '<user>'} ALL=(ALL) NOPASSWD: ALL` into a "
            "file of /etc/sudoers.d on the server.",
        ),
        ("Could not resolve", "There is no such name. Correct ansible_host in the inventory."),
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
