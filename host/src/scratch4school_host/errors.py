"""Errors with a message for the sysadmin."""

from __future__ import annotations


class OperatorError(Exception):
    """The command was refused or failed; the message says why, and what to do."""

    # The exit status of scratch4schoolctl.
    status = 1


class LockHeldError(OperatorError):
    """Another change has the host's lock; the message says which change, and since when."""

    status = 3
