"""The lab behind scripts/lab. Standard library only, for it runs before there is any virtual environment."""
