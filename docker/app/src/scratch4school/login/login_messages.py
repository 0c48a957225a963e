"""The messages of a failed login: the pupil reads them, and reads the cause at their end to the sysadmin.

Each message says what is wrong and what the person does next. A cause consists of our own words. It holds no secret
and no text of the identity provider: that text arrives in the address, which anybody can forge.
"""

UNKNOWN_PERSON = "The school's login service did not say who you are."

_REFUSED = "The school's login service refused this login."
# The errors of OAuth at the authorization address and at the token address (RFC 6749, 4.1.2.1 and 5.2).
_TEMPORARY = {
    "access_denied": "access_denied, so the login was cancelled, or the identity provider does not allow this account",
    "invalid_grant": "invalid_grant, so the login's code was used or too old, or the redirect address is another one",
    "server_error": "server_error, so the identity provider is out of order",
    "temporarily_unavailable": "temporarily_unavailable, so the identity provider is out of order",
}
_LASTING = {
    "invalid_client": "invalid_client, so the client id or the client secret in the settings is wrong",
    "unauthorized_client": "unauthorized_client, so the identity provider does not let this client log people in",
    "unsupported_grant_type": "unsupported_grant_type, so this client may not use the authorization code flow",
    "unsupported_response_type": "unsupported_response_type, so this client may not use the authorization code flow",
    "invalid_scope": "invalid_scope, so the scope in the settings asks for what the identity provider does not give",
    "invalid_request": "invalid_request, so the identity provider does not accept client id, scope or redirect address",
}


def temporary(wrong: str, cause: str) -> str:
    """The message for an error that may be gone at the next try."""
    return f"{wrong} Please try again in a moment. If that does not help, tell the sysadmin: {cause}."


def lasting(wrong: str, cause: str) -> str:
    """The message for an error that stays until the sysadmin changes something, here or at the identity provider."""
    return f"{wrong} Tell the sysadmin: {cause}."


def oauth_error(code: object) -> str:
    """The message for an OAuth error of the identity provider; it repeats only a code that is known here."""
    if isinstance(code, str) and code in _LASTING:
        return lasting(_REFUSED, _LASTING[code])
    known = _TEMPORARY.get(code) if isinstance(code, str) else None
    return temporary(_REFUSED, known or "the identity provider answers with an error of its own; its log says more")
