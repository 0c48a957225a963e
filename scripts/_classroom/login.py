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


class LoginFailed(Exception):
    """Somebody could not log in; the message says who, and why."""


def front_door(url: str, ca: str | None) -> Login:
    """The login of a person at `url`, by the pages of the lab's provider; `ca` as requests takes it."""
    # The scenarios log in by these very pages.
    sys.path.append(str(lab.ROOT / "tests" / "scenarios"))
    from idp import log_in

    return lambda user, password: log_in(url, user, password, ca or True)


def log_in_all(login: Login, accounts: dict[str, str], progress: Callable[[int, int], None]) -> dict[str, str]:
    """The session of every account; `progress` is told how many of how many are logged in.

    :raises LoginFailed: at the first that has none; a class that is not complete is another load.
    """
    sessions: dict[str, str] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures: dict[Future[str], str] = {pool.submit(login, *account): account[0] for account in accounts.items()}
        try:
            for future in as_completed(futures):
                user = futures[future]
                # Whatever can go wrong in a login, from a refused connection to a page that reads differently.
                if (error := future.exception()) is not None:
                    raise LoginFailed(f"{user} could not log in: {error}")
                sessions[user] = future.result()
                progress(len(sessions), len(accounts))
        finally:
            pool.shutdown(cancel_futures=True)
    # In the order of the accounts, so that the same seed gives the same user the same part.
    return {user: sessions[user] for user in accounts}
