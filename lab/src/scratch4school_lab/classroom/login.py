"""Logs a class in as browsers do: the application, the identity provider's pages, and back with a session."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

# A login's cost is the provider's work; more browsers at once would only wait for it.
AT_ONCE = 8

# Takes a user's name and password and returns the id of a session; raises an exception that says why there is none.
Login = Callable[[str, str], str]


class LoginFailed(Exception):
    """A login did not end with a session; the message says where it ended, or who could not log in and why."""


def through_pages(url: str, ca: str | None) -> Login:
    """The login at `url` through the pages of the lab's identity provider; `ca` as requests takes it."""
    # Imported here, so that --help answers before scripts/setup has run.
    from .provider import log_in

    return lambda user, password: log_in(url, user, password, ca or True)


def log_in_all(login: Login, accounts: dict[str, str], progress: Callable[[int, int], None]) -> dict[str, str]:
    """The session of every account; `progress` is called with the number of logins and their total.

    :raises LoginFailed: at the first pupil who cannot log in; an incomplete class is another load.
    """
    sessions: dict[str, str] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures: dict[Future[str], str] = {pool.submit(login, *account): account[0] for account in accounts.items()}
        try:
            for future in as_completed(futures):
                user = futures[future]
                # Anything can go wrong in a login, from a refused connection to a changed page.
                if (error := future.exception()) is not None:
                    raise LoginFailed(f"{user} could not log in: {error}")
                sessions[user] = future.result()
                progress(len(sessions), len(accounts))
        finally:
            pool.shutdown(cancel_futures=True)
    # In the order of the accounts, so that the same seed gives each user the same operations.
    return {user: sessions[user] for user in accounts}
