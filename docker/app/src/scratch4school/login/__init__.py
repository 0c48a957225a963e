"""Logging in at the identity provider, and the sessions that follow from it."""
