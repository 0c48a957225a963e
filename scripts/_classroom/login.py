"""Logs a class in through the front door: the application, the provider's pages, and back with a session."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

from _lab import plan as lab

# So many browsers at once: what a login costs is the provider's work, and more would only wait for it.
AT_ONCE = 8

# Takes a user's name and password, returns the id of a session; raises an exception whose text says why there is none.
Login = Callable[[str, str], str]


class LoginsFailed(Exception):
    """Not everybody could log in; the message says how many, and what the first was told."""


def front_door(url: str, ca: str | None) -> Login:
    """The login of a person at `url`, by the pages of the lab's provider; `ca` as requests takes it."""
    # The scenarios log in by these very pages.
    sys.path.append(str(lab.ROOT / "tests" / "scenarios"))
    from idp import log_in

    return lambda user, password: log_in(url, user, password, ca or True)


def log_in_all(login: Login, accounts: dict[str, str], progress: Callable[[int, int], None]) -> dict[str, str]:
    """The session of every account; `progress` is told how many of how many are logged in.

    :raises LoginsFailed: when one of them has none.
    """
    sessions: dict[str, str] = {}
    failures: list[str] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures: dict[Future[str], str] = {pool.submit(login, *account): account[0] for account in accounts.items()}
        try:
            for future in as_completed(futures):
                # Whatever goes wrong in a login, from a refused connection to a page that reads differently.
                if (error := future.exception()) is not None:
                    failures.append(f"{futures[future]}: {error}")
                else:
                    sessions[futures[future]] = future.result()
                progress(len(sessions), len(accounts))
        finally:
            pool.shutdown(cancel_futures=True)
    if failures:
        raise LoginsFailed(f"{len(failures)} of {len(accounts)} users could not log in; the first was {failures[0]}")
    # In the order of the accounts, so that the same seed gives the same user the same part.
    return {user: sessions[user] for user in accounts}
