"""Renewing an expired session at the identity provider: once, whoever asks for it, and in bounded time.

A front end sends several requests at once, so several find their session expired, in several processes. A provider
that uses each refresh token once would serve the first and refuse the rest, and the pupil would be logged out for it.
"""

import logging
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from .clock import utcnow
from .database import Database
from .oidc import Provider, ProviderAway, ProviderError, Tokens
from .single_flight import HostLock, NoAnswer, SingleFlight
from .tables import oauth_sessions

log = logging.getLogger(__name__)

# The original's rule: a refreshed session lasts half a day, whatever the new token says.
_REFRESHED_FOR = timedelta(hours=12)
_PATIENCE_SECONDS = 10
_MEMORY_SECONDS = 10
# A provider that took this long to fail is not asked for other sessions either, or it ties up thread after thread.
_SLOW_SECONDS = 3
_OTHER_SLOT_WAITS = (0.2, 0.4, 0.8)


class Renewals:
    """The renewals of one process, in turns with those of the other processes that use the same lock file."""

    def __init__(self, database: Database, provider: Provider, lock_file: Path) -> None:
        self._database = database
        self._provider = provider
        self._turns = HostLock(lock_file)
        self._flights: SingleFlight[None] = SingleFlight(_PATIENCE_SECONDS, _MEMORY_SECONDS, ProviderError)
        self._silent_until = 0.0

    def renew(self, session_id: str) -> None:
        """Give a session new tokens unless it is valid again or gone by now; at most 10 seconds, then ProviderAway.

        Raises ProviderError when it cannot be renewed, ProviderAway when the provider did not say so. Either is
        remembered for 10 seconds. No database connection is held while the provider is asked.
        """
        started = time.monotonic()
        if started < self._silent_until:
            raise ProviderAway
        try:
            self._flights.call(session_id, lambda: self._renew(session_id))
        except NoAnswer as error:
            # A provider that trickles breaks no time limit of the network's. Who waited for it spares others the wait.
            self._note_slow(started)
            raise ProviderAway from error

    def _renew(self, session_id: str) -> None:
        try:
            with self._turns.hold(session_id, _PATIENCE_SECONDS):
                self._ask_provider(session_id)
        except OSError as error:
            # Without its lock file this process still renews; at worst two of them ask at once.
            log.warning("renewals are not in turns", extra={"reason": error.strerror})
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
            if not self._renewed_elsewhere(session_id):
                raise
            return
        self._store(session_id, tokens)

    def _note_slow(self, started: float) -> None:
        now = time.monotonic()
        if now - started > _SLOW_SECONDS:
            self._silent_until = now + _MEMORY_SECONDS

    def _expired(self, session_id: str) -> Row[Any] | None:
        """The session if it is there and still expired: another process may have had the turn before."""
        query = sa.select(oauth_sessions.c.refresh_token).where(
            oauth_sessions.c.id == session_id, oauth_sessions.c.expires_at <= utcnow()
        )
        return self._database.read(lambda connection: connection.execute(query).one_or_none())

    def _renewed_elsewhere(self, session_id: str) -> bool:
        """Whether somebody without our lock file did it, a moment ago or now: it need not be one for all servers."""
        for pause in _OTHER_SLOT_WAITS:
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
