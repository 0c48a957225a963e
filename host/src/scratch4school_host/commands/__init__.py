"""One module for each group of commands: read the settings, take the lock where something changes, print the answer."""
