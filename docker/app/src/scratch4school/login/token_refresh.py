"""Refreshing an expired session's tokens at the identity provider: once, however many requests ask, in bounded time.

A front end sends several requests at once. So several requests, in several processes, find the session expired. A
provider that accepts each refresh token once would answer the first and refuse the others, which would log the pupil
out.
"""

import logging
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from ..clock import utcnow
from ..database.database import Database
from ..database.tables import oauth_sessions
from ..single_flight import HostLock, NoAnswer, SingleFlight
from .oidc import Provider, ProviderAway, ProviderError, Tokens

log = logging.getLogger(__name__)

# The original's rule: a refreshed session lasts half a day, whatever the new token says.
_REFRESHED_FOR = timedelta(hours=12)
_PATIENCE_SECONDS = 10
_MEMORY_SECONDS = 10
# After a failure that took this long, the provider is not asked for other sessions either. It would block more threads.
_SLOW_SECONDS = 3
_RECHECK_PAUSES = (0.2, 0.4, 0.8)


class TokenRefresh:
    """The refreshes of one process, which takes turns with the other processes that use the same lock file."""

    def __init__(self, database: Database, provider: Provider, lock_file: Path) -> None:
        self._database = database
        self._provider = provider
        self._lock = HostLock(lock_file)
        self._flights: SingleFlight[None] = SingleFlight(_PATIENCE_SECONDS, _MEMORY_SECONDS, ProviderError)
        self._silent_until = 0.0

    def refresh(self, session_id: str) -> None:
        """Give a session new tokens, unless it is valid again or deleted by now; takes at most 10 seconds.

        Raises ProviderError when the provider refuses, ProviderAway when it does not decide. Either outcome is
        remembered for 10 seconds. No database connection is in use while the provider is asked.
        """
        started = time.monotonic()
        if started < self._silent_until:
            raise ProviderAway
        try:
            self._flights.call(session_id, lambda: self._refresh(session_id))
        except NoAnswer as error:
            # A provider that sends byte after byte breaks no time limit of the network library.
            self._note_slow(started)
            raise ProviderAway from error

    def _refresh(self, session_id: str) -> None:
        try:
            with self._lock.acquired(session_id, _PATIENCE_SECONDS):
                self._ask_provider(session_id)
        except OSError as error:
            # Without its lock file this process still refreshes; at worst two processes ask at once.
            log.warning("token refresh without its lock file", extra={"reason": error.strerror})
            self._ask_provider(session_id)

    def _ask_provider(self, session_id: str) -> None:
        row = self._expired(session_id)
        if row is None:
            return
        if not row.refresh_token:
            raise ProviderError("The session has no refresh token.")
        started = time.monotonic()
        try:
            tokens = self._provider.refresh(row.refresh_token)
        except ProviderError as error:
            if isinstance(error, ProviderAway):
                self._note_slow(started)
            if not self._refreshed_elsewhere(session_id):
                raise
            return
        self._store(session_id, tokens)

    def _note_slow(self, started: float) -> None:
        now = time.monotonic()
        if now - started > _SLOW_SECONDS:
            self._silent_until = now + _MEMORY_SECONDS

    def _expired(self, session_id: str) -> Row[Any] | None:
        """The session if it exists and is still expired: another process may have refreshed it before."""
        query = sa.select(oauth_sessions.c.refresh_token).where(
            oauth_sessions.c.id == session_id, oauth_sessions.c.expires_at <= utcnow()
        )
        return self._database.read(lambda connection: connection.execute(query).one_or_none())

    def _refreshed_elsewhere(self, session_id: str) -> bool:
        """Whether a process with another lock file, as on another server, has refreshed the session or does so now."""
        for pause in _RECHECK_PAUSES:
            if self._expired(session_id) is None:
                return True
            time.sleep(pause)
        return False

    def _store(self, session_id: str, tokens: Tokens) -> None:
        values: dict[str, Any] = {"access_token": tokens.access_token, "expires_at": utcnow() + _REFRESHED_FOR}
        if tokens.refresh_token is not None:
            values["refresh_token"] = tokens.refresh_token
        update = sa.update(oauth_sessions).where(oauth_sessions.c.id == session_id).values(values)
        self._database.write(lambda connection: connection.execute(update))
