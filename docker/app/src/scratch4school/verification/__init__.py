"""The verification: six checks of the running service, at the end of a deployment."""
