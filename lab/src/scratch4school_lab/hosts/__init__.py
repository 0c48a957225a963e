"""Lab hosts and the identity provider beside them, as containers. Standard library only."""
